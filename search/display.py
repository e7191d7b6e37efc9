"""What a person sees of a search: a live view on a terminal or plain lines, a table at the end.

Displays only read: a search with another display, or none, is the same search.
"""

import math
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TextIO, final

from veldt.search import pretty, verdict
from veldt.search import tally as tally_lib
from veldt.search.evolution import Evolution
from veldt.search.finals import Entry

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

PLAIN_INTERVAL_S: Final = 5.0
LIVE_INTERVAL_S: Final = 0.5
MIN_RULE_LINES: Final = 3


class Display(Protocol):
    """What a search tells of itself."""

    def phase(self, text: str, done: int = 0, total: int = 0) -> None:
        """A stage other than the search itself: compiling, finals."""
        ...

    def update(self, evolution: Evolution) -> None:
        """Something was told. Called often; draws seldom."""
        ...

    def best(self, evolution: Evolution) -> None:
        """There is a new incumbent."""
        ...

    def close(self) -> None:
        """Nothing more will be shown live. May be called twice."""
        ...


def make_display(stream: TextIO | None = None) -> Display:
    """A live view where `stream` (standard error if None) is a terminal, else plain lines."""
    stream = sys.stderr if stream is None else stream
    return LiveDisplay(stream) if stream.isatty() else PlainDisplay(stream)


def number(value: float | None, digits: int = 3) -> str:
    """A score for a table."""
    return "-" if value is None else f"{value:+.{digits}f}"


def seconds(value: float) -> str:
    """A duration for people."""
    if not math.isfinite(value):
        return "-"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def time_left_s(evolution: Evolution) -> float:
    """Seconds until the search ends at the present rate; infinity where nothing is known."""
    done = evolution.sources["evaluated"]
    elapsed_s = evolution.elapsed_s
    left = (evolution.config.max_evaluations - done) * elapsed_s / done if done else math.inf
    if evolution.config.time_limit_s is not None:
        left = min(left, evolution.config.time_limit_s - elapsed_s)
    return max(left, 0.0)


def rate(evolution: Evolution) -> float:
    """Candidates told per second, over the whole search."""
    return evolution.num_told / max(evolution.elapsed_s, 1e-9)


def score_line(evolution: Evolution) -> str:
    """The incumbent's scores, beside the initial rule's."""
    best = evolution.incumbent
    gain = best.fitness - evolution.initial.fitness
    return (
        f"best {number(best.fitness)} ({number(gain)} against {evolution.config.initial_rule}), "
        f"fresh {number(best.fresh)}, meta-validation {number(best.meta)}"
    )


