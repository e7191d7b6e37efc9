"""The benchmark's figures: performance profiles, and training curves task by task.

A figure with more than a handful of lines cannot be read, so `choose` ranks and cuts: the fastest
candidates run here, tuned Adam, and the fastest baselines. Series differ in colour, dash and
marker.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np

from veldt.tasks.benchmark.protocol import baselines
from veldt.tasks.benchmark.protocol.schedules import CONSTANT
from veldt.tasks.benchmark.scores import aggregate
from veldt.tasks.benchmark.scores.results import Results, Row, TaskRecord, TaskScore
from veldt.tasks.common.disk import atomic_files
from veldt.tasks.common.html import plot as plot_lib
from veldt.tasks.common.html import style
from veldt.tasks.common.html.markup import Html, tag
from veldt.tasks.common.html.plot import Frame, LinearAxis, LogAxis, Plot, Point

PROFILE_FILE: Final = "profile.svg"
CURVES_FILE: Final = "curves.svg"
MAX_CANDIDATES: Final = 4
MIN_SPEEDUP: Final = 1 / 8
"""Start of the axes of speed-ups."""

MIN_LOSS: Final = 1e-6
"""Upper limit of the start of the axes of losses; `scoring` sees no difference below it either."""

_STYLES: Final = (
    ("blue", "none", "circle"),
    ("orange", "9 3", "square"),
    ("green", "2 3", "diamond"),
    ("purple", "9 3 2 3", "triangle"),
    ("pink", "5 3", "wedge"),
    ("gold", "14 3 2 3 2 3", "bar"),
)
MAX_SERIES: Final = len(_STYLES) + 1
"""Adam has a style of its own."""

_PANEL: Final = Frame(width=340, height=230, left=50, right=12, top=32, bottom=28)
_PANELS_ACROSS: Final = 3
_LEGEND_COLUMN: Final = 240
_LEGEND_ROW: Final = 22
_LONGEST_NAME: Final = 30
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

STYLE: Final = "".join(
    [
        *(
            f".line.s{i} {{ stroke: var(--{colour}); stroke-dasharray: {dash}; }}\n"
            f".marker.s{i} {{ fill: var(--{colour}); stroke: var(--card); }}\n"
            for i, (colour, dash, _) in enumerate(_STYLES)
        ),
        ".line.adam { stroke: var(--ink); stroke-dasharray: 2 2.5; }\n",
        ".marker.adam { fill: var(--card); stroke: var(--ink); }\n",
        ".line.archive { stroke-width: 1.6; }\n",
        ".line.envelope { stroke: var(--grey); stroke-width: 3.2; stroke-opacity: .45; }\n",
        ".line.one { stroke: var(--grey); stroke-width: 1; stroke-dasharray: 4 3; }\n",
        ".marker.lost { fill: none; stroke: var(--ink); }\n",
        "svg text.name { fill: var(--ink); font-weight: 600; }\n",
    ]
)
"""Colours, dashes and widths by class."""


@final
@dataclass(frozen=True, slots=True)
class Series:
    """A row that is drawn.

    Attributes:
      row: Scores.
      kind: Class in the style sheet.
      shape: Shape of the markers.
    """

    row: Row
    kind: str
    shape: str

    @property
    def lines(self) -> str:
        """The class of the lines."""
        return f"{self.kind} {'run' if self.row.source == 'run' else 'archive'}"


def ranked(rows: Iterable[Row]) -> list[Row]:
    """Return rows by speed-up, the fastest first; equal ones, and those without, in given order."""

    def slowness(row: Row) -> float:
        return math.inf if math.isnan(row.speedup.value) else -row.speedup.value

    return sorted(rows, key=slowness)


def choose(rows: Sequence[Row]) -> tuple[Series, ...]:
    """Return the rows to draw, at most `MAX_SERIES`.

    Candidates run here first, then Adam without a schedule, then the archive's fastest, each
    optimizer with its fastest schedule before any optimizer with a second one.
    """
    archive = [row for row in rows if row.source != "run"]
    adam = [row for row in archive if (row.name, row.schedule) == (baselines.ADAM, CONSTANT)][:1]
    others = _one_schedule_first((row for row in archive if row not in adam), taken=adam)
    run = _one_schedule_first(row for row in rows if row.source == "run")
    run = run[: MAX_CANDIDATES if others else len(_STYLES)]
    styled = zip([*run, *others], _STYLES, strict=False)  # As many as there are styles.
    drawn = [Series(row, f"s{i}", shape) for i, (row, (_, _, shape)) in enumerate(styled)]
    reference = (Series(row, "adam", "circle") for row in adam)
    return (*drawn[: len(run)], *reference, *drawn[len(run) :])


def _one_schedule_first(rows: Iterable[Row], taken: Iterable[Row] = ()) -> list[Row]:
    """Return rows by speed-up; an optimizer's second schedule comes after every other's first."""
    seen = {row.name for row in taken}
    first: list[Row] = []
    second: list[Row] = []
    for row in ranked(rows):
        (second if row.name in seen else first).append(row)
        seen.add(row.name)
    return first + second


def left_out(rows: Sequence[Row], series: Sequence[Series]) -> str:
    """Return a sentence on what is not drawn; "" where all is."""
    missing = len(rows) - len(series)
    if not missing:
        return ""
    run = sum(row.source == "run" for row in rows)
    drawn = sum(one.row.source == "run" for one in series)
    parts = []
    if run:
        parts.append("the candidates" if drawn == run else f"{drawn} of {run} candidates")
    if any(one.kind == "adam" for one in series):
        parts.append("tuned Adam")
    if any(one.kind != "adam" for one in series[drawn:]):
        parts.append("baselines")
    return (
        f"Drawn are {', '.join(parts)}: the fastest, each optimizer with its fastest schedule "
        f"first; {missing} more in the table."
    )


# ---------------------------------------------------------------------------------------- profiles


def profile_plot(results: Results) -> Plot:
    """Return the axes of the performance profiles."""
    marks = [m for m in (1 / 8, 1 / 4, 1 / 2, 1, 1.5, 2, 3, 4, 6, 8) if m <= results.horizon]
    names = {1 / 8: "1/8", 1 / 4: "1/4", 1 / 2: "1/2"}
    return Plot(
        LogAxis(
            MIN_SPEEDUP,
            max(results.horizon, 2 * MIN_SPEEDUP),
            "speed-up τ over tuned Adam (logarithmic)",
            marks=tuple((mark, names.get(mark, f"{mark:g}")) for mark in marks),
        ),
        LinearAxis(0, 100, "% of tasks with a speed-up of at least τ", most=5),
    )


def profile(results: Results, series: Sequence[Series]) -> Html:
    """Return performance profiles: the share of tasks with at least each speed-up, by series."""
    return profile_plot(results).draw(*_profile_texts(series), *_profile_content(results, series))


def _profile_texts(series: Sequence[Series]) -> tuple[str, str]:
    shares = ", ".join(
        f"{one.row.label} {_share(one.row, 1.0):.0f}%" for one in series if one.row.tasks
    )
    return (
        "Share of tasks by speed-up over tuned Adam",
        f"Tasks with a speed-up of at least 1: {shares or 'none'}. Higher is better.",
    )


def _profile_content(results: Results, series: Sequence[Series]) -> list[Html]:
    plot = profile_plot(results)
    start, end = plot.x.low, plot.x.high
    content = [plot.line([(1.0, 0.0), (1.0, 100.0)], "one")]
    for i, one in reversed(list(enumerate(series))):  # Candidates last, on top.
        if not one.row.tasks:
            continue
        speedups = sorted({task.speedup for task in one.row.tasks if start <= task.speedup < end})
        # Below a speed-up, up to it and no further, its task counts.
        points = [
            (start, _share(one.row, start)),
            *((value, _share(one.row, math.nextafter(value, math.inf))) for value in speedups),
        ]
        content.append(plot.steps(points, end, one.lines))
        for j in range(4):  # Staggered, so that no series' markers hide another's.
            place = start * (end / start) ** ((j + (i + 0.5) / len(series)) / 4)
            content.append(plot.marker((place, _share(one.row, place)), one.kind, one.shape, 0.85))
    return content


def _share(row: Row, threshold: float) -> float:
    """Return the percentage of a row's tasks with a speed-up of at least the threshold."""
    speedups = np.array([task.speedup for task in row.tasks])
    return 100.0 * float(aggregate.profile(speedups, np.array([threshold]))[0])


