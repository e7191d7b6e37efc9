"""Normal forms: one form for each value, in whatever way it is written.

A `Form` is a sum of monomials; a monomial is a number times powers of *atoms*; an atom is an input
or the result of an operation that no power law describes. Two expressions of one form are equal.
This is the algebra behind `simplify`, and it is the algebra of this language, where x / 0 is 0 and
sqrt is sqrt(|x|). A power is therefore kept as a sign and a magnitude,

    (atom, odd, e)  means  sign(x) |x|^e  if odd, else  |x|^e,   and 0 at x = 0 for every e,

so that x / x is the power (False, 0), which is 1 but for x = 0, and is dropped only where x cannot
be 0. With this one convention all of these are additions of exponents, without exception: products,
quotients, reciprocals, squares, sqrt(|x|), |x|, sign(x), cbrt. m / sqrt(m * m) is m^1 |m|^-1, the
power (True, 0): sign(m).

A sum that is raised to a power becomes an atom itself, without its common factors, and two sums are
multiplied out only where one of them holds nothing but constants (1 - b): so quotients cancel.

Forms are equal as real numbers: rounding, overflow, underflow, infinities and NaN are left out
here. Coefficients count as equal to 12 digits.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, final

from veldt.search.language.types import Kind

# (atom's index, odd, exponent), ordered by the index; no atom twice.
Monomial: TypeAlias = tuple[tuple[int, bool, float], ...]
Interval: TypeAlias = tuple[float, float]

SUM: Final = "sum"
ANYTHING: Final[Interval] = (-math.inf, math.inf)
_MAX_TERMS: Final = 24


class FormError(Exception):
    """A form too long, or a coefficient that over- or underflows; the value becomes an atom."""


@final
class Form:
    """A sum of monomials with coefficients.

    Attributes:
      terms: Monomials in order with their coefficients.
      key: Same with the coefficients rounded to 12 digits; equal keys, equal forms.
    """

    __slots__ = ("_hash", "key", "terms")

    def __init__(self, terms: tuple[tuple[Monomial, float], ...]):
        self.terms = terms
        self.key = tuple([(m, c if c in (1.0, -1.0) else float(f"{c:.12g}")) for m, c in terms])
        self._hash = hash(self.key)  # the hash is needed far more often than forms are made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Form) and self._hash == other._hash and self.key == other.key

    def __hash__(self) -> int:
        return self._hash

    @property
    def number(self) -> float | None:
        """The form's value where it is a plain number."""
        if not self.terms:
            return 0.0
        monomial, coefficient = self.terms[0]
        return coefficient if len(self.terms) == 1 and not monomial else None


@final
@dataclass(frozen=True, slots=True)
class Atom:
    """The base of a power.

    Attributes:
      op: Name of an instruction; `input`, `constant`, or `sum`.
      args: Forms that it is applied to; for a sum, the sum.
      label: Name of an input or a constant; or a text that distinguishes atoms of equal `op` and
        `args`.
      kind: Kind of the value.
      bounds: Smallest and largest possible value.
      uniform: Whether it is a scalar that is the same for all parameter tensors.
      constant: Whether it is made of tunable constants alone.
    """

    op: str
    args: tuple[Form, ...] = ()
    label: str = ""
    kind: Kind = field(default="tensor", compare=False)
    bounds: Interval = field(default=ANYTHING, compare=False)
    uniform: bool = field(default=False, compare=False)
    constant: bool = field(default=False, compare=False)


def form_of(terms: Iterable[tuple[Monomial, float]]) -> Form:
    """Collect terms: equal monomials are added, and terms that cancel to rounding are dropped.

    Raises:
      FormError: There are too many, or a coefficient is not of ordinary size.
    """
    sums: dict[Monomial, float] = {}
    for monomial, coefficient in terms:
        if not coefficient:
            raise FormError  # It has underflowed: no term of 0 is ever made.
        before = sums.get(monomial)
        if before is not None:
            total = before + coefficient
            coefficient = 0.0 if abs(total) <= 1e-13 * abs(coefficient) else total
        sums[monomial] = coefficient
    kept = sorted([(m, c) for m, c in sums.items() if c])
    if len(kept) > _MAX_TERMS or not all(1e-200 < abs(c) < 1e200 for _, c in kept):
        raise FormError
    return Form(tuple(kept))


