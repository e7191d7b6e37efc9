"""What a rule reads of the loss so far: averages at ten horizons, compared with their minima.

From `BufferLossAccumulators` (google/learned_optimization, hyper_v2.py); VeLO and Celo read it. The
averages are bias-corrected. A loss that is not finite is left out: the original takes it in, and no
average is ever a number again.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_NUM_HORIZONS = 10
_SHORTEST = 10  # steps
NUM_FEATURES = _NUM_HORIZONS - 1


class LossHistory(NamedTuple):
    """Averages of the loss, shortest horizon first."""

    means: jax.Array  # [10], not yet bias-corrected
    minima: jax.Array  # [10], of the corrected means
    count: Any  # shape=(), dtype=jnp.int32; losses taken in


def init() -> LossHistory:
    """Return the history before the first loss."""
    return LossHistory(
        jnp.zeros((_NUM_HORIZONS,), jnp.float32),
        jnp.full((_NUM_HORIZONS,), 999999999999.0, jnp.float32),
        jnp.zeros([], jnp.int32),
    )


@jax.jit  # As one program: else each operation is compiled by itself when a rule is made.
def decays(longest: jax.Array | float) -> jax.Array:
    """Return exp(-1 / h) for ten horizons h from 10 steps to `longest`, even in the logarithm."""
    exponents = jnp.linspace(1.0, jnp.log10(jnp.asarray(longest, jnp.float32)), _NUM_HORIZONS)
    return jnp.exp(-1.0 / jnp.power(float(_SHORTEST), exponents))


def update(history: LossHistory, loss: jax.Array, decay: jax.Array) -> LossHistory:
    """Take in a loss, which counts as at most twice the largest average (in absolute value).

    Args:
      history: History from `init` or from the step before.
      loss: Float, shape [].
      decay: Decays from `decays`, [10].
    """
    usable = jnp.isfinite(loss)
    loss = jnp.where(usable, loss, 0.0).astype(jnp.float32)
    largest = jnp.max(_corrected(history, decay))
    largest = jnp.where(history.count == 0, loss, largest)
    loss = jnp.minimum(jnp.abs(largest) * 2, loss)
    means = history.means * decay + loss * (1 - decay)
    taken = LossHistory(means, history.minima, history.count + 1)
    taken = taken._replace(minima=jnp.minimum(history.minima, _corrected(taken, decay)))
    return jax.tree.map(lambda new, old: jnp.where(usable, new, old), taken, history)


def features(history: LossHistory, decay: jax.Array) -> jax.Array:
    """Return where each average lies between its minimum and the next longer one, in [-1, 1]; [9].

    0 for the first two losses, which say nothing yet.
    """
    means = _corrected(history, decay)
    low = history.minima[:-1]
    # Minima of an untouched history are huge; the range below keeps what follows finite.
    low = jnp.where(history.count <= 2, 0.0, low)
    position = (means[:-1] - low) / jnp.maximum(1e-8, means[1:] - low)
    return jnp.where(history.count <= 2, 0.0, jnp.clip(position - 1.0, -1.0, 1.0))


def _corrected(history: LossHistory, decay: jax.Array) -> jax.Array:
    """Return the bias-corrected means; 0 before the first loss."""
    weight = 1.0 - decay ** history.count.astype(jnp.float32)
    return history.means / jnp.where(history.count == 0, 1.0, weight)
