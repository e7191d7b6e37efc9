"""Spelling forms out: instructions that give a form, derived from the form alone.

A form has many spellings, and here are the few that are useful: a sum without one of its terms, its
common factors, its form as an average; a monomial without one of its factors; a power by its name.
The arguments are forms too.
"""

from collections.abc import Iterator
from typing import Final, TypeAlias

from veldt.search.language.ops import OPS
from veldt.search.simplify import identities
from veldt.search.simplify.forms import SUM, Algebra, Form, FormError, Monomial, form_of

# Powers (odd, exponent) that have a name.
_SINGLE: Final = {
    (False, 1.0): "abs",
    (True, 0.0): "sign",
    (False, 2.0): "square",
    (True, 3.0): "cube",
    (False, 0.5): "sqrt",
    (True, round(1.0 / 3.0, 9)): "cbrt",
    (True, -1.0): "reciprocal",
}
Spelling: TypeAlias = tuple[str, tuple[Form, ...]]


def spellings(algebra: Algebra, form: Form) -> Iterator[Spelling]:
    """Yield instructions whose result has this form; their arguments may be new values."""
    try:
        if len(form.terms) == 1:
            yield from _monomial(algebra, form)
        else:
            yield from _sum(algebra, form)
    except FormError:
        return


def _sum(algebra: Algebra, form: Form) -> Iterator[Spelling]:
    coefficient, monomial = algebra.split(form)
    if len(monomial) > 1:  # common factors
        last = [factor for factor in monomial if algebra.atoms[factor[0]].op == SUM][-1:]
        common = tuple(factor for factor in monomial if factor not in last)
        yield "multiply", (algebra.expand(1.0, common), algebra.expand(coefficient, tuple(last)))
    for position, (m, c) in enumerate(form.terms):
        rest = form_of(form.terms[:position] + form.terms[position + 1 :])
        term = form_of([(m, abs(c))])
        yield ("add" if c > 0.0 else "subtract"), (rest, term)
    if len(form.terms) == 2:
        (m, a), (n, b) = form.terms
        x, y = form_of([(m, 1.0)]), form_of([(n, 1.0)])
        if abs(a + b - 1.0) < 1e-12:
            yield "interp", (x, y, algebra.number(b))
        elif a == b:
            yield "multiply", (algebra.add(x, y), algebra.number(a))
        elif a == -b:
            yield "multiply", (algebra.subtract(x, y), algebra.number(a))
    # P + A * Q lies between P and P + Q.
    for weight in _weights(algebra, form):
        p, q = [], []
        for m, c in form.terms:
            if set(weight) <= set(m):
                q.append((tuple(factor for factor in m if factor not in weight), c))
            else:
                p.append((m, c))
        if p and q:
            start, change = form_of(p), form_of(q)
            end, by = algebra.add(start, change), form_of([(weight, 1.0)])
            if end.terms and len(end.terms) < len(form.terms):
                yield "interp", (start, end, by)
            yield "add", (start, form_of((m, c) for m, c in form.terms if set(weight) <= set(m)))


def _weights(algebra: Algebra, form: Form) -> list[Monomial]:
    """Return factors of some of a sum's terms that may be the weights of an average.

    They are constants, single or all those of a term, and scalars between 0 and 1.
    """
    weights: dict[Monomial, None] = {}
    for monomial, _ in form.terms:
        constants = tuple(f for f in monomial if algebra.atoms[f[0]].constant)
        for factor in monomial:
            atom = algebra.atoms[factor[0]]
            low, high = atom.bounds
            if atom.constant or (atom.kind == "scalar" and low >= 0.0 and high <= 1.0):
                weights[factor,] = None
        if constants:
            weights[constants] = None
    return list(weights)


def _monomial(algebra: Algebra, form: Form) -> Iterator[Spelling]:
    monomial, coefficient = form.terms[0]
    if coefficient == -1.0:
        yield "negative", (algebra.expand(1.0, monomial),)
    elif coefficient != 1.0:
        yield "multiply", (algebra.expand(1.0, monomial), algebra.number(coefficient))
        if len(monomial) == 1 and monomial[0][1:] == (True, -1.0):
            yield "divide", (algebra.number(coefficient), algebra.expand(1.0, _inverse(monomial)))
    elif len(monomial) == 1:
        yield from _single(algebra, monomial[0])
    else:
        for position, factor in enumerate(monomial):
            rest = algebra.expand(1.0, monomial[:position] + monomial[position + 1 :])
            yield "multiply", (rest, algebra.expand(1.0, (factor,)))
            if factor[2] < 0.0:
                yield "divide", (rest, algebra.expand(1.0, _inverse((factor,))))
        if all(e < 0.0 for _, _, e in monomial):
            yield "reciprocal", (algebra.expand(1.0, _inverse(monomial)),)
        if all(not odd and e > 0.0 for _, odd, e in monomial):
            square = tuple((i, 2.0 * e % 2.0 == 1.0, 2.0 * e) for i, _, e in monomial)
            yield "sqrt", (algebra.expand(1.0, square),)


def _inverse(monomial: Monomial) -> Monomial:
    return tuple((index, odd, -e) for index, odd, e in monomial)


def _single(algebra: Algebra, factor: tuple[int, bool, float]) -> Iterator[Spelling]:
    """Yield spellings of a power of one atom."""
    index, odd, e = factor
    atom = algebra.atoms[index]
    base = algebra.expand(1.0, ((index, True, 1.0),))
    nonnegative = atom.bounds[0] >= 0.0
    if (odd, e) == (True, 1.0):
        if atom.op in OPS and len(atom.args) > OPS[atom.op].arity:  # max and min of many
            for position, arg in enumerate(atom.args):
                rest = list(atom.args[:position] + atom.args[position + 1 :])
                nested = rest[0]
                for other in rest[1:]:
                    nested = identities.apply(algebra, atom.op, (nested, other))
                yield atom.op, (nested, arg)
        elif atom.op in OPS and not atom.label:
            yield atom.op, atom.args
        return
    for key in ((odd, e), *(((not odd, e),) if nonnegative else ())):
        if key in _SINGLE:
            yield _SINGLE[key], (base,)
    if (False, e) == (odd, 0.0):
        yield "divide", (base, base)
    elif e < 0.0:
        yield "reciprocal", (algebra.expand(1.0, _inverse((factor,))),)
    elif not odd or nonnegative:
        yield "power", (base, algebra.number(e))
    else:
        yield (
            "multiply",
            (algebra.expand(1.0, ((index, True, 0.0),)), algebra.power(base, e, odd=False)),
        )
