"""Measures of `unseen.py`: gains and speed-ups over a tuned baseline, by task and over tasks.

What is measured, and why, is in the docstring of `unseen.py`. Everything here is computed from the
logarithms of normalised losses, cut off at `NOTHING_LEARNT` and at the floor of `hollow`.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, final

import numpy as np

from veldt.search.config import objectives
from veldt.tasks.benchmark.runs.sweep import SPLITS, Sweep
from veldt.tasks.benchmark.scores import aggregate

MEASURES: Final = ("gain", "held_out_gain", "speedup")
BOTH: Final = "both"
CHOICES: Final = ("own_rate", "one_rate")
"""The rate of each task by itself, or one rate for all tasks."""
_TRAIN, _TEST = SPLITS.index("train"), SPLITS.index("test")

Normalizer = Callable[[np.ndarray], np.ndarray]


@final
@dataclass(frozen=True, eq=False)
class Curves:
    """The runs of a candidate on a task under one schedule, as logarithms of normalised losses.

    Attributes:
      rates: Peak learning rates, float64 [L].
      steps: Steps of the checks, float64 [K].
      train: Training losses, float64 [L, S, K].
      test: Held-out losses at the end, float64 [L, S].
      failed: Whether each run diverged or is hollow, bool [L, S].
    """

    rates: np.ndarray
    steps: np.ndarray
    train: np.ndarray
    test: np.ndarray
    failed: np.ndarray

    @classmethod
    def of(cls, sweep: Sweep, normalizer: Normalizer) -> "Curves":
        """Return a sweep's curves; a failed run has learnt nothing at any check."""
        failed = sweep.lost
        train = _log(normalizer(sweep.losses[..., _TRAIN]))
        test = _log(normalizer(sweep.losses[:, :, -1, _TEST]))
        return cls(
            sweep.rates,
            sweep.steps.astype(np.float64),
            np.where(failed[..., None], objectives.NOTHING_LEARNT, train),
            np.where(failed, objectives.NOTHING_LEARNT, test),
            failed,
        )

    @property
    def by_rate(self) -> np.ndarray:
        """The training loss at the end of each rate, the mean over seeds, float64 [L]."""
        return self.train[:, :, -1].mean(axis=1)


def _log(normalized: np.ndarray) -> np.ndarray:
    """Return logarithms within the limits; what is not a number has learnt nothing."""
    values = np.asarray(normalized, np.float64)
    values = np.where(np.isfinite(values), values, 1.0)
    floor = math.exp(objectives.MIN_LOG_LOSS)
    return np.minimum(np.log(np.maximum(values, floor)), objectives.NOTHING_LEARNT)


class At(NamedTuple):
    """The runs of a candidate on a task at the rate that counts.

    Attributes:
      curves: Runs at all rates.
      rate: Position of the rate.
    """

    curves: Curves
    rate: int

    def train(self, drawn: Any = slice(None)) -> np.ndarray:
        """Return the training curve, the mean over drawn seeds, float64 [K]."""
        return self.curves.train[self.rate, drawn].mean(axis=0)

    def test(self, drawn: Any = slice(None)) -> float:
        """Return the held-out loss at the end, the mean over drawn seeds."""
        return float(self.curves.test[self.rate, drawn].mean())


def last_above(steps: np.ndarray, curve: np.ndarray, loss: float) -> float:
    """Return the step from which a curve stays below `loss`, by interpolation; 0 if it always is.

    For the loss at the curve's own end it is the last step.
    """
    above = np.flatnonzero(curve >= loss)
    if not len(above):
        return 0.0
    last = int(above[-1])
    if last == len(curve) - 1:
        return float(steps[-1])
    part = (curve[last] - loss) / (curve[last] - curve[last + 1])
    return float(steps[last] + part * (steps[last + 1] - steps[last]))


