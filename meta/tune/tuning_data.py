"""What a tuning has written down, read for its report."""

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
    """An update's line of the log.

    Attributes:
      update: Updates done with it.
      outcome: The mean outcome of the runs that the gradient was of; infinite if not finite.
      seconds: Seconds that the metagradient took.
      plan: Which states were stored, in words.
      hyperparameters: The values after the update: one for a number, K for a schedule.
      method: How the gradient was had: "replay" or an estimator's name.
      metasmoothness: The metasmoothness, where it was measured.
      verdict: Whether the metagradient was trusted, in words.
    """

    update: int
    outcome: float
    seconds: float
    plan: str
    hyperparameters: Mapping[str, tuple[float, ...]]
    method: str
    metasmoothness: float | None
    verdict: str

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Self:
        """Return what a line says."""
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
            verdict=str(line["verdict"]),
        )


@final
@dataclasses.dataclass(frozen=True)
class Check:
    """A check's line of the log: runs on fixed seeds, by which the best is kept.

    Attributes:
      update: Updates done before it.
      outcome: The mean outcome; infinite if not finite.
    """

    update: int
    outcome: float

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Self:
        """Return what a line says."""
        return cls(int(line["update"]), _outcome(line["outcome"]))


@final
@dataclasses.dataclass(frozen=True)
class TuningData:
    """What a run has written down.

    Attributes:
      config: The run's config.
      updates: Lines of the log, one for each update, in order.
      checks: Lines of the log, one for each check on the fixed seeds.
    """

    config: TuneConfig
    updates: Sequence[Update]
    checks: Sequence[Check]

    @property
    def best(self) -> Check:
        """The check with the lowest outcome."""
        return self.checks[lowest(check.outcome for check in self.checks) or 0]


def read(run_dir: Path) -> TuningData:
    """Return what a run has written down.

    Raises:
      MetaTrainError: There is no tuning, it has written nothing down yet, or its log is damaged.
      ConfigError: Its config is damaged.
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
