"""`TrainedOptimizer`: the result of a meta-training, read from its run directory."""

import dataclasses
import math
from pathlib import Path
from typing import Any, Self, final

import optax

from veldt.learned_opt import weight_files
from veldt.learned_opt.base import NumSteps
from veldt.learned_opt.weight_files import Weights
from veldt.meta.train import report, training_data
from veldt.meta.train.config import MetaTrainConfig
from veldt.tasks.common import errors, formatting
from veldt.tasks.common.disk import atomic_files
from veldt.tasks.common.html import shown_page
from veldt.tasks.common.html.markup import definitions, tag
from veldt.tasks.common.html.shown_page import ShownPage


@final
@dataclasses.dataclass(frozen=True)
class TrainedOptimizer:
    """The result of a meta-training, or of as much of it as has been done.

    Attributes:
      weights: Learned optimizer with its weights: the best by meta-validation, or the last ones.
      num_updates: Number of updates done.
      meta_losses: Mean meta-loss of each update over the task families; NaN where none was finite.
      checks: Meta-validations: number of updates done before, and score; lower is better.
      config: Config of the meta-training.
      run_dir: Directory of the run.
    """

    weights: Weights
    num_updates: int
    meta_losses: tuple[float, ...]
    checks: tuple[tuple[int, float], ...]
    config: MetaTrainConfig
    run_dir: Path

    @classmethod
    def read(cls, run_dir: Path) -> Self:
        """Read the result of the meta-training in a directory.

        Raises:
          MetaTrainError: There is no run, it has no update yet, or its log is damaged.
          WeightsError: The weight file is damaged.
        """
        data = training_data.read(run_dir)
        if data.weights is None:
            raise errors.VeldtError(f"the meta-training in {run_dir} has written no weights yet")
        losses = [[loss for loss in line.meta_loss if math.isfinite(loss)] for line in data.updates]
        return cls(
            weights=data.weights,
            num_updates=len(data.updates),
            meta_losses=tuple(sum(row) / len(row) if row else math.nan for row in losses),
            checks=tuple((check.update, check.score) for check in data.checks),
            config=data.config,
            run_dir=run_dir,
        )

    @property
    def finished(self) -> bool:
        """Whether all updates are done."""
        return self.num_updates >= self.config.num_updates

    def as_optax(
        self, num_steps: NumSteps = None, **options: Any
    ) -> optax.GradientTransformationExtraArgs:
        """Return the learned optimizer as an Optax transform; see `veldt.learned_optimizer`.

        Args:
          num_steps: Length of the training run, where the architecture reads it.
          **options: Further options of the architecture.
        """
        return self.weights.as_optax(num_steps, **options)

    def to_records(self) -> list[dict[str, Any]]:
        """Return the updates as dictionaries, with the score of a meta-validation after each."""
        scores = dict(self.checks)
        return [
            {"update": number, "meta_loss": loss, "meta_validation": scores.get(number)}
            for number, loss in enumerate(self.meta_losses, 1)
        ]

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

    def export(self, path: str | Path) -> Path:
        """Write the weight file, which `veldt.learned_optimizer` takes, and return its path.

        Raises:
          FileError: It cannot be written.
        """
        atomic_files.make_folder(Path(path).parent)
        weight_files.write(Path(path), self.weights)
        return Path(path)

    def _facts(self) -> dict[str, str]:
        finite = [score for _, score in self.checks if math.isfinite(score)]
        return {
            "architecture": self.weights.name,
            "updates": f"{self.num_updates:,} of {self.config.num_updates:,}",
            "meta-validation": f"{min(finite):+.4f} (best of {len(self.checks)}; mean log loss)"
            if finite
            else "none",
            "run directory": str(self.run_dir),
        }

    def __repr__(self) -> str:
        facts = "; ".join(f"{name}: {fact}" for name, fact in self._facts().items())
        return f"Learned optimizer. {facts}"

    def _repr_html_(self) -> str:
        return tag("div", tag("b", "Learned optimizer"), definitions(self._facts()))
