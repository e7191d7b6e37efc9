"""The live view of a search: it redraws itself, by rich, and never grows past the terminal."""

import math
import textwrap
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TextIO, final

from veldt.search.evolution import counts
from veldt.search.evolution.engine import Evolution
from veldt.search.run import display
from veldt.search.storage import best_rule, usage
from veldt.tasks.common.progress import activity_clock as clock
from veldt.tasks.pool.base import PoolEvent, PoolStats

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

LIVE_INTERVAL_S: Final = 0.5
MIN_RULE_LINES: Final = 3


@final
class LiveDisplay:
    """A view that redraws itself, by rich; it never grows past the terminal."""

    def __init__(self, stream: TextIO, console: "Console | None" = None):
        from rich.console import Console
        from rich.live import Live

        self._console = console if console is not None else Console(file=stream)
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._live.start()
        self._closed = False
        self._last = -math.inf
        self._phase: tuple[str, int, int] | None = None
        self._evolution: Evolution | None = None
        self._stats: PoolStats | None = None
        self._doing = clock.Doing()
        self._ticker = clock.Ticker(self._live.refresh, LIVE_INTERVAL_S)

    def phase(self, text: str, done: int = 0, total: int = 0) -> None:
        self._phase = (text, done, total)
        self._doing.begin(f"{text}, {done}")
        self._ticker.start()
        self._draw(force=done in (0, total))

    def doing(self, text: str) -> None:
        self.phase(text)

    def update(self, evolution: Evolution) -> None:
        self._evolution, self._phase = evolution, None
        self._doing.end()
        self._draw(force=False)

    def best(self, evolution: Evolution) -> None:
        self._evolution = evolution
        self._draw(force=False)

    def work(self, stats: PoolStats, events: Sequence[PoolEvent]) -> None:
        self._stats = stats
        self._draw(force=False)

    def note(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(text), soft_wrap=True)  # Above the view.

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._ticker.close()
        self._phase = None  # What it was doing is over, or was broken off.
        self._draw(force=True)
        self._live.stop()

    def _draw(self, *, force: bool) -> None:
        now = time.monotonic()
        if force or now - self._last >= LIVE_INTERVAL_S:
            self._last = now
            self._live.update(self._render(), refresh=True)

    def _render(self) -> "RenderableType":
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = []
        if self._evolution is not None:
            room = self._console.height - 1 - (self._phase is not None)
            parts += _search_view(self._evolution, self._stats, self._console.width, room)
        elif self._stats is not None and self._stats.num_ready < self._stats.num_workers:
            parts.append(Text(f"workers: {usage.figures(self._stats)['workers']}"))
        if self._phase is not None:
            parts.append(_phase_view(*self._phase, _Clock(self._doing)))
        return Group(*parts)


@final
class _Clock:
    """The time of what is being done, whenever it is drawn."""

    def __init__(self, doing: clock.Doing):
        self._doing = doing

    def __rich__(self) -> "Text":
        from rich.text import Text

        return Text(self._doing.clock())


def _phase_view(text: str, done: int, total: int, clock: _Clock) -> "Table":
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    line = Table.grid(padding=(0, 2), expand=True)
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_column(no_wrap=True)
    line.add_column(no_wrap=True)
    if total:
        line.add_row(text, ProgressBar(total=total, completed=done), f"{done} of {total}", clock)
    else:
        line.add_row(text, "", "", clock)
    return line


def _search_view(
    evolution: Evolution, stats: PoolStats | None, width: int, height: int
) -> "list[RenderableType]":
    """The search in at most `height` lines: speed, scores, workers, counts and the best rule.

    Where they do not all fit, the rule is cut first, to `MIN_RULE_LINES`, then the counts.
    """
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.syntax import Syntax
    from rich.table import Table
    from rich.text import Text

    head = Table.grid(padding=(0, 2), expand=True)
    head.add_column(no_wrap=True)
    head.add_column(ratio=1)
    head.add_column(no_wrap=True)
    done, total = evolution.sources["evaluated"], evolution.config.max_evaluations
    left = display.seconds(display.time_left_s(evolution))
    head.add_row(
        f"{display.rate(evolution):.0f} candidates/s",
        ProgressBar(total=total, completed=done),
        f"{display.seconds(evolution.elapsed_s)}, {left} left",
    )
    scores = [Text(line, "bold") for line in _wrap(display.score_line(evolution), width)]
    figures = list(usage.figures(stats).items()) if stats is not None else []
    figures += counts.counts(counts.of(evolution)).items()
    num_figures = max(0, min(len(figures), height - 1 - len(scores) - MIN_RULE_LINES - 2))
    grid = Table.grid(padding=(0, 2))
    shown = figures[:num_figures]
    widest = max((len(name) for name, _ in shown), default=0)
    grid.add_column(style="dim", no_wrap=True, min_width=widest)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    for name, figure in shown:
        grid.add_row(name, figure)
    best = evolution.incumbent.genotype
    room = height - 1 - len(scores) - num_figures - 2
    if room < 1:
        view: list[RenderableType] = [head, *scores]
        return view[: max(height, 1)]
    source = fit_source(best_rule.shown(best.program), width - 4, room)
    rule = Syntax(source, "python", theme="ansi_dark", background_color="default")
    name = display.candidate_name(evolution)
    title = Text(f"best rule, {name}, learning rate {best.learning_rate:.3g}")
    figures_or_none = [grid] if num_figures else []
    return [head, *scores, *figures_or_none, Panel(rule, title=title, title_align="left")]


def fit_source(source: str, width: int, height: int) -> str:
    """Source for a box of `width` by `height` characters: long lines are folded, the end is cut.

    Returns:
      At most `height` lines, the last of which says how many are missing where some are.
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
