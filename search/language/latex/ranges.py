"""Ranges: between which numbers a value lies, so that a formula needs no |x| that changes nothing.

Interval arithmetic over a program's graph. Named constants count as their defaults, as in
`printing.py`, and NaN and rounding are left aside: ranges serve readers only. A state slot starts
at zero, and counts as not negative if its new value then is not negative (by induction over steps).
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from veldt.search.language import signs
from veldt.search.language.dataflow import Constant, Dataflow, Input, Node


class Range(NamedTuple):
    """All numbers from `low` to `high`, both included."""

    low: float
    high: float


ALL: Final = Range(-math.inf, math.inf)
NOT_NEGATIVE: Final = Range(0.0, math.inf)
SHARE: Final = Range(0.0, 1.0)
# Values of inputs that are no state; any other input may be any number.
_INPUTS: Final = {
    "step": Range(1.0, math.inf),
    "progress": SHARE,
    "ndim": NOT_NEGATIVE,
    "fan_in": Range(1.0, math.inf),
    "fan_out": Range(1.0, math.inf),
    "is_last": SHARE,
    "is_embedding": SHARE,
}
_TRUTHS: Final = ("less", "less_equal", "equal", "invert", "every")
_SIGNED_SHARES: Final = ("sign", "cosine_sim", "global_cosine", "sin", "cos", "tanh")
# Results between the smallest and the largest entry of the only argument.
_MEANS: Final = (
    "mean", "amax", "row_mean", "column_mean", "row_max", "column_max", "transpose",
)  # fmt: skip
_ODD: Final = ("cbrt", "cube", "arctan", "sinh", "arcsinh")
_PRODUCTS: Final = ("dot", "matmul", "factored", "global_dot")


def ranges(flow: Dataflow) -> dict[int, Range]:
    """Return the range of each live value."""
    slots = dict.fromkeys(flow.slot_updates, NOT_NEGATIVE)
    while True:
        found = _ranges(flow, slots)
        wrong = [
            old
            for old, new in flow.slot_updates.items()
            if slots[old] is NOT_NEGATIVE and found[new].low < 0.0
        ]
        if not wrong:
            return found
        slots |= dict.fromkeys(wrong, ALL)


def _ranges(flow: Dataflow, slots: dict[int, Range]) -> dict[int, Range]:
    found: dict[int, Range] = {}
    for index in sorted(flow.live):
        match flow.values[index]:
            case Input(name=name):
                found[index] = slots[index] if index in slots else _INPUTS.get(name, ALL)
            case Constant(value=number):
                found[index] = ALL if math.isnan(number) else Range(number, number)
            case Node() as node:
                found[index] = _result(node, [found[arg] for arg in node.args])
    return found


def _result(node: Node, args: Sequence[Range]) -> Range:
    first = args[0] if args else ALL
    match node.op:
        case "add":
            return _sum(first, args[1])
        case "subtract":
            return _sum(first, _negative(args[1]))
        case "negative":
            return _negative(first)
        case "multiply":
            return NOT_NEGATIVE if node.args[0] == node.args[1] else _product(first, args[1])
        case "divide":
            return _product(first, _reciprocal(args[1]))
        case "reciprocal":
            return _reciprocal(first)
        case "power":
            return _power(first, args[1])
        case "sqrt":
            return Range(math.sqrt(max(first.low, 0.0)), math.inf)
        case "max":
            return Range(max(first.low, args[1].low), max(first.high, args[1].high))
        case "min":
            return Range(min(first.low, args[1].low), min(first.high, args[1].high))
        case "where":
            return _hull(args[1], args[2])
        case "interp":
            return _hull(first, args[1]) if _within(args[2], SHARE) else ALL
        case op if op in _TRUTHS:
            return SHARE
        case op if op in _SIGNED_SHARES:
            return Range(-1.0, 1.0)
        case op if op in _MEANS:
            return first
        case op if op in _ODD or op in _PRODUCTS or op.startswith("clip_by_"):
            return NOT_NEGATIVE if all(arg.low >= 0.0 for arg in args) else ALL
        case op:
            return NOT_NEGATIVE if op in signs.NONNEGATIVE else ALL


def _within(inner: Range, outer: Range) -> bool:
    return outer.low <= inner.low and inner.high <= outer.high


def _hull(x: Range, y: Range) -> Range:
    return Range(min(x.low, y.low), max(x.high, y.high))


def _sum(x: Range, y: Range) -> Range:
    low, high = x.low + y.low, x.high + y.high
    return Range(-math.inf if math.isnan(low) else low, math.inf if math.isnan(high) else high)


def _negative(x: Range) -> Range:
    return Range(-x.high, -x.low)


def _product(x: Range, y: Range) -> Range:
    ends = [a * b if a and b else 0.0 for a in x for b in y]
    return Range(min(ends), max(ends))


def _reciprocal(x: Range) -> Range:
    """Return the range of 1 / x, where 1 / 0 counts as 0."""
    if x.low > 0.0 or x.high < 0.0:
        return Range(1.0 / x.high, 1.0 / x.low)
    if x.low == 0.0:
        return NOT_NEGATIVE
    return Range(-math.inf, 0.0) if x.high == 0.0 else ALL


def _power(base: Range, exponent: Range) -> Range:
    """Return the range of |x| ** y."""
    shrinks = _within(base, SHARE) and exponent.low >= 0.0
    return SHARE if shrinks or (base.low >= 1.0 and exponent.high <= 0.0) else NOT_NEGATIVE
