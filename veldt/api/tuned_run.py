"""`TunedRun`: the result of `veldt tune`, read from its run directory."""

import dataclasses
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, final

import numpy as np

from veldt.meta.tune import comparison, report, schedule_file, tuning_data
from veldt.meta.tune.config import TuneConfig
from veldt.tasks.common import errors, formatting
from veldt.tasks.common.disk import npz
from veldt.tasks.common.html import shown_page
from veldt.tasks.common.html.markup import definitions, tag
from veldt.tasks.common.html.shown_page import ShownPage


@final
@dataclasses.dataclass(frozen=True)
class TunedRun:
    """The result of a tuning, or of as much of it as has been done.

    Attributes:
      numbers: Best hyperparameters by name: numbers, or the values of a schedule at its knots.
      outcome: Outcome of these on the fixed seeds.
      first_outcome: Outcome at the start.
      num_updates: Number of updates done.
      outcomes: Outcome of each update, before the update.
      compared: Lines on how the best does beside a constant learning rate and a cosine; empty where
        they are not compared.
      config: Config of the tuning.
      run_dir: Directory of the run.
    """

    numbers: Mapping[str, np.ndarray]
    outcome: float
    first_outcome: float
    num_updates: int
    outcomes: tuple[float, ...]
    compared: tuple[str, ...]
    config: TuneConfig
    run_dir: Path

    @classmethod
    def read(cls, run_dir: Path) -> Self:
        """Read the result of the tuning in a directory.

        Raises:
          MetaTrainError: There is no tuning, it has no update yet, or its log is damaged.
          FileError: A file cannot be read.
        """
        data = tuning_data.read(run_dir)
        return cls(
            numbers=_read_arrays(run_dir / schedule_file.ARRAYS_FILE),
            outcome=data.best.outcome,
            first_outcome=data.checks[0].outcome,
            num_updates=data.updates[-1].update,
            outcomes=tuple(update.outcome for update in data.updates),
            compared=tuple(comparison.lines(comparison.read(run_dir))),
            config=data.config,
            run_dir=run_dir,
        )

    @property
    def finished(self) -> bool:
        """Whether all updates are done."""
        return self.num_updates >= self.config.num_updates

    def to_records(self) -> list[dict[str, Any]]:
        """Return the updates as dictionaries."""
        return [{"update": i, "outcome": outcome} for i, outcome in enumerate(self.outcomes)]

    def to_pandas(self) -> Any:
        """Return the updates as a pandas DataFrame.

        Raises:
          VeldtError: pandas is not installed.
        """
        return formatting.data_frame(self.to_records())

    def plot(self) -> ShownPage:
        """Return the plots of the run's course, which a notebook shows."""
        return ShownPage(report.render_plots(self.run_dir), shown_page.PLOT_HEIGHT)

    def report(self, path: str | Path | None = None) -> ShownPage:
        """Write the report, and return it, so that a notebook shows it.

        Args:
          path: File to write; None for `report.html` in the run directory.

        Raises:
          FileError: The file cannot be written.
        """
        written = report.write_report(self.run_dir, None if path is None else Path(path))
        return ShownPage(written.read_text(encoding="utf-8"), path=written)

    def _facts(self) -> dict[str, str]:
        length = f"{self.config.num_steps:,} steps of {self.config.optimizer}"
        return {
            "task": f"{self.config.task}, {length}",
            "tuned": ", ".join(self.config.tune),
            "outcome": f"{self.outcome:.5g}, {self.first_outcome:.5g} at the start",
            "updates": f"{self.num_updates:,} of {self.config.num_updates:,}",
            "run directory": str(self.run_dir),
        }

    def __repr__(self) -> str:
        facts = "; ".join(f"{name}: {fact}" for name, fact in self._facts().items())
        return "\n".join([f"Tuning. {facts}", *self.compared])

    def _repr_html_(self) -> str:
        lines = [tag("div", line) for line in self.compared]
        return tag("div", tag("b", "Tuning"), definitions(self._facts()), *lines)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return npz.read(path.read_bytes())
    except OSError as error:
        raise errors.FileError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, zipfile.BadZipFile) as error:
        raise errors.FileError(f"{path} is damaged: {error}; restore it from a copy") from None
