"""Lines of a meta-training for its display, and the text that it prints at the end.

The display only reads: a run with another display, or none, is the same run.
"""

import collections
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from veldt.meta.train import config, meta_training
from veldt.tasks.common.formatting import duration
from veldt.tasks.common.progress.display import Display, Silent, Status

_SMOOTHED: Final = 50  # Updates that a figure is averaged over.


@final
class Recent:
    """Figures of the last updates."""

    def __init__(self) -> None:
        self._phase = ""
        self._clear()

    def _clear(self) -> None:
        self._losses: collections.deque[float] = collections.deque(maxlen=_SMOOTHED)
        self._norms: collections.deque[float] = collections.deque(maxlen=_SMOOTHED)
        self._steps: collections.deque[tuple[int, float]] = collections.deque(maxlen=_SMOOTHED)
        self._bad = 0

    def add(self, progress: meta_training.MetaTrainProgress, figures: Mapping[str, Any]) -> None:
        """Add an update."""
        if figures["phase"] != self._phase:
            self._clear()
            self._phase = figures["phase"]
        losses = [loss for loss in figures["meta_loss"] if math.isfinite(loss)]
        if losses:
            self._losses.append(float(np.mean(losses)))
        self._norms.append(figures["meta_grad_norm"])
        self._steps.append((progress.num_inner_steps, progress.wall_s))
        self._bad += figures["num_nonfinite"]

    @property
    def rate(self) -> float:
        """Inner steps per second."""
        (n0, s0), (n1, s1) = self._steps[0], self._steps[-1]
        return (n1 - n0) / (s1 - s0) if s1 > s0 else math.nan

    def seconds_left(self, num_updates: int) -> float:
        """Return the seconds until so many more updates are done."""
        if len(self._steps) < 2:
            return math.inf
        each = (self._steps[-1][1] - self._steps[0][1]) / (len(self._steps) - 1)
        return each * num_updates

    def line(
        self, settings: config.MetaTrainConfig, progress: meta_training.MetaTrainProgress
    ) -> str:
        """Return the state of the meta-training on one line."""
        left_s = self.seconds_left(settings.num_updates - progress.update)
        loss = float(np.mean(self._losses)) if self._losses else math.nan
        parts = [
            f"[{duration(progress.wall_s)}, {duration(left_s)} left] {self._phase}: update "
            f"{progress.update:,} of {settings.num_updates:,}",
            f"meta-loss {loss:.4f}",
            f"gradient norm {np.mean(self._norms):.3g}",
            f"{self.rate:,.0f} inner steps/s",
        ]
        if self._bad:
            parts.append(f"{self._bad:,} not finite")
        return "; ".join(parts)


def check_line(progress: meta_training.MetaTrainProgress, figures: Mapping[str, Any]) -> str:
    """Return the outcome of a meta-validation on one line."""
    tasks = ", ".join(f"{name} {value:+.3f}" for name, value in figures["tasks"].items())
    best = " (best)" if figures["score"] <= progress.best_score else ""
    num_hollow = figures.get("num_hollow", 0)
    lost = f"; {num_hollow} hollow runs, counted as the worst" if num_hollow else ""
    return (
        f"meta-validation after {progress.update:,}: {figures['score']:+.4f}{best}; {tasks}{lost}"
    )


def print_result(progress: meta_training.MetaTrainProgress, run_dir: Path) -> None:
    """Print the result of a finished run, and how to use it."""
    print(
        f"{progress.update:,} updates, {progress.num_inner_steps:,} inner steps, "
        f"{progress.worker_s / 3600:.2f} worker-hours in {duration(progress.wall_s)}"
    )
    if progress.best is not None:
        print(f"best on meta-validation: {progress.best_score:+.4f} (mean log loss)")
    print(f"wrote {run_dir / 'weights.npz'}; to use it:")
    print(f'  tx = veldt.learned_optimizer("{run_dir}", num_steps=1000)')
    print(f"  veldt evaluate {run_dir} --suite small")
    print(f"  veldt report {run_dir}")


@final
class TrainingView:
    """A view of a meta-training on a display."""

    def __init__(self, display: Display | None = None):
        self._display: Display = Silent() if display is None else display
        self._recent = Recent()
        self._check = ""

    def updated(
        self,
        settings: config.MetaTrainConfig,
        progress: meta_training.MetaTrainProgress,
        figures: Mapping[str, Any],
    ) -> None:
        """Show an update."""
        self._recent.add(progress, figures)
        line = self._recent.line(settings, progress)
        self._display.update(
            lambda: Status(
                line,
                done=progress.update,
                total=settings.num_updates,
                highlights=tuple(filter(None, (line, self._check))),
            )
        )
        if progress.update == settings.num_updates:
            self._display.log(line)

    def checked(
        self, progress: meta_training.MetaTrainProgress, figures: Mapping[str, Any]
    ) -> None:
        """Show a meta-validation."""
        self._check = check_line(progress, figures)
        self._display.log(self._check)

    def doing(self, text: str) -> None:
        """Show what is waited for until something new comes."""
        self._display.doing(text)

    def note(self, text: str) -> None:
        """Show a line that must be seen."""
        self._display.note(text)
