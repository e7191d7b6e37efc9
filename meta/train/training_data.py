"""The files of a meta-training, read for its report."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, final

import numpy as np

from veldt.learned_opt import shipped, weight_files
from veldt.meta import errors
from veldt.meta.train import log
from veldt.meta.train.config import MetaTrainConfig, PhaseConfig
from veldt.meta.train.meta_figures import Curve, Stretch
from veldt.tasks.common.config import codec, older_config
from veldt.tasks.common.disk import run_directory


@final
@dataclasses.dataclass(frozen=True)
class Update:
    """The log line of an update.

    Attributes:
      meta_loss: Meta-loss of each family; NaN where it was not finite.
      meta_grad_norm: Norm of the gradient that was applied.
      num_nonfinite: Number of estimates that were not finite and were left out.
      num_inner_steps: Number of training steps.
      worker_s: Seconds of workers.
      wall_s: Seconds since the beginning, of all sessions.
    """

    meta_loss: tuple[float, ...]
    meta_grad_norm: float
    num_nonfinite: float
    num_inner_steps: float
    worker_s: float
    wall_s: float

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Self:
        """Return the update of a line."""
        return cls(
            meta_loss=tuple(map(log.number, line["meta_loss"])),
            meta_grad_norm=log.number(line["meta_grad_norm"]),
            num_nonfinite=float(line["num_nonfinite"]),
            num_inner_steps=float(line["num_inner_steps"]),
            worker_s=float(line["worker_s"]),
            wall_s=float(line["wall_s"]),
        )


@final
@dataclasses.dataclass(frozen=True)
class Check:
    """The log line of a meta-validation.

    Attributes:
      update: Number of updates done before it.
      score: Mean over the tasks; NaN where it was not finite.
      tasks: Score of each task; NaN where it was not finite.
    """

    update: int
    score: float
    tasks: Mapping[str, float]

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Self:
        """Return the check of a line."""
        tasks = {str(name): log.number(value) for name, value in line["tasks"].items()}
        return cls(int(line["update"]), log.number(line["score"]), tasks)


@final
@dataclasses.dataclass(frozen=True)
class TrainingData:
    """The contents of a run's files.

    Attributes:
      config: Config of the run.
      updates: Log lines of the updates, in order.
      checks: Log lines of the meta-validations.
      weights: Best weights so far; None before the first checkpoint.
      phases: Phases begun, with their settings.
    """

    config: MetaTrainConfig
    updates: Sequence[Update]
    checks: Sequence[Check]
    weights: weight_files.Weights | None
    phases: Sequence[tuple[Stretch, PhaseConfig]]

    @property
    def finished(self) -> bool:
        """Whether all updates are done."""
        return len(self.updates) >= self.config.num_updates

    @property
    def meta_loss(self) -> Curve:
        """The meta-loss of each family and update, float64 [E, U]."""
        return np.array([line.meta_loss for line in self.updates], np.float64).T

    def total(self, name: str, stretch: Stretch | None = None) -> float:
        """Return the sum of a figure over the updates of a phase, or over all."""
        first, last = (0, None) if stretch is None else (stretch.first, stretch.last)
        return math.fsum(getattr(line, name) for line in self.updates[first:last])

    @property
    def families(self) -> list[str]:
        """The names of the families, or numbers before the first weights."""
        count = len(self.updates[0].meta_loss)
        known = [] if self.weights is None else self.weights.record.get("families", [])
        return list(known) if len(known) == count else [f"family {i}" for i in range(count)]


def read(run_dir: Path) -> TrainingData:
    """Return the contents of a run's files.

    Raises:
      MetaTrainError: There is no run, it has no update yet, or its log is damaged.
      ConfigError: The config is damaged.
      WeightsError: The weight file is damaged.
    """
    if run_directory.kind_of(run_dir) != "meta-train":
        raise errors.MetaTrainError(f"there is no meta-training in {run_dir}")
    stored = older_config.fill(MetaTrainConfig, run_directory.read_config(run_dir))
    config: MetaTrainConfig = codec.from_plain(MetaTrainConfig, stored, str(run_dir))
    updates = log.parse(run_dir, {"update": Update.of})["update"]
    checks = log.parse(run_dir, {"check": Check.of})["check"]
    if not updates:
        raise errors.MetaTrainError(f"the meta-training in {run_dir} has done no update yet")
    if len({len(line.meta_loss) for line in updates}) > 1:
        raise errors.MetaTrainError(f"the log in {run_dir} is not of one meta-training")
    names = {tuple(check.tasks) for check in checks}
    if len(names) > 1:
        raise errors.MetaTrainError(f"the log in {run_dir} has checks of different tasks")
    found = run_dir / shipped.RUN_FILE
    phases, first = [], 0
    for phase in config.phases:
        last = min(first + phase.num_updates, len(updates))
        if last > first:
            phases.append((Stretch(phase.name, first, last), phase))
        first += phase.num_updates
    weights = weight_files.read(found) if found.exists() else None
    return TrainingData(config, updates, checks, weights, phases)
