"""A view that redraws itself on a terminal, by rich, and never grows past it."""

import math
import textwrap
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TextIO, final

from veldt.tasks.common.progress import activity_clock
from veldt.tasks.common.progress.display import Status

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

INTERVAL_S: Final = 0.5
MIN_SOURCE_LINES: Final = 3


@final
class LiveDisplay:
    """A view of the status with a bar, and below it the present activity, with a clock."""

    def __init__(self, stream: TextIO, console: "Console | None" = None):
        from rich.console import Console
        from rich.live import Live

        self._console = console if console is not None else Console(file=stream)
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._live.start()
        self._closed = False
        self._last = -math.inf
        self._phase: tuple[str, int, int] | None = None
        self._status: Callable[[], Status] | None = None
        self._doing = activity_clock.Doing()
        self._ticker = activity_clock.Ticker(self._live.refresh, INTERVAL_S)

    def phase(self, text: str, done: int = 0, total: int = 0) -> None:
        self._phase = (text, done, total)
        self._doing.begin(f"{text}, {done}")
        self._ticker.start()
        self._draw(force=done in (0, total))

    def doing(self, text: str) -> None:
        self.phase(text)

    def update(self, status: Callable[[], Status]) -> None:
        self._status, self._phase = status, None
        self._doing.end()
        self._draw(force=False)

    def refresh(self) -> None:
        self._draw(force=False)

    def log(self, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(text), soft_wrap=True)  # Above the view.

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._ticker.close()
        self._phase = None  # Its activity is over, or was broken off.
        self._draw(force=True)
        self._live.stop()

    def _draw(self, *, force: bool) -> None:
        now = time.monotonic()
        if force or now - self._last >= INTERVAL_S:
            self._last = now
            self._live.update(self._render(), refresh=True)

    def _render(self) -> "RenderableType":
        from rich.console import Group

        parts: list[RenderableType] = []
        if self._status is not None:
            height = self._console.height - 1 - (self._phase is not None)
            parts += render_status(self._status(), self._console.width, height)
        if self._phase is not None:
            parts.append(_phase_view(*self._phase, _Clock(self._doing)))
        return Group(*parts)


@final
class _Clock:
    """The time of the present activity, whenever it is drawn."""

    def __init__(self, doing: activity_clock.Doing):
        self._doing = doing

    def __rich__(self) -> "Text":
        from rich.text import Text

        return Text(self._doing.clock())


def _phase_view(text: str, done: int, total: int, clock: _Clock) -> "Table":
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    line = Table.grid(padding=(0, 2), expand=True)
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_column(no_wrap=True)
    line.add_column(no_wrap=True)
    bar = ProgressBar(total=total, completed=done) if total else ""
    line.add_row(Text(text), bar, f"{done} of {total}" if total else "", clock)
    return line


def render_status(status: Status, width: int, height: int) -> "list[RenderableType]":
    """Return the status in at most `height` lines: speed, highlights, figures, source text.

    Where they do not all fit, the source text is cut first, to `MIN_SOURCE_LINES`, then the
    figures.
    """
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.syntax import Syntax
    from rich.table import Table
    from rich.text import Text

    view: list[RenderableType] = []
    if status.total:
        head = Table.grid(padding=(0, 2), expand=True)
        head.add_column(no_wrap=True)
        head.add_column(ratio=1)
        head.add_column(no_wrap=True)
        bar = ProgressBar(status.total, min(status.done, status.total))
        head.add_row(Text(status.rate), bar, status.time)
        view.append(head)
    for line in status.highlights or (status.line,):
        view += [Text(part, "bold") for part in _wrap(line, width)]
    needed = MIN_SOURCE_LINES + 2 if status.source else 0
    num_figures = max(0, min(len(status.figures), height - len(view) - needed))
    if num_figures:
        shown = list(status.figures.items())[:num_figures]
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True, min_width=max(len(name) for name, _ in shown))
        grid.add_column(no_wrap=True, overflow="ellipsis")
        for name, figure in shown:
            grid.add_row(name, figure)
        view.append(grid)
    # The grid is one part of as many lines as it has figures; a box has two lines of its own.
    room = height - (len(view) - bool(num_figures)) - num_figures - 2
    if status.source and room >= 1:
        text = Syntax(
            fit_source(status.source, width - 4, room),
            "python",
            theme="ansi_dark",
            background_color="default",
        )
        view.append(Panel(text, title=Text(status.source_title), title_align="left"))
    return view[: max(height, 1)]


def fit_source(source: str, width: int, height: int) -> str:
    """Return source text for a box of `width` by `height` characters.

    Returns:
      At most `height` lines: long lines are folded, the end is cut, and the last line says how
      many are missing where some are.
    """
    lines = []
    for line in source.rstrip().split("\n"):
        indent = line[: len(line) - len(line.lstrip())] + "        "
        lines += _wrap(line, max(width, len(indent) + 1), indent) or [""]
    if len(lines) > height:
        missing = len(lines) - height + 1
        lines = [*lines[: height - 1], f"# ... {missing} more lines"]
    return "\n".join(lines)


def _wrap(text: str, width: int, indent: str = "") -> list[str]:
    # A word longer than a line is cut anywhere rather than left to make the view wider.
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)
