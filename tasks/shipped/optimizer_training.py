"""Training of a learned optimizer as a task: its weights are the parameters.

The loss is that of the inner trainings with these weights.

A batch is M short inner trainings of K steps: the start of each, and the digits of every step.
One step of this task unrolls them and differentiates through them. The inner problem is small, a
16-8-10 tanh perceptron on digits averaged down to 4x4. Held-out inner trainings see the digits of
the validation and test parts, from starts of their own.

The optimizer is a perceptron that is applied to each inner parameter alone, after Andrychowicz et
al. 2016 (arXiv 1606.04474) and Metz et al. 2022 (arXiv 2203.11860). It is very small, since it is
only trained here and not used.
"""

import itertools
import math
from typing import Any, NamedTuple, final, get_args

import jax
import jax.numpy as jnp
import numpy as np

from veldt.tasks import base
from veldt.tasks.common import types
from veldt.tasks.data import dataset
from veldt.tasks.shipped import image_models, supervised

# Shapes: M inner trainings, K inner steps, B rows of an inner batch, D inner parameters.

_WIDTHS = (16, 8, 10)  # Of the inner perceptron: inputs, hidden layer, classes.
_NUM_INNER_PARAMS = sum((fan_in + 1) * fan_out for fan_in, fan_out in itertools.pairwise(_WIDTHS))
_INNER_BATCH_SIZE = 16
_DECAYS = (0.5, 0.9, 0.99)
_NUM_FEATURES = 3 + 2 * len(_DECAYS)
_STEP_SIZE = 0.1  # Movement of an inner parameter by an output of 1.
_LARGEST_LOSS = 10.0  # An inner loss above it counts as this; at the start it is about 2.4.
_NUM_EVAL_RUNS = 16


class InnerRuns(NamedTuple):
    """M inner trainings.

    Attributes:
      start: Inner parameters before training, float [M, D].
      data: Row numbers int32 [M, K, B], or the examples themselves [M, K, B, ...].
    """

    start: jax.Array
    data: Any


@final
class OptimizerTask(base.Task):
    """Train the weights of a small optimizer by gradients through short trainings.

    Attributes:
      optimizer: Module that maps features of inner parameters [D, 9] to updates [D, 1].
      splits: Inner examples.
      eval_runs: Inner trainings of each split's evaluation batch, with row numbers.
      num_inner_steps: Number of inner steps K.
      num_runs: Number of inner trainings M of a training batch.
      reference_loss: Inner loss of guessing, float32, shape [].
    """

    def __init__(
        self, name: str, hidden: tuple[int, ...], *, num_inner_steps: int, num_runs: int
    ) -> None:
        self.name = name
        self.optimizer = image_models.Mlp((*hidden, 1), output_variance=1e-4)
        self.splits = supervised.on_device(_halved(dataset.load_digits()))
        self.num_inner_steps = num_inner_steps
        self.num_runs = num_runs
        self.reference_loss = jnp.asarray(math.log(_WIDTHS[-1]), jnp.float32)
        self.eval_runs = {split: self._fixed_runs(split) for split in get_args(types.Split)}

    def init(self, key: types.Key) -> types.Params:
        """Draw the optimizer's weights. The key is consumed."""
        return self.optimizer.init(key, jnp.zeros((1, _NUM_FEATURES)))

    def loss(
        self, params: types.Params, key: types.Key, batch: types.Batch
    ) -> tuple[types.Scalar, types.Aux]:
        """Return the inner training loss, averaged over inner steps and trainings."""
        del key
        losses = jax.vmap(self._train, (None, 0, 0))(params, batch.start, batch.data)  # [M, K]
        bounded = jnp.where(losses < _LARGEST_LOSS, losses, _LARGEST_LOSS)  # Also if it is NaN.
        return jnp.mean(bounded), {}

    def sample(self, key: types.Key) -> types.Selection:
        """Draw inner starts, and row numbers of the training part. The key is consumed."""
        key_start, key_rows = jax.random.split(key)
        start = jax.random.normal(key_start, (self.num_runs, _NUM_INNER_PARAMS)) * _start_scale()
        shape = (self.num_runs, self.num_inner_steps, _INNER_BATCH_SIZE)
        bits = jax.random.bits(key_rows, shape, jnp.uint32)
        return InnerRuns(start, bits % self.splits["train"].inputs.shape[0])

    def gather(self, selection: types.Selection) -> types.Batch:
        return self._fetch(selection, "train")

    def train_batch(self, key: types.Key) -> types.Batch:
        """Draw `num_runs` inner trainings. The key is consumed."""
        return self.gather(self.sample(key))

    def eval_batch(self, split: types.Split) -> types.Batch:
        """Return the split's 16 inner trainings."""
        return self._fetch(self.eval_runs[split], split)

    def normalizer(self, loss: types.Scalar) -> types.Scalar:
        """Return the loss relative to that of guessing."""
        return base.clip_normalized(loss / self.reference_loss)

    def _fetch(self, runs: InnerRuns, split: types.Split) -> InnerRuns:
        return runs._replace(data=jax.tree.map(lambda x: x[runs.data], self.splits[split]))

    def _fixed_runs(self, split: types.Split) -> InnerRuns:
        random = np.random.RandomState(get_args(types.Split).index(split))
        start = random.standard_normal((_NUM_EVAL_RUNS, _NUM_INNER_PARAMS)) * _start_scale()
        shape = (_NUM_EVAL_RUNS, self.num_inner_steps, _INNER_BATCH_SIZE)
        rows = random.randint(self.splits[split].inputs.shape[0], size=shape)
        return InnerRuns(jnp.asarray(start, jnp.float32), jnp.asarray(rows, jnp.int32))

    def _train(
        self, params: types.Params, start: jax.Array, examples: dataset.Examples
    ) -> jax.Array:
        """Do one inner training from `start` [D]; return the loss before each step, [K]."""

        def step(
            carry: tuple[jax.Array, jax.Array, jax.Array], batch: dataset.Examples
        ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], types.Scalar]:
            vector, momenta, square = carry
            loss, grad = jax.value_and_grad(inner_loss)(vector, batch)
            decays = jnp.array(_DECAYS)[:, None]
            momenta = decays * momenta + (1 - decays) * grad  # [3, D]
            square = 0.95 * square + 0.05 * jnp.square(grad)
            features = _features(vector, grad, momenta, square)
            update: Any = self.optimizer.apply(params, features)
            return (vector - _STEP_SIZE * update[:, 0], momenta, square), loss

        zeros = jnp.zeros_like(start)
        carry = (start, jnp.zeros((len(_DECAYS), _NUM_INNER_PARAMS)), zeros)
        _, losses = jax.lax.scan(step, carry, examples)
        return losses


