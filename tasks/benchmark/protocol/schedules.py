"""Learning-rate schedules of the benchmark: shapes that multiply a peak learning rate.

The shapes are Optax's own. The shape of a run may be traced, so that one compiled program trains
under all of them.
"""

from collections.abc import Sequence
from typing import Any, Final

import jax
import jax.numpy as jnp
import optax

WARMUP_SHARE: Final = 0.05
"""Share of a run's steps in which the rate rises to its peak."""

CONSTANT: Final = "constant"


def _constant(num_steps: int) -> optax.Schedule:
    del num_steps
    return optax.constant_schedule(1.0)


def _warmup_cosine(num_steps: int) -> optax.Schedule:
    warmup = _warmup_steps(num_steps)
    return optax.warmup_cosine_decay_schedule(1.0 / warmup, 1.0, warmup, max(num_steps, warmup + 1))


def _warmup_linear(num_steps: int) -> optax.Schedule:
    warmup = _warmup_steps(num_steps)
    rise = optax.linear_schedule(1.0 / warmup, 1.0, warmup)
    fall = optax.linear_schedule(1.0, 0.0, max(num_steps - warmup, 1))
    return optax.join_schedules([rise, fall], [warmup])


def _warmup_steps(num_steps: int) -> int:
    return max(round(WARMUP_SHARE * num_steps), 1)


SCHEDULES: Final = {
    CONSTANT: _constant,
    "warmup_cosine": _warmup_cosine,
    "warmup_linear": _warmup_linear,
}
"""`num_steps -> (step -> share of the peak rate)`, by name."""


def one(name: str, peak: Any, num_steps: int) -> Any | optax.Schedule:
    """Return the learning rate of a run under a schedule: the peak itself if it is constant.

    Args:
      name: Schedule, in `SCHEDULES`.
      peak: Highest rate, may be traced.
      num_steps: Length of the run.
    """
    return scheduled((name,), jnp.zeros((), jnp.int32), peak, num_steps)


def scheduled(
    names: Sequence[str], which: jax.Array, peak: jax.Array, num_steps: int
) -> Any | optax.Schedule:
    """Return the learning rate of a run: the peak itself if all schedules are constant.

    Args:
      names: Schedules, in `SCHEDULES`.
      which: Position of the run's schedule, int32 [], may be traced.
      peak: Highest rate, float32 [], may be traced.
      num_steps: Length of the run.
    """
    if tuple(names) == (CONSTANT,):
        return peak
    shapes = [SCHEDULES[name](num_steps) for name in names]

    def schedule(step: jax.Array) -> jax.Array:
        values = jnp.stack([jnp.asarray(shape(step), jnp.float32) for shape in shapes])
        return peak * values[which]

    return schedule
