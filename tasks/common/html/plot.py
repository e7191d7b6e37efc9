"""Figures: SVG written by hand, so that it follows the page's colours, light or dark.

Colours and widths are in the style sheet, by class; let series differ in dash and shape too, for
readers who do not see colours. Nothing but numbers and escaped texts gets into a figure.
"""

import abc
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, final

from veldt.tasks.common.html.markup import Html, join, tag
from veldt.tasks.common.nan_last import finite

Point = tuple[float, float]
_SUPERSCRIPTS: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Axis(abc.ABC):
    """A map from values to shares of an axis, 0 at the start and 1 at the end.

    Attributes:
      low: Value at the start.
      high: Value at the end; above `low`.
      label: Text on the axis; "" writes nothing.
      most: Number of ticks at most, approximately.
    """

    low: float
    high: float
    label: str
    most: int = 7

    def share(self, value: float) -> float:
        """Return the position of a value, held between 0 and 1."""
        return min(max(self._share(value), 0.0), 1.0)

    @abc.abstractmethod
    def _share(self, value: float) -> float:
        """Return the position of a value."""

    @abc.abstractmethod
    def ticks(self) -> list[tuple[float, str]]:
        """Return round values on the axis, with their texts."""


@final
@dataclass(frozen=True)
class LinearAxis(Axis):
    """An axis on which equal steps are equally long."""

    def _share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        digits = max(0, math.ceil(-math.log10((self.high - self.low) / self.most)))
        return [
            (value, f"{value:,.{digits}f}".replace("-", "−") if value else "0")
            for value in ticks(self.low, self.high, self.most)
        ]


@final
@dataclass(frozen=True)
class LogAxis(Axis):
    """An axis on which equal ratios are equally long; all values are above 0.

    Attributes:
      marks: Ticks with their texts; chosen from the range if empty.
    """

    marks: tuple[tuple[float, str], ...] = ()

    def _share(self, value: float) -> float:
        if value <= 0:
            return 0.0
        return math.log(value / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[tuple[float, str]]:
        if self.marks:
            return list(self.marks)
        return [(value, log_text(value)) for value in log_ticks(self.low, self.high, self.most)]


@final
@dataclass(frozen=True, slots=True)
class Frame:
    """A figure's size and the margins around its axes, in its own units."""

    width: int = 720
    height: int = 360
    left: int = 62
    right: int = 14
    top: int = 14
    bottom: int = 46


@final
@dataclass(frozen=True, slots=True)
class Plot:
    """A pair of axes: data coordinates to those of the figure.

    Attributes:
      x: Axis across.
      y: Axis upwards.
      frame: Size and margins.
    """

    x: Axis
    y: Axis
    frame: Frame = Frame()

    def place(self, point: Point) -> Point:
        """Return the place of a data point in the figure, held inside the axes."""
        f = self.frame
        u, v = self.x.share(point[0]), self.y.share(point[1])
        across, down = f.width - f.left - f.right, f.height - f.top - f.bottom
        return f.left + u * across, f.top + (1 - v) * down

    def line(self, points: Iterable[Point], kind: str) -> Html:
        """Return straight lines from point to point; points that are not finite are left out."""
        placed = [self.place(point) for point in _finite(points)]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed) if placed else ""
        return tag("path", d=path, class_=f"line {kind}")

    def steps(self, points: Sequence[Point], end: float, kind: str) -> Html:
        """Return a line of values that hold until the next one, the last until `end`."""
        if not points:
            return Html()
        corners = [points[0]]
        for (_, before), point in itertools.pairwise(points):
            corners += [(point[0], before), point]
        return self.line([*corners, (end, points[-1][1])], kind)

    def dots(self, points: Iterable[Point], kind: str) -> Html:
        """Return many dots in one path: lines of no length with round ends."""
        placed = (self.place(point) for point in _finite(points))
        return tag(
            "path", d="".join(f"M{x:.1f} {y:.1f}h0" for x, y in placed), class_=f"dots {kind}"
        )

    def marker(self, point: Point, kind: str, shape: str, scale: float = 1.0) -> Html:
        """Return one larger point, of a shape in `SHAPES`."""
        return marker(*self.place(point), kind, shape, scale)

    def svg(self, title: str, description: str, *content: Html, **attributes: object) -> Html:
        """Return the figure: grid, axes and content, with texts for those who do not see it."""
        return tag(
            "svg",
            tag("title", title),
            tag("desc", description),
            self._axes(),
            *content,
            viewBox=f"0 0 {self.frame.width} {self.frame.height}",
            role="img",
            aria_label=title,
            **attributes,
        )

    def draw(self, title: str, description: str, *content: Html) -> Html:
        """Return the figure in a box that scrolls sideways by itself where the page is narrow."""
        return tag(
            "div",
            self.svg(title, description, *content),
            class_="scroll",
            role="region",
            aria_label=title,
            tabindex=0,
        )

    def _axes(self) -> Html:
        f = self.frame
        parts = []
        for value, label in self.y.ticks():
            x, y = self.place((self.x.low, value))
            parts.append(tag("path", d=f"M{x:.1f} {y:.1f}H{f.width - f.right}", class_="grid"))
            parts.append(text(x - 8, y + 4, label, "end"))
        for value, label in self.x.ticks():
            x, y = self.place((value, self.y.low))
            parts.append(tag("path", d=f"M{x:.1f} {y:.1f}v5", class_="axis"))
            parts.append(text(x, y + 19, label, "middle"))
        left, bottom = self.place((self.x.low, self.y.low))
        parts.append(tag("path", d=f"M{left:.1f} {bottom:.1f}H{f.width - f.right}", class_="axis"))
        if self.x.label:
            middle = (f.left + f.width - f.right) / 2
            parts.append(text(middle, f.height - 6, self.x.label, "middle"))
        if self.y.label:
            half = (f.top + f.height - f.bottom) / 2
            turned = f"translate(14 {half:.1f}) rotate(-90)"
            parts.append(tag("text", self.y.label, transform=turned, text_anchor="middle"))
        return join(parts)


