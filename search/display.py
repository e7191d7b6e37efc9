"""What a person sees of a running search: a live view on a terminal, plain lines elsewhere, and the table at the end.

Displays only read: a search with another display, or none, is the same search.
"""

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TextIO, final

from veldt.search import pretty
from veldt.search.evolution import Evolution
from veldt.search.finals import Entry

if TYPE_CHECKING:
    from rich.console import RenderableType

PLAIN_INTERVAL_S: Final = 5.0
LIVE_INTERVAL_S: Final = 0.25


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
        """Nothing more will be shown live."""
        ...


def make_display(stream: TextIO | None = None) -> Display:
    """A live view where `stream` (standard error if None) is a terminal, else plain lines."""
    stream = sys.stderr if stream is None else stream
    return LiveDisplay(stream) if stream.isatty() else PlainDisplay(stream)


def counts(evolution: Evolution) -> dict[str, str]:
    """The run's figures, by the names under which they are shown."""
    told = max(evolution.num_told, 1)
    sources, statuses = evolution.sources, evolution.statuses
    cached = sources["structure"] + sources["behaviour"]
    trained = max(sources["evaluated"], 1)
    dead = 1.0 - evolution.num_live / evolution.num_statements if evolution.num_statements else 0.0
    return {
        "proposed": f"{evolution.num_told:,}",
        "distinct programs trained": f"{sources['evaluated']:,} of {evolution.config.max_evaluations:,}",
        "from cache": f"{cached / told:.0%} (structure {sources['structure']:,}, behaviour {sources['behaviour']:,})",
        "dead statements": f"{dead:.0%}",
        "invalid draws": f"{evolution.num_invalid / (told + evolution.num_invalid):.0%}",
        "rejected at a hurdle": f"{statuses['rejected'] / trained:.0%}",
        "diverged": f"{statuses['diverged'] / trained:.0%} ({sources['probe']:,} on the probe)",
        "challenges": f"{evolution.num_challenges - 1:,}",
    }


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
    left = (
        (evolution.config.max_evaluations - done) * evolution.elapsed_s / done if done else math.inf
    )
    if evolution.config.time_limit_s is not None:
        left = min(left, evolution.config.time_limit_s - evolution.elapsed_s)
    return max(left, 0.0)


def score_line(evolution: Evolution) -> str:
    """The incumbent's scores, beside the initial rule's."""
    best = evolution.incumbent
    gain = best.fitness - evolution.initial.fitness
    return (
        f"best {number(best.fitness)} ({number(gain)} against {evolution.config.initial_rule}), "
        f"fresh seeds {number(best.fresh)}, meta-validation {number(best.meta)}"
    )