# ------------------------------------------------------------------------------------------ curves


def panels(results: Results, series: Sequence[Series]) -> list[Html]:
    """Return a small figure per task: normalised training loss against steps, with the envelope."""
    return [_panel(record, series, class_="panel") for record in results.tasks]


def _panel(record: TaskRecord, series: Sequence[Series], **attributes: object) -> Html:
    scores = [(one, score) for one in series if (score := _score(one.row, record.task))]
    plot = Plot(
        LinearAxis(0, max(record.num_steps, 1), "", most=4),
        LogAxis(*_loss_range(record, [score for _, score in scores]), "", most=5),
        _PANEL,
    )
    content = [
        plot_lib.text(_PANEL.left, 18, _short(record.task), "start", "name"),
        plot.line(_finite(record.steps, record.envelope), "envelope"),
    ]
    num_lost = 0
    for i, (one, score) in reversed(list(enumerate(scores))):
        points = _finite(record.steps, score.curve)
        content.append(plot.line(points, one.lines))
        if len(points) < len(score.curve):
            num_lost += 1
            content += [plot.marker(point, "lost", "cross", 0.8) for point in points[-1:]]
        elif points:
            middle = points[(i + 1) * len(points) // (len(scores) + 2)]
            content += [
                plot.marker(p, one.kind, one.shape, 0.65)
                for p in dict.fromkeys((middle, points[-1]))
            ]
    if num_lost:
        right = _PANEL.width - _PANEL.right
        content.append(plot_lib.text(right, 18, f"{num_lost} diverged", "end"))
    ends = ", ".join(f"{one.row.label} {score.train:.2g}" for one, score in scores)
    return plot.svg(
        f"{record.task}: training loss against steps",
        f"Normalised training loss after {record.num_steps} steps: {ends or 'nothing drawn'}.",
        *content,
        **attributes,
    )


def _score(row: Row, task: str) -> TaskScore | None:
    return next((score for score in row.tasks if score.task == task), None)


def _finite(steps: Sequence[int], losses: Sequence[float]) -> list[Point]:
    """Return a curve until its first loss that is not finite."""
    points: list[Point] = []
    for step, loss in zip(steps, losses, strict=False):
        if not math.isfinite(loss):
            break
        points.append((step, loss))
    return points


def _loss_range(record: TaskRecord, scores: Sequence[TaskScore]) -> tuple[float, float]:
    """Return the range from the lowest loss to the highest, but not far above the start."""
    curves = [record.envelope, *(score.curve for score in scores)]
    finite = [loss for curve in curves for loss in curve if math.isfinite(loss) and loss > 0]
    starts = [curve[0] for curve in curves if curve and math.isfinite(curve[0]) and curve[0] > 0]
    if not finite or not starts:
        return 0.01, 1.0
    high = 1.1 * min(max(finite), 2 * max(starts))
    low = max(min(finite), MIN_LOSS) / 1.1
    return min(low, high / 2), high


# ---------------------------------------------------------------------------- legends and documents


def legend_items(series: Sequence[Series]) -> list[tuple[Html, object]]:
    """Return samples and names of the series, for a page."""
    return [(plot_lib.framed_swatch(*_sample(one)), one.row.label) for one in series]


def envelope_item() -> tuple[Html, object]:
    """Return the sample and name of Adam's envelope, for a page."""
    return plot_lib.framed_swatch(*_ENVELOPE), _ENVELOPE_NAME


_ENVELOPE: Final = (tag("path", d="M0 6H28", class_="line envelope"),)
_ENVELOPE_NAME: Final = "Adam's lower envelope"


def _sample(one: Series) -> tuple[Html, ...]:
    """Return a piece of the line with a marker, 28 wide and 12 high."""
    return (
        tag("path", d="M0 6H28", class_=f"line {one.lines}"),
        plot_lib.marker(14, 6, one.kind, one.shape, 0.85),
    )


def write_figures(results: Results, folder: Path) -> tuple[Path, ...]:
    """Write the figures as files of their own, with their style: `profile.svg`, `curves.svg`.

    Args:
      results: Results to draw.
      folder: Folder of the files; made if it does not exist.

    Returns:
      Files that were written.

    Raises:
      FileError: They cannot be written.
    """
    atomic_files.make_folder(folder)
    series = choose(results.rows)
    paths = folder / PROFILE_FILE, folder / CURVES_FILE
    for path, text in zip(
        paths, (_profile_file(results, series), _curves_file(results, series)), strict=True
    ):
        atomic_files.write_bytes(path, _NOT_XML.sub("\ufffd", text).encode())
    return paths


def _profile_file(results: Results, series: Sequence[Series]) -> str:
    plot = profile_plot(results)
    items = [(_sample(one), one.row.label) for one in series]
    top = _legend_height(items) + 12
    title, description = _profile_texts(series)
    width, height = plot.frame.width, plot.frame.height
    inner = plot.svg(
        title, description, *_profile_content(results, series), y=top, width=width, height=height
    )
    return _document(title, (width, top + height), [*_legend(items), inner])


def _curves_file(results: Results, series: Sequence[Series]) -> str:
    items = [*((_sample(one), one.row.label) for one in series), (_ENVELOPE, _ENVELOPE_NAME)]
    top = _legend_height(items) + 12
    across = _PANELS_ACROSS
    rows = math.ceil(len(results.tasks) / across)
    drawn = [
        _panel(
            record,
            series,
            x=i % across * _PANEL.width,
            y=top + i // across * _PANEL.height,
            width=_PANEL.width,
            height=_PANEL.height,
        )
        for i, record in enumerate(results.tasks)
    ]
    title = f"Normalised training loss against steps, suite {results.suite}"
    size = across * _PANEL.width, top + rows * _PANEL.height + _LEGEND_ROW
    note = "Across: steps. Upwards: normalised training loss (logarithmic), mean over seeds."
    below = plot_lib.text(_PANEL.left, size[1] - 8, note, "start")
    return _document(title, size, [*_legend(items), *drawn, below])


def _legend_height(items: Sequence[tuple[object, str]]) -> int:
    return math.ceil(len(items) / 3) * _LEGEND_ROW


def _legend(items: Sequence[tuple[tuple[Html, ...], str]]) -> list[Html]:
    """Return the legend as part of a figure, three across."""
    placed = []
    for i, (sample, name) in enumerate(items):
        x, y = 12 + i % 3 * _LEGEND_COLUMN, 10 + i // 3 * _LEGEND_ROW
        placed += [
            tag("g", *sample, transform=f"translate({x} {y})"),
            plot_lib.text(x + 36, y + 10, _short(name), "start"),
        ]
    return placed


def _document(title: str, size: tuple[int, int], content: Iterable[Html]) -> str:
    width, height = size
    sheet = Html(f"{style.COLOURS}{style.FIGURES}{STYLE}.paper {{ fill: var(--card); }}\n")
    return tag(
        "svg",
        tag("title", title),
        tag("style", sheet),
        tag("rect", width=width, height=height, class_="paper"),
        *content,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_label=title,
    )


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