def log_speedup(steps: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the logarithm of the speed-up of one curve over another.

    Args:
      steps: Steps of the checks, float64 [K], the first 0.
      ours: Logarithms of the candidate's losses, float64 [K].
      theirs: Logarithms of the baseline's losses, float64 [K].
    """
    shortest, whole = float(steps[1]), float(steps[-1])
    if ours[-1] <= theirs[-1]:
        return math.log(whole / max(last_above(steps, ours, theirs[-1]), shortest))
    return math.log(max(last_above(steps, theirs, ours[-1]), shortest) / whole)


def measure(name: str, ours: At, theirs: At, drawn: Any = slice(None)) -> float:
    """Return one of `MEASURES` on a task, the speed-up as its logarithm."""
    if name == "gain":
        return float(ours.train(drawn)[-1] - theirs.train(drawn)[-1])
    if name == "held_out_gain":
        return ours.test(drawn) - theirs.test(drawn)
    return log_speedup(ours.curves.steps, ours.train(drawn), theirs.train(drawn))


Runs = Mapping[str, Mapping[str, Mapping[str, Curves]]]
"""Curves by schedule, candidate and task."""


def chosen(runs: Mapping[str, Curves], choice: str) -> dict[str, At]:
    """Return the runs of a candidate under a schedule at the rate that counts, by task.

    Args:
      runs: Runs by task.
      choice: One of `CHOICES`.
    """
    shared = int(np.argmin(np.mean([one.by_rate for one in runs.values()], axis=0)))
    return {
        task: At(one, shared if choice == "one_rate" else int(np.argmin(one.by_rate)))
        for task, one in runs.items()
    }


@final
class Scores:
    """The measures of candidates over baselines.

    Args:
      runs: Curves by schedule, candidate and task; every candidate has every task.
    """

    def __init__(self, runs: Runs):
        self._at = {
            (choice, schedule, name): chosen(by_task, choice)
            for choice in CHOICES
            for schedule, by_name in runs.items()
            for name, by_task in by_name.items()
        }
        self._schedules = tuple(runs)
        self._tasks = tuple(next(iter(next(iter(runs.values())).values())))

    def over_tasks(
        self, choice: str, schedule: str, name: str, baseline: str, measured: str
    ) -> aggregate.Interval:
        """Return the interquartile mean over tasks, with its interval; the speed-up as a factor.

        Args:
          choice: One of `CHOICES`.
          schedule: Schedule, or `BOTH`: a task then has the mean over schedules.
          name: Candidate.
          baseline: Candidate that it is compared with.
          measured: One of `MEASURES`.
        """
        schedules = self._schedules if schedule == BOTH else (schedule,)
        ours, theirs = (
            [self._at[choice, one, who] for one in schedules] for who in (name, baseline)
        )

        def score(index: int, drawn: np.ndarray) -> float:
            task = self._tasks[index]
            pairs = zip(ours, theirs, strict=True)
            return float(np.mean([measure(measured, a[task], b[task], drawn) for a, b in pairs]))

        seeds = [np.arange(ours[0][task].curves.train.shape[1]) for task in self._tasks]
        found = aggregate.bootstrap(seeds, score, draw_tasks=True)
        if measured == "speedup":
            return aggregate.Interval(*map(math.exp, (found.value, found.low, found.high)))
        return found

    def aggregates(self, name: str, baselines: Sequence[str]) -> dict[str, Any]:
        """Return a candidate's measures by choice of the rate, schedule and baseline."""
        return {
            choice: {
                schedule: {
                    baseline: {
                        measured: dataclasses.asdict(
                            self.over_tasks(choice, schedule, name, baseline, measured)
                        )
                        for measured in MEASURES
                    }
                    for baseline in baselines
                }
                for schedule in (*self._schedules, BOTH)
            }
            for choice in CHOICES
        }

    def on_task(
        self, schedule: str, name: str, task: str, baselines: Sequence[str]
    ) -> dict[str, Any]:
        """Return a candidate's numbers on a task under a schedule, by choice of the rate."""
        found: dict[str, Any] = {}
        for choice in CHOICES:
            at = self._at[choice, schedule, name][task]
            curves, rate = at
            found[choice] = {
                "rate": float(curves.rates[rate]),
                "at_edge": rate in (0, len(curves.rates) - 1),
                "train": float(at.train()[-1]),
                "held_out": at.test(),
                "failed": int(curves.failed[rate].sum()),
                "over": {
                    baseline: self._over(at, self._at[choice, schedule, baseline][task])
                    for baseline in baselines
                },
            }
        found["failed_of_all"] = float(curves.failed.mean())
        own = self._at["own_rate", schedule, name][task]
        found["curve"] = [round(float(value), 4) for value in own.train()]
        return found

    def _over(self, ours: At, theirs: At) -> dict[str, float]:
        found = {name: measure(name, ours, theirs) for name in MEASURES}
        return {**found, "speedup": math.exp(found["speedup"])}
