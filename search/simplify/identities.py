"""The algebra of each instruction: the form of the result, and its bounds.

`apply` gives the normal form of an instruction's result from those of its arguments. An instruction
without a row in `_FORMS`, or with arguments for which its row gives None, is opaque: the result is
an atom identified by the instruction's name and the arguments' forms. So a new instruction is safe
before anything is known of it. Every row holds with the guards of `ops.py`, for all finite values,
up to rounding and where nothing overflows or underflows; the tests compare each row, and all rows
composed, with the instruction itself.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from veldt.search.language import shapes
from veldt.search.language.ops import OPS
from veldt.search.language.types import Kind
from veldt.search.simplify import forms
from veldt.search.simplify.forms import ANYTHING, Algebra, Atom, Form, Interval

_UNIT: Final[Interval] = (0.0, 1.0)
_NONNEGATIVE: Final[Interval] = (0.0, math.inf)
_ODD: Final = ("sin", "tan", "arcsin", "arctan", "sinh", "tanh", "arcsinh", "arctanh")
_EVEN: Final = ("cos", "cosh", "log", "log2", "log10", "log1p")


def apply(algebra: Algebra, name: str, args: Sequence[Form]) -> Form:
    """Return the form of an instruction's result.

    Raises:
      FormError: The form is too long or a coefficient overflows; see `opaque`.
      LoweringError: An argument that must be a tensor is known to be the same number everywhere.
    """
    op = OPS[name]
    shapes.result_kind(op, [algebra.kind(arg) for arg in args])
    numbers = [number for arg in args if (number := arg.number) is not None]
    if len(numbers) == len(args) and op.scope == "element":
        with np.errstate(all="ignore"):
            folded = float(op.fn(np, *[np.float64(number) for number in numbers]))
        if math.isfinite(folded):
            return algebra.number(folded)
    row = _FORMS.get(name)
    form = row(algebra, *args) if row is not None else None
    if form is None:
        form = opaque(algebra, name, args)
    algebra.refine(form, _bounds(algebra, name, args))
    return form


def opaque(
    algebra: Algebra, name: str, args: Sequence[Form], *, label: str = "", kind: Kind | None = None
) -> Form:
    """Return the result of an instruction as an atom.

    Args:
      algebra: Algebra that keeps the atom.
      name: Name of the instruction.
      args: Arguments of the instruction.
      label: Text that distinguishes the atom from others of the same instruction and arguments.
      kind: Kind of the result, where it does not follow from the arguments' forms.

    Raises:
      LoweringError: No kind is given, and it does not follow.
    """
    op = OPS[name]
    if op.commutative:
        args = sorted(args, key=lambda arg: arg.key)
    if kind is None:
        kind = shapes.result_kind(op, [algebra.kind(arg) for arg in args])
    elementwise = op.scope == "element" and len(args) > 0
    return algebra.atom(
        Atom(
            name,
            tuple(args),
            label,
            kind=kind,
            bounds=ANYTHING if label else _bounds(algebra, name, args),
            uniform=(op.scope == "global" and op.gives_scalar)
            or (elementwise and all(_uniform(algebra, a) for a in args)),
            constant=elementwise and all(algebra.is_constant(arg) for arg in args),
        )
    )


# --- power laws


def _interp(algebra: Algebra, x: Form, y: Form, a: Form) -> Form:
    return algebra.add(x, algebra.multiply(a, algebra.subtract(y, x)))


def _power(algebra: Algebra, x: Form, exponent: Form) -> Form | None:
    number = exponent.number
    if number == 0.0:
        return algebra.one
    low, high = algebra.bounds(x)
    # |0| ** -1 is infinite, and not 0 as a reciprocal would be.
    if number is not None and x.terms and (number > 0.0 or low > 0.0 or high < 0.0):
        return algebra.power(x, number, odd=False)
    return opaque(algebra, "power", (forms.natural(x, algebra), exponent)) if x.terms else None


# --- functions of one number


def _odd(name: str) -> Callable[[Algebra, Form], Form]:
    def row(algebra: Algebra, x: Form) -> Form:
        if not x.terms:
            return x
        sign = math.copysign(1.0, x.terms[0][1])
        return algebra.scale(opaque(algebra, name, (algebra.scale(x, sign),)), sign)

    return row


def _even(name: str) -> Callable[[Algebra, Form], Form]:
    return lambda algebra, x: opaque(algebra, name, (forms.natural(x, algebra),))


# --- choice


def _extremum(name: str) -> Callable[[Algebra, Form, Form], Form]:
    """Return the row of a maximum (minimum): nested ones are one, without those that never win."""
    is_max = name == "max"
    pick = max if is_max else min

    def beats(algebra: Algebra, x: Form, y: Form) -> bool:
        (x_low, x_high), (y_low, y_high) = algebra.bounds(x), algebra.bounds(y)
        return x_low >= y_high if is_max else x_high <= y_low

    def row(algebra: Algebra, x: Form, y: Form) -> Form:
        members: list[Form] = []
        for form in (x, y):
            atom = single_atom(algebra, form)
            nested = atom is not None and atom.op == name and not atom.label
            members += atom.args if atom is not None and nested else (form,)
        numbers = [number for form in members if (number := form.number) is not None]
        kept = {form for form in members if form.number is None}
        if numbers:
            kept.add(algebra.number(pick(numbers)))
        ordered = sorted(kept, key=lambda form: form.key)
        for form in list(ordered):
            if any(other is not form and beats(algebra, other, form) for other in ordered):
                ordered.remove(form)
        if len(ordered) == 1:
            return ordered[0]
        if len(ordered) == 2 and not algebra.add(*ordered).terms:
            return algebra.scale(algebra.absolute(ordered[0]), 1.0 if is_max else -1.0)
        bounds = [algebra.bounds(form) for form in ordered]
        return algebra.atom(
            Atom(
                name,
                tuple(ordered),
                kind=shapes.result_kind(OPS[name], [algebra.kind(x), algebra.kind(y)]),
                bounds=(pick(low for low, _ in bounds), pick(high for _, high in bounds)),
                uniform=all(_uniform(algebra, form) for form in ordered),
                constant=all(algebra.is_constant(form) for form in ordered),
            )
        )

    return row


def _where(algebra: Algebra, condition: Form, x: Form, y: Form) -> Form | None:
    low, high = algebra.bounds(condition)
    if x == y or low > 0.0:
        return x
    if high <= 0.0:
        return y
    atom = single_atom(algebra, condition)
    if atom is not None and atom.op == "invert" and not atom.label:
        return _where(algebra, atom.args[0], y, x) or opaque(algebra, "where", (atom.args[0], y, x))
    return None


def _compare(if_equal: float, if_below: float, if_above: float) -> Callable[..., Form | None]:
    """Return the row of a comparison with known outcome; `if_below` where x < y everywhere."""

    def row(algebra: Algebra, x: Form, y: Form) -> Form | None:
        (x_low, x_high), (y_low, y_high) = algebra.bounds(x), algebra.bounds(y)
        if x == y:
            return algebra.number(if_equal)
        if x_high < y_low:
            return algebra.number(if_below)
        return algebra.number(if_above) if x_low > y_high else None

    return row


def _invert(algebra: Algebra, x: Form) -> Form | None:
    low, high = algebra.bounds(x)
    return algebra.zero if low > 0.0 else algebra.one if high <= 0.0 else None


# --- reductions


def _take_out(algebra: Algebra, x: Form, *, uniform: bool = False) -> tuple[Form, Form]:
    """Split a form into a scalar and the rest; if `uniform`, one that all tensors share."""
    coefficient, monomial = algebra.split(x)

    def is_out(index: int) -> bool:
        atom = algebra.atoms[index]
        return atom.uniform if uniform else atom.kind == "scalar"

    out = tuple(factor for factor in monomial if is_out(factor[0]))
    rest = tuple(factor for factor in monomial if not is_out(factor[0]))
    return algebra.expand(coefficient, out), algebra.expand(1.0, rest)


def _norm(name: str) -> Callable[[Algebra, Form], Form]:
    def row(algebra: Algebra, x: Form) -> Form:
        factor, rest = _take_out(algebra, x, uniform=name == "global_norm")
        norm = opaque(algebra, name, (forms.natural(rest, algebra),))
        return algebra.multiply(algebra.absolute(factor), norm)

    return row


def _mean(name: str) -> Callable[[Algebra, Form], Form]:
    """Return the row of a mean, which is linear."""

    def row(algebra: Algebra, x: Form) -> Form:
        parts = []
        for monomial, coefficient in x.terms:
            factor, rest = _take_out(algebra, forms.form_of([(monomial, coefficient)]))
            if algebra.kind(rest) != "scalar":
                rest = opaque(algebra, name, (rest,))
            parts.append(algebra.multiply(factor, rest))
        return algebra.add(*parts)

    return row


def _largest(name: str) -> Callable[[Algebra, Form], Form]:
    def row(algebra: Algebra, x: Form) -> Form:
        size = abs(x.terms[0][1])
        return algebra.scale(opaque(algebra, name, (algebra.scale(x, 1.0 / size),)), size)

    return row


def _dot(algebra: Algebra, x: Form, y: Form) -> Form:
    (a, left), (b, right) = _take_out(algebra, x), _take_out(algebra, y)
    factor = algebra.multiply(a, b)
    if left == right:
        norm = opaque(algebra, "norm", (forms.natural(left, algebra),))
        return algebra.multiply(factor, algebra.multiply(norm, norm))
    return algebra.multiply(factor, opaque(algebra, "dot", (left, right)))


def _cosine_sim(algebra: Algebra, x: Form, y: Form) -> Form:
    norm = _norm("norm")
    norms = algebra.multiply(norm(algebra, x), norm(algebra, y))
    return _divide(algebra, _dot(algebra, x, y), norms)


def _divide(algebra: Algebra, x: Form, y: Form) -> Form:
    return algebra.multiply(x, algebra.power(y, -1.0, odd=True))


def single_atom(algebra: Algebra, form: Form) -> Atom | None:
    """Return the atom that a form consists of, or None."""
    if len(form.terms) != 1 or form.terms[0][1] != 1.0 or len(form.terms[0][0]) != 1:
        return None
    index, odd, e = form.terms[0][0][0]
    return algebra.atoms[index] if odd and e == 1.0 else None


def _uniform(algebra: Algebra, form: Form) -> bool:
    return all(algebra.atoms[index].uniform for m, _ in form.terms for index, _, _ in m)


_FORMS: Final[dict[str, Callable[..., Form | None]]] = {
    "add": Algebra.add,
    "subtract": Algebra.subtract,
    "multiply": Algebra.multiply,
    "divide": _divide,
    "negative": lambda algebra, x: algebra.scale(x, -1.0),
    "reciprocal": lambda algebra, x: algebra.power(x, -1.0, odd=True),
    "interp": _interp,
    "square": lambda algebra, x: algebra.multiply(x, x),
    "cube": lambda algebra, x: algebra.multiply(x, algebra.multiply(x, x)),
    "abs": Algebra.absolute,
    "sign": lambda algebra, x: algebra.power(x, 0.0, odd=True),
    "sqrt": lambda algebra, x: algebra.power(x, 0.5, odd=False),
    "cbrt": lambda algebra, x: algebra.power(x, 1.0 / 3.0, odd=True),
    "power": _power,
    **{name: _odd(name) for name in _ODD},
    **{name: _even(name) for name in _EVEN},
    "max": _extremum("max"),
    "min": _extremum("min"),
    "where": _where,
    "less": _compare(0.0, 1.0, 0.0),
    "less_equal": _compare(1.0, 1.0, 0.0),
    "equal": _compare(1.0, 0.0, 0.0),
    "invert": _invert,
    **{name: _norm(name) for name in ("norm", "global_norm", "row_norm", "column_norm")},
    **{name: _mean(name) for name in ("mean", "row_mean", "column_mean")},
    **{name: _largest(name) for name in ("amax", "row_max", "column_max")},
    "dot": _dot,
    "cosine_sim": _cosine_sim,
}

_WITHIN: Final = ("mean", "amax", "row_mean", "column_mean", "row_max", "column_max")
_BOUNDS: Final[dict[str, Interval]] = {
    **dict.fromkeys(("abs", "sqrt", "square", "exp", "exp2", "exp10", "power"), _NONNEGATIVE),
    **dict.fromkeys(("norm", "global_norm", "row_norm", "column_norm", "log1p"), _NONNEGATIVE),
    **dict.fromkeys(("nuclear_norm", "sketch_norm"), _NONNEGATIVE),
    **dict.fromkeys(("sign", "sin", "cos", "tanh", "cosine_sim", "global_cosine"), (-1.0, 1.0)),
    **dict.fromkeys(("invert", "less", "less_equal", "equal", "every"), _UNIT),
    "cosh": (1.0, math.inf),
    "arccos": (0.0, math.pi),
}


def _bounds(algebra: Algebra, name: str, args: Sequence[Form]) -> Interval:
    """Return the bounds of an instruction's result."""
    match name, [algebra.bounds(arg) for arg in args]:
        case _, [x] if name in _WITHIN:
            return x
        case "where", [_, x, y]:
            return forms.hull((x, y))
        case "interp", [x, y, (low, high)] if low >= 0.0 and high <= 1.0:
            return forms.hull((x, y))
        case "clip_by_global_norm", [x, _]:
            return forms.hull((x, (0.0, 0.0)))
        case "power", [(low, high), (exponent, _)] if low >= 0.0 and high <= 1.0 <= exponent:
            return 0.0, high
        case "power", [(low, _), (_, exponent)] if low >= 1.0 and exponent <= 0.0:
            return _UNIT
        case _:
            return _BOUNDS.get(name, ANYTHING)
