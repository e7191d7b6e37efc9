"""The lowest of some numbers, with NaN never the lowest.

`min`, `sorted` and `argmin` compare, and NaN compares as not smaller with everything: in the first
place it stays the lowest for ever, elsewhere the result depends on the order.
"""

import math
from collections.abc import Iterable


def lowest(values: Iterable[float | None]) -> int | None:
    """Return the position of the first of the lowest finite values; None if there is none."""
    best, where = math.inf, None
    for place, value in enumerate(values):
        if value is not None and math.isfinite(value) and (where is None or value < best):
            best, where = value, place
    return where


def finite(values: Iterable[float | None]) -> list[float]:
    """Return the values that are finite numbers, in order."""
    return [float(value) for value in values if value is not None and math.isfinite(value)]
