"""The table that a comparison prints at the end, and how to read it."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TextIO

from veldt.tasks.benchmark.scores.results import Results, Row

if TYPE_CHECKING:
    from rich.table import Table

PLAIN_WIDTH: Final = 132


def print_results(results: Results, stream: TextIO | None = None) -> None:
    """Print the table of a comparison and how to read it."""
    from rich.console import Console

    stream = sys.stdout if stream is None else stream
    # Away from a terminal rich would fold the table at 80 columns; below that, columns vanish.
    width = max(Console(file=stream).width, 80) if stream.isatty() else PLAIN_WIDTH
    console = Console(file=stream, width=width, highlight=False, markup=False)
    console.print(results_table(results))
    for line in explanation(results):
        console.print(line, style="dim")


def results_table(results: Results) -> "Table":
    """Return the table of candidates, then baselines, each by speed-up."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=f"{results.suite}: {len(results.tasks)} tasks, against tuned Adam",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("optimizer", no_wrap=True, overflow="ellipsis")
    heads = ("speed-up", "test loss", "won", "one rate", "speed-up", "won", "diverged", "time", "B")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for title, rows in sections(results):
        if title:
            table.add_section()
            table.add_row(Text(title, style="dim italic"))
        for row in rows:
            table.add_row(
                Text(row.label), *_cells(row), style="bold" if row.source == "run" else ""
            )
    return table


def shown(results: Results) -> list[Row]:
    """Return the rows that fit a terminal: of the archive, those with the candidates' schedules."""
    schedules = {row.schedule for row in results.rows if row.source == "run"}
    return [row for row in results.rows if row.source == "run" or row.schedule in schedules]


def sections(results: Results) -> list[tuple[str, list[Row]]]:
    """Return rows in groups with titles: what ran here, then the archive's, each by speed-up."""
    rows = shown(results)
    here = [row for row in rows if row.source == "run"]
    stored = [row for row in rows if row.source != "run"]
    groups = [("", here), ("from the archive:", stored)]
    return [(title, sorted(group, key=_rank)) for title, group in groups if group]


def explanation(results: Results) -> list[str]:
    """Return the lines that explain the table's numbers and their limits."""
    num_seeds = len(results.seeds)
    lines = [
        "speed-up: steps that Adam's best curve needs for the same training loss, over the "
        f"optimizer's; interquartile mean over tasks [95%]; at most {results.horizon:g}. test "
        "loss: over tuned Adam's, below 1 is better. won: tasks with a lower test loss than tuned "
        f"Adam. Tuned per task over {results.rates_per_candidate} learning rates with {num_seeds} "
        "seeds; then with one rate for all tasks, Adam too. time: of a training step over Adam's; "
        "B: bytes of state per parameter.",
    ]
    limits: tuple[tuple[str, Callable[[Row], int]], ...] = (
        (f"where the speed-up is cut off at {results.horizon:g}", lambda row: row.num_capped),
        ("where the best rate is the lowest or highest tried", lambda row: row.num_at_edge),
        (
            "with a loss at the floor, below which losses are not distinguished",
            lambda row: row.num_at_floor,
        ),
        ("where an exception ended it, which counts as diverged", lambda row: row.num_failed),
        ("on which the rule was selected, which are left out", lambda row: row.num_selected),
    )
    here = [row for row in results.rows if row.source == "run"]
    for what, count in limits:
        counts = [f"{row.label} {count(row)}" for row in here if count(row)]
        if counts:
            lines.append(f"tasks {what}: {', '.join(counts)}.")
    hollow = [f"{row.label} {row.hollow:.0%}" for row in results.rows if row.hollow]
    if hollow:
        lines.append(
            "hollow runs, whose low loss comes from the arithmetic and not from training, count as "
            f"diverged ones do: {', '.join(hollow)}."
        )
    untuned = [row.label for row in here if row.num_rates == 1]
    if untuned and results.rates_per_candidate > 1:
        lines.append(f"not tuned, one learning rate for everything: {', '.join(untuned)}.")
    num_hidden = len(results.rows) - len(shown(results))
    if num_hidden:
        lines.append(f"{num_hidden} more baselines, with other schedules, are in the report.")
    effort = results.effort
    lines.append(
        f"{effort.num_runs:,} runs; {effort.compile_share:.0%} of "
        f"{effort.compile_s + effort.run_s:,.0f} worker-seconds was compiling."
    )
    return lines


def _rank(row: Row) -> float:
    return math.inf if math.isnan(row.speedup.value) else -row.speedup.value


def _cells(row: Row) -> Sequence[str]:
    return (
        str(row.speedup),
        str(row.test_ratio),
        f"{row.won:.0%}",
        f"{row.untuned_rate:.1e}",
        f"{row.untuned_speedup.value:.2f}",
        f"{row.won_untuned:.0%}",
        f"{row.diverged:.0%}",
        "-" if row.step_ratio is None else f"{row.step_ratio:.2f}",
        "-" if row.state_bytes is None else f"{row.state_bytes:.1f}",
    )
