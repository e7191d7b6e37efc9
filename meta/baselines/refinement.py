"""Schedule refinement: the schedule that a finished run's gradient norms ask for.

Defazio, Cutkosky, Mehta and Mishchenko 2023 (arXiv 2310.07831; find_schedule.py of
github.com/facebookresearch/adaptive_scheduling). With norms G_t of a run of T steps,
median-filtered, and weights w_t = G_t^-2,

    η_t ∝ w_t Σ_{p > t} w_p,     η_{T-1} = 0.

Constant norms give the linear decay 1 - (t + 1) / T. Only the shape is found: the peak is for a
sweep. For Adam the norms are l1 norms and the weights G_t^-1 (visual.py there).

Departures: none in the formula; the result is scaled to a greatest value of 1. The filter pads as
the readme does: the first value is repeated before the run, the run is mirrored after its end.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

# Shapes: T steps.


def refine(norms: np.ndarray, *, smoothing: float = 0.1, power: float = 2.0) -> np.ndarray:
    """Return the refined schedule of a run, float64 [T], at most 1.

    Args:
      norms: Gradient norms of the steps of a run, float [T], positive and finite.
      smoothing: τ: the median is over windows of this share of the run; 0 for none.
      power: Power of the weights: 2 for the l2 norms of gradient descent, 1 for the l1 norms of
        Adam.

    Returns:
      Multipliers of the peak learning rate.

    Raises:
      ValueError: A norm is not positive and finite, or there are fewer than two.
    """
    norms = np.asarray(norms, np.float64)
    if norms.ndim != 1 or norms.size < 2:
        raise ValueError(f"norms of at least two steps are needed, not an array {norms.shape}")
    if not np.all((norms > 0) & np.isfinite(norms)):
        raise ValueError(f"norm {norms[~((norms > 0) & np.isfinite(norms))][0]} is not positive")
    weights = median_filter(norms, smoothing) ** -power
    tails = np.cumsum(weights[::-1])[::-1]
    rates = weights * np.append(tails[1:], 0.0)
    return rates / np.max(rates)


def median_filter(values: np.ndarray, smoothing: float) -> np.ndarray:
    """Return running medians over an odd window of about `smoothing` times the length, [T]."""
    width = 2 * (int(smoothing * values.size) // 2) + 1
    half = width // 2
    padded = np.pad(np.pad(values, (0, half), mode="reflect"), (half, 0), mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=-1)


class GradientNormState(NamedTuple):
    """State of `record_gradient_norms`."""

    step: jax.Array  # shape=(), dtype=jnp.int32.
    norms: jax.Array  # shape=(num_steps,), of the steps done; zero for those to come.


def record_gradient_norms(num_steps: int, *, order: int = 2) -> optax.GradientTransformation:
    """Keep the norm of each gradient, which passes unchanged: first in an `optax.chain`.

    Args:
      num_steps: Number of steps of the run, T; later steps are not kept.
      order: 2 for the l2 norm of all entries, 1 for the l1 norm.

    Returns:
      The transform; its state's `norms` are what `refine` reads.
    """

    def init_fn(params: optax.Params) -> GradientNormState:
        del params
        return GradientNormState(jnp.zeros((), jnp.int32), jnp.zeros(num_steps))

    def update_fn(
        updates: optax.Updates, state: GradientNormState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, GradientNormState]:
        del params
        norm = optax.tree.norm(updates, ord=order)
        norms = state.norms.at[state.step].set(norm, mode="drop")
        return updates, GradientNormState(state.step + 1, norms)

    return optax.GradientTransformation(init_fn, update_fn)
