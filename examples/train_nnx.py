"""Train a flax.nnx model with any rule.

    python examples/train_nnx.py lion

The rule is a shipped one's name, a rule file, an export, or a search's run directory (its best).
The model is Flax's own, and the loop is as it would be with any transform of Optax.
"""

import sys

import jax
import optax
from flax import nnx

import veldt

NUM_STEPS = 300


class Classifier(nnx.Module):
    """A perceptron for images of 8x8 pixels."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(64, 32, rngs=rngs)
        self.head = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Return the logits."""
        return self.head(nnx.gelu(self.hidden(images.reshape(images.shape[0], -1))))


def loss_fn(model: Classifier, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()


@nnx.jit
def train_step(
    model: Classifier, optimizer: nnx.Optimizer, images: jax.Array, labels: jax.Array
) -> None:
    """Make one step; model and optimizer are updated in place."""
    grads = nnx.grad(loss_fn)(model, images, labels)
    optimizer.update(model, grads)


def main() -> None:
    """Train, and print the loss on held-out data before and after."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python examples/train_nnx.py RULE")
    rule = veldt.load_rule(sys.argv[1])
    tx = optax.chain(optax.clip_by_global_norm(1.0), rule.as_optax(learning_rate=3e-3))
    task = veldt.load_task("digits_mlp")
    model = Classifier(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    print(f"before: {loss_fn(model, *task.eval_batch('test')):.4f}")
    for key in jax.random.split(jax.random.key(0), NUM_STEPS):
        train_step(model, optimizer, *task.train_batch(key))
    print(f"after {NUM_STEPS} steps: {loss_fn(model, *task.eval_batch('test')):.4f}")


if __name__ == "__main__":
    main()
