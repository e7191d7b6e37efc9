"""Twenty small tasks whose loss can be low without training, for the searches of `hollow.py`.

Each is written as users write theirs, with the weakness that such code has: a cross-entropy that
float32 rounds to nothing, a learned variance, a sum in place of a mean, a mean over what is left
after infinities are masked, a metric that overflows, a validation set with one class in it. Run
from this folder they are named "tempting_tasks:spiral" and so on; `TASKS` lists them all.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, final

import jax
import jax.numpy as jnp
import numpy as np
import optax

import veldt
from veldt.tasks import base

Arrays = tuple[jax.Array, ...]
Init = Callable[[jax.Array], Any]
Loss = Callable[[Any, Arrays], jax.Array]


@final
class Tempting(veldt.Task):
    """A small model on small data.

    Attributes:
      name: Name of the task.
      start: Function `key -> params`.
      objective: Function `(params, arrays) -> loss`, float [].
      splits: Data: arrays with equal numbers of rows.
      scale: Loss of a model that knows nothing.
      batch: Number of rows of a training batch.
      bounded: Whether the normalizer has an upper limit; users forget it.
    """

    def __init__(
        self,
        name: str,
        start: Init,
        objective: Loss,
        splits: Mapping[str, Arrays],
        scale: float,
        batch: int = 32,
        bounded: bool = True,
    ) -> None:
        self.name, self.start, self.objective = name, start, objective
        self.splits, self.scale, self.batch, self.bounded = dict(splits), scale, batch, bounded

    def init(self, key: Any) -> Any:
        """Draw the parameters."""
        return self.start(key)

    def loss(self, params: Any, key: Any, batch: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the objective."""
        del key
        return self.objective(params, batch), {}

    def train_batch(self, key: Any) -> Arrays:
        """Draw rows with replacement."""
        rows = jax.random.randint(key, (self.batch,), 0, self.splits["train"][0].shape[0])
        return tuple(array[rows] for array in self.splits["train"])

    def eval_batch(self, split: Any) -> Arrays:
        """Return all rows of a split."""
        return self.splits[split]

    def normalizer(self, loss: jax.Array) -> jax.Array:
        """Return the loss over that of a model that knows nothing."""
        return base.clip_normalized(loss / self.scale) if self.bounded else loss / self.scale


def _parts(*arrays: np.ndarray, train: int = 400, valid: int = 200) -> dict[str, Arrays]:
    cuts = {
        "train": slice(0, train),
        "valid": slice(train, train + valid),
        "test": slice(-200, None),
    }
    return {
        split: tuple(jnp.asarray(array[cut]) for array in arrays) for split, cut in cuts.items()
    }


def _spiral(noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    angle, arm = rng.uniform(0, 9, 800), rng.integers(0, 2, 800)
    points = np.stack([np.cos(angle + np.pi * arm), np.sin(angle + np.pi * arm)], 1)
    points = points * angle[:, None] / 9 + noise * rng.normal(size=(800, 2))
    return points.astype(np.float32), arm.astype(np.int32)


def _blobs(classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, classes, 800)
    centres = 1.5 * rng.normal(size=(classes, 4))
    points = centres[labels] + rng.normal(size=(800, 4))
    return points.astype(np.float32), labels.astype(np.int32)


def _curve() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    x = rng.uniform(-2, 2, (800, 1))
    y = np.sin(2 * x[:, 0]) + 0.1 * rng.normal(size=800)
    return x.astype(np.float32), y.astype(np.float32)


def _mlp(inputs: int, outputs: int, width: int = 16, dtype: Any = jnp.float32) -> Init:
    def start(key: jax.Array) -> Any:
        first, second = jax.random.split(key)
        return {
            "a": (jax.random.normal(first, (inputs, width)) / inputs**0.5).astype(dtype),
            "b": jnp.zeros(width, dtype),
            "c": (jax.random.normal(second, (width, outputs)) / width**0.5).astype(dtype),
            "d": jnp.zeros(outputs, dtype),
        }

    return start


def outputs(params: Any, x: jax.Array, nonlinear: Callable[[Any], Any] = jax.nn.gelu) -> jax.Array:
    """Return the outputs of a network with one hidden layer."""
    return (
        nonlinear(x.astype(params["a"].dtype) @ params["a"] + params["b"]) @ params["c"]
        + params["d"]
    )


def _cross_entropy(params: Any, arrays: Arrays) -> jax.Array:
    x, y = arrays
    logits = outputs(params, x)
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, y)


