"""A report's figures: progress, gains, transfer.

Scores are log losses: down is better in every figure.
"""

import math
from collections.abc import Sequence
from typing import Final

from veldt.search.report import report_labels
from veldt.search.report.overfitting import Onset
from veldt.search.report.report_data import Incumbent, Trained
from veldt.search.storage.hall_entries import Entry
from veldt.tasks.common.html import plot as plot_lib
from veldt.tasks.common.html.markup import Html
from veldt.tasks.common.html.plot import Frame, LinearAxis, Plot, Point

MAX_DOTS: Final = 6000
# Dots above this quantile are drawn at the upper edge, so that a few do not flatten the rest.
CLIP_QUANTILE: Final = 0.95
_LEFT: Final = 76  # left of a frame: space for ticks of three digits and the axis's name

STYLE: Final = """
.line.fitness { stroke: var(--blue); }
.line.fresh { stroke: var(--orange); stroke-dasharray: 9 3; }
.line.meta { stroke: var(--green); stroke-dasharray: 2 3; stroke-width: 2.8; }
.line.initial { stroke: var(--grey); stroke-width: 1.4; stroke-dasharray: 5 4; }
.line.onset { stroke: var(--pink); stroke-width: 1.6; stroke-dasharray: 1 3; }
.line.leader { stroke: var(--soft); stroke-width: .8; }
.line.error { stroke: var(--grey); stroke-width: 1.4; }
.dots.faint { stroke: var(--dot); stroke-opacity: .4; }
.swatch .dots.faint { stroke-opacity: .8; }
.marker.ring { fill: none; stroke: var(--orange); }
.marker.fitness, .marker.winner { fill: var(--blue); stroke: var(--card); }
.marker.fresh { fill: var(--orange); stroke: var(--card); }
.marker.meta { fill: var(--green); stroke: var(--card); }
.marker.finalist { fill: var(--card); stroke: var(--blue); }
.marker.baseline { fill: var(--orange); stroke: var(--card); }
"""
"""Colours and widths by class."""


def progress(
    trained: Sequence[Trained],
    incumbents: Sequence[Incumbent],
    initial_rule: str,
    ancestors: set[int],
) -> Html:
    """Draw the fitness of every fully trained program, and the best so far on old and fresh seeds.

    Args:
      trained: Programs, in order.
      incumbents: Incumbents, the initial rule first.
      initial_rule: Name of the initial rule.
      ancestors: Candidates of the lineage of the rule reported, drawn as rings.
    """
    initial = incumbents[0].fitness
    scored = [
        (one.number, one.fitness, one.candidate) for one in trained if one.fitness is not None
    ]
    best: list[tuple[float, float]] = [(0, initial)]
    for number, fitness, _ in scored:
        if fitness < best[-1][1]:
            best.append((number, fitness))
    fresh = [
        (incumbent.since, incumbent.fresh)
        for incumbent in incumbents
        if incumbent.fresh is not None
    ]
    high = max([initial, *(f for _, f in fresh), _quantile([f for _, f, _ in scored], initial)])
    end = max(len(trained), 1)
    shown = [best[-1][1], high, *(f for _, f in fresh)]
    plot = Plot(
        LinearAxis(0, end, "distinct programs trained"),
        LinearAxis(*plot_lib.padded(shown), "fitness (log loss)"),
    )
    stride = math.ceil(len(scored) / MAX_DOTS) or 1
    clipped = sum(fitness > plot.y.high for _, fitness, _ in scored)
    lost = len(trained) - len(scored)
    rings = [(n, f) for n, f, candidate in scored if candidate in ancestors]
    figure = plot.draw(
        "Fitness against distinct programs trained",
        f"Best fitness falls from {initial:.3f} to {best[-1][1]:.3f}.",
        plot.dots(((n, f) for n, f, _ in scored[::stride]), "faint"),
        plot.line([(0, initial), (end, initial)], "initial"),
        plot.steps(fresh, end, "fresh"),
        plot.steps(best, end, "fitness"),
        *(plot.marker(ring, "ring", "circle") for ring in rings),
    )
    items = [
        (plot_lib.swatch("dots faint"), "a program, on the search's seeds"),
        (plot_lib.swatch("line fitness"), "best so far, on the search's seeds"),
        (plot_lib.swatch("line initial"), f"{initial_rule}, where the search began"),
    ]
    if fresh:
        items.insert(2, (plot_lib.swatch("line fresh"), "incumbent, on fresh seeds"))
    if rings:
        items.insert(1, (plot_lib.swatch("marker ring"), "the rule above and its ancestors"))
    notes = [
        f"{lost:,} of {len(trained):,} trained programs were stopped early and have no fitness."
    ]
    if clipped:
        notes.append(f"{clipped:,} worse than {plot.y.high:.2f} are drawn at the upper edge.")
    if stride > 1:
        notes.append(f"One dot in {stride} is drawn.")
    return plot_lib.figure(figure, items, " ".join(notes))


