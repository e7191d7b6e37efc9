"""The files of a tuning, read for its report."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, final

from veldt.meta import errors
from veldt.meta.train import log
from veldt.meta.tune.config import TuneConfig
from veldt.tasks.common.config import codec, older_config
from veldt.tasks.common.disk import run_directory
from veldt.tasks.common.nan_last import lowest


@final
@dataclasses.dataclass(frozen=True)
class Update:
    """The log line of an update.

    Attributes:
      update: Number of updates done, with this one.
      outcome: Mean outcome of the runs of the gradient; infinite if not finite.
      seconds: Seconds that the metagradient took.
      plan: Plan of the stored states, in words.
      hyperparameters: Values after the update: one for a number, K for a schedule.
      method: Origin of the gradient: "replay" or an estimator's name.
      metasmoothness: Metasmoothness, where it was measured.
      conclusion: Whether the metagradient was trusted, in words.
    """

    update: int
    outcome: float
    seconds: float
    plan: str
    hyperparameters: Mapping[str, tuple[float, ...]]
    method: str
    metasmoothness: float | None
    conclusion: str

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Self:
        """Return the update of a line."""
        smoothness = line["metasmoothness"]
        return cls(
            update=int(line["update"]),
            outcome=_outcome(line["outcome"]),
            seconds=float(line["seconds"]),
            plan=str(line["plan"]),
            hyperparameters={
                str(name): tuple(map(_outcome, value if isinstance(value, list) else [value]))
                for name, value in line["hyperparameters"].items()
            },
            method=str(line["method"]),
            metasmoothness=None if smoothness is None else float(smoothness),
            conclusion=str(line["verdict"]),  # The name in logs of every version.
        )


@final
@dataclasses.dataclass(frozen=True)
class Check:
    """The log line of a check: runs on fixed seeds, by which the best is kept.

    Attributes:
      update: Number of updates done before it.
      outcome: Mean outcome; infinite if not finite.
    """

    update: int
    outcome: float

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Self:
        """Return the check of a line."""
        return cls(int(line["update"]), _outcome(line["outcome"]))


@final
@dataclasses.dataclass(frozen=True)
class TuningData:
    """The contents of a run's files.

    Attributes:
      config: Config of the run.
      updates: Log lines of the updates, in order.
      checks: Log lines of the checks on the fixed seeds.
    """

    config: TuneConfig
    updates: Sequence[Update]
    checks: Sequence[Check]

    @property
    def best(self) -> Check:
        """The check with the lowest outcome."""
        return self.checks[lowest(check.outcome for check in self.checks) or 0]


def read(run_dir: Path) -> TuningData:
    """Return the contents of a run's files.

    Raises:
      MetaTrainError: There is no tuning, it has no update yet, or its log is damaged.
      ConfigError: The config is damaged.
    """
    stored = older_config.fill(TuneConfig, run_directory.read_config(run_dir))
    config: TuneConfig = codec.from_plain(TuneConfig, stored, str(run_dir))
    updates = log.parse(run_dir, {"update": Update.of})["update"]
    checks = log.parse(run_dir, {"check": Check.of})["check"]
    if not updates or not checks:
        raise errors.MetaTrainError(f"the tuning in {run_dir} has done no update yet")
    if len({tuple((k, len(v)) for k, v in one.hyperparameters.items()) for one in updates}) > 1:
        raise errors.MetaTrainError(f"the log in {run_dir} is not of one tuning")
    return TuningData(config, updates, checks)


def _outcome(value: Any) -> float:
    """Return a figure of the log, where what is not finite is null: worse than any."""
    number = log.number(value)
    return math.inf if math.isnan(number) else number
