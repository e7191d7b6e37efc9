"""The jobs of a search's workers and their results: runs and outcomes.

A job names a program, a learning rate and a list of runs (proxy, seed). Whatever goes wrong in
training is a status beside the loss, never a NaN and never an exception.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from veldt.search.evaluation.genotype import Genotype, constants_text


@final
class Status(enum.StrEnum):
    """The status of an evaluation."""

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
    """One training run: a proxy and a seed."""

    proxy: int
    seed: int


@final
@dataclass(frozen=True, slots=True)
class EvalJob:
    """A job of the pool's worker: training runs of one rule.

    Attributes:
      genotype: Program and learning rate.
      runs: Training runs, in order; the first one that fails ends the job.
      hurdle: Log losses at the chunks of each run that the candidate must not exceed; empty for no
        hurdle.
      race: Running totals at the checks of each run that it must not exceed: the final log losses
        of the runs that have ended plus the check's own (`racing.py`); empty for no race.
      mean: Mean log losses over all runs, at the first check of each, at the second and so on, that
        it must not exceed; then the runs are made together. Empty for no such hurdle.
      tuned: Whether the program's constants differ from those of the candidate in the store; the
        result does not depend on it.
      candidate: Candidate of the job, as the store counts; the result does not depend on it.
      purpose: Purpose of the job, as the store names it; the result does not depend on it.
    """

    genotype: Genotype
    runs: tuple[ProxyRun, ...]
    hurdle: tuple[tuple[float, ...], ...] = ()
    candidate: int = 0
    purpose: str = "fitness"
    race: tuple[tuple[float, ...], ...] = ()
    tuned: bool = False
    mean: tuple[float, ...] = ()

    @property
    def constants(self) -> str:
        """The store's name of the candidate's variant: empty for its own program."""
        return constants_text(self.genotype.program) if self.tuned else ""

    def limits(self, position: int, ended: float) -> tuple[float, ...]:
        """Return the limits of a run's checks: the lower of hurdle and race; empty for neither.

        Args:
          position: Position of the run in the job.
          ended: Sum of the final log losses of the runs before it.
        """
        hurdle = self.hurdle[position] if self.hurdle else ()
        if not self.race:
            return hurdle
        left = tuple(level - ended for level in self.race[position])
        return tuple(map(min, zip(hurdle, left, strict=True))) if hurdle else left


@final
@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of one training run.

    Attributes:
      run: Proxy and seed.
      status: One of ok, rejected, diverged and hollow.
      loss: Validation loss at the last check in the task's own units; None where it is not finite.
      log_losses: Finite values compared with the hurdle at each check made; the last one is the
        score where the run is ok.
      num_steps: Training steps done, at all learning rates of the objective.
      wall_s: Seconds, without compiling.
      message: Reason of a hollow run.
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
    """The result of a job.

    Attributes:
      status: First status that is not ok, or ok.
      fitness: Mean of the runs' scores; None unless the status is ok.
      runs: Runs that were made.
      message: Description of an error.
    """

    status: Status
    fitness: float | None
    runs: tuple[RunResult, ...] = ()
    message: str = ""

    @classmethod
    def of(cls, runs: Sequence[RunResult]) -> "Outcome":
        """Return the outcome of runs of which only the last may have failed."""
        if runs[-1].status is not Status.OK:
            return cls(runs[-1].status, None, tuple(runs), runs[-1].message)
        mean = np.mean([run.log_losses[-1] for run in runs])
        return cls(Status.OK, float(mean), tuple(runs))