@final
class PlainDisplay:
    """Lines of text: one every few seconds, and one for each new best."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._last = 0.0

    def phase(self, text: str, done: int = 0, total: int = 0) -> None:
        if done in (0, total) or time.monotonic() - self._last >= PLAIN_INTERVAL_S:
            self._print(f"{text}: {done} of {total}" if total else text)

    def update(self, evolution: Evolution) -> None:
        if time.monotonic() - self._last >= PLAIN_INTERVAL_S:
            rate = evolution.num_told / max(evolution.elapsed_s, 1e-9)
            figures = counts(evolution)
            self._print(
                f"[{seconds(evolution.elapsed_s)}, {seconds(time_left_s(evolution))} left] "
                f"{figures['proposed']} proposed ({rate:.0f}/s), {figures['distinct programs trained']} trained, "
                f"cache {figures['from cache']}; {score_line(evolution)}"
            )

    def best(self, evolution: Evolution) -> None:
        self._print(f"new best after {evolution.num_told:,}: {score_line(evolution)}")

    def close(self) -> None:
        self._stream.flush()

    def _print(self, text: str) -> None:
        self._last = time.monotonic()
        print(text, file=self._stream, flush=True)


@final
class LiveDisplay:
    """A view that redraws itself, by rich."""

    def __init__(self, stream: TextIO):
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(file=stream), auto_refresh=False, transient=False)
        self._live.start()
        self._last = 0.0
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
        self._draw(force=True)

    def close(self) -> None:
        self._draw(force=True)
        self._live.stop()

    def _draw(self, *, force: bool) -> None:
        now = time.monotonic()
        if force or now - self._last >= LIVE_INTERVAL_S:
            self._last = now
            self._live.update(self._render(), refresh=True)

    def _render(self) -> "RenderableType":
        from rich.console import Group
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.syntax import Syntax
        from rich.table import Table

        parts: list[RenderableType] = []
        if self._evolution is not None:
            evolution = self._evolution
            rate = evolution.num_told / max(evolution.elapsed_s, 1e-9)
            head = Table.grid(padding=(0, 2), expand=True)
            head.add_column(no_wrap=True)
            head.add_column(ratio=1)
            head.add_column(no_wrap=True)
            bar = ProgressBar(
                total=evolution.config.max_evaluations, completed=evolution.sources["evaluated"]
            )
            head.add_row(f"{rate:.0f} candidates/s", bar, f"{seconds(time_left_s(evolution))} left")
            grid = Table.grid(padding=(0, 2))
            for name, figure in counts(evolution).items():
                grid.add_row(f"[dim]{name}[/]", figure)
            source = pretty.pretty(evolution.incumbent.genotype.program).rstrip()
            rule = Syntax(source, "python", background_color="default", word_wrap=True)
            title = f"best rule, learning rate {evolution.incumbent.genotype.learning_rate:.3g}"
            parts += [
                head,
                grid,
                f"[bold]{score_line(evolution)}[/]",
                Panel(rule, title=title, title_align="left"),
            ]
        if self._phase is not None:
            text, done, total = self._phase
            line = Table.grid(padding=(0, 2), expand=True)
            line.add_column(no_wrap=True)
            line.add_column(ratio=1)
            line.add_row(text, ProgressBar(total=total, completed=done) if total else "")
            parts.append(line)
        return Group(*parts)


def print_results(entries: Sequence[Entry], run_dir: Path, stream: TextIO | None = None) -> None:
    """Prints the finals' table and the winner's source."""
    from rich.console import Console
    from rich.syntax import Syntax

    stream = sys.stdout if stream is None else stream
    # Away from a terminal rich would fold the table at 80 columns.
    console = Console(file=stream, width=None if stream.isatty() else 120, highlight=False)
    console.print(results_table(entries))
    console.print(
        "Scores are mean log normalised validation loss: lower is better, 0.1 less is about 10% less loss. Every rule "
        "had the same learning rates to choose from; `proxies` is on seeds that nothing was selected on, ± one standard error.",
        style="dim",
    )
    winner = next((entry for entry in entries if entry.winner), None)
    if winner is not None:
        source = pretty.pretty(winner.program).rstrip()
        console.print(
            Syntax(source, "python", background_color="default") if stream.isatty() else source
        )
    console.print(f"\nrun directory: {run_dir}")


def results_table(entries: Sequence[Entry]) -> "RenderableType":
    """The hall of fame as a table."""
    from rich.table import Table

    table = Table(
        title="Hall of fame: one best rule per length, and the baselines", title_justify="left"
    )
    table.add_column("rule")
    for name in ("length", "learning rate", "search fitness", "proxies", "meta-validation"):
        table.add_column(name, justify="right")
    for entry in entries:
        error = (
            ""
            if entry.final_error is None or entry.final is None
            else f" ± {entry.final_error:.3f}"
        )
        table.add_row(
            f">>> {entry.label}" if entry.winner else f"    {entry.label}",
            str(entry.length),
            "-" if entry.learning_rate is None else f"{entry.learning_rate:.3g}",
            number(entry.search_fitness),
            number(entry.final) + error,
            number(entry.meta),
            style="bold" if entry.winner else ("cyan" if entry.candidate < 0 else None),
        )
    return table