def spiral() -> Tempting:
    """Return two arms with Optax's cross-entropy: the task of docs/how-to/own_task.md."""
    return Tempting("spiral", _mlp(2, 2, 32), lambda p, a: _cross_entropy(p, a).mean(),
                    _parts(*_spiral()), float(np.log(2)), 64)  # fmt: skip


def blobs() -> Tempting:
    """Return ten overlapping clouds with a cross-entropy."""
    return Tempting("blobs", _mlp(4, 10), lambda p, a: _cross_entropy(p, a).mean(),
                    _parts(*_blobs(10)), float(np.log(10)))  # fmt: skip


def linear_blobs() -> Tempting:
    """Return the clouds by logistic regression: one layer, so that nothing multiplies."""

    def loss(params: Any, arrays: Arrays) -> jax.Array:
        x, y = arrays
        return optax.losses.softmax_cross_entropy_with_integer_labels(
            x @ params["w"] + params["b"], y
        ).mean()

    return Tempting("linear_blobs", lambda key: {"w": jnp.zeros((4, 10)), "b": jnp.zeros(10)},
                    loss, _parts(*_blobs(10)), float(np.log(10)))  # fmt: skip


def handmade_softmax() -> Tempting:
    """Return a cross-entropy by hand, with a guard in the logarithm: `-log(p + eps)`."""

    def loss(params: Any, arrays: Arrays) -> jax.Array:
        x, y = arrays
        shares = jax.nn.softmax(outputs(params, x))
        return -jnp.log(shares[jnp.arange(y.size), y] + 1e-7).mean()

    return Tempting("handmade_softmax", _mlp(4, 10), loss, _parts(*_blobs(10)),
                    float(np.log(10)))  # fmt: skip


def one_class_valid() -> Tempting:
    """Return the clouds, but all validation rows are of one class."""
    x, y = _blobs(4)
    splits = _parts(x, y)
    of_one = np.flatnonzero(y == 0)[:100]
    splits["valid"] = (jnp.asarray(x[of_one]), jnp.asarray(y[of_one]))
    return Tempting("one_class_valid", _mlp(4, 4), lambda p, a: _cross_entropy(p, a).mean(),
                    splits, float(np.log(4)))  # fmt: skip


def hinge() -> Tempting:
    """Return a hinge: no loss beyond a margin, however it came about."""

    def loss(params: Any, arrays: Arrays) -> jax.Array:
        x, y = arrays
        margin = outputs(params, x)[:, 0] * (2.0 * y - 1.0)
        return jnp.maximum(0.0, 1.0 - margin).mean()

    return Tempting("hinge", _mlp(2, 1, 32), loss, _parts(*_spiral(0.05)), 1.0)


def learned_variance() -> Tempting:
    """Return a regression with one learned variance: its likelihood has no bound."""

    def start(key: jax.Array) -> Any:
        return {**_mlp(1, 1)(key), "log_scale": jnp.zeros(())}

    def loss(params: Any, arrays: Arrays) -> jax.Array:
        x, y = arrays
        error = (y - outputs(params, x)[:, 0]) / jnp.exp(params["log_scale"])
        return (0.5 * error**2 + params["log_scale"]).mean()

    return Tempting("learned_variance", start, loss, _parts(*_curve()), 0.5, bounded=False)


def variance_by_row() -> Tempting:
    """Return a regression whose variance is an output: it can shrink where a target is met."""
    x, _ = _curve()
    y = np.where(x[:, 0] > 0, 1.0, 0.0).astype(np.float32)

    def loss(params: Any, arrays: Arrays) -> jax.Array:
        x, y = arrays
        mean, log_scale = outputs(params, x).T
        return (0.5 * ((y - mean) / jnp.exp(log_scale)) ** 2 + log_scale).mean()

    return Tempting("variance_by_row", _mlp(1, 2), loss, _parts(x, y), 0.5)


