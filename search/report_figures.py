"""A report's figures: SVG written by hand, so that it follows the page's colours, light or dark.

Colours and widths are in the page's style sheet, by class; series differ in dash and shape too, for
readers who do not see colours. Nothing but numbers and escaped labels gets into a figure. Scores
are log losses: down is better in every figure.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, final

from veldt.search.finals import Entry
from veldt.search.markup import Html, join, tag
from veldt.search.report_data import Reign, Trained

WIDTH: Final = 720
HEIGHT: Final = 360
# Around the axes' inside.
LEFT: Final = 62
RIGHT: Final = 14
TOP: Final = 14
BOTTOM: Final = 46
MAX_DOTS: Final = 6000
# Dots above this quantile are drawn at the upper edge, so that a few do not press the rest flat.
CLIP_QUANTILE: Final = 0.95

Point = tuple[float, float]


@final
@dataclass(frozen=True, slots=True)
class Plot:
    """Axes: data coordinates to the page's.

    Attributes:
      x: lowest and highest value shown.
      y: likewise.
      x_label: what is on the axis.
      y_label: likewise.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str

    def place(self, point: Point) -> Point:
        """A data point on the page, held inside the axes."""
        u = (point[0] - self.x[0]) / (self.x[1] - self.x[0])
        v = (point[1] - self.y[0]) / (self.y[1] - self.y[0])
        u, v = min(max(u, 0.0), 1.0), min(max(v, 0.0), 1.0)
        across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        return LEFT + u * across, TOP + (1 - v) * down

    def line(self, points: Iterable[Point], kind: str) -> Html:
        """Straight lines from point to point."""
        placed = [self.place(point) for point in points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed) if placed else ""
        return tag("path", d=path, class_=f"line {kind}")

    def steps(self, points: Sequence[Point], end: float, kind: str) -> Html:
        """A value that holds until the next one, the last until `end`."""
        if not points:
            return Html()
        corners = [points[0]]
        for (_, before), point in itertools.pairwise(points):
            corners += [(point[0], before), point]
        return self.line([*corners, (end, points[-1][1])], kind)

    def dots(self, points: Iterable[Point], kind: str) -> Html:
        """Many dots in one path: lines of no length with round ends."""
        placed = (self.place(point) for point in points)
        return tag(
            "path", d="".join(f"M{x:.1f} {y:.1f}h0" for x, y in placed), class_=f"dots {kind}"
        )

    def marker(self, point: Point, kind: str, shape: str) -> Html:
        """One larger point: a circle, a square or a diamond."""
        x, y = self.place(point)
        paths = {
            "circle": f"M{x - 5:.1f} {y:.1f}a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
            "square": f"M{x - 4.5:.1f} {y - 4.5:.1f}h9v9h-9z",
            "diamond": f"M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7 -7z",
        }
        return tag("path", d=paths[shape], class_=f"marker {kind}")

    def draw(self, title: str, description: str, *content: Html) -> Html:
        """The whole figure: grid, axes and content, with texts for those who do not see it."""
        return tag(
            "div",
            tag(
                "svg",
                tag("title", title),
                tag("desc", description),
                self._axes(),
                *content,
                viewBox=f"0 0 {WIDTH} {HEIGHT}",
                role="img",
                aria_label=title,
            ),
            class_="scroll",
            role="region",
            aria_label=title,
            tabindex=0,
        )

    def _axes(self) -> Html:
        parts = []
        for value in ticks(*self.y):
            x, y = self.place((self.x[0], value))
            parts.append(tag("path", d=f"M{x:.1f} {y:.1f}H{WIDTH - RIGHT}", class_="grid"))
            parts.append(_text(x - 8, y + 4, _tick(value, self.y), "end"))
        for value in ticks(*self.x):
            x, y = self.place((value, self.y[0]))
            parts.append(tag("path", d=f"M{x:.1f} {y:.1f}v5", class_="axis"))
            parts.append(_text(x, y + 19, _tick(value, self.x), "middle"))
        left, bottom = self.place((self.x[0], self.y[0]))
        parts.append(tag("path", d=f"M{left:.1f} {bottom:.1f}H{WIDTH - RIGHT}", class_="axis"))
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(_text(middle, HEIGHT - 6, self.x_label, "middle"))
        half = (TOP + HEIGHT - BOTTOM) / 2
        parts.append(
            tag(
                "text",
                self.y_label,
                transform=f"translate(14 {half:.1f}) rotate(-90)",
                text_anchor="middle",
            )
        )
        return join(parts)


def ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round values between `low` and `high`: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def progress(
    trained: Sequence[Trained], reigns: Sequence[Reign], initial_rule: str, ancestors: set[int]
) -> Html:
    """Fitness of every program trained to the end, and the best so far, on old and fresh seeds.

    Args:
      trained: the programs, in order.
      reigns: the incumbents, the initial rule first.
      initial_rule: its name.
      ancestors: candidates on the line to the rule reported, drawn as rings.
    """
    initial = reigns[0].fitness
    scored = [
        (one.number, one.fitness, one.candidate) for one in trained if one.fitness is not None
    ]
    best: list[tuple[float, float]] = [(0, initial)]
    for number, fitness, _ in scored:
        if fitness < best[-1][1]:
            best.append((number, fitness))
    fresh = [(reign.since, reign.fresh) for reign in reigns if reign.fresh is not None]
    high = max([initial, *(f for _, f in fresh), _quantile([f for _, f, _ in scored], initial)])
    end = max(len(trained), 1)
    shown = [best[-1][1], high, *(f for _, f in fresh)]
    plot = Plot((0, end), padded(shown), "distinct programs trained", "fitness (log loss)")
    stride = math.ceil(len(scored) / MAX_DOTS) or 1
    clipped = sum(fitness > plot.y[1] for _, fitness, _ in scored)
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
        (_swatch("dots faint"), "a program, on the search's seeds"),
        (_swatch("line fitness"), "best so far, on the search's seeds"),
        (_swatch("line initial"), f"{initial_rule}, where the search began"),
    ]
    if fresh:
        items.insert(2, (_swatch("line fresh"), "incumbent, on fresh seeds"))
    if rings:
        items.insert(1, (_swatch("marker ring"), "the rule above and its ancestors"))
    notes = [
        f"{lost:,} of {len(trained):,} trained programs were stopped early and have no fitness."
    ]
    if clipped:
        notes.append(f"{clipped:,} worse than {plot.y[1]:.2f} are drawn at the upper edge.")
    if stride > 1:
        notes.append(f"One dot in {stride} is drawn.")
    return _figure(figure, items, " ".join(notes))


def track(reigns: Sequence[Reign], end: int) -> Html:
    """The incumbents against the initial rule: on old seeds, fresh seeds and other tasks."""
    series: list[tuple[str, str, list[Point]]] = []
    for kind, text, scores in (
        ("fitness", "fitness: same tasks, the seeds searched on", [r.fitness for r in reigns]),
        ("fresh", "same tasks, fresh seeds", [r.fresh for r in reigns]),
        ("meta", "meta-validation: other tasks, which decide nothing", [r.meta for r in reigns]),
    ):
        start = scores[0]
        if start is not None:
            since = zip(reigns, scores, strict=True)
            points: list[Point] = [(r.since, s - start) for r, s in since if s is not None]
            series.append((kind, text, points))
    end = max(end, 1)
    values = [y for _, _, points in series for _, y in points]
    plot = Plot((0, end), padded([0.0, *values]), "distinct programs trained", "change in log loss")
    figure = plot.draw(
        "Gain of the incumbent over the initial rule, by what it is measured on",
        f"The incumbent changed {len(reigns) - 1} times.",
        plot.line([(0, 0.0), (end, 0.0)], "initial"),
        *(plot.steps(points, end, kind) for kind, _, points in series),
        *(
            plot.marker(point, kind, _SHAPES[kind])
            for kind, _, points in series
            for point in points[1:]
        ),
    )
    items = [(_swatch(f"line {kind}"), text) for kind, text, _ in series]
    return _figure(
        figure, items, "0 is the initial rule on the same seeds or tasks. Down is better."
    )


