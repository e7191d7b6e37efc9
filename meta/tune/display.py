"""What a person sees of a tuning: a live panel on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TextIO, final

import numpy as np

from veldt.meta.train.display import duration
from veldt.meta.tune import comparison, config, loop, schedule_file
from veldt.tasks.common.progress import activity_clock

PLAIN_INTERVAL_S: Final = 10.0


class Display(Protocol):
    """What a tuning tells of itself."""

    def updated(
        self, settings: config.TuneConfig, progress: loop.Progress, figures: Mapping[str, Any]
    ) -> None:
        """An update was done."""
        ...

    def checked(
        self, settings: config.TuneConfig, progress: loop.Progress, figures: Mapping[str, Any]
    ) -> None:
        """A look was taken."""
        ...

    def doing(self, text: str) -> None:
        """What is done until something new comes: shown with a clock."""
        ...

    def note(self, text: str) -> None:
        """A line that must be seen."""
        ...

    def close(self) -> None:
        """Nothing more will be shown live. May be called twice."""
        ...


def make_display(stream: TextIO | None = None) -> Display:
    """A live view where `stream` (standard error if None) is a terminal, else plain lines."""
    stream = sys.stderr if stream is None else stream
    return LiveDisplay(stream) if stream.isatty() else PlainDisplay(stream)


def update_line(
    settings: config.TuneConfig, progress: loop.Progress, figures: Mapping[str, Any]
) -> str:
    """Say how an update went."""
    left_s = progress.wall_s / progress.update * (settings.num_updates - progress.update)
    method = "" if figures["method"] == "replay" else f"; by {figures['method']}"
    return (
        f"[{duration(progress.wall_s)}, {duration(left_s)} left] update {progress.update:,} of "
        f"{settings.num_updates:,}: outcome {figures['outcome']:.5g}; gradient norm "
        f"{figures['meta_grad_norm']:.3g}{method}"
    )


def check_line(progress: loop.Progress, figures: Mapping[str, Any]) -> str:
    """Say what a look saw."""
    best = " (best)" if figures["best"] else f" (best {progress.best_outcome:.5g})"
    why = f", hollow: {figures['hollow']}" if figures.get("hollow") else ""
    return f"after {progress.update:,}, on fixed seeds: outcome {figures['outcome']:.5g}{best}{why}"


def print_result(
    settings: config.TuneConfig,
    progress: loop.Progress,
    numbers: Mapping[str, np.ndarray],
    run_dir: Path,
    rows: Sequence[comparison.Row] = (),
) -> None:
    """Say what a finished run found, whether it was worth it, and how to use it."""
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
class Silent:
    """Shows nothing."""

    def updated(
        self, settings: config.TuneConfig, progress: loop.Progress, figures: Mapping[str, Any]
    ) -> None:
        pass

    def checked(
        self, settings: config.TuneConfig, progress: loop.Progress, figures: Mapping[str, Any]
    ) -> None:
        pass

    def doing(self, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


@final
class PlainDisplay:
    """Lines of text."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._doing = activity_clock.Doing()
        self._ticker = activity_clock.Ticker(self._tick, PLAIN_INTERVAL_S)

    def updated(
        self, settings: config.TuneConfig, progress: loop.Progress, figures: Mapping[str, Any]
    ) -> None:
        self.note(update_line(settings, progress, figures))

    def checked(
        self, settings: config.TuneConfig, progress: loop.Progress, figures: Mapping[str, Any]
    ) -> None:
        self.note(check_line(progress, figures))

    def doing(self, text: str) -> None:
        self._doing.begin(text)
        self._ticker.start()

    def _tick(self) -> None:
        if line := self._doing.line():
            self.note(line)

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        self._ticker.close()
        self._stream.flush()


@final
class LiveDisplay:
    """A bar that redraws itself under the looks, by rich."""

    def __init__(self, stream: TextIO):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
        from rich.text import Text

        doing = self._doing = activity_clock.Doing()

        class Now(ProgressColumn):
            """What is being done, with its time."""

            def render(self, task: Task) -> Text:
                return Text(doing.line())

        self._console = Console(file=stream)
        self._bar = Progress(
            BarColumn(40),
            TextColumn("{task.description}", markup=False),
            Now(),
            console=self._console,
        )
        self._task = self._bar.add_task("", total=None)
        self._bar.start()

    def updated(
        self, settings: config.TuneConfig, progress: loop.Progress, figures: Mapping[str, Any]
    ) -> None:
        self._bar.update(
            self._task,
            total=settings.num_updates,
            completed=progress.update,
            description=update_line(settings, progress, figures),
        )

    def checked(
        self, settings: config.TuneConfig, progress: loop.Progress, figures: Mapping[str, Any]
    ) -> None:
        self.note(check_line(progress, figures))

    def doing(self, text: str) -> None:
        self._doing.begin(text)

    def note(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        self._bar.stop()
