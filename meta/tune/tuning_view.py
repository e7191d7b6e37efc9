"""Lines of a tuning for its display, and the text that it prints at the end."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from veldt.meta.tune import comparison, config, loop, schedule_file
from veldt.tasks.common.formatting import duration
from veldt.tasks.common.progress.display import Display, Silent, Status


def update_line(
    settings: config.TuneConfig, progress: loop.TuningProgress, figures: Mapping[str, Any]
) -> str:
    """Return a line on an update."""
    left_s = progress.wall_s / progress.update * (settings.num_updates - progress.update)
    method = "" if figures["method"] == "replay" else f"; by {figures['method']}"
    return (
        f"[{duration(progress.wall_s)}, {duration(left_s)} left] update {progress.update:,} of "
        f"{settings.num_updates:,}: outcome {figures['outcome']:.5g}; gradient norm "
        f"{figures['meta_grad_norm']:.3g}{method}"
    )


def check_line(progress: loop.TuningProgress, figures: Mapping[str, Any]) -> str:
    """Return the outcome on the fixed seeds on one line."""
    best = " (best)" if figures["best"] else f" (best {progress.best_outcome:.5g})"
    why = f", hollow: {figures['hollow']}" if figures.get("hollow") else ""
    return f"after {progress.update:,}, on fixed seeds: outcome {figures['outcome']:.5g}{best}{why}"


def print_result(
    settings: config.TuneConfig,
    progress: loop.TuningProgress,
    numbers: Mapping[str, np.ndarray],
    run_dir: Path,
    rows: Sequence[comparison.Row] = (),
) -> None:
    """Print the result of a finished run, whether it was worth it, and how to use it."""
    print(
        f"outcome {progress.first_outcome:.5g} at the start, {progress.best_outcome:.5g} with what "
        f"was learned ({settings.check_seeds} runs each); {progress.update:,} metagradients in "
        f"{duration(progress.wall_s)}"
    )
    for line in comparison.lines(rows):
        print(line)
    for name, values in numbers.items():
        if values.size <= 16:
            print(f"  {name}: {', '.join(f'{value:.4g}' for value in np.atleast_1d(values))}")
        else:
            print(
                f"  {name}: {values.size:,} numbers from {values.min():.4g} to {values.max():.4g}"
            )
    print(f"wrote {run_dir / schedule_file.FILE} and {run_dir / schedule_file.ARRAYS_FILE}")
    print(f"  veldt report {run_dir}")


@final
class TuningView:
    """A view of a tuning on a display."""

    def __init__(self, display: Display | None = None):
        self._display: Display = Silent() if display is None else display

    def updated(
        self, settings: config.TuneConfig, progress: loop.TuningProgress, figures: Mapping[str, Any]
    ) -> None:
        """Show an update."""
        line = update_line(settings, progress, figures)
        status = Status("", progress.update, settings.num_updates, highlights=(line,))
        self._display.update(lambda: status)
        self._display.log(line)  # Updates are few.

    def checked(
        self, settings: config.TuneConfig, progress: loop.TuningProgress, figures: Mapping[str, Any]
    ) -> None:
        """Show the outcome on the fixed seeds."""
        self._display.note(check_line(progress, figures))

    def doing(self, text: str) -> None:
        """Show what is done until something new comes."""
        self._display.doing(text)

    def note(self, text: str) -> None:
        """Show a line that must be seen."""
        self._display.note(text)
