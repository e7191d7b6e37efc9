"""What a person sees of a search: plain lines or a live view (`live.py`), a table at the end.

Displays only read: a search with another display, or none, is the same search.
"""

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TextIO, final

from veldt.search import objectives
from veldt.search.config.search_config import SearchConfig
from veldt.search.evolution import counts
from veldt.search.evolution.engine import Evolution
from veldt.search.finals import conclusion
from veldt.search.storage import best_rule as best
from veldt.search.storage import usage
from veldt.search.storage.hall_entries import Entry
from veldt.tasks.common import formatting
from veldt.tasks.common.progress import activity_clock
from veldt.tasks.pool.base import PoolEvent, PoolStats

if TYPE_CHECKING:
    from rich.table import Table

PLAIN_INTERVAL_S: Final = 5.0
WORK_INTERVAL_S: Final = 60.0
WAITING_INTERVAL_S: Final = 10.0
MAX_TROUBLE_LINES: Final = 5  # At a time; the store has them all.


class Display(Protocol):
    """What a search tells of itself."""

    def phase(self, text: str, done: int = 0, total: int = 0) -> None:
        """A stage other than the search itself: compiling, finals."""
        ...

    def doing(self, text: str) -> None:
        """Something before the first stage, which needs a word only where it takes long."""
        ...

    def update(self, evolution: Evolution) -> None:
        """Something was told. Called often; draws seldom."""
        ...

    def best(self, evolution: Evolution) -> None:
        """There is a new incumbent."""
        ...

    def work(self, stats: PoolStats, events: Sequence[PoolEvent]) -> None:
        """What the workers are doing, and what happened since the last call. Called often."""
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
    if not stream.isatty():
        return PlainDisplay(stream)
    from veldt.search.run import live

    return live.LiveDisplay(stream)


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


def candidate_name(evolution: Evolution) -> str:
    """What the best so far is called, here and in tables, reports and the store."""
    candidate = evolution.incumbent.candidate
    return f"#{candidate}" if candidate else evolution.config.initial_rule


def score_line(evolution: Evolution) -> str:
    """The incumbent's scores, beside the initial rule's."""
    best = evolution.incumbent
    gain = best.fitness - evolution.initial.fitness
    return (
        f"best {number(best.fitness)} ({number(gain)} against {evolution.config.initial_rule}), "
        f"fresh {number(best.fresh)}, meta-validation {number(best.meta)}"
    )


@final
class Silent:
    """Shows nothing."""

    def phase(self, text: str, done: int = 0, total: int = 0) -> None:
        pass

    def doing(self, text: str) -> None:
        pass

    def update(self, evolution: Evolution) -> None:
        pass

    def best(self, evolution: Evolution) -> None:
        pass

    def work(self, stats: PoolStats, events: Sequence[PoolEvent]) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


