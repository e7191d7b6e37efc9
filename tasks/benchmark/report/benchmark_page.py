"""The benchmark's page: one HTML file with the table, the figures, and how to read them.

Nothing of it is loaded from elsewhere or run. Tables are in `benchmark_tables`, figures in
`benchmark_figures`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from veldt.tasks.benchmark.protocol import baselines
from veldt.tasks.benchmark.protocol.schedules import CONSTANT
from veldt.tasks.benchmark.report import benchmark_figures, benchmark_tables
from veldt.tasks.benchmark.report.benchmark_figures import Series
from veldt.tasks.benchmark.report.benchmark_tables import number
from veldt.tasks.benchmark.scores.aggregate import Interval
from veldt.tasks.benchmark.scores.results import Results, Row
from veldt.tasks.common.disk import atomic_files
from veldt.tasks.common.formatting import duration
from veldt.tasks.common.html import page as page_lib
from veldt.tasks.common.html import plot as plot_lib
from veldt.tasks.common.html.markup import Html, definitions, tag
from veldt.tasks.common.html.page import section

_STYLE: Final = """
body { max-width: 74rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: .6rem; }
figure svg.panel { min-width: 0; }
.profile { max-width: 54rem; }
.prose dl { grid-template-columns: max-content minmax(0, 46rem); }
@page { size: A4 landscape; margin: 12mm; }
@media (max-width: 36rem) {
  .panels { grid-template-columns: 1fr; }
  .prose dl { grid-template-columns: 1fr; }
}
@media print { .bulk { display: none; } }
"""


def write_page(results: Results, path: Path) -> None:
    """Write the page of a comparison.

    Args:
      results: Results of the comparison.
      path: File to write; its folder is made if it does not exist.

    Raises:
      FileError: It cannot be written.
    """
    atomic_files.make_folder(path.parent)
    # A name may hold half a surrogate pair, which UTF-8 has no form for.
    atomic_files.write_bytes(path, render(results).encode("utf-8", "replace"))


def render(results: Results) -> str:
    """Return the page of a comparison as HTML; see `write_page`."""
    series = benchmark_figures.choose(results.rows)
    return page_lib.page(
        f"veldt benchmark: {results.suite}",
        _header(results),
        _results(results),
        _reading(results),
        _profile(results, series),
        _curves(results, series),
        _by_task(results),
        _tasks(results),
        _effort(results),
        rules=benchmark_figures.STYLE + benchmark_tables.STYLE + _STYLE,
    )


# ---------------------------------------------------------------------------------------- headline


def _header(results: Results) -> Html:
    num_run = sum(row.source == "run" for row in results.rows)
    compared = (
        f"{_count(num_run, 'candidate')} run here beside "
        f"{_count(len(results.rows) - num_run, 'baseline')} from the archive, each optimizer "
        f"counted once per schedule, on {_count(len(results.tasks), 'task')}: "
        f"{_count(results.rates_per_candidate, 'learning rate')} × "
        f"{_count(len(results.seeds), 'seed')} for each on every task."
    )
    return tag(
        "header",
        tag("h1", f"Optimizer benchmark: suite {results.suite}"),
        tag("p", compared, class_="soft"),
        tag("p", headline(results), class_="outcome"),
    )


def headline(results: Results) -> str:
    """Return the result in a few sentences: the fastest candidate, the others, Adam itself."""
    run = benchmark_figures.ranked(row for row in results.rows if row.source == "run")
    rows = run or benchmark_figures.ranked(results.rows)
    if not rows or not results.tasks:
        return "Nothing was compared."
    first, others = rows[0], rows[1:] if run else []
    parts = [] if run else ["No candidate was run here; the fastest of the archive:"]
    parts.append(_outcome(first, len(results.tasks)))
    if others:
        named = ", ".join(f"{row.label} {benchmark_tables.speedup(row)}" for row in others[:4])
        more = f" and {len(others) - 4} more" if len(others) > 4 else ""
        parts.append(f"The other candidates: {named}{more}.")
    adam = _tuned_adam(results)
    if adam is not None and adam is not first:
        itself = number(adam.speedup.value)
        parts.append(f"By this measure Adam itself, tuned over as many rates, has {itself}.")
    if len(results.seeds) == 1:
        parts.append("One seed shows nothing of the spread: the intervals are empty.")
    return " ".join(parts)


def _outcome(row: Row, num_tasks: int) -> str:
    speed, test = row.speedup, row.test_ratio
    if row.num_failed == num_tasks:
        return f"{row.label} failed on every task."
    if speed.low > 1:
        conclusion = "faster"
    elif speed.high < 1:
        conclusion = "slower"
    else:
        conclusion = "neither clearly faster nor clearly slower"
    return (
        f"{row.label} is {conclusion} than tuned Adam at its best: speed-up {number(speed.value)} "
        f"{_range(speed)}. Its test loss is {number(test.value)} times tuned Adam's "
        f"{_range(test)}, lower on {row.won:.0%} of the tasks."
    )


def _range(interval: Interval) -> str:
    return f"(95% interval {number(interval.low)} to {number(interval.high)})"


def _tuned_adam(results: Results) -> Row | None:
    return next(
        (r for r in results.rows if (r.name, r.schedule) == (baselines.ADAM, CONSTANT)), None
    )


def _count(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"


# ------------------------------------------------------------------------------ table, how to read


def _results(results: Results) -> Html:
    return section(
        "Results",
        benchmark_tables.main_table(results),
        tag(
            "p",
            "Over tasks: interquartile means, with 95% intervals over seeds below them. Bold: the "
            "whole interval is on the better side of 1. In the chart the line is the interval and "
            "the upright one tuned Adam; its axis is logarithmic.",
            class_="soft",
        ),
    )


def _reading(results: Results) -> Html:
    seeds, horizon = len(results.seeds), results.horizon
    edge = (
        "The best learning rate on that task was the lowest or the highest tried, so a wider grid "
        "might have helped. Read such a row as a lower bound of what the optimizer can do."
    )
    values = {
        "speed-up": "The number of steps that Adam needs for the training loss that the optimizer "
        "has at its end, over the optimizer's own number of steps: at 2, Adam needs twice as many. "
        "“Adam” is the lower envelope of its curves over a fine grid of constant learning rates: "
        "at every step whichever is best there. No single run of Adam is as good, so Adam itself, "
        "tuned, is at most 1 on any task. 0: it diverged, or never beat the start.",
        "≥, capped": f"Adam's curves end after {horizon:g} times the task's steps. Where Adam had "
        f"not reached it by then, the speed-up is written ≥ {horizon:g} and counts as {horizon:g}, "
        "which is too little.",
        "test, train": "The loss at the end over that of tuned Adam without a schedule, both on "
        "the task's normalised scale (0 is perfect, 1 knows nothing): below 1 is better than "
        "Adam. Training loss is at the rate with the lowest training loss, as for the speed-up; "
        "test loss at the rate with the lowest validation loss.",
        "won": "The share of tasks with a lower test loss than tuned Adam; an equal one counts "
        "half.",
        "untuned": "One learning rate for all tasks: that with the lowest mean log validation "
        "loss, chosen in hindsight. Adam's one rate is chosen the same way for the test loss and "
        "for “won”; the speed-up stays relative to the same envelope of tuned Adam.",
        "equal tuning": f"Every row had {_count(results.rates_per_candidate, 'learning rate')} × "
        f"{_count(seeds, 'seed')} on every task, or one rate where it is marked “not tuned”, and "
        "nothing else was tuned: other settings are "
        "those written by the optimizer's author or given by hand. Rates are chosen on the seeds "
        "that are scored, Adam's too.",
        "intervals": "95% stratified bootstrap over seeds, with the tasks and the chosen rates "
        f"kept: what other seeds would have given on these tasks. With {_count(seeds, 'seed')} "
        "they are rough. They say nothing about other tasks, longer runs or larger models.",
        "mean over tasks": "The interquartile mean drops the lowest and the highest quarter of the "
        "tasks; for ratios it is that of their logarithms. A capped task can lie in the middle.",
        "at edge": edge,
        "hollow": "The share of runs whose low loss comes from the arithmetic and not from "
        "training, for example with parameters so large that all outputs round to one number. It "
        "counts as a diverged run does, with speed-up 0.",
        "diverged, failed": "Diverged is the share of all runs, at whatever rate, that ended "
        "without a finite loss. Failed is a task that an exception ended; it counts as diverged, "
        "with speed-up 0.",
        "left out": "Tasks that a discovered rule was selected on do not show how good it is: "
        "they count in none of its means.",
        "step time, state": "The time of a training step over that with Adam, measured side by "
        "side on this machine (geometric mean over tasks), and bytes of optimizer state per "
        "parameter; “-” where not measured. The speed-up counts steps, not seconds.",
    }
    return section("How to read it", tag("div", definitions(values), class_="prose"))


# ----------------------------------------------------------------------------------------- figures


def _profile(results: Results, series: Sequence[Series]) -> Html:
    if not series or not results.tasks:
        return Html()
    note = (
        "A line's height at τ is the share of tasks on which the optimizer is at least τ times as "
        "fast as tuned Adam: higher is better everywhere; at the right edge are the capped tasks. "
        f"{benchmark_figures.left_out(results.rows, series)}"
    )
    figure = plot_lib.figure(
        benchmark_figures.profile(results, series), benchmark_figures.legend_items(series), note
    )
    return section("Performance profiles", tag("div", figure, class_="profile"))


def _curves(results: Results, series: Sequence[Series]) -> Html:
    if not results.tasks:
        return Html()
    drawn = tag("div", *benchmark_figures.panels(results, series), class_="panels")
    note = (
        "Across: steps. Upwards: training loss on the task's normalised scale, logarithmic, mean "
        "over seeds, at the rate with the lowest loss at the end. A cross is the last finite loss "
        f"of a run that diverged; losses below {benchmark_figures.MIN_LOSS:g} lie on the lower "
        f"edge. {benchmark_figures.left_out(results.rows, series)}"
    )
    items = [*benchmark_figures.legend_items(series), benchmark_figures.envelope_item()]
    return section("Training curves", plot_lib.figure(drawn, items, note))


# ---------------------------------------------------------------------------------- task by task


def _by_task(results: Results) -> Html:
    run = [row for row in benchmark_figures.ranked(results.rows) if row.source == "run"]
    archive = [row for row in benchmark_figures.ranked(results.rows) if row.source != "run"]
    tables = [benchmark_tables.task_details(row) for row in run]
    if archive:
        tables.append(
            tag(
                "details",
                tag("summary", f"{_count(len(archive), 'baseline')} from the archive"),
                *(benchmark_tables.task_details(row) for row in archive),
                class_="bulk",
            )
        )
    return section("Task by task", benchmark_tables.speedups_by_task(results), *tables)


def _tasks(results: Results) -> Html:
    return section("The tasks", benchmark_tables.tasks_table(results))


def _effort(results: Results) -> Html:
    effort = results.effort
    values = {
        "trainings of the candidates": f"{effort.num_runs:,}, also those of an earlier session",
        "worker time": f"{duration(effort.compile_s + effort.run_s)}, "
        f"{effort.compile_share:.0%} of it compiling",
        "wall clock": f"{duration(effort.wall_s)}, this session",
        "seeds": ", ".join(map(str, results.seeds)),
        **results.versions,
    }
    return section("Effort and versions", definitions(values))