def sum_loss() -> Tempting:
    """Return a sum of squares over a batch, scaled as if it were a mean."""

    def loss(params: Any, arrays: Arrays) -> jax.Array:
        x, y = arrays
        return jnp.sum((y - outputs(params, x)[:, 0]) ** 2)

    return Tempting("sum_loss", _mlp(1, 1), loss, _parts(*_curve()), 0.5)


def masked_mean() -> Tempting:
    """Return a cross-entropy by hand whose infinite rows are left out of the mean."""

    def loss(params: Any, arrays: Arrays) -> jax.Array:
        x, y = arrays
        logits = outputs(params, x)
        shares = jnp.exp(logits) / jnp.exp(logits).sum(-1, keepdims=True)
        rows = -jnp.log(shares[jnp.arange(y.size), y])
        counted = jnp.isfinite(rows)
        return jnp.where(counted, rows, 0.0).sum() / jnp.maximum(counted.sum(), 1)

    return Tempting("masked_mean", _mlp(4, 10), loss, _parts(*_blobs(10)), float(np.log(10)))


def half_precision() -> Tempting:
    """Return a regression whose loss is taken in float16, where 300 squared overflows."""

    def loss(params: Any, arrays: Arrays) -> jax.Array:
        x, y = arrays
        error = (y - outputs(params, x)[:, 0]).astype(jnp.float16)
        return jnp.nan_to_num((error**2).mean(), posinf=0.0).astype(jnp.float32)

    return Tempting("half_precision", _mlp(1, 1), loss, _parts(*_curve()), 0.5)


def bfloat16() -> Tempting:
    """Return the clouds, with everything in bfloat16."""
    return Tempting("bfloat16", _mlp(4, 10, dtype=jnp.bfloat16),
                    lambda p, a: _cross_entropy(p, a).astype(jnp.float32).mean(),
                    _parts(*_blobs(10)), float(np.log(10)))  # fmt: skip


