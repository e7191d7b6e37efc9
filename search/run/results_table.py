"""The table that a search prints at its end, with the conclusion and the winner's source text."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from veldt.search.config import objectives
from veldt.search.config.search_config import SearchConfig
from veldt.search.finals import conclusion
from veldt.search.storage import best_rule as best
from veldt.search.storage.hall_entries import Entry
from veldt.tasks.common import formatting

if TYPE_CHECKING:
    from rich.table import Table


def print_results(
    entries: Sequence[Entry],
    run_dir: Path,
    stream: TextIO | None = None,
    *,
    config: SearchConfig | None = None,
) -> None:
    """Print the finals' table, the conclusion, and the winner's source.

    Args:
      entries: Entries of the table.
      run_dir: Directory of the run.
      stream: Stream to print to; standard output if None.
      config: Config of the run; None where the caller does not know it.
    """
    from rich.console import Console
    from rich.syntax import Syntax

    stream = sys.stdout if stream is None else stream
    scale = objectives.describe(config.objective if config else objectives.DEFAULT)
    if config is None:
        scale = f"the config's objective, by default {scale}"
    # Without a terminal, rich would fold the table at 80 columns; below that, columns vanish.
    width = max(Console(file=stream).width, 80) if stream.isatty() else 120
    console = Console(file=stream, width=width, highlight=False, markup=False)
    console.print(results_table(entries))
    console.print(
        f"Scores are {scale}: lower is better, 0.1 less is about 10% less loss. "
        "Every rule had the same budget for its numbers; `proxies` is on seeds "
        "that nothing was selected on, ± one standard error.",
        style="dim",
    )
    console.print(conclusion.sentences(entries, config.finals if config else None))
    winner = conclusion.find_winner(entries)
    if winner is not None:
        console.print()
        source = Syntax("", "python", theme="ansi_dark", background_color="default").highlight(
            best.shown(winner.program).rstrip()
        )
        console.print(source, soft_wrap=True)  # If rich folded it, it would be no program.
    console.print(f"run directory: {run_dir}", soft_wrap=True)


def results_table(entries: Sequence[Entry]) -> "Table":
    """Return the hall of fame as a table."""
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
            formatting.signed(entry.search_fitness),
            score_with_error(entry),
            formatting.signed(entry.meta),
            *([str(entry.stages)] if funnel else []),
            style="bold" if entry.winner else ("cyan" if entry.candidate < 0 else None),
        )
    return table


def score_with_error(entry: Entry) -> str:
    """Return a finalist's score on the final seeds, with its standard error if there is one."""
    error = "" if entry.final is None else formatting.plus_minus(entry.final_error)
    return formatting.signed(entry.final) + error
