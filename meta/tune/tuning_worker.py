"""What the task pool runs for a tuning: training runs on some seeds, forward, backward, around.

A job carries seeds, meta-parameters and random bits, and its result is numbers, so it may run
anywhere, and again if a worker is lost. A worker keeps what would be made alike again: the task and
compiled programs. Only a tuning's own machine has the journal (`TuneConfig.journal`).
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

import jax
import jax.numpy as jnp
import numpy as np

from veldt.meta.replay import api, fallback, trust
from veldt.meta.tune import config, problem
from veldt.tasks.common import types

Arrays: TypeAlias = Mapping[str, np.ndarray]
"""Meta-parameters, or a gradient by them, by name."""

Rate: TypeAlias = Literal["tuned", "by_step"]
"""Form of a learning rate: as the tuning has it, or a number for each step."""


@final
@dataclasses.dataclass(frozen=True)
class ReplayJob:
    """A metagradient of the mean outcome of some runs; the value is a `ReplayOutcome`.

    Attributes:
      seeds: Numbers of the runs' seeds; see `problem.Problem.training`.
      meta_params: Meta-parameters of the runs.
      name: Name of the metagradient in the journal.
    """

    seeds: tuple[int, ...]
    meta_params: Arrays
    name: str


@final
@dataclasses.dataclass(frozen=True)
class ReplayOutcome:
    """The metagradient of some runs.

    Attributes:
      outcome: Mean outcome of the runs.
      gradient: Gradient of the mean outcome.
      plan: Plan of the stored states, in words.
      forward_steps: Number of steps run forward; 0 where the journal had all of it.
      peak_bytes: Most bytes that stored states took; None where the journal had all of it.
    """

    outcome: float
    gradient: Arrays
    plan: str
    forward_steps: int
    peak_bytes: int | None


@final
@dataclasses.dataclass(frozen=True)
class DifferenceJob:
    """Runs at both sides of the meta-parameters; the value is `trust.Differences`.

    Attributes:
      seeds: Numbers of the runs' seeds.
      meta_params: Meta-parameters in the middle.
      gradient: Gradient of the mean outcome of all parts there.
      key: Bits of the key of the directions.
      num_directions: Number of directions.
    """

    seeds: tuple[int, ...]
    meta_params: Arrays
    gradient: Arrays
    key: np.ndarray
    num_directions: int


@final
@dataclasses.dataclass(frozen=True)
class EstimateJob:
    """A gradient of the mean outcome by evolution strategies; the value is `Arrays`.

    Attributes:
      seeds: Numbers of the runs' seeds.
      meta_params: Meta-parameters that the gradient is taken at.
      key: Bits of the key of the noise.
    """

    seeds: tuple[int, ...]
    meta_params: Arrays
    key: np.ndarray


@final
@dataclasses.dataclass(frozen=True)
class OutcomeJob:
    """Runs to their end; the value is a `problem.Ended`.

    Attributes:
      seeds: Numbers of the runs' seeds.
      meta_params: Meta-parameters of the runs.
      rate: Form of the learning rate.
    """

    seeds: tuple[int, ...]
    meta_params: Arrays
    rate: Rate = "tuned"


TuningJob: TypeAlias = ReplayJob | DifferenceJob | EstimateJob | OutcomeJob


@final
@dataclasses.dataclass(frozen=True)
class TuningWorkerFactory:
    """A picklable factory of workers, for this process or another.

    Attributes:
      config: Settings of the tuning.
      journal: Folder for the metagradients' own progress; None keeps none.
    """

    config: config.TuneConfig
    journal: Path | None = None

    def __call__(self) -> "TuningWorker":
        return TuningWorker(self.config, self.journal)


@final
class TuningWorker:
    """A worker that does a tuning's jobs."""

    def __init__(self, settings: config.TuneConfig, journal: Path | None = None):
        """Load the task.

        Raises:
          TaskError: The task cannot be loaded.
        """
        self._config = settings
        self._journal = journal
        self._subject = problem.Problem(settings)

    def __call__(self, payload: object) -> object:
        match payload:
            case ReplayJob():
                return self._replay(payload)
            case DifferenceJob(seeds, meta_params, gradient, bits, num_directions):
                return trust.differences(
                    self._subject.training(seeds),
                    _on_device(meta_params),
                    _on_device(gradient),
                    _key(bits),
                    num_directions=num_directions,
                )
            case EstimateJob(seeds, meta_params, bits):
                training = self._subject.training(seeds)
                return _plain(fallback.estimate(training, _on_device(meta_params), _key(bits)))
            case OutcomeJob(seeds, meta_params, rate):
                subject = self._subject if rate == "tuned" else self._with_rate_by_step
                return problem.end(subject.training(seeds), _on_device(meta_params))
        raise TypeError(f"a tuning has no job {type(payload).__name__}")

    def _replay(self, job: ReplayJob) -> ReplayOutcome:
        found = api.replay(
            self._subject.training(job.seeds),
            _on_device(job.meta_params),
            memory_bytes=int(self._config.memory_mb * 2**20),
            directory=None if self._journal is None else self._journal / job.name,
        )
        return ReplayOutcome(
            float(found.outcome),
            _plain(found.gradient),
            found.plan.describe(),
            0 if found.cost is None else found.cost.forward_steps,
            None if found.cost is None else found.cost.peak_bytes,
        )

    @functools.cached_property
    def _with_rate_by_step(self) -> problem.Problem:
        return self._subject.with_rate_by_step()


def key_bits(key: types.Key) -> np.ndarray:
    """Return a key as a job carries it."""
    return np.asarray(jax.random.key_data(key))


def _key(bits: np.ndarray) -> types.Key:
    return jax.random.wrap_key_data(jnp.asarray(bits))


def _on_device(meta_params: Arrays) -> dict[str, Any]:
    return {name: jnp.asarray(value) for name, value in meta_params.items()}


def _plain(gradient: Mapping[str, Any]) -> Arrays:
    return {name: np.asarray(value) for name, value in gradient.items()}
