"""The instructions that never return a negative number, for printing powers."""

from typing import Final

# fmt: off
# Ops whose result is never negative, whatever their arguments; then those that only keep signs.
NONNEGATIVE: Final = frozenset((
    "abs", "square", "sqrt", "exp", "exp2", "exp10", "cosh", "log1p", "power", "arccos", "arccosh",
    "invert", "less", "less_equal", "equal", "norm", "global_norm", "every", "row_norm",
    "column_norm", "nuclear_norm", "sketch_norm",
))
SIGN_KEEPING: Final = frozenset((
    "add", "multiply", "divide", "reciprocal", "max", "min", "row_mean", "column_mean", "row_max",
    "column_max", "factored",
))
# fmt: on