@final
class Algebra:
    """Arithmetic on forms, and the table of atoms that they refer to."""

    def __init__(self) -> None:
        self.atoms: list[Atom] = []
        self._index: dict[Atom, int] = {}
        self._noted: dict[Form, Interval] = {}  # bounds known from elsewhere
        self._bounds: dict[Form, Interval] = {}
        self._split: dict[Form, tuple[float, Monomial]] = {}
        self.zero = form_of(())
        self.one = self.number(1.0)

    # --- making forms

    def number(self, value: float) -> Form:
        """Return a plain number as a form."""
        return form_of([((), float(value))] if value else [])

    def atom(self, atom: Atom) -> Form:
        """Return an atom as a form."""
        return form_of([(((self._add_atom(atom), True, 1.0),), 1.0)])

    def _add_atom(self, atom: Atom) -> int:
        index = self._index.setdefault(atom, len(self.atoms))
        if index == len(self.atoms):
            self.atoms.append(atom)
        return index

    def kind(self, form: Form) -> Kind:
        """Return the kind of the first atom that is no scalar."""
        for monomial, _ in form.terms:
            for index, _, _ in monomial:
                if self.atoms[index].kind != "scalar":
                    return self.atoms[index].kind
        return "scalar"

    def is_constant(self, form: Form) -> bool:
        """Return whether a form holds numbers and tunable constants alone."""
        return all(self.atoms[index].constant for m, _ in form.terms for index, _, _ in m)

    # --- arithmetic

    def add(self, *forms: Form) -> Form:
        """Return the sum."""
        return form_of(term for form in forms for term in form.terms)

    def scale(self, form: Form, number: float) -> Form:
        """Return the product with a number."""
        return form_of((m, number * c) for m, c in form.terms) if number else self.zero

    def subtract(self, x: Form, y: Form) -> Form:
        """Return the difference."""
        return form_of([*x.terms, *((m, -c) for m, c in y.terms)])

    def multiply(self, x: Form, y: Form) -> Form:
        """Return the product."""
        for number, other in ((x.number, y), (y.number, x)):
            if number is not None:
                return self.scale(other, number)
        (a, left), (b, right) = self.split(x), self.split(y)
        return self.expand(a * b, self._merge(left, right))

    def power(self, form: Form, exponent: float, *, odd: bool) -> Form:
        """Return sign(x) |x|^exponent if odd, else |x|^exponent; 0 at 0 for every exponent.

        An odd power keeps the parity of each factor, so that the exponents -1, 0, 1, 1/3 give the
        reciprocal, the sign, the value itself and the cube root.
        """
        if not form.terms:
            return self.zero
        coefficient, monomial = self.split(form)
        try:
            size = abs(coefficient) ** exponent
        except OverflowError:
            raise FormError from None
        factors = tuple((i, o and odd, round(e * exponent, 9)) for i, o, e in monomial)
        return self.expand(
            math.copysign(size, coefficient) if odd else size, self._merge(factors, ())
        )

    def absolute(self, form: Form) -> Form:
        """Return |x|."""
        low, high = self.bounds(form)
        if low >= 0.0:
            return form
        return self.scale(form, -1.0) if high <= 0.0 else self.power(form, 1.0, odd=False)

    def split(self, form: Form) -> tuple[float, Monomial]:
        """Return a form as one number times one monomial; the rest of a sum becomes an atom.

        Common factors of a sum are taken out, and the rest is divided by its first coefficient, so
        that sums that differ by a factor share an atom.
        """
        if len(form.terms) == 1:
            monomial, coefficient = form.terms[0]
            return coefficient, monomial
        found = self._split.get(form)
        if found is None:
            found = self._split[form] = self._split_sum(form)
        return found

    def _split_sum(self, form: Form) -> tuple[float, Monomial]:
        common = {index: (index, odd, e) for index, odd, e in form.terms[0][0]}
        for monomial, _ in form.terms[1:]:
            here = {index: (index, odd, e) for index, odd, e in monomial}
            common = {
                index: min(factor, here[index], key=lambda f: f[2])
                for index, factor in common.items()
                if index in here
            }
        rest = form
        if common:
            inverse = tuple((i, o, -e) for i, o, e in sorted(common.values()))
            # At 0 of a common factor the sum is 0 anyway, so that f * f^-1 leaves nothing behind.
            rest = form_of(
                (tuple(f for f in self._merge(m, inverse) if f[0] not in common or f[1] or f[2]), c)
                for m, c in form.terms
            )
        first = rest.terms[0][1]
        rest = self.scale(rest, 1.0 / first)
        atoms = [self.atoms[index] for m, _ in rest.terms for index, _, _ in m]
        bounds = self.bounds(rest)
        if not common:
            bounds = _meet(bounds, _times(self.bounds(form), (1.0 / first, 1.0 / first)))
        atom = Atom(
            SUM,
            (rest,),
            kind=self.kind(rest),
            bounds=bounds,
            uniform=all(atom.uniform for atom in atoms),
            constant=all(atom.constant for atom in atoms),
        )
        sum_ = self._add_atom(atom)
        return first, self._merge(tuple(sorted(common.values())), ((sum_, True, 1.0),))

    def expand(self, coefficient: float, monomial: Monomial) -> Form:
        """Return a monomial as a form, with sums multiplied out where the normal form is so."""
        plain = [i for i, odd, e in monomial if odd and e == 1.0 and self.atoms[i].op == SUM]
        out = [i for i in plain if self.atoms[i].constant]
        if len(plain) - len(out) == 1:
            out = plain
        size = math.prod(len(self.atoms[i].args[0].terms) for i in out)
        if not out or size > _MAX_TERMS:
            return form_of([(monomial, coefficient)])
        rest = tuple(factor for factor in monomial if factor[0] != out[0])
        terms = self.atoms[out[0]].args[0].terms
        return self.add(*(self.expand(coefficient * c, self._merge(rest, m)) for m, c in terms))

    def _merge(self, x: Monomial, y: Monomial) -> Monomial:
        """Return the product of two monomials."""
        powers: dict[int, tuple[bool, float]] = {}
        for index, odd, e in (*x, *y):
            before = powers.get(index, (False, 0.0))
            powers[index] = (before[0] != odd, round(before[1] + e, 9))
        merged = []
        for index, (odd, e) in sorted(powers.items()):
            low, high = self.atoms[index].bounds
            if low >= 0.0:  # its sign does not matter: the parity is that of the exponent
                odd = e % 2.0 == 1.0
            if odd or e or not (low > 0.0 or high < 0.0):
                merged.append((index, odd, e))
        return tuple(merged)

    # --- bounds

    def bounds(self, form: Form) -> Interval:
        """Return the bounds of a value."""
        found = self._bounds.get(form)
        if found is None:
            found = self._bounds[form] = self._sum_bounds(form)
        noted = self._noted.get(form)
        return found if noted is None else _meet(found, noted)

    def refine(self, form: Form, bounds: Interval) -> None:
        """Record that a value lies between these numbers."""
        if bounds != ANYTHING:
            self._noted[form] = _meet(self._noted.get(form, ANYTHING), bounds)

    def _sum_bounds(self, form: Form) -> Interval:
        low, high = 0.0, 0.0
        for monomial, coefficient in form.terms:
            term = (coefficient, coefficient)
            for factor in monomial:
                term = _times(term, self._power_bounds(*factor))
            low, high = low + term[0], high + term[1]
        # Infinities without a sum: nothing is known.
        return (-math.inf if math.isnan(low) else low), (math.inf if math.isnan(high) else high)

    def _power_bounds(self, index: int, odd: bool, e: float) -> Interval:
        low, high = self.atoms[index].bounds
        smallest = 0.0 if low <= 0.0 <= high else min(abs(low), abs(high))
        largest = max(abs(low), abs(high))
        if e == 0.0:
            size = (1.0 if smallest else 0.0, 1.0)
        elif e > 0.0:
            size = (_raise(smallest, e), _raise(largest, e))
        else:
            size = (_raise(largest, e), _raise(smallest, e)) if smallest else (0.0, math.inf)
        if not odd or low >= 0.0:
            return size
        return (-size[1], -size[0]) if high <= 0.0 else (-size[1], size[1])


def natural(form: Form, algebra: Algebra) -> Form:
    """Return the shortest to write of x, -x and |x|, for even functions."""
    if not form.terms:
        return form
    coefficient, monomial = algebra.split(form)
    return algebra.expand(abs(coefficient), tuple((i, e % 2.0 == 1.0, e) for i, _, e in monomial))


def hull(intervals: Sequence[Interval]) -> Interval:
    """Return the smallest interval that holds all of them."""
    return min(low for low, _ in intervals), max(high for _, high in intervals)


def _meet(x: Interval, y: Interval) -> Interval:
    return max(x[0], y[0]), min(x[1], y[1])


def _times(x: Interval, y: Interval) -> Interval:
    if x[0] == x[1] == 1.0:
        return y
    products = [a * b if a and b else 0.0 for a in x for b in y]
    return min(products), max(products)


def _raise(x: float, e: float) -> float:
    try:
        return x**e
    except OverflowError:
        return math.inf