@final
class PlainDisplay:
    """Lines of text: one every few seconds, one for each new best, and what goes wrong."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._last = self._last_work = time.monotonic()
        self._doing = activity_clock.Doing()
        self._ticker = activity_clock.Ticker(self._tick, WAITING_INTERVAL_S)

    def phase(self, text: str, done: int = 0, total: int = 0) -> None:
        self._doing.begin(f"{text}: {done} of {total}" if total else text)
        self._ticker.start()
        if done in (0, total) or self._due():
            self._print(f"{text}: {done} of {total}" if total else text)

    def doing(self, text: str) -> None:
        self._doing.begin(text)
        self._ticker.start()

    def update(self, evolution: Evolution) -> None:
        self._doing.end()
        # The first few proposals say nothing about the rate.
        if self._due() and evolution.num_told > evolution.config.window:
            tally = counts.of(evolution)
            cached = tally.sources["structure"] + tally.sources["behaviour"]
            self._print(
                f"[{seconds(evolution.elapsed_s)}, {seconds(time_left_s(evolution))} left] "
                f"{tally.num_told:,} proposed ({rate(evolution):.0f}/s), "
                f"{counts.share(cached, tally.num_told)} from cache, "
                f"{tally.sources['evaluated']:,} of {tally.max_evaluations:,} trained; "
                f"{score_line(evolution)}"
            )

    def best(self, evolution: Evolution) -> None:
        name = candidate_name(evolution)
        told = f"new best after {evolution.num_told:,} proposed: {name}, {score_line(evolution)}"
        self._print(told)

    def work(self, stats: PoolStats, events: Sequence[PoolEvent]) -> None:
        wrong = [event for event in events if event.kind in usage.TROUBLE]
        for event in wrong[:MAX_TROUBLE_LINES]:
            self._print(usage.event_line(event))
        if len(wrong) > MAX_TROUBLE_LINES:
            self._print(f"... and {len(wrong) - MAX_TROUBLE_LINES:,} more like these")
        starting = stats.num_ready < stats.num_workers
        interval_s = PLAIN_INTERVAL_S if starting else WORK_INTERVAL_S
        if time.monotonic() - self._last_work >= interval_s:
            self._last_work = time.monotonic()
            figures = usage.figures(stats).items()
            self._print("; ".join(f"{name}: {figure}" for name, figure in figures))

    def note(self, text: str) -> None:
        self._print(text)

    def close(self) -> None:
        self._ticker.close()
        self._stream.flush()

    def _tick(self) -> None:
        if line := self._doing.line():
            print(line, file=self._stream, flush=True)

    def _due(self) -> bool:
        return time.monotonic() - self._last >= PLAIN_INTERVAL_S

    def _print(self, text: str) -> None:
        self._last = time.monotonic()
        print(text, file=self._stream, flush=True)


def print_results(
    entries: Sequence[Entry],
    run_dir: Path,
    stream: TextIO | None = None,
    *,
    config: SearchConfig | None = None,
) -> None:
    """Prints the finals' table, what it means, and the winner's source.

    Args:
      entries: the table's.
      run_dir: the run's directory.
      stream: where it is printed; standard output if None.
      config: the run's; None where the caller does not know it.
    """
    from rich.console import Console
    from rich.syntax import Syntax

    stream = sys.stdout if stream is None else stream
    scale = objectives.describe(config.objective if config else objectives.DEFAULT)
    if config is None:
        scale = f"the config's objective, by default {scale}"
    # Away from a terminal rich would fold the table at 80 columns; below that, columns vanish.
    width = max(Console(file=stream).width, 80) if stream.isatty() else 120
    console = Console(file=stream, width=width, highlight=False, markup=False)
    console.print(results_table(entries))
    console.print(
        f"Scores are {scale}: lower is better, 0.1 less is about 10% less loss. "
        "Every rule had the same budget for its numbers; `proxies` is on seeds "
        "that nothing was selected on, ± one standard error.",
        style="dim",
    )
    console.print(conclusion.verdict(entries, config.finals if config else None))
    winner = conclusion.find_winner(entries)
    if winner is not None:
        console.print()
        source = Syntax("", "python", theme="ansi_dark", background_color="default").highlight(
            best.shown(winner.program).rstrip()
        )
        console.print(source, soft_wrap=True)  # Folded by rich, it would be no program.
    console.print(f"run directory: {run_dir}", soft_wrap=True)


def results_table(entries: Sequence[Entry]) -> "Table":
    """The hall of fame as a table."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title="Hall of fame: the front of fitness, length and state, and the baselines",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("rule", overflow="fold", no_wrap=True)
    funnel = any(entry.stages for entry in entries)
    heads = ("length", "slots", "learning rate", "search fitness", "proxies", "meta-validation")
    for name in (*heads, "stages") if funnel else heads:
        # On a narrow terminal heads of two words are folded first.
        table.add_column(name, justify="right", overflow="fold", no_wrap=" " not in name)
    for entry in entries:
        table.add_row(
            # A rule file's path may hold what rich would read as markup.
            Text(f">>> {entry.label}" if entry.winner else f"    {entry.label}"),
            str(entry.length),
            str(len(entry.program.slots)),
            "-" if entry.learning_rate is None else f"{entry.learning_rate:.3g}",
            number(entry.search_fitness),
            score_with_error(entry),
            number(entry.meta),
            *([str(entry.stages)] if funnel else []),
            style="bold" if entry.winner else ("cyan" if entry.candidate < 0 else None),
        )
    return table


def score_with_error(entry: Entry) -> str:
    """A finalist's score on the final seeds, with its standard error where there is one."""
    error = "" if entry.final is None else formatting.plus_minus(entry.final_error)
    return number(entry.final) + error
