"""Grids of learning-rate schedules, as arrays: all of them can be trained side by side.

A schedule here is the rate of each of T steps, float [T], its shape taken at the fractions t / T of
a run, t = 0..T-1 (so a decay to zero ends one step short of it, as Optax's schedules do). A grid is
the product of its settings:

    grid = grids.one_cycle(peaks, starts, ends, peak_times, num_steps=500)
    losses = jax.vmap(train)(grid.rates)          # train: [T] -> []
    index = grid.best(losses)

`one_cycle_thousand` is the baseline of "Optimizing ML Training with Metagradient Descent"
(arXiv 2503.13751, section 4.4), which reports more than 1,000 one-cycle schedules over peak rate,
start and end multiplier and time of the peak. The values along the axes are not published; those
here are this project's.
"""

from collections.abc import Callable, Mapping, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

# Shapes: S schedules, T steps.


@flax.struct.dataclass
class ScheduleGrid:
    """Schedules and the settings that made them.

    Attributes:
      settings: What was varied, by name, float [S] each.
      rates: Learning rates, float [S, T].
    """

    settings: Mapping[str, jax.Array]
    rates: jax.Array

    def best(self, losses: jax.Array) -> int:
        """Return the index of the least finite loss of `losses`, float [S].

        Raises:
          ValueError: No loss is finite.
        """
        index = int(jnp.argmin(jnp.where(jnp.isfinite(losses), losses, jnp.inf)))
        if not jnp.isfinite(losses[index]):
            raise ValueError(f"none of the {len(losses)} losses is finite")
        return index


def constant(peaks: Sequence[float], *, num_steps: int) -> ScheduleGrid:
    """Return constant schedules, one per peak."""
    return _product({"peak": peaks}, lambda time, peak: jnp.full_like(time, peak), num_steps)


def linear(peaks: Sequence[float], ends: Sequence[float], *, num_steps: int) -> ScheduleGrid:
    """Return linear decays from the peak to `end` times the peak.

    Args:
      peaks: First rates.
      ends: Multipliers of the peak at the end of the run.
      num_steps: Number of steps of the run, T.
    """

    def shape(time: jax.Array, peak: jax.Array, end: jax.Array) -> jax.Array:
        return peak * (1.0 + (end - 1.0) * time)

    return _product({"peak": peaks, "end": ends}, shape, num_steps)


def cosine(peaks: Sequence[float], ends: Sequence[float], *, num_steps: int) -> ScheduleGrid:
    """Return half-cosine decays from the peak to `end` times the peak; arguments as `linear`."""

    def shape(time: jax.Array, peak: jax.Array, end: jax.Array) -> jax.Array:
        return peak * (end + (1.0 - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * time)))

    return _product({"peak": peaks, "end": ends}, shape, num_steps)


def power(peaks: Sequence[float], exponents: Sequence[float], *, num_steps: int) -> ScheduleGrid:
    """Return decays to zero by a power of what is left of the run: peak (1 - t / T) ** exponent.

    Functional scaling laws give this shape where a task's difficulty is in few directions, with
    exponents above 0 ("Optimal schedules under functional scaling laws", arXiv 2602.06797).

    Args:
      peaks: First rates.
      exponents: Exponents, above 0; 1 is a linear decay.
      num_steps: Number of steps of the run, T.
    """

    def shape(time: jax.Array, peak: jax.Array, exponent: jax.Array) -> jax.Array:
        return peak * (1.0 - time) ** exponent

    return _product({"peak": peaks, "exponent": exponents}, shape, num_steps)


def cooldown(
    peaks: Sequence[float], starts: Sequence[float], *, num_steps: int, exponent: float = 1.2
) -> ScheduleGrid:
    """Return flat rates that end in a decay to zero by a power of what is left.

    With exponent 1.2 it is PowerCool, which records of modded-nanogpt use; with 1 the usual
    warm-up, stable, decay schedule without its warm-up.

    Args:
      peaks: Rates of the flat part.
      starts: Starts of the decay, as fractions of the run in [0, 1).
      num_steps: Number of steps of the run, T.
      exponent: Exponent of the decay.
    """

    def shape(time: jax.Array, peak: jax.Array, start: jax.Array) -> jax.Array:
        left = jnp.clip((1.0 - time) / (1.0 - start), 0.0, 1.0)
        return peak * left**exponent

    return _product({"peak": peaks, "start": starts}, shape, num_steps)


def one_cycle(
    peaks: Sequence[float],
    starts: Sequence[float],
    ends: Sequence[float],
    peak_times: Sequence[float],
    *,
    num_steps: int,
) -> ScheduleGrid:
    """Return triangles: linear from the start up to the peak, linear from there to the end.

    Args:
      peaks: Greatest rates.
      starts: Multipliers of the peak at step 0.
      ends: Multipliers of the peak at the end of the run.
      peak_times: Where the peak is, as fractions of the run in (0, 1).
      num_steps: Number of steps of the run, T.
    """

    def shape(
        time: jax.Array, peak: jax.Array, start: jax.Array, end: jax.Array, peak_time: jax.Array
    ) -> jax.Array:
        knots = jnp.stack([jnp.zeros_like(peak_time), peak_time, jnp.ones_like(peak_time)])
        return peak * jnp.interp(time, knots, jnp.stack([start, jnp.ones_like(end), end]))

    axes = {"peak": peaks, "start": starts, "end": ends, "peak_time": peak_times}
    return _product(axes, shape, num_steps)


def one_cycle_thousand(lowest_peak: float, highest_peak: float, *, num_steps: int) -> ScheduleGrid:
    """Return 1,000 one-cycle schedules: 10 peaks, 5 starts, 4 ends, 5 times of the peak.

    Args:
      lowest_peak: The least of the peaks, which are spaced evenly in their logarithms.
      highest_peak: The greatest.
      num_steps: Number of steps of the run, T.
    """
    return one_cycle(
        np.geomspace(lowest_peak, highest_peak, 10).tolist(),
        starts=(0.001, 0.01, 0.1, 0.3, 1.0),
        ends=(0.0, 0.01, 0.1, 0.3),
        peak_times=(0.05, 0.1, 0.25, 0.5, 0.75),
        num_steps=num_steps,
    )


def from_knots(knots: jax.Array, num_steps: int) -> jax.Array:
    """Return the learning rate of each step, float [T], geometric between knots.

    Args:
      knots: Natural logarithms of rates, float [K], evenly spaced; the first is of step 0, the
        last of step T - 1.
      num_steps: Number of steps of the run, T.
    """
    where = jnp.linspace(0.0, num_steps - 1.0, knots.shape[0])
    return jnp.exp(jnp.interp(jnp.arange(num_steps), where, knots))


def as_schedule(rates: jax.Array) -> optax.Schedule:
    """Return the Optax schedule of rates [T]; after the last step it stays at the last rate."""

    def schedule(count: jax.Array) -> jax.Array:
        return rates[jnp.minimum(count, rates.shape[0] - 1)]

    return schedule


def _product(
    axes: Mapping[str, Sequence[float]], shape: Callable[..., jax.Array], num_steps: int
) -> ScheduleGrid:
    """Return `shape(time, *setting)` of all combinations; the last axis varies fastest."""
    mesh = jnp.meshgrid(*(jnp.asarray(each, float) for each in axes.values()), indexing="ij")
    settings = {name: grid.ravel() for name, grid in zip(axes, mesh, strict=True)}
    time = jnp.arange(num_steps) / num_steps
    rates = jax.vmap(lambda *setting: shape(time, *setting))(*settings.values())
    return ScheduleGrid(settings=settings, rates=rates)
