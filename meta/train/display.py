"""What a person sees of a meta-training: a live panel on a terminal, plain lines elsewhere.

Displays only read: a run with another display, or none, is the same run.
"""

import collections
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO, final

import numpy as np

from veldt.meta.train import config, meta_training
from veldt.tasks.common.progress import activity_clock

if TYPE_CHECKING:
    from rich.console import RenderableType

PLAIN_INTERVAL_S: Final = 10.0
LIVE_INTERVAL_S: Final = 0.5
_SMOOTHED: Final = 50  # updates that a figure is averaged over


class Display(Protocol):
    """What a meta-training tells of itself."""

    def updated(
        self,
        settings: config.MetaTrainConfig,
        progress: meta_training.Progress,
        figures: Mapping[str, Any],
    ) -> None:
        """An update was done. Called often; draws seldom."""
        ...

    def checked(self, progress: meta_training.Progress, figures: Mapping[str, Any]) -> None:
        """The meta-validation tasks were looked at."""
        ...

    def doing(self, text: str) -> None:
        """What is waited for until something new comes: shown with a clock."""
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


@final
class Silent:
    """Shows nothing."""

    def updated(
        self,
        settings: config.MetaTrainConfig,
        progress: meta_training.Progress,
        figures: Mapping[str, Any],
    ) -> None:
        pass

    def checked(self, progress: meta_training.Progress, figures: Mapping[str, Any]) -> None:
        pass

    def doing(self, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


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

    def add(self, progress: meta_training.Progress, figures: Mapping[str, Any]) -> None:
        """Take in an update."""
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
        """Seconds until so many more updates are done."""
        if len(self._steps) < 2:
            return math.inf
        each = (self._steps[-1][1] - self._steps[0][1]) / (len(self._steps) - 1)
        return each * num_updates

    def line(self, settings: config.MetaTrainConfig, progress: meta_training.Progress) -> str:
        """Say how it goes."""
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


def check_line(progress: meta_training.Progress, figures: Mapping[str, Any]) -> str:
    """Say what a look at meta-validation saw."""
    tasks = ", ".join(f"{name} {value:+.3f}" for name, value in figures["tasks"].items())
    best = " (best)" if figures["score"] <= progress.best_score else ""
    num_hollow = figures.get("num_hollow", 0)
    lost = f"; {num_hollow} hollow runs, counted as the worst" if num_hollow else ""
    return (
        f"meta-validation after {progress.update:,}: {figures['score']:+.4f}{best}; {tasks}{lost}"
    )


def duration(seconds: float) -> str:
    """A duration for people."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def print_result(progress: meta_training.Progress, run_dir: Path) -> None:
    """Say what a finished run made, and how to use it."""
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
class PlainDisplay:
    """Lines of text: one every few seconds, and one for each look."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._recent = Recent()
        self._last = -math.inf
        self._doing = activity_clock.Doing()
        self._ticker = activity_clock.Ticker(self._tick, PLAIN_INTERVAL_S)

    def updated(
        self,
        settings: config.MetaTrainConfig,
        progress: meta_training.Progress,
        figures: Mapping[str, Any],
    ) -> None:
        self._recent.add(progress, figures)
        self._doing.end()
        ended = progress.update == settings.num_updates
        if ended or time.monotonic() - self._last >= PLAIN_INTERVAL_S:
            self.note(self._recent.line(settings, progress))

    def checked(self, progress: meta_training.Progress, figures: Mapping[str, Any]) -> None:
        self.note(check_line(progress, figures))

    def doing(self, text: str) -> None:
        self._doing.begin(text)
        self._ticker.start()

    def _tick(self) -> None:
        if line := self._doing.line():
            print(line, file=self._stream, flush=True)

    def note(self, text: str) -> None:
        self._last = time.monotonic()
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        self._ticker.close()
        self._stream.flush()


@final
class LiveDisplay:
    """A panel that redraws itself, by rich."""

    def __init__(self, stream: TextIO):
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream)
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._live.start()
        self._recent = Recent()
        self._last = -math.inf
        self._check = ""
        self._closed = False
        self._doing = activity_clock.Doing()
        self._ticker = activity_clock.Ticker(self._live.refresh, LIVE_INTERVAL_S)
        self._live.update(_Line(self._doing))

    def updated(
        self,
        settings: config.MetaTrainConfig,
        progress: meta_training.Progress,
        figures: Mapping[str, Any],
    ) -> None:
        self._recent.add(progress, figures)
        self._doing.end()
        self._draw(settings, progress, self._recent.line(settings, progress))

    def checked(self, progress: meta_training.Progress, figures: Mapping[str, Any]) -> None:
        self._check = check_line(progress, figures)

    def doing(self, text: str) -> None:
        self._doing.begin(text)
        self._ticker.start()

    def note(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(text), soft_wrap=True)  # Above the panel.

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._ticker.close()
            self._live.stop()

    def _draw(
        self, settings: config.MetaTrainConfig, progress: meta_training.Progress, line: str
    ) -> None:
        now = time.monotonic()
        if now - self._last >= LIVE_INTERVAL_S or progress.update == settings.num_updates:
            self._last = now
            self._live.update(self._render(settings, progress, line), refresh=True)

    def _render(
        self, settings: config.MetaTrainConfig, progress: meta_training.Progress, line: str
    ) -> "RenderableType":
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        bar = ProgressBar(total=settings.num_updates, completed=progress.update, width=60)
        texts = (Text(text) for text in (line, self._check) if text)
        return Group(bar, *texts, _Line(self._doing))


@final
class _Line:
    """What is being done with its time, whenever it is drawn; an empty line where nothing is."""

    def __init__(self, doing: activity_clock.Doing):
        self._doing = doing

    def __rich__(self) -> "RenderableType":
        from rich.text import Text

        return Text(self._doing.line())
