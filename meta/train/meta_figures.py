"""Figures of a meta-training's report: meta-loss, meta-validation, gradient norm, by update.

Lines are means over a number of updates, taken within a phase; a mean leaves out what was not
finite. Phases are parted by dashed lines with their names.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Final, TypeAlias, final

import numpy as np

from veldt.tasks.common.html import plot as plot_lib
from veldt.tasks.common.html.markup import Html
from veldt.tasks.common.html.plot import Axis, LinearAxis, LogAxis, Plot, Point
from veldt.tasks.common.nan_last import finite, lowest

Curve: TypeAlias = np.ndarray
"""A figure after each update, float64 [U]; NaN where there was none."""

_MAX_POINTS: Final = 400  # of a line
_KINDS: Final = 6  # of lines of tasks, before they repeat
_LOG_RATIO: Final = 5.0  # from which on an axis is logarithmic

STYLE: Final = """
.line.mean { stroke: var(--blue); }
.line.family { stroke: var(--dot); stroke-width: 1; stroke-opacity: .8; }
.line.bound { stroke: var(--grey); stroke-width: 1; stroke-dasharray: 3 4; }
.line.score { stroke: var(--ink); stroke-width: 2.8; }
.line.task0 { stroke: var(--blue); stroke-width: 1.6; }
.line.task1 { stroke: var(--orange); stroke-width: 1.6; stroke-dasharray: 9 3; }
.line.task2 { stroke: var(--green); stroke-width: 1.6; stroke-dasharray: 2 3; }
.line.task3 { stroke: var(--purple); stroke-width: 1.6; stroke-dasharray: 12 3 2 3; }
.line.task4 { stroke: var(--pink); stroke-width: 1.6; stroke-dasharray: 5 5; }
.line.task5 { stroke: var(--gold); stroke-width: 1.6; stroke-dasharray: 1 5; }
.dots.faint { stroke: var(--dot); stroke-opacity: .4; }
.swatch .dots.faint { stroke-opacity: .8; }
.marker.best { fill: var(--card); stroke: var(--ink); }
"""
"""Colours and widths by class."""


@final
@dataclasses.dataclass(frozen=True)
class Stretch:
    """The updates of a phase that were done.

    Attributes:
      name: The phase's.
      first: Updates done before it.
      last: Number of updates done at the end of the phase, or so far; above `first`.
    """

    name: str
    first: int
    last: int


def width(num_updates: int) -> int:
    """Return how many updates a line averages over."""
    return min(max(num_updates // 40, 1), 200)


def smooth(values: Curve, num_updates: int) -> Curve:
    """Return the mean of the last so many finite values, or of those there are; NaN of none."""
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - num_updates, 0)
    found = counts[ends] - counts[starts]
    means = (sums[ends] - sums[starts]) / np.maximum(found, 1)
    return np.where(found > 0, means, math.nan)


def finite_mean(curves: Curve) -> Curve:
    """Return the mean over the first axis of what is finite, float64 [U]; NaN of none."""
    finite = np.isfinite(curves)
    count = finite.sum(axis=0)
    total = np.where(finite, curves, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)


def meta_loss(families: Curve, stretches: Sequence[Stretch], label: str) -> Html:
    """Return the meta-loss by update: thin for each family, and the mean over them.

    Args:
      families: Meta-loss of each family at all updates of the run, float64 [E, U].
      stretches: Phases that count the same thing, one after the other.
      label: What they count.
    """
    first, last = stretches[0].first, stretches[-1].last
    average = width(last - first)

    def lines(values: Curve) -> list[list[Point]]:
        return [
            _points(smooth(values[each.first : each.last], average), each.first)
            for each in stretches
        ]

    thin = [part for family in families for part in lines(family)]
    thick = lines(finite_mean(families))
    shown = [y for part in (*thin, *thick) for _, y in part]
    if not shown:
        return plot_lib.figure(Html(), [], f"{label}: none was finite.")
    plot = Plot(LinearAxis(first, last, "updates"), _value_axis(shown, label))
    ends = [part for part in thick if part]
    figure = plot.draw(
        f"{label} by update",
        f"The mean over families goes from {ends[0][0][1]:.4g} to {ends[-1][-1][1]:.4g}.",
        *_bounds(plot, stretches),
        *(plot.line(part, "family") for part in thin if part),
        *(plot.line(part, "mean") for part in ends),
    )
    items = [
        (plot_lib.swatch("line mean"), "mean over families"),
        (plot_lib.swatch("line family"), "one family"),
    ]
    note = f"Each point is the mean of the last {average:,} updates." if average > 1 else ""
    return plot_lib.figure(figure, items, note)


def meta_validation(
    updates: Sequence[int],
    scores: Sequence[float],
    tasks: dict[str, Sequence[float]],
    stretches: Sequence[Stretch],
) -> Html:
    """Return the mean log loss of each task at each meta-validation, and over tasks.

    Args:
      updates: Number of updates done before each meta-validation.
      scores: Means over tasks, one for each meta-validation; the lowest is marked.
      tasks: Log losses by task, one for each meta-validation.
      stretches: All phases.
    """
    values = [value for each in (scores, *tasks.values()) for value in each]
    last = max(stretches[-1].last, updates[-1])
    plot = Plot(LinearAxis(0, last, "updates"), LinearAxis(*plot_lib.padded(values), "log loss"))
    best = lowest(scores)
    lines = [
        (name, f"task{number % _KINDS}", list(zip(updates, task, strict=True)))
        for number, (name, task) in enumerate(tasks.items())
    ]
    several = len(tasks) > 1
    kept = [] if best is None else [(updates[best], scores[best])]
    figure = plot.draw(
        "Log loss on the tasks of meta-validation by update",
        f"The mean goes from {scores[0]:+.3f} to {scores[best or 0]:+.3f} at its best.",
        *_bounds(plot, stretches),
        *(plot.line(points, kind) for _, kind, points in lines),
        *([plot.line(zip(updates, scores, strict=True), "score")] if several else []),
        *(plot.marker(point, "best", "diamond") for point in kept),
    )
    items = [(plot_lib.swatch(f"line {kind}"), name) for name, kind, _ in lines]
    if several:
        items.append((plot_lib.swatch("line score"), "mean of all"))
    items.append((plot_lib.swatch("marker best", "diamond"), "the best, which was kept"))
    return plot_lib.figure(figure, items, "Down is better. Nothing is trained on these tasks.")


def gradient_norm(norms: Curve, stretches: Sequence[Stretch]) -> Html:
    """Return the norm of the averaged meta-gradient before each update, float64 [U]."""
    positive = np.where(norms > 0, norms, math.nan)
    if not np.isfinite(positive).any():
        return plot_lib.figure(Html(), [], "Every meta-gradient was zero.")
    last = stretches[-1].last
    average = width(last)
    dots = _points(positive, 0)
    # Of logarithms, so that one outlier does not lift the line for as long as it is averaged.
    parts = [
        [
            (x, math.exp(y))
            for x, y in _points(smooth(np.log(positive[s.first : s.last]), average), s.first)
        ]
        for s in stretches
    ]
    shown = [y for _, y in dots]
    plot = Plot(LinearAxis(0, last, "updates"), _log_axis(shown, "norm of the meta-gradient"))
    figure = plot.draw(
        "Norm of the meta-gradient by update",
        f"From {min(shown):.3g} to {max(shown):.3g}.",
        *_bounds(plot, stretches),
        plot.dots(dots, "faint"),
        *(plot.line(part, "mean") for part in parts if part),
    )
    items = [
        (plot_lib.swatch("dots faint"), "an update"),
        (plot_lib.swatch("line mean"), f"geometric mean of the last {average:,}"),
    ]
    return plot_lib.figure(figure, items, "Before it is clipped.")


def _points(values: Curve, first: int) -> list[Point]:
    """Return updates and values, without what is not finite, and not more than can be seen."""
    stride = math.ceil(len(values) / _MAX_POINTS) or 1
    # From the end, so that the last is among them.
    indices = range(len(values) - 1, -1, -stride)
    points = [(float(first + i + 1), float(values[i])) for i in indices if np.isfinite(values[i])]
    return points[::-1]


def _value_axis(values: Sequence[float], label: str) -> Axis:
    values = finite(values) or [0.0]
    if min(values) > 0 and max(values) / min(values) >= _LOG_RATIO:
        return _log_axis(values, label)
    return LinearAxis(*plot_lib.padded(values), label)


def _log_axis(values: Sequence[float], label: str) -> LogAxis:
    low, high = plot_lib.padded([math.log(value) for value in values])
    return LogAxis(math.exp(low), math.exp(high), label)


def _bounds(plot: Plot, stretches: Sequence[Stretch]) -> list[Html]:
    """Draw where phases begin, with their names as far as there is room."""
    if len(stretches) < 2:
        return []
    parts, taken = [], -math.inf
    for number, each in enumerate(stretches):
        low, high = (plot.place((each.first, edge)) for edge in (plot.y.low, plot.y.high))
        if number > 0:
            parts.append(plot.line([(each.first, plot.y.low), (each.first, plot.y.high)], "bound"))
        end = plot.place((each.last, plot.y.low))[0]
        room = end - low[0] >= 6.5 * len(each.name) + 8
        if room and low[0] >= taken:
            parts.append(plot_lib.text(high[0] + 5, high[1] + 11, each.name, "start"))
            taken = low[0] + 6.5 * len(each.name) + 8
    return parts
