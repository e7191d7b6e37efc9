"""The tables of the benchmark's page: over the suite, task by task, and the tasks themselves."""

import math
from collections.abc import Iterable, Sequence
from typing import Final

from veldt.tasks.benchmark.protocol.schedules import CONSTANT
from veldt.tasks.benchmark.report import benchmark_figures
from veldt.tasks.benchmark.scores.aggregate import Interval
from veldt.tasks.benchmark.scores.results import Results, Row, TaskScore
from veldt.tasks.common.html import plot as plot_lib
from veldt.tasks.common.html.markup import Html, join, table, tag
from veldt.tasks.common.html.plot import Frame, LinearAxis, LogAxis, Plot

STYLE: Final = """
.compact table { font-size: .88rem; line-height: 1.4; }
.compact th, .compact td { padding: .3rem .7rem .3rem 0; }
.compact th:last-child, .compact td:last-child { padding-right: 0; }
.compact thead th { vertical-align: bottom; line-height: 1.25; white-space: normal; }
.compact td:first-child, .compact thead th:first-child {
  position: sticky; left: 0; min-width: 14.8rem; background: var(--page);
  overflow-wrap: anywhere;
}
.compact tr.groups th { border-bottom: 1px solid var(--rule); }
.compact tr.groups td { border-bottom: 0; }
.compact tr.part th { padding-top: 1rem; color: var(--ink); border-bottom: 1px solid var(--rule); }
.range { display: block; color: var(--soft); font-size: .76rem; font-weight: 400; }
.clear { font-weight: 700; }
.whole { white-space: nowrap; }
svg.forest { display: block; width: 7rem; height: 1.3rem; }
.forest text { font-weight: 400; }
.forest .whisker { stroke: var(--grey); stroke-width: 2; fill: none; }
.forest .whisker.run { stroke: var(--blue); stroke-width: 3; }
.forest .marker { fill: var(--grey); }
.forest .marker.run { fill: var(--blue); }
.forest .unity { stroke: var(--rule); stroke-width: 1.5; fill: none; }
tr.run td:first-child { font-weight: 600; }
@media (max-width: 60rem) {
  .compact td:first-child, .compact thead th:first-child { min-width: 10rem; }
}
@media print {
  .compact table { font-size: 8pt; }
  .compact td:first-child, .compact thead th:first-child { position: static; }
  svg.forest { width: 6rem; }
}
"""

_FOREST: Final = Frame(width=136, height=24, left=6, right=6, top=0, bottom=0)


# ------------------------------------------------------------------------------------------ numbers


def number(value: float | None) -> str:
    """Return a score for people, with two or three digits; "-" where there is none."""
    if value is None or math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if size == 0 or 0.095 <= size < 99.5:
        return f"{value:.2f}"
    return f"{value:,.0f}" if 99.5 <= size < 1e5 else f"{value:.2g}"


def speedup(row: Row) -> str:
    """Return a row's speed-up with its interval, on one line."""
    return f"{number(row.speedup.value)} ({_ends(row.speedup)})"


def _ends(interval: Interval) -> str:
    return f"{number(interval.low)}–{number(interval.high)}"


def _scored(interval: Interval, *, clear: bool) -> Html:
    value = tag("span", number(interval.value), class_="clear" if clear else None)
    return join([value, tag("span", _ends(interval), class_="range")])


def _faster(interval: Interval) -> Html:
    return _scored(interval, clear=interval.low > 1)


def _lower(interval: Interval) -> Html:
    return _scored(interval, clear=interval.high < 1)


def _rate(value: float) -> str:
    return f"{value:.2g}"


# ---------------------------------------------------------------------------------- over the suite