_SHAPES: Final = {"fitness": "circle", "fresh": "square", "meta": "diamond"}


def transfer(entries: Sequence[Entry]) -> Html:
    """Finalists and baselines: proxy tasks across, meta-validation tasks upwards."""
    points = [(e, e.final, e.meta) for e in entries if e.final is not None and e.meta is not None]
    if len(points) < 2:
        return Html()
    spread = [x + side * (e.final_error or 0.0) for e, x, _ in points for side in (-1, 1)]
    plot = Plot(
        padded(spread, 0.12),
        padded([y for _, _, y in points], 0.12),
        "proxy tasks, final seeds (log loss, ± one standard error)",
        "meta-validation (log loss)",
    )
    content = []
    labels = _labels([(entry.label, plot.place((x, y))) for entry, x, y in points])
    for (entry, x, y), label in zip(points, labels, strict=True):
        error = entry.final_error or 0.0
        content.append(plot.line([(x - error, y), (x + error, y)], "error"))
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
        (_swatch("marker winner", "diamond"), "winner"),
        (_swatch("marker finalist"), "other finalists"),
        (_swatch("marker baseline", "square"), "baselines"),
    ]
    return _figure(figure, items, "Lower left is better on both.")


def padded(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """The range of values with a margin; never empty."""
    low, high = min(values), max(values)
    margin = share * (high - low) or 0.1
    return low - margin, high + margin


def _quantile(values: Sequence[float], default: float) -> float:
    return sorted(values)[int(CLIP_QUANTILE * (len(values) - 1))] if values else default


def _labels(points: Sequence[tuple[str, Point]]) -> list[Html]:
    """Names beside their points, above the error bars, moved where two would overlap."""
    taken: list[tuple[float, float, float]] = []  # left end, right end, y
    placed: dict[int, Html] = {}
    for i in sorted(range(len(points)), key=lambda i: -points[i][1][1]):
        name, (x, y) = points[i]
        width = 7.5 * len(name)
        side = "end" if x + 6 + width > WIDTH - RIGHT else "start"
        left = x - 6 - width if side == "end" else x + 6
        y -= 9
        while any(a < left + width and left < b and abs(y - c) < 15 for a, b, c in taken):
            y -= 5
        taken.append((left, left + width, y))
        placed[i] = _text(x - 6 if side == "end" else x + 6, y, name, side)
    return [placed[i] for i in range(len(points))]


def _text(x: float, y: float, text: str, anchor: str) -> Html:
    return tag("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def _tick(value: float, span: tuple[float, float]) -> str:
    step = (span[1] - span[0]) / 7
    digits = max(0, math.ceil(-math.log10(step)))
    return f"{value:,.{digits}f}".replace("-", "−") if value else "0"


def _swatch(kind: str, shape: str = "circle") -> Html:
    """A sample of a series for the legend."""
    if kind.startswith("line"):
        path = "M1 6H27"
    elif kind.startswith("dots"):
        path = "M6 6h0M14 4h0M22 8h0"
    else:
        path = {
            "circle": "M9 6a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z",
            "square": "M9.5 1.5h9v9h-9z",
            "diamond": "M14 0l6 6l-6 6l-6 -6z",
        }[shape]
    sample = tag("path", d=path, class_=kind)
    return tag("svg", sample, viewBox="0 0 28 12", class_="swatch", aria_hidden="true")


def _figure(figure: Html, legend: Iterable[tuple[Html, str]], note: str) -> Html:
    items = (tag("li", swatch, tag("span", text)) for swatch, text in legend)
    return tag(
        "figure",
        tag("ul", *items, class_="legend"),
        figure,
        tag("figcaption", note) if note else "",
    )