def track(incumbents: Sequence[Incumbent], end: int, onset: Onset | None = None) -> Html:
    """Draw the incumbents against the initial rule: on old seeds, fresh seeds and other tasks.

    Args:
      incumbents: Incumbents, the initial rule first.
      end: Number of programs trained in all.
      onset: Onset of meta-overfitting, to be marked.
    """
    series: list[tuple[str, str, list[Point]]] = []
    for kind, text, scores in (
        ("fitness", "fitness: same tasks, the seeds searched on", [r.fitness for r in incumbents]),
        ("fresh", "same tasks, fresh seeds", [r.fresh for r in incumbents]),
        ("meta", "meta-validation: other tasks, not searched on", [r.meta for r in incumbents]),
    ):
        start = scores[0]
        if start is not None:
            since = zip(incumbents, scores, strict=True)
            points: list[Point] = [(r.since, s - start) for r, s in since if s is not None]
            series.append((kind, text, points))
    end = max(end, 1)
    values = [y for _, _, points in series for _, y in points]
    plot = Plot(
        LinearAxis(0, end, "distinct programs trained"),
        LinearAxis(*plot_lib.padded([0.0, *values]), "change in log loss"),
        Frame(left=_LEFT, top=34 if onset else 14),
    )
    figure = plot.draw(
        "Gain of the incumbent over the initial rule, by what it is measured on",
        f"The incumbent changed {len(incumbents) - 1} times.",
        plot.line([(0, 0.0), (end, 0.0)], "initial"),
        *(_onset(plot, onset) if onset else ()),
        *(plot.steps(points, end, kind) for kind, _, points in series),
        *(
            plot.marker(point, kind, _SHAPES[kind])
            for kind, _, points in series
            for point in points[1:]
        ),
    )
    items = [(plot_lib.swatch(f"line {kind}"), text) for kind, text, _ in series]
    return plot_lib.figure(
        figure, items, "0 is the initial rule on the same seeds or tasks. Down is better."
    )


def _onset(plot: Plot, onset: Onset) -> list[Html]:
    """Draw an upright line where meta-validation was last at its best, with a name above it."""
    x, top = plot.place((onset.since, plot.y.high))
    side = "start" if x < plot.frame.width / 2 else "end"
    name = "meta-overfitting from here" if onset.significant else "meta-validation best until here"
    ends = [(onset.since, plot.y.low), (onset.since, plot.y.high)]
    return [plot.line(ends, "onset"), plot_lib.text(x, top - 10, name, side)]


_SHAPES: Final = {"fitness": "circle", "fresh": "square", "meta": "diamond"}


def transfer(entries: Sequence[Entry]) -> Html:
    """Draw finalists and baselines: proxy tasks across, meta-validation tasks upwards."""
    points = [(e, e.final, e.meta) for e in entries if e.final is not None and e.meta is not None]
    if len(points) < 2:
        return Html()
    spread = [x + side * (e.final_error or 0.0) for e, x, _ in points for side in (-1, 1)]
    plot = Plot(
        LinearAxis(
            *plot_lib.padded(spread, 0.12),
            "proxy tasks, final seeds (log loss, ± one standard error)",
        ),
        LinearAxis(*plot_lib.padded([y for _, _, y in points], 0.12), "meta-validation (log loss)"),
        Frame(left=_LEFT),
    )
    content = []
    bars = []
    for entry, x, y in points:
        error = entry.final_error or 0.0
        ends = plot.place((x - error, y)), plot.place((x + error, y))
        bars.append((entry.label, plot.place((x, y)), (ends[0][0], ends[1][0])))
        content.append(plot.line([(x - error, y), (x + error, y)], "error"))
    labels = report_labels.place(bars, plot.frame)
    for (entry, x, y), label in zip(points, labels, strict=True):
        if entry.winner:
            content.append(plot.marker((x, y), "winner", "diamond"))
        elif entry.candidate < 0:
            content.append(plot.marker((x, y), "baseline", "square"))
        else:
            content.append(plot.marker((x, y), "finalist", "circle"))
        content.append(label)
    figure = plot.draw(
        "Meta-validation against the proxy tasks, for finalists and baselines",
        "Lower left is better on both.",
        *content,
    )
    items = [
        (plot_lib.swatch("marker winner", "diamond"), "winner"),
        (plot_lib.swatch("marker finalist"), "other finalists"),
        (plot_lib.swatch("marker baseline", "square"), "baselines"),
    ]
    return plot_lib.figure(figure, items, "Lower left is better on both.")


def _quantile(values: Sequence[float], default: float) -> float:
    return sorted(values)[int(CLIP_QUANTILE * (len(values) - 1))] if values else default
