"""Relations of state slots that hold at every step, found by running and proved by induction.

Slots are zero before the first step, so a relation between old values that the program carries over
to the new ones always holds. A run of the program suggests candidates. Each is then assumed for the
old values and has to follow for the new ones, by the algebra of forms. Those that do not follow are
dropped, and the rest is tried again without them.

These are found: slots that stay zero, slots that are a multiple of another, and slots that are
never negative (averages of squares, whose |v| is then v). A slot may also be kept at another scale:
m = 0.1 * g + 0.9 * m, read as 10 * m, is m = g + 0.9 * m. But the scale must not be so extreme that
it, its square (the slot's may be taken) or its inverse is no normal float32.
"""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, final

import numpy as np

from veldt.search.language.dataflow import Constant, Dataflow, Input
from veldt.search.simplify import choices
from veldt.search.simplify.choices import Values
from veldt.search.simplify.forms import SUM, Algebra, Form, FormError, Monomial, form_of
from veldt.search.simplify.verification import Trace

_MAX_SCALES: Final = 4
# A scale between these, its square and its inverse are all within float32's normal range.
_LEAST_SCALE: Final = 2.0**-63
_LARGEST_SCALE: Final = 2.0**63
# Lowers a program, given the forms of its slots.
Lower: TypeAlias = Callable[[Algebra, Mapping[str, Form]], tuple[Values, dict[int, int]]]


@final
@dataclass(frozen=True, slots=True)
class Facts:
    """Relations of the slots that hold at every step.

    Attributes:
      multiples: Slot that each slot is a multiple of, and the factor; 0 for a slot that is zero.
      nonnegative: Slots that are never negative.
    """

    multiples: Mapping[str, tuple[str, float]]
    nonnegative: frozenset[str]

    def forms(self, algebra: Algebra, flow: Dataflow) -> dict[str, Form]:
        """Return the old values of a program's slots."""
        forms = {}
        for name in flow.slots:
            source, factor = self.multiples.get(name, (name, 1.0))
            slot = flow.values[flow.input_index(source)]
            assert isinstance(slot, Input)
            atom = choices.input_atom(slot)
            if source in self.nonnegative:
                atom = replace(atom, bounds=(0.0, math.inf))
            forms[name] = algebra.scale(algebra.atom(atom), factor)
        return forms


def find(flow: Dataflow, seen: Trace, lower: Lower) -> Facts:
    """Find relations of a program's live slots that hold at every step.

    Args:
      flow: Program.
      seen: Run of the program.
      lower: Function that gives the program's values from the forms of the slots.
    """
    facts = _guess(flow.live_slots, seen)
    while facts.multiples or facts.nonnegative:
        algebra = Algebra()
        olds = facts.forms(algebra, flow)
        values, of = lower(algebra, olds)
        news = {
            name: values.forms[of[flow.new_slots[flow.slots.index(name)]]]
            for name in flow.live_slots
        }
        multiples = {
            name: (source, factor)
            for name, (source, factor) in facts.multiples.items()
            if _is_multiple(algebra, news[name], news[source], factor)
        }
        nonnegative = frozenset(n for n in facts.nonnegative if algebra.bounds(news[n])[0] >= 0.0)
        proved = Facts(multiples, nonnegative)
        if proved == facts:
            return facts
        facts = proved
    return facts


def _is_multiple(algebra: Algebra, form: Form, source: Form, factor: float) -> bool:
    try:
        return form == algebra.scale(source, factor)
    except FormError:
        return False


def _guess(slots: Sequence[str], seen: Trace) -> Facts:
    rows = {name: np.concatenate([x.ravel() for x in seen.slots[name]]) for name in slots}
    rows = {name: row for name, row in rows.items() if np.all(np.isfinite(row))}
    multiples: dict[str, tuple[str, float]] = {}
    for name, row in rows.items():
        if not row.any():
            multiples[name] = (name, 0.0)
            continue
        for source in rows:
            if source == name:
                break
            other = rows[source]
            if source not in multiples and other.any() and other.shape == row.shape:
                with np.errstate(all="ignore"):  # Squares may overflow, or underflow to 0.
                    factor = float(row @ other / (other @ other))
                if 1e-100 < abs(factor) < 1e100 and np.allclose(
                    row, factor * other, rtol=1e-9, atol=0.0
                ):
                    multiples[name] = (source, choices.shortest(factor, 1e-13))
                    break
    nonnegative = {n for n, row in rows.items() if n not in multiples and np.all(row >= 0.0)}
    return Facts(multiples, frozenset(nonnegative))


def scales(values: Values, flow: Dataflow, of: Mapping[int, int]) -> list[tuple[str, Form]]:
    """Return scales that may suit a slot better: (slot, its value in units of the new one).

    They are those at which the slot or its new value is read, and those of its inputs.
    """
    algebra = values.algebra
    defaults = {c.name: c.value for c in flow.values if isinstance(c, Constant) and c.name}
    found: dict[tuple[str, Form], None] = {}
    for name in flow.live_slots:
        old = values.forms[of[flow.input_index(name)]]
        new = values.forms[of[flow.new_slots[flow.slots.index(name)]]]
        for form in (old, new):
            if form.number is not None:
                continue
            factor, rest = _constant_factor(algebra, form)
            for value in set(of.values()):
                other, same = _constant_factor(algebra, values.forms[value])
                if same == rest and other != factor and other.terms:
                    with contextlib.suppress(FormError):
                        inverse = algebra.power(other, -1.0, odd=True)
                        found[name, algebra.multiply(factor, inverse)] = None
        entering = {c for m, c in new.terms if not any(term[0] == m for term in old.terms)}
        total = sum(c for _, c in new.terms)
        if len(entering) == 1 and abs(total - 1.0) > 1e-9 and entering != {1.0}:
            found[name, algebra.number(entering.pop())] = None
    safe = [
        key
        for key in found
        if _is_nonzero(algebra, key[1])
        and key[1].number != 1.0
        and _LEAST_SCALE <= _size(algebra, key[1], defaults) <= _LARGEST_SCALE
    ]
    return safe[:_MAX_SCALES]


def _size(algebra: Algebra, form: Form, defaults: Mapping[str, float]) -> float:
    """Return the size of a form of constants, at their defaults."""
    return abs(sum(c * _product(algebra, m, defaults) for m, c in form.terms))


def _product(algebra: Algebra, monomial: Monomial, defaults: Mapping[str, float]) -> float:
    product = 1.0
    for index, _, exponent in monomial:
        atom = algebra.atoms[index]
        if atom.op == SUM:
            base = _size(algebra, atom.args[0], defaults)
        else:  # Results of other functions of constants are assumed to be of ordinary size.
            base = abs(defaults.get(atom.label, 1.0))
        product *= math.pow(base, exponent) if base else 1.0
    return product


def _constant_factor(algebra: Algebra, form: Form) -> tuple[Form, Form]:
    """Split a form into a factor of constants and the rest."""
    if not form.terms:
        return algebra.one, form
    coefficient, monomial = algebra.split(form)
    constant = tuple(f for f in monomial if algebra.atoms[f[0]].constant)
    rest = tuple(f for f in monomial if not algebra.atoms[f[0]].constant)
    return algebra.expand(coefficient, constant), form_of([(rest, 1.0)])


def _is_nonzero(algebra: Algebra, form: Form) -> bool:
    low, high = algebra.bounds(form)
    return low > 0.0 or high < 0.0