def learned_optimizer() -> OptimizerTask:
    """Train a learned optimizer, 9-8-1 per parameter, through 4 trainings of 16 steps."""
    return OptimizerTask("learned_optimizer", (8,), num_inner_steps=16, num_runs=4)


def learned_optimizer_long() -> OptimizerTask:
    """Train a learned optimizer, 9-32-32-1 per parameter, through 8 trainings of 50 steps."""
    return OptimizerTask("learned_optimizer_long", (32, 32), num_inner_steps=50, num_runs=8)


def inner_loss(vector: jax.Array, batch: dataset.Examples) -> types.Scalar:
    """Return the cross-entropy of the perceptron whose parameters lie in `vector` [D].

    For each layer the weights [inputs, outputs], row by row, and then the biases.
    """
    x, offset = jnp.asarray(batch.inputs), 0
    for fan_in, fan_out in itertools.pairwise(_WIDTHS):
        if offset > 0:
            x = jnp.tanh(x)
        kernel = vector[offset : offset + fan_in * fan_out].reshape(fan_in, fan_out)
        offset += (fan_in + 1) * fan_out
        x = x @ kernel + vector[offset - fan_out : offset]
    return supervised.cross_entropy(x, jnp.asarray(batch.targets))


def _start_scale() -> np.ndarray:
    """Return the standard deviation at the start of each inner parameter, float32 [D]."""
    layers = [
        [np.full(fan_in * fan_out, fan_in**-0.5), np.zeros(fan_out)]
        for fan_in, fan_out in itertools.pairwise(_WIDTHS)
    ]
    return np.concatenate([part for layer in layers for part in layer]).astype(np.float32)


def _features(
    vector: jax.Array, grad: jax.Array, momenta: jax.Array, square: jax.Array
) -> jax.Array:
    """Return features of inner parameters [D] from values, gradients and averages: [D, 9].

    Each feature is divided by its root mean square over all D.
    """
    scale = jax.lax.rsqrt(square + 1e-8)
    rows = jnp.concatenate([jnp.stack([vector, grad, grad * scale]), momenta, momenta * scale])
    rows = rows * jax.lax.rsqrt(jnp.mean(jnp.square(rows), axis=1, keepdims=True) + 1e-8)
    return rows.T


def _halved(splits: dataset.Splits) -> dataset.Splits:
    """Average 8x8 images down to 4x4, float32 [N, 16]."""

    def halve(part: dataset.Examples) -> dataset.Examples:
        images = np.asarray(part.inputs).reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4))
        return part._replace(inputs=images.reshape(-1, 16))

    return {split: halve(part) for split, part in splits.items()}
