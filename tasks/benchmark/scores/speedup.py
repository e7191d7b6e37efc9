"""Scores of an optimizer on one task: speed-up over tuned Adam, final losses, divergence.

The *speed-up* is VeLOdrome's (arXiv 2211.09760, Fig. 1): how many steps learning-rate-tuned Adam
needs for the loss that the candidate has at its end, over the candidate's steps. 2 means that Adam
needs twice as long. Adam's reference is the *lower envelope* of its curves over learning rates, at
every step whichever rate is best there, so no single Adam run is as good as it: tuned Adam itself
scores at most 1.

Departures: losses are taken on a fixed batch of the training split, so nothing is smoothed (there
the training loss of each batch is averaged over 20 evaluations); between checks the step is
interpolated on a logarithmic loss where losses are positive. Adam's curves end after some multiple
of the candidate's steps; a speed-up is capped there, and marked as capped.
"""

from dataclasses import dataclass
from typing import Final, final

import numpy as np

from veldt.tasks.benchmark.runs.sweep import SPLITS, Sweep

_TRAIN: Final = SPLITS.index("train")
_TINY: Final = 1e-30


@final
@dataclass(frozen=True, eq=False)
class Envelope:
    """Adam's lowest loss at every step.

    Attributes:
      steps: Steps of the checks, float64 [K], the first 0.
      losses: Lowest seed-mean training loss of any rate up to each step, float64 [K]; never rising.
    """

    steps: np.ndarray
    losses: np.ndarray

    @property
    def horizon(self) -> float:
        """The step at which Adam's curves end."""
        return float(self.steps[-1])


@final
@dataclass(frozen=True, slots=True)
class Speedup:
    """The steps that Adam needs over the steps that the candidate took.

    Attributes:
      value: Speed-up; 0 where the candidate diverged, is hollow, or never beat the start.
      capped: Whether Adam's curves end before they reach the loss: the true value is larger.
    """

    value: float
    capped: bool


def envelope(adam: Sweep, seeds: np.ndarray | None = None) -> Envelope:
    """Return Adam's lower envelope.

    A rate at which any seed diverged counts until then.

    Args:
      adam: Sweep of Adam.
      seeds: Positions of the seeds that the mean is over, int [n], repeats allowed; None for all.

    Raises:
      ValueError: No rate has a finite loss at the start.
    """
    losses = adam.losses[..., _TRAIN].astype(np.float64)  # [L, S, K]
    means = (losses if seeds is None else losses[:, seeds]).mean(axis=1)  # [L, K]
    lowest = np.minimum.accumulate(means.min(axis=0))
    if not np.isfinite(lowest[0]):
        raise ValueError("no run has a finite loss at its start, so there is no envelope")
    return Envelope(adam.steps.astype(np.float64), lowest)


def steps_to_reach(reference: Envelope, loss: float) -> float:
    """Return the step where the envelope gets to `loss` or below; infinity if it never does.

    Between two checks the step is interpolated, on the logarithm of the loss where both are
    positive.
    """
    if not np.isfinite(loss):
        return 0.0
    reached = np.flatnonzero(reference.losses <= loss)
    if not len(reached):
        return float("inf")
    end = int(reached[0])
    if end == 0:
        return 0.0
    high, low = reference.losses[end - 1], reference.losses[end]
    if low > _TINY and loss > _TINY:
        high, low, loss = np.log(high), np.log(low), float(np.log(loss))
    part = (high - loss) / (high - low) if high > low else 1.0  # Equal within rounding.
    start, stop = reference.steps[end - 1], reference.steps[end]
    return float(start + part * (stop - start))


def speedup(reference: Envelope, loss: float, num_steps: int) -> Speedup:
    """Return the speed-up of a candidate that has this training loss after `num_steps`."""
    steps = steps_to_reach(reference, loss)
    if steps > reference.horizon:
        return Speedup(reference.horizon / num_steps, capped=True)
    return Speedup(steps / num_steps, capped=False)


def best_rate(sweep: Sweep, split: str) -> int:
    """Return the learning rate's position with the lowest seed-mean loss of a split at the end.

    A rate at which a run was lost, diverged or hollow, is not chosen unless all have one; then the
    one with the fewest.
    """
    finals = sweep.losses[:, :, -1, SPLITS.index(split)].astype(np.float64)  # [L, S]
    lost = sweep.lost.sum(axis=1)
    means = np.where(np.isfinite(finals), finals, 0.0).sum(axis=1) / np.maximum(
        np.isfinite(finals).sum(axis=1), 1
    )
    # Fewest lost first, then the lowest mean.
    return int(np.lexsort((means, lost))[0])


def final_losses(sweep: Sweep, rate: int, split: str) -> np.ndarray:
    """Return the losses of each seed at the end, float64 [S]; infinite where the run was lost."""
    return sweep.losses[rate, :, -1, SPLITS.index(split)].astype(np.float64)