@final
class PlainDisplay:
    """Lines of text: one every few seconds, and one for each new best."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._last = time.monotonic()

    def phase(self, text: str, done: int = 0, total: int = 0) -> None:
        if done in (0, total) or self._due():
            self._print(f"{text}: {done} of {total}" if total else text)

    def update(self, evolution: Evolution) -> None:
        # The first few proposals say nothing about the rate.
        if self._due() and evolution.num_told > evolution.config.window:
            tally = tally_lib.of(evolution)
            cached = tally.sources["structure"] + tally.sources["behaviour"]
            self._print(
                f"[{seconds(evolution.elapsed_s)}, {seconds(time_left_s(evolution))} left] "
                f"{tally.num_told:,} proposed ({rate(evolution):.0f}/s), "
                f"{tally_lib.share(cached, tally.num_told)} from cache, "
                f"{tally.sources['evaluated']:,} of {tally.max_evaluations:,} trained; "
                f"{score_line(evolution)}"
            )

    def best(self, evolution: Evolution) -> None:
        self._print(f"new best after {evolution.num_told:,} proposed: {score_line(evolution)}")

    def close(self) -> None:
        self._stream.flush()

    def _due(self) -> bool:
        return time.monotonic() - self._last >= PLAIN_INTERVAL_S

    def _print(self, text: str) -> None:
        self._last = time.monotonic()
        print(text, file=self._stream, flush=True)


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

    def phase(self, text: str, done: int = 0, total: int = 0) -> None:
        self._phase = (text, done, total)
        self._draw(force=done in (0, total))

    def update(self, evolution: Evolution) -> None:
        self._evolution, self._phase = evolution, None
        self._draw(force=False)

    def best(self, evolution: Evolution) -> None:
        self._evolution = evolution
        self._draw(force=False)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
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

        parts: list[RenderableType] = []
        if self._evolution is not None:
            room = self._console.height - 1 - (self._phase is not None)
            parts += _search_view(self._evolution, self._console.width, room)
        if self._phase is not None:
            parts.append(_phase_view(*self._phase))
        return Group(*parts)


def _phase_view(text: str, done: int, total: int) -> "Table":
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    line = Table.grid(padding=(0, 2), expand=True)
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_column(no_wrap=True)
    if total:
        line.add_row(text, ProgressBar(total=total, completed=done), f"{done} of {total}")
    else:
        line.add_row(text, "", "")
    return line


def _search_view(evolution: Evolution, width: int, height: int) -> "list[RenderableType]":
    """The search in at most `height` lines: speed, scores, counts and the best rule.

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
    head.add_row(
        f"{rate(evolution):.0f} candidates/s",
        ProgressBar(total=total, completed=done),
        f"{seconds(evolution.elapsed_s)}, {seconds(time_left_s(evolution))} left",
    )
    scores = [Text(line, "bold") for line in _wrap(score_line(evolution), width)]
    figures = list(tally_lib.counts(tally_lib.of(evolution)).items())
    num_figures = max(0, min(len(figures), height - 1 - len(scores) - MIN_RULE_LINES - 2))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    for name, figure in figures[:num_figures]:
        grid.add_row(name, figure)
    best = evolution.incumbent.genotype
    room = height - 1 - len(scores) - num_figures - 2
    if room < 1:
        view: list[RenderableType] = [head, *scores]
        return view[: max(height, 1)]
    source = fit_source(pretty.pretty(best.program), width - 4, room)
    rule = Syntax(source, "python", theme="ansi_dark", background_color="default")
    title = Text(f"best rule, learning rate {best.learning_rate:.3g}")
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


def print_results(entries: Sequence[Entry], run_dir: Path, stream: TextIO | None = None) -> None:
    """Prints the finals' table, what it means, and the winner's source."""
    from rich.console import Console
    from rich.syntax import Syntax

    stream = sys.stdout if stream is None else stream
    # Away from a terminal rich would fold the table at 80 columns; below that, columns vanish.
    width = max(Console(file=stream).width, 80) if stream.isatty() else 120
    console = Console(file=stream, width=width, highlight=False, markup=False)
    console.print(results_table(entries))
    console.print(
        "Scores are mean log normalised validation loss: lower is better, 0.1 less is about 10% "
        "less loss. Every rule had the same learning rates to choose from; `proxies` is on seeds "
        "that nothing was selected on, ± one standard error.",
        style="dim",
    )
    console.print(verdict.verdict(entries))
    winner = verdict.find_winner(entries)
    if winner is not None:
        console.print()
        source = Syntax("", "python", theme="ansi_dark", background_color="default").highlight(
            pretty.pretty(winner.program).rstrip()
        )
        console.print(source, soft_wrap=True)  # Folded by rich, it would be no program.
    console.print(f"run directory: {run_dir}", soft_wrap=True)


def results_table(entries: Sequence[Entry]) -> "Table":
    """The hall of fame as a table."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title="Hall of fame: one best rule per length, and the baselines",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("rule", overflow="fold", no_wrap=True)
    for name in ("length", "learning rate", "search fitness", "proxies", "meta-validation"):
        # On a narrow terminal heads of two words are folded first.
        table.add_column(name, justify="right", overflow="fold", no_wrap=" " not in name)
    for entry in entries:
        table.add_row(
            # A rule file's path may hold what rich would read as markup.
            Text(f">>> {entry.label}" if entry.winner else f"    {entry.label}"),
            str(entry.length),
            "-" if entry.learning_rate is None else f"{entry.learning_rate:.3g}",
            number(entry.search_fitness),
            score_with_error(entry),
            number(entry.meta),
            style="bold" if entry.winner else ("cyan" if entry.candidate < 0 else None),
        )
    return table


def score_with_error(entry: Entry) -> str:
    """A finalist's score on the final seeds, with its standard error where there is one."""
    error = (
        "" if entry.final_error is None or entry.final is None else f" ± {entry.final_error:.3f}"
    )
    return number(entry.final) + error
