"""A tuning's report: one HTML page with the outcome and the schedules as they evolved.

It is written from `config.yaml` and `metrics.jsonl` alone, read-only, so it can be made of a
finished run, an interrupted one, or one that is still going on. What the files hold is shown as
text, whoever wrote it.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

import yaml

from veldt.meta import errors
from veldt.meta.train import directory, log
from veldt.meta.train.display import duration
from veldt.meta.tune import comparison, schedule_file
from veldt.meta.tune import config as config_lib
from veldt.tasks.common.config import older_config
from veldt.tasks.common.disk import atomic_files
from veldt.tasks.common.html import page as page_lib
from veldt.tasks.common.html import plot as plot_lib
from veldt.tasks.common.html.markup import Html, definitions, table, tag
from veldt.tasks.common.html.plot import Axis, LinearAxis, LogAxis, Plot, Point
from veldt.tasks.common.nan_last import finite, lowest

REPORT_FILE: Final = "report.html"
_SHOWN: Final = 12  # schedules between the first and the last
_STYLE: Final = """
.line.between { stroke: var(--dot); stroke-width: 1; }
.line.start { stroke: var(--grey); stroke-dasharray: 6 4; }
.line.end { stroke: var(--blue); stroke-width: 2.8; }
.line.outcome { stroke: var(--dot); stroke-width: 1.2; }
.line.look { stroke: var(--blue); }
.marker.best { fill: var(--card); stroke: var(--ink); }
"""


@final
@dataclasses.dataclass(frozen=True)
class TuneRunData:
    """What a run has written down.

    Attributes:
      config: As in `config.yaml`.
      updates: Lines of the log, one for each update, in order.
      checks: Lines of the log, one for each look.
    """

    config: Mapping[str, Any]
    updates: Sequence[Mapping[str, Any]]
    checks: Sequence[Mapping[str, Any]]

    @property
    def best(self) -> Mapping[str, Any]:
        """The look with the lowest outcome."""
        return self.checks[lowest(line["outcome"] for line in self.checks) or 0]


def write_report(run_dir: Path, output: Path | None = None) -> Path:
    """Write the report of a tuning.

    Args:
      run_dir: The run's directory.
      output: The file; `report.html` in the run directory if None.

    Returns:
      The file written.

    Raises:
      MetaTrainError: There is no tuning, it has written nothing down yet, or its files are damaged.
    """
    path = run_dir / REPORT_FILE if output is None else output
    atomic_files.write_bytes(path, render(run_dir).encode(errors="replace"))
    return path


def render(run_dir: Path) -> str:
    """Return the report of a run as HTML; see `write_report`."""
    data = read(run_dir)
    try:
        sections = [
            _headline(data, run_dir),
            _outcomes(data),
            _worth(run_dir),
            *(_evolution(data, name) for name in data.config["tune"] if _is_shown(data, name)),
            _trust(data),
            _section("Configuration", tag("pre", yaml.safe_dump(dict(data.config)))),
        ]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise errors.MetaTrainError(
            f"the log or the config in {run_dir} is damaged, or not of one tuning: "
            f"{type(error).__name__}: {error}"
        ) from error
    return page_lib.page(f"veldt tuning: {run_dir.resolve().name}", *sections, rules=_STYLE)


def read(run_dir: Path) -> TuneRunData:
    """Return what a run has written down.

    Raises:
      MetaTrainError: There is no tuning, it has written nothing down yet, or its files are damaged.
    """
    config = older_config.fill(
        config_lib.TuneConfig, directory.read_config(run_dir / directory.CONFIG_FILE)
    )
    lines = list(log.read(run_dir))
    updates = [line for line in lines if line["kind"] == "update"]
    checks = [line for line in lines if line["kind"] == "check"]
    if not updates or not checks:
        raise errors.MetaTrainError(f"the tuning in {run_dir} has done no update yet")
    return TuneRunData(config, updates, checks)


def _section(title: str, *content: object) -> Html:
    return tag("section", tag("h2", title), *content)


def _headline(data: TuneRunData, run_dir: Path) -> Html:
    config, first, best = data.config, data.checks[0], data.best
    facts = {
        "task": config["task"],
        "steps of a run": f"{config['num_steps']:,}",
        "optimizer": config["optimizer"],
        "learned": ", ".join(config["tune"]),
        "updates": f"{len(data.updates):,} of {config['num_updates']:,}",
        "runs of an update": config["seeds"],
        "outcome": "validation loss" if config["objective"] == "valid" else "training loss",
        "time of the metagradients": duration(math.fsum(u["seconds"] for u in data.updates)),
        "plan": data.updates[-1]["plan"],
        "seed": config["seed"],
    }
    outcome = (
        f"{_number(first['outcome']):.5g} at the start, {_number(best['outcome']):.5g} after "
        f"{best['update']} updates"
    )
    return tag(
        "section",
        tag("h1", f"Tuning {run_dir.resolve().name}"),
        tag("p", outcome, class_="outcome"),
        definitions(facts),
        tag("p", f"What was found is in {schedule_file.FILE} and {schedule_file.ARRAYS_FILE}."),
    )


def _outcomes(data: TuneRunData) -> Html:
    updates = [(u["update"], _number(u["outcome"])) for u in data.updates]
    looks = [(c["update"], _number(c["outcome"])) for c in data.checks]
    shown = [y for _, y in (*updates, *looks) if math.isfinite(y)]
    last = max(data.updates[-1]["update"], 1)
    plot = Plot(LinearAxis(0, last, "updates"), _axis(shown, "outcome"))
    at = (data.best["update"], _number(data.best["outcome"]))
    figure = plot.draw(
        "Outcome by update",
        f"From {looks[0][1]:.4g} to {at[1]:.4g} at its best.",
        plot.line([p for p in updates if math.isfinite(p[1])], "outcome"),
        plot.line([p for p in looks if math.isfinite(p[1])], "look"),
        *([plot.marker(at, "best", "diamond")] if math.isfinite(at[1]) else []),
    )
    items = [
        (plot_lib.swatch("line outcome"), "runs that the gradient was of, before the update"),
        (plot_lib.swatch("line look"), "runs with seeds that no update had"),
        (plot_lib.swatch("marker best", "diamond"), "the best, which was kept"),
    ]
    return _section("Outcome", plot_lib.figure(figure, items, "Down is better."))


def _worth(run_dir: Path) -> Html:
    """Whether it was better than a constant rate and a cosine."""
    said = comparison.lines(comparison.read(run_dir))
    if not said:
        return Html()
    return _section("Was it worth it?", *(tag("p", line.strip()) for line in said))


def _is_shown(data: TuneRunData, name: str) -> bool:
    return name in data.updates[-1]["hyperparameters"]


def _evolution(data: TuneRunData, name: str) -> Html:
    """A schedule at several updates, or a number by update."""
    spec = data.config["tune"][name]
    values = [_list(u["hyperparameters"][name]) for u in data.updates]
    start = [spec["start"]] * len(values[0])
    logarithmic = spec["scale"] == "log"
    if not spec["knots"]:
        columns = list(zip(*[start, *values], strict=True))
        shown = [x for column in columns for x in column]
        plot = Plot(LinearAxis(0, len(values), "updates"), _axis(shown, name, logarithmic))
        lines = [plot.line(list(enumerate(column)), "look") for column in columns]
        figure = plot.draw(name, f"{name} by update.", *lines)
        return _section(name, plot_lib.figure(figure, [], ""))
    stride = max(math.ceil(len(values) / _SHOWN), 1)
    between = values[:-1:stride]
    shown = [x for each in (start, *between, values[-1]) for x in each]
    length = data.config["num_steps"]
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
        (plot_lib.swatch("line end"), f"after update {data.updates[-1]['update']}"),
    ]
    return _section(name, plot_lib.figure(figure, items, ""))


def _trust(data: TuneRunData) -> Html:
    rows = [
        ("", (u["update"], u["method"], _shown(u["metasmoothness"]), u["verdict"]))
        for u in data.updates
        if u["metasmoothness"] is not None or u["method"] != "replay"
    ]
    if not rows:
        return _section("Trust", tag("p", "Metagradients were examined for being finite only."))
    return _section("Trust", table(("update", "method", "metasmoothness", "verdict"), rows))


def _axis(values: Sequence[float], label: str, logarithmic: bool = False) -> Axis:
    values = finite(values) or [0.0]
    if logarithmic and min(values) > 0:
        low, high = plot_lib.padded([math.log(value) for value in values])
        return LogAxis(math.exp(low), math.exp(high), label)
    return LinearAxis(*plot_lib.padded(values), label)


def _list(value: Any) -> list[float]:
    return [_number(x) for x in value] if isinstance(value, list) else [_number(value)]


def _number(value: Any) -> float:
    """A number of the log, where what is not finite is null."""
    return math.inf if value is None else float(value)


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:.2f}"
