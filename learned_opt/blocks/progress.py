"""How far training has got, as features: of the step's number, or of the run's fraction."""

import jax
import jax.numpy as jnp

from veldt.learned_opt import errors

_TIMESCALES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000, 100000)  # steps
_FRACTIONS = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)  # of the run

NUM_STEP_FEATURES = len(_TIMESCALES)
NUM_FRACTION_FEATURES = len(_FRACTIONS)


def tanh_of_step(count: jax.Array) -> jax.Array:
    """Return tanh(t / s - 1) for timescales s of 1 to 100,000 steps.

    Args:
      count: t, the number of steps taken before this one, shape [].

    Returns:
      float32 [11].
    """
    return jnp.tanh(count / jnp.asarray(_TIMESCALES, jnp.float32) - 1.0)


def sin_of_step(count: jax.Array) -> jax.Array:
    """Return sin(t / (pi s)), as `tanh_of_step` does."""
    return jnp.sin(count / (jnp.asarray(_TIMESCALES, jnp.float32) * jnp.pi))


def tanh_of_fraction(count: jax.Array, num_steps: jax.Array | float) -> jax.Array:
    """Return tanh(10 (t / T - c)) for nine c from 0.03 to 1.1; float32 [9]."""
    fraction = count / jnp.asarray(num_steps, jnp.float32)
    return jnp.tanh((fraction - jnp.asarray(_FRACTIONS, jnp.float32)) * 10)


def run_length(num_steps: int | jax.Array | None, rule: str) -> jax.Array:
    """Return the length of the run as float32.

    Raises:
      MissingInputError: It is None, or a number below 1 (a traced one is not checked).
    """
    if num_steps is None or (not isinstance(num_steps, jax.core.Tracer) and num_steps < 1):
        raise errors.MissingInputError.num_steps(rule, num_steps)
    return jnp.asarray(num_steps, jnp.float32)
