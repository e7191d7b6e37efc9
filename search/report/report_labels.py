"""Names beside the points of a figure, placed so that they cover no name, point or error bar."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from veldt.tasks.common.html import plot as plot_lib
from veldt.tasks.common.html.markup import Html, join, tag
from veldt.tasks.common.html.plot import Frame, Point

_LETTER: Final = 7.5  # width of a letter, or a little more
_HEIGHT: Final = 13.0
_MARKER: Final = 7.0  # half of the largest marker
_NEAR: Final = 22.0  # a name farther from its point than this gets a line to it


class _Box(NamedTuple):
    left: float
    right: float
    top: float
    bottom: float

    def meets(self, other: "_Box") -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def place(points: Sequence[tuple[str, Point, tuple[float, float]]], frame: Frame) -> list[Html]:
    """Return names as figure elements, in the order given; the lowest point's is placed first.

    Args:
      points: Names, each with its point in the figure and the two ends of the error bar.
      frame: Frame of the figure; names stay inside.
    """
    taken = [_Box(x - _MARKER, x + _MARKER, y - _MARKER, y + _MARKER) for _, (x, y), _ in points]
    taken += [_Box(left, right, y - 1, y + 1) for _, (_, y), (left, right) in points]
    placed: dict[int, Html] = {}
    for i in sorted(range(len(points)), key=lambda i: -points[i][1][1]):
        name, point, _ = points[i]
        boxes = [box for box in _around(point, _LETTER * len(name)) if _inside(box, frame)] or list(
            itertools.islice(_around(point, _LETTER * len(name)), 1)
        )
        free = next((box for box in boxes if not any(box.meets(one) for one in taken)), boxes[0])
        taken.append(free)
        placed[i] = _draw(name, point, free)
    return [placed[i] for i in range(len(points))]


def _around(point: Point, width: float) -> Iterator[_Box]:
    """Yield places for a name of this width, the nearest first."""
    x, y = point
    steps = [(dx, dy) for dx in range(-120, 121, 12) for dy in range(-96, 97, 6)]
    steps.sort(key=lambda step: (math.hypot(*step), step[1], -step[0]))
    for dx, dy in steps:
        left = x + dx + (8 if dx >= 0 else -8 - width)
        yield _Box(left, left + width, y + dy - _HEIGHT / 2, y + dy + _HEIGHT / 2)


def _inside(box: _Box, frame: Frame) -> bool:
    across = frame.left <= box.left and box.right <= frame.width - frame.right
    return across and frame.top <= box.top and box.bottom <= frame.height - frame.bottom


def _draw(name: str, point: Point, box: _Box) -> Html:
    right_of_it = box.left >= point[0]
    x = box.left if right_of_it else box.right
    middle = (box.top + box.bottom) / 2
    label = plot_lib.text(x, middle + 4, name, "start" if right_of_it else "end")
    end = x - 2 if right_of_it else x + 2
    if math.hypot(end - point[0], middle - point[1]) <= _NEAR:
        return label
    path = f"M{point[0]:.1f} {point[1]:.1f}L{end:.1f} {middle:.1f}"
    return join([tag("path", d=path, class_="line leader"), label])
