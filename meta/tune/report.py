"""A tuning's report: one HTML page with the outcome and the schedules as they evolved.

It is written from `config.yaml` and `metrics.jsonl` alone, read-only, so it can be made of a
finished run, an interrupted one, or one that is still going on. The content of the files is shown
as text, since it may come from a stranger.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from veldt.meta.tune import comparison, schedule_file, tuning_data
from veldt.meta.tune.tuning_data import TuningData
from veldt.tasks.common.formatting import duration
from veldt.tasks.common.html import page as page_lib
from veldt.tasks.common.html import plot as plot_lib
from veldt.tasks.common.html.markup import Html, definitions, table, tag
from veldt.tasks.common.html.page import section
from veldt.tasks.common.html.plot import Axis, LinearAxis, LogAxis, Plot, Point
from veldt.tasks.common.nan_last import finite

_SHOWN: Final = 12  # Schedules between the first and the last.
_STYLE: Final = """
.line.between { stroke: var(--dot); stroke-width: 1; }
.line.start { stroke: var(--grey); stroke-dasharray: 6 4; }
.line.end { stroke: var(--blue); stroke-width: 2.8; }
.line.outcome { stroke: var(--dot); stroke-width: 1.2; }
.line.check { stroke: var(--blue); }
.marker.best { fill: var(--card); stroke: var(--ink); }
"""


def write_report(run_dir: Path, output: Path | None = None) -> Path:
    """Write the report of a tuning.

    Args:
      run_dir: Directory of the run.
      output: File to write; None for `report.html` in the run directory.

    Returns:
      File that was written.

    Raises:
      MetaTrainError: There is no tuning, it has no update yet, or its log is damaged.
      ConfigError: The config is damaged.
      FileError: The report cannot be written.
    """
    return page_lib.write(render(run_dir), run_dir, output)


def render(run_dir: Path) -> str:
    """Return the report of a run as HTML; see `write_report`."""
    data = tuning_data.read(run_dir)
    sections = [
        _headline(data, run_dir),
        _outcomes(data),
        _worth(run_dir),
        *(_evolution(data, name) for name in data.config.tune if _is_shown(data, name)),
        _trust(data),
        page_lib.configuration(data.config, {}),
    ]
    return page_lib.page(f"veldt tuning: {run_dir.resolve().name}", *sections, rules=_STYLE)


def render_plots(run_dir: Path) -> str:
    """Return the report's plots of the run's course as a page; see `write_report`."""
    data = tuning_data.read(run_dir)
    sections = [
        _outcomes(data),
        *(_evolution(data, name) for name in data.config.tune if _is_shown(data, name)),
    ]
    return page_lib.page(f"veldt tuning: {run_dir.resolve().name}", *sections, rules=_STYLE)


def _headline(data: TuningData, run_dir: Path) -> Html:
    config, first, best = data.config, data.checks[0], data.best
    facts = {
        "task": config.task,
        "steps of a run": f"{config.num_steps:,}",
        "optimizer": config.optimizer,
        "learned": ", ".join(config.tune),
        "updates": f"{len(data.updates):,} of {config.num_updates:,}",
        "runs of an update": config.seeds,
        "outcome": "validation loss" if config.objective == "valid" else "training loss",
        "time of the metagradients": duration(math.fsum(u.seconds for u in data.updates)),
        "plan": data.updates[-1].plan,
        "seed": config.seed,
    }
    outcome = f"{first.outcome:.5g} at the start, {best.outcome:.5g} after {best.update} updates"
    return tag(
        "section",
        tag("h1", f"Tuning {run_dir.resolve().name}"),
        tag("p", outcome, class_="outcome"),
        definitions(facts),
        tag("p", f"What was found is in {schedule_file.FILE} and {schedule_file.ARRAYS_FILE}."),
    )


def _outcomes(data: TuningData) -> Html:
    updates = [(u.update, u.outcome) for u in data.updates]
    checks = [(c.update, c.outcome) for c in data.checks]
    shown = [y for _, y in (*updates, *checks) if math.isfinite(y)]
    last = max(data.updates[-1].update, 1)
    plot = Plot(LinearAxis(0, last, "updates"), _axis(shown, "outcome"))
    at = (data.best.update, data.best.outcome)
    figure = plot.draw(
        "Outcome by update",
        f"From {checks[0][1]:.4g} to {at[1]:.4g} at its best.",
        plot.line([p for p in updates if math.isfinite(p[1])], "outcome"),
        plot.line([p for p in checks if math.isfinite(p[1])], "check"),
        *([plot.marker(at, "best", "diamond")] if math.isfinite(at[1]) else []),
    )
    items = [
        (plot_lib.swatch("line outcome"), "runs of the gradient, before the update"),
        (plot_lib.swatch("line check"), "runs with seeds that no update had"),
        (plot_lib.swatch("marker best", "diamond"), "the best, which was kept"),
    ]
    return section("Outcome", plot_lib.figure(figure, items, "Down is better."))


def _worth(run_dir: Path) -> Html:
    """Return the section on whether it was better than a constant rate and a cosine."""
    said = comparison.lines(comparison.read(run_dir))
    if not said:
        return Html()
    return section("Was it worth it?", *(tag("p", line.strip()) for line in said))


def _is_shown(data: TuningData, name: str) -> bool:
    return name in data.updates[-1].hyperparameters


def _evolution(data: TuningData, name: str) -> Html:
    """Return the figure of a schedule at several updates, or of a number by update."""
    spec = data.config.tune[name]
    values = [u.hyperparameters[name] for u in data.updates]
    start = [spec.start] * len(values[0])
    logarithmic = spec.scale == "log"
    if spec.knots and spec.by != "all":
        return _schedules_by_part(data, name)
    if not spec.knots:
        columns = list(zip(*[start, *values], strict=True))
        shown = [x for column in columns for x in column]
        plot = Plot(LinearAxis(0, len(values), "updates"), _axis(shown, name, logarithmic))
        lines = [plot.line(list(enumerate(column)), "check") for column in columns]
        figure = plot.draw(name, f"{name} by update.", *lines)
        return section(name, plot_lib.figure(figure, [], ""))
    stride = max(math.ceil(len(values) / _SHOWN), 1)
    between = values[:-1:stride]
    shown = [x for each in (start, *between, values[-1]) for x in each]
    length = data.config.num_steps
    plot = Plot(LinearAxis(0, length, "steps"), _axis(shown, name, logarithmic))

    def points(numbers: Sequence[float]) -> list[Point]:
        return [(i / (len(numbers) - 1) * length, y) for i, y in enumerate(numbers)]

    figure = plot.draw(
        name,
        f"{name} over the run, from the start of the tuning to its last update.",
        *(plot.line(points(each), "between") for each in between),
        plot.line(points(start), "start"),
        plot.line(points(values[-1]), "end"),
    )
    items = [
        (plot_lib.swatch("line start"), "before the first update"),
        (plot_lib.swatch("line between"), f"every {stride} updates" if stride > 1 else "between"),
        (plot_lib.swatch("line end"), f"after update {data.updates[-1].update}"),
    ]
    return section(name, plot_lib.figure(figure, items, ""))


def _schedules_by_part(data: TuningData, name: str) -> Html:
    """Return the figure of the schedules that the parts of a model ended with, and their ends."""
    spec, length = data.config.tune[name], data.config.num_steps
    flat = data.updates[-1].hyperparameters[name]
    rows = [flat[i : i + spec.knots] for i in range(0, len(flat), spec.knots)]
    plot = Plot(
        LinearAxis(0, length, "steps"), _axis([spec.start, *flat], name, spec.scale == "log")
    )

    def points(numbers: Sequence[float]) -> list[Point]:
        return [(i / (spec.knots - 1) * length, y) for i, y in enumerate(numbers)]

    figure = plot.draw(
        name,
        f"{name} over the run, of each {spec.by}, after the last update.",
        plot.line(points([spec.start] * spec.knots), "start"),
        *(plot.line(points(row), "check") for row in rows),
    )
    items = [
        (plot_lib.swatch("line start"), "before the first update"),
        (plot_lib.swatch("line check"), f"each {spec.by}, after update {data.updates[-1].update}"),
    ]
    middle = spec.knots // 2
    numbers = [
        ("", (str(i), *(f"{row[k]:.4g}" for k in (0, middle, -1)))) for i, row in enumerate(rows)
    ]
    listed = table((spec.by, "first knot", "middle", "last"), numbers)
    remark = f"The order is that of PARTS in {schedule_file.FILE}."
    return section(name, plot_lib.figure(figure, items, remark), listed)


def _trust(data: TuningData) -> Html:
    rows = [
        ("", (u.update, u.method, _shown(u.metasmoothness), u.conclusion))
        for u in data.updates
        if u.metasmoothness is not None or u.method != "replay"
    ]
    if not rows:
        return section("Trust", tag("p", "Metagradients were examined for being finite only."))
    return section("Trust", table(("update", "method", "metasmoothness", "conclusion"), rows))


def _axis(values: Sequence[float], label: str, logarithmic: bool = False) -> Axis:
    values = finite(values) or [0.0]
    if logarithmic and min(values) > 0:
        low, high = plot_lib.padded([math.log(value) for value in values])
        return LogAxis(math.exp(low), math.exp(high), label)
    return LinearAxis(*plot_lib.padded(values), label)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