def main_table(results: Results) -> Html:
    """Return the table of all rows, the fastest first, candidates before archived baselines."""
    speed = tag("span", "speed-up", class_="whole")
    heads = (
        "optimizer", speed, _forest_axis(results.horizon), "test loss", "train loss", "won",
        "rate", speed, "test loss", "won", "diverged", "step time", "state, B/param",
    )  # fmt: skip
    groups = (
        ("", 1),
        ("tuned: the best learning rate of each task", 5),
        ("untuned: one rate for all tasks", 4),
        ("", 1),
        ("cost", 2),
    )
    rows: list[tuple[str, Sequence[object]]] = []
    for title, source in (("Candidates run here", True), ("Baselines from the archive", False)):
        part = [
            row for row in benchmark_figures.ranked(results.rows) if (row.source == "run") == source
        ]
        if part:
            rows.append(("part", (title,)))
        rows += [("run" if source else "", _cells(row, results)) for row in part]
    return tag(
        "div", table(heads, rows, numbers=(1, *range(3, 13)), groups=groups), class_="compact"
    )


def _cells(row: Row, results: Results) -> tuple[object, ...]:
    return (
        _name(row, _remarks(row)),
        _faster(row.speedup),
        _forest(row, results.horizon),
        _lower(row.test_ratio),
        _lower(row.train_ratio),
        f"{row.won:.0%}",
        _rate(row.untuned_rate),
        _faster(row.untuned_speedup),
        _lower(row.untuned_test_ratio),
        f"{row.won_untuned:.0%}",
        _lost(row.diverged, row.hollow),
        number(row.step_ratio),
        "-" if row.state_bytes is None else f"{row.state_bytes:.3g}",
    )


def _name(row: Row, *below: str) -> Html:
    """Return a row's name, with the schedule and further words below it in small."""
    words = ", ".join(([] if row.schedule == CONSTANT else [row.schedule]) + [*filter(None, below)])
    return join([row.name, tag("span", words, class_="range") if words else ""])


def _remarks(row: Row) -> str:
    """Return how many tasks have something that the means do not show."""
    counts = (
        (row.num_capped, "capped"),
        (row.num_at_edge, "at edge"),
        (row.num_failed, "failed"),
        (row.num_selected, "left out"),
    )
    remarks = ["not tuned"] if row.num_rates == 1 else []
    return ", ".join(remarks + [f"{count} {name}" for count, name in counts if count])


def _forest_plot(horizon: float) -> Plot:
    start = benchmark_figures.MIN_SPEEDUP
    return Plot(LogAxis(start, max(horizon, 2 * start), ""), LinearAxis(0, 1, ""), _FOREST)


def _forest(row: Row, horizon: float) -> Html:
    """Return a row's interval as a line, its value as a dot, with an upright line at 1."""
    plot = _forest_plot(horizon)
    values = (row.speedup.low, row.speedup.value, row.speedup.high)
    kind = "run" if row.source == "run" else "archive"
    content = [_unity(plot)]
    if not any(math.isnan(value) for value in values):
        (low, y), (high, _) = plot.place((values[0], 0.5)), plot.place((values[2], 0.5))
        content += [
            tag("path", d=f"M{low:.1f} {y:.1f}H{high:.1f}", class_=f"whisker {kind}"),
            plot.marker((values[1], 0.5), kind, "circle", 0.75),
        ]
    return _strip(content)


def _forest_axis(horizon: float) -> Html:
    plot = _forest_plot(horizon)
    marks = ((benchmark_figures.MIN_SPEEDUP, "1/8", "start"), (1.0, "1", "middle"))
    ends = ((horizon, f"{horizon:g}", "end"),) if horizon > 1.5 else ()
    texts = (
        plot_lib.text(plot.place((value, 0))[0], 18, name, anchor)
        for value, name, anchor in (*marks, *ends)
    )
    return _strip(texts)


def _unity(plot: Plot) -> Html:
    x, _ = plot.place((1.0, 0.5))
    return tag("path", d=f"M{x:.1f} 0V{plot.frame.height}", class_="unity")


def _strip(content: Iterable[Html]) -> Html:
    size = f"0 0 {_FOREST.width} {_FOREST.height}"
    return tag("svg", *content, viewBox=size, class_="forest", aria_hidden="true")