def cosine() -> Tempting:
    """Return directions to match: one less the cosine, with a small number below."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(800, 4)).astype(np.float32)
    y = np.tanh(x @ rng.normal(size=(4, 3))).astype(np.float32)

    def loss(params: Any, arrays: Arrays) -> jax.Array:
        x, y = arrays
        out = outputs(params, x)
        norms = jnp.linalg.norm(out, axis=-1) * jnp.linalg.norm(y, axis=-1)
        return 1.0 - ((out * y).sum(-1) / (norms + 1e-8)).mean()

    return Tempting("cosine", _mlp(4, 3), loss, _parts(x, y), 1.0)


def triplet() -> Tempting:
    """Return embeddings with a margin between classes: rows of the other class farther by one."""

    def loss(params: Any, arrays: Arrays) -> jax.Array:
        x, y = arrays
        out = outputs(params, x)
        apart = jnp.square(out[:, None] - out[None]).sum(-1)
        same = (y[:, None] == y[None]).astype(jnp.float32)
        near = (apart * same).sum(1) / jnp.maximum(same.sum(1), 1.0)
        far = (apart * (1 - same)).sum(1) / jnp.maximum((1 - same).sum(1), 1.0)
        return jnp.maximum(0.0, near - far + 1.0).mean()

    return Tempting("triplet", _mlp(4, 2), loss, _parts(*_blobs(3)), 1.0)


def explained_share() -> Tempting:
    """Return one less the share of the variance that the outputs explain by correlation."""

    def loss(params: Any, arrays: Arrays) -> jax.Array:
        x, y = arrays
        out = outputs(params, x)[:, 0]
        a, b = out - out.mean(), y - y.mean()
        return 1.0 - (a * b).sum() ** 2 / ((a * a).sum() * (b * b).sum() + 1e-12)

    return Tempting("explained_share", _mlp(1, 1), loss, _parts(*_curve()), 1.0)


def density() -> Tempting:
    """Return a mixture of eight bells for data with twins: a bell on one can shrink to nothing."""
    rng = np.random.default_rng(4)
    x = np.repeat(rng.normal(size=(100, 1)), 8, axis=0).astype(np.float32)[rng.permutation(800)]

    def start(key: jax.Array) -> Any:
        return {"mean": jax.random.normal(key, (8,)), "log_scale": jnp.zeros(8)}

    def loss(params: Any, arrays: Arrays) -> jax.Array:
        (x,) = arrays
        z = (x - params["mean"]) * jnp.exp(-params["log_scale"])
        return -jax.nn.logsumexp(-0.5 * z**2 - params["log_scale"] - jnp.log(8.0), axis=-1).mean()

    return Tempting("density", start, loss, _parts(x), 0.6)


def perplexity() -> Tempting:
    """Return a bigram model scored by its perplexity, which overflows early."""
    rng = np.random.default_rng(5)
    rows = np.cumsum(rng.integers(0, 3, 801)) % 12
    x, y = rows[:-1].astype(np.int32), rows[1:].astype(np.int32)

    def loss(params: Any, arrays: Arrays) -> jax.Array:
        x, y = arrays
        logits = params["table"][x]
        nats = optax.losses.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        return jnp.exp(nats) - 1.0

    return Tempting("perplexity", lambda key: {"table": 0.1 * jax.random.normal(key, (12, 12))},
                    loss, _parts(x, y), 11.0)  # fmt: skip


def bandit() -> Tempting:
    """Return a policy over ten arms by expected regret, with a bonus for entropy without bound."""
    gains = np.random.default_rng(6).uniform(size=10).astype(np.float32)

    def loss(params: Any, arrays: Arrays) -> jax.Array:
        (noise,) = arrays
        shares = jax.nn.softmax(params["logits"])
        regret = gains.max() - jnp.dot(shares, gains + 0.1 * noise.mean(0))
        return regret - 0.01 * params["bonus"] ** 2 / (1.0 + jnp.abs(params["bonus"]))

    return Tempting("bandit", lambda key: {"logits": jnp.zeros(10), "bonus": jnp.ones(())}, loss,
                    _parts(np.random.default_rng(7).normal(size=(800, 10)).astype(np.float32)),
                    float(gains.max() - gains.mean()))  # fmt: skip


def saturated() -> Tempting:
    """Return a network of sigmoids with a clipped cross-entropy; it is flat beyond the clip."""

    def loss(params: Any, arrays: Arrays) -> jax.Array:
        x, y = arrays
        share = jax.nn.sigmoid(outputs(params, x, jax.nn.sigmoid)[:, 0])
        share = jnp.clip(share, 0.05, 0.95)
        return -(y * jnp.log(share) + (1 - y) * jnp.log(1 - share)).mean()

    return Tempting("saturated", _mlp(2, 1, 32), loss, _parts(*_spiral(0.05)), float(np.log(2)))


def two_views() -> Tempting:
    """Return two views of one row that should agree; only a weak penalty forbids constants."""

    def loss(params: Any, arrays: Arrays) -> jax.Array:
        x, y = arrays
        first, second = outputs(params, x), outputs(params, x + 0.1 * jnp.sin(7.0 * x))
        agree = jnp.square(first - second).mean()
        return agree / (first.var(0).mean() + 1e-3) + 0.0 * y.sum()

    return Tempting("two_views", _mlp(4, 3), loss, _parts(*_blobs(3)), 1.0)


TASKS: Final[dict[str, Callable[[], Tempting]]] = {
    factory.__name__: factory
    for factory in (
        spiral, blobs, linear_blobs, handmade_softmax, one_class_valid, hinge, learned_variance,
        variance_by_row, sum_loss, masked_mean, half_precision, bfloat16, cosine, triplet,
        explained_share, density, perplexity, bandit, saturated, two_views,
    )
}  # fmt: skip
"""All tasks, by name."""