# Paths around (0, 0).
SHAPES: Final = {
    "circle": (-5.0, 0.0, "a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z"),
    "square": (-4.5, -4.5, "h9v9h-9z"),
    "diamond": (0.0, -7.0, "l7 7l-7 7l-7 -7z"),
    "triangle": (0.0, -6.0, "l6 10.4h-12z"),
    "wedge": (0.0, 6.0, "l6 -10.4h-12z"),
    "bar": (-2.5, -6.0, "h5v12h-5z"),
    "cross": (-5.0, -5.0, "l10 10m0 -10l-10 10"),
}
"""Markers by name: start of the path from the marker's middle, and the path."""


def marker(x: float, y: float, kind: str, shape: str, scale: float = 1.0) -> Html:
    """Return a marker at a place in a figure."""
    dx, dy, path = SHAPES[shape]
    if scale == 1.0:
        return tag("path", d=f"M{x + dx:.1f} {y + dy:.1f}{path}", class_=f"marker {kind}")
    moved = f"translate({x:.1f} {y:.1f}) scale({scale:g})"
    return tag("path", d=f"M{dx:g} {dy:g}{path}", transform=moved, class_=f"marker {kind}")


def text(x: float, y: float, content: str, anchor: str, kind: str | None = None) -> Html:
    """Return a text at a place in a figure, which is the "start", "middle" or "end" of it."""
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}"}
    return tag("text", content, **place, text_anchor=anchor, class_=kind)


def ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Return round values from `low` to `high`: 1, 2 or 5 times multiples of a power of ten."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Return round values for a logarithmic axis: powers of ten, and values between if few."""
    first = math.ceil(math.log10(low) - 1e-9)
    last = math.floor(math.log10(high) + 1e-9)
    stride = max(math.ceil((last - first + 1) / most), 1)
    powers = [10.0**n for n in range(first, last + 1) if n % stride == 0]
    if len(powers) >= 3:
        return powers
    finer = [_between(low, high, digits) for digits in ((1, 2, 5), (1, 2, 3, 5, 7))]
    for choice in (*finer, powers):
        if 3 <= len(choice) <= most:
            return choice
    return [value for value in ticks(low, high, most) if value > 0]


def _between(low: float, high: float, digits: Iterable[int]) -> list[float]:
    """Return the digits times powers of ten that lie between two values."""
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high) + 1e-9) + 1)
    values = (digit * 10.0**power for power in powers for digit in digits)
    return [v for v in values if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]


def log_text(value: float) -> str:
    """Return a value of `log_ticks` for people: 0.02, 500, 10⁻⁵."""
    if 1e-3 <= value < 1e5:
        return f"{value:.4g}"
    power = math.floor(math.log10(value) + 1e-9)
    digits = f"{value / 10.0**power:.3g}"
    ten = f"10{str(power).translate(_SUPERSCRIPTS)}"
    return ten if digits == "1" else f"{digits}·{ten}"


def padded(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """Return the range of the finite values with a margin; never empty."""
    known = finite(values) or [0.0]
    low, high = min(known), max(known)
    margin = share * (high - low) or 0.1
    return low - margin, high + margin


def _finite(points: Iterable[Point]) -> Iterator[Point]:
    return (point for point in points if all(math.isfinite(each) for each in point))


def swatch(kind: str, shape: str = "circle") -> Html:
    """Return a sample of a series for a legend, by its kind in the figure: "line x", "marker y"."""
    if kind.startswith("line"):
        path = "M1 6H27"
    elif kind.startswith("dots"):
        path = "M6 6h0M14 4h0M22 8h0"
    else:
        dx, dy, outline = SHAPES[shape]
        path = f"M{14 + dx:g} {6 + dy:g}{outline}"
    return framed_swatch(tag("path", d=path, class_=kind))


def framed_swatch(*content: Html) -> Html:
    """Return a sample 28 wide and 12 high."""
    return tag("svg", *content, viewBox="0 0 28 12", class_="swatch", aria_hidden="true")


def legend(items: Iterable[tuple[Html, object]]) -> Html:
    """Return samples of the series with their names."""
    return tag(
        "ul",
        *(tag("li", sample, tag("span", name)) for sample, name in items),
        class_="legend",
    )


def figure(content: Html, items: Iterable[tuple[Html, object]], note: str) -> Html:
    """Return a figure of a page: the legend above it, a note below."""
    return tag("figure", legend(items), content, tag("figcaption", note) if note else "")
