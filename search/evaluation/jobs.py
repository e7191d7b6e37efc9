"""What a search asks of its workers, and what comes back: jobs, runs, outcomes.

A job names a program, a learning rate and a list of runs (proxy, seed). What goes wrong in training
is a status beside the loss, never a NaN and never an exception.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from veldt.search.evaluation.genotype import Genotype, constants_text


@final
class Status(enum.StrEnum):
    """What became of an evaluation."""

    OK = "ok"
    REJECTED = "rejected"  # worse than the hurdle allows; not trained to the end
    DIVERGED = "diverged"  # a loss, an update or a user's score was NaN or infinite
    HOLLOW = "hollow"  # its loss is the arithmetic's doing, or its update ignores the gradient
    TIMEOUT = "timeout"
    KILLED = "killed"  # its workers died under it, each time it was tried
    ERROR = "error"


@final
@dataclass(frozen=True, slots=True)
class ProxyRun:
    """One training run: which proxy, which seed."""

    proxy: int
    seed: int


@final
@dataclass(frozen=True, slots=True)
class EvalJob:
    """What the pool's worker is asked to do.

    Attributes:
      genotype: the program and its learning rate.
      runs: the training runs, in order; the first one that fails ends the job.
      hurdle: for each run, the log losses at its chunks that the candidate must not exceed; empty
        for no hurdle.
      race: likewise, the running totals that it must not exceed: the final log losses of the runs
        that have ended plus the check's own (`racing.py`); empty for no race.
      tuned: whether the program's constants are others than the candidate's, as the store counts;
        the result does not depend on it.
      candidate: whose job it is, as the store counts; the result does not depend on it.
      purpose: what it is for, as the store names it; the result does not depend on it.
    """

    genotype: Genotype
    runs: tuple[ProxyRun, ...]
    hurdle: tuple[tuple[float, ...], ...] = ()
    candidate: int = 0
    purpose: str = "fitness"
    race: tuple[tuple[float, ...], ...] = ()
    tuned: bool = False

    @property
    def constants(self) -> str:
        """What the store tells the candidate's variants by: empty for its own program."""
        return constants_text(self.genotype.program) if self.tuned else ""

    def limits(self, position: int, ended: float) -> tuple[float, ...]:
        """What a run's checks must not exceed: of hurdle and race, the lower; empty for neither.

        Args:
          position: of the run.
          ended: the sum of the final log losses of the runs before it.
        """
        hurdle = self.hurdle[position] if self.hurdle else ()
        if not self.race:
            return hurdle
        left = tuple(level - ended for level in self.race[position])
        return tuple(map(min, zip(hurdle, left, strict=True))) if hurdle else left


@final
@dataclass(frozen=True, slots=True)
class RunResult:
    """One training run's end.

    Attributes:
      run: which.
      status: ok, rejected, diverged or hollow.
      loss: validation loss at the last check in the task's own units; None where it is not finite.
      log_losses: what stands against the hurdle at each check made, finite; where the run is ok,
        the last one is its score.
      num_steps: training steps done, at all learning rates of the objective.
      wall_s: seconds, without compiling.
      message: why it is hollow.
    """

    run: ProxyRun
    status: Status
    loss: float | None
    log_losses: tuple[float, ...]
    num_steps: int
    wall_s: float
    message: str = ""


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job.

    Attributes:
      status: the first status that is not ok, or ok.
      fitness: mean of the runs' scores; None unless the status is ok.
      runs: the runs made.
      message: what went wrong, for an error.
    """

    status: Status
    fitness: float | None
    runs: tuple[RunResult, ...] = ()
    message: str = ""

    @classmethod
    def of(cls, runs: Sequence[RunResult]) -> "Outcome":
        """What runs come to, of which only the last may have failed."""
        if runs[-1].status is not Status.OK:
            return cls(runs[-1].status, None, tuple(runs), runs[-1].message)
        mean = np.mean([run.log_losses[-1] for run in runs])
        return cls(Status.OK, float(mean), tuple(runs))