# ------------------------------------------------------------------------------------- task by task


def speedups_by_task(results: Results) -> Html:
    """Return the table of speed-ups with a line per task and a column per drawn row."""
    chosen = [one.row for one in benchmark_figures.choose(results.rows)]
    if not chosen or not results.tasks:
        return Html()
    rows = []
    for record in results.tasks:
        scores = [{score.task: score for score in row.tasks}.get(record.task) for row in chosen]
        best = max((score.speedup for score in scores if score and not score.failed), default=None)
        rows.append(
            ("", (record.task, *("-" if s is None else _task_speedup(s, best) for s in scores)))
        )
    columns = range(1, len(chosen) + 1)
    return join(
        [
            tag("p", "Speed-ups over tuned Adam of the rows drawn above; bold is the fastest."),
            tag(
                "div",
                table(("task", *map(_name, chosen)), rows, numbers=columns),
                class_="compact",
            ),
        ]
    )


def _task_speedup(score: TaskScore, best: float | None = None) -> Html:
    """Return a task's speed-up, or why there is none."""
    if score.failed:
        return tag("span", "failed")
    if score.selected:
        return join([number(score.speedup), " (selected on)"])
    text = f"≥ {score.speedup:.3g}" if score.capped else number(score.speedup)
    return tag("span", text, class_="clear" if score.speedup == best else None)


def task_details(row: Row) -> Html:
    """Return a row's scores on every task, folded."""
    heads = (
        "task", "speed-up", "rate", "train loss", "over Adam's", "rate", "test loss",
        "over Adam's", "speed-up", "test, over Adam's", "diverged", "step time", "state, B/param",
    )  # fmt: skip
    groups = (
        ("", 1),
        ("at the rate of the lowest training loss", 4),
        ("at that of the lowest validation loss", 3),
        (f"untuned: rate {_rate(row.untuned_rate)}", 2),
        ("", 3),
    )
    rows = [
        (
            "",
            (
                score.task,
                _task_speedup(score),
                join([_rate(score.rate), tag("span", "at edge", class_="range")])
                if score.at_edge
                else _rate(score.rate),
                _loss(score.train_loss),
                number(score.train_ratio),
                _rate(score.valid_rate),
                _loss(score.test_loss),
                number(score.test_ratio),
                number(score.untuned_speedup),
                number(score.untuned_test_ratio),
                _lost(score.diverged, score.hollow),
                number(score.step_ratio),
                "-" if score.state_bytes is None else f"{score.state_bytes:.3g}",
            ),
        )
        for score in row.tasks
    ]
    remarks = f", {_remarks(row)}" if _remarks(row) else ""
    return tag(
        "details",
        tag("summary", row.label, f": {speedup(row)} over {len(rows)} tasks{remarks}"),
        tag(
            "div", table(heads, rows, numbers=range(1, len(heads)), groups=groups), class_="compact"
        ),
    )


def _lost(diverged: float, hollow: float) -> Html | str:
    """Return the shares of runs that do not count."""
    if not hollow:
        return f"{diverged:.0%}"
    return join([f"{diverged:.0%}", tag("span", f"{hollow:.0%} hollow", class_="range")])


def _loss(value: float) -> str:
    """Return a loss in the task's own units."""
    return f"{value:.4g}" if math.isfinite(value) else number(value)


def tasks_table(results: Results) -> Html:
    """Return the table of the suite's tasks."""
    rows = [
        (
            "",
            (
                record.task,
                f"{record.num_steps:,}",
                f"{record.num_params:,}",
                "the archive" if record.reference == "archive" else "runs made here",
                tag("code", record.fingerprint.partition(":")[0][:16]),
            ),
        )
        for record in results.tasks
    ]
    heads = ("task", "steps", "parameters", "Adam's curves from", "fingerprint")
    return table(heads, rows, numbers=(1, 2))
