"""A loss relative to its own running mean and deviation, so that it is alike across tasks.

From `_LossNormalizer` (google/learned_optimization, rnn_mlp_lopt.py). A loss that is not finite is
left out of the averages; the original takes it in, and no average is ever a number again.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class LossScale(NamedTuple):
    """Running mean and variance of a loss, not yet bias-corrected; float32, shape []."""

    mean: jax.Array
    variance: jax.Array
    count: Any  # shape=(), dtype=jnp.int32


def init() -> LossScale:
    """Return the scale before the first loss."""
    zero = jnp.zeros([], jnp.float32)
    return LossScale(zero, zero, jnp.zeros([], jnp.int32))


def update(scale: LossScale, loss: jax.Array, decay: float) -> LossScale:
    """Take in a loss, shape []."""
    usable = jnp.isfinite(loss)
    loss = jnp.where(usable, loss, 0.0).astype(jnp.float32)
    mean = decay * scale.mean + (1 - decay) * loss
    variance = decay * scale.variance + (1 - decay) * jnp.square(mean - loss)
    taken = LossScale(mean, variance, scale.count + 1)
    return jax.tree.map(lambda new, old: jnp.where(usable, new, old), taken, scale)


def standardize(scale: LossScale, loss: jax.Array, decay: float) -> jax.Array:
    """Return the loss less its mean over its deviation, clipped to +-5; 5 if it is NaN or inf."""
    correction = _correction(scale, decay)
    loss = jnp.where(jnp.isfinite(loss), loss, jnp.inf).astype(jnp.float32)
    centred = loss - scale.mean * correction
    return jnp.clip(centred * jax.lax.rsqrt(scale.variance * correction + 1e-8), -5, 5)


def mean(scale: LossScale, decay: float) -> jax.Array:
    """Return the bias-corrected mean; 0 before the first loss."""
    return scale.mean * _correction(scale, decay)


def _correction(scale: LossScale, decay: float) -> jax.Array:
    # The original guards count = 0 by adding 1e-8 to 1 - decay^count. Compiled, 1 + 1e-8 is 1.
    weight = 1 - decay ** scale.count.astype(jnp.float32)
    return 1.0 / jnp.where(scale.count == 0, 1.0, weight)
