"""Many tasks in one number: interquartile mean, bootstrap intervals, performance profiles.

Agarwal et al., "Deep RL at the edge of the statistical precipice" (arXiv 2108.13264), as Celo uses
it for optimizers. The interquartile mean (IQM) drops the lowest and the highest quarter of the
tasks: less noisy than a mean, less blind than a median. Intervals are *stratified* bootstrap: seeds
are drawn again within each task, tasks stay; they show what other seeds would have given on this
suite and nothing about other tasks. Where a suite stands for tasks at large, tasks are drawn again
as well.

Departure: there, runs of all tasks are pooled before the mean; here a task's score is computed from
the losses of its (drawn) seeds first, since a speed-up is a function of a mean loss, and the IQM is
over tasks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

NUM_DRAWS: Final = 2000


@final
@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def iqm(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the mean of the middle half of the sorted scores, by weight.

    Each of n scores has weight 1; a quarter of the whole weight, n / 4, is cut from both ends. So
    with n not divisible by 4 the outermost scores kept count in part, and no score is lost with
    n = 1 to 3. Equals `scipy.stats.trim_mean(scores, 0.25)` where n is divisible by 4.
    """
    ordered = np.sort(np.asarray(scores, np.float64), axis=axis)
    n = ordered.shape[axis]
    edges = np.arange(n)
    kept = np.minimum(edges + 1, 0.75 * n) - np.maximum(edges, 0.25 * n)
    weights = np.clip(kept, 0.0, 1.0)
    shape = [1] * ordered.ndim
    shape[axis] = n
    weights = weights.reshape(shape)
    # A weight of zero must not turn an infinite score into NaN.
    weighted = np.where(weights > 0, ordered, 0.0) * weights
    return weighted.sum(axis=axis) / weights.sum(axis=axis)


def bootstrap(
    runs: Sequence[np.ndarray],
    score: Callable[[int, np.ndarray], float],
    *,
    seed: int = 0,
    num_draws: int = NUM_DRAWS,
    draw_tasks: bool = False,
) -> Interval:
    """Return the IQM over tasks with its stratified bootstrap interval.

    Args:
      runs: Results of each seed by task, float [S] (S may differ).
      score: Function `(task, values of the drawn seeds [S]) -> score`.
      seed: Seed of the draws.
      num_draws: Number of draws.
      draw_tasks: Whether tasks are drawn again too, after their seeds.
    """
    rng = np.random.default_rng(seed)
    value = float(iqm(np.array([score(task, values) for task, values in enumerate(runs)])))
    drawn = np.empty((num_draws, len(runs)))
    for task, values in enumerate(runs):
        rows = rng.integers(len(values), size=(num_draws, len(values)))
        # Few seeds give few different draws: each is scored once.
        picked, inverse = np.unique(np.sort(rows, axis=1), axis=0, return_inverse=True)
        scores = np.array([score(task, values[row]) for row in picked])
        drawn[:, task] = scores[inverse.reshape(-1)]
    if draw_tasks:
        picks = rng.integers(len(runs), size=drawn.shape)
        drawn = np.take_along_axis(drawn, picks, axis=1)
    low, high = np.quantile(iqm(drawn, axis=1), [0.025, 0.975])
    return Interval(value, float(low), float(high))


def profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the performance profile: the share of tasks with at least each threshold as score.

    Args:
      scores: Scores, float [tasks].
      thresholds: Thresholds, float [n].

    Returns:
      Shares, float [n], from 0 to 1, never rising along rising thresholds.
    """
    return (np.asarray(scores)[None, :] >= np.asarray(thresholds)[:, None]).mean(axis=1)
