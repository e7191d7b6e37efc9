"""Ways to compute each value of a program: the instructions that give it.

Values are identified by their normal forms (`forms.py`), so that all expressions of one form are
one value. At first, a value has the instruction by which the program computes it. `grow` adds
others: instructions on existing values, found by the form of the result, and new intermediate
values that spell a form out. Later, `extraction.py` chooses those that make the shortest program.
This is equality saturation (Willsey et al. 2021, arXiv 2004.03082) where equality is decided by a
normal form and not by rewriting, so that it cannot blow up: the number of values is bounded.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, final

from veldt.search.errors import LoweringError
from veldt.search.language import shapes
from veldt.search.language.dataflow import Constant, Dataflow, Input, Node
from veldt.search.language.ops import OPS
from veldt.search.language.statements import PROGRESS, ROLES, STEP, Arg
from veldt.search.simplify import identities, spellings
from veldt.search.simplify.forms import ANYTHING, Algebra, Atom, Form, FormError

# New values are added up to so many in all, and so many instructions away from the program's own.
MAX_VALUES: Final = 300
MAX_DEPTH: Final = 3
# Instructions on two existing values are searched for among the first so many of them.
_MAX_PAIRED: Final = 48
# Bounds of the scalars that every program may read. Progress is never 0, but may be very small.
_SCALAR_BOUNDS: Final = {
    STEP: (1.0, math.inf),
    PROGRESS: (2.0**-40, 1.0),
    **dict.fromkeys(ROLES, (0.0, math.inf)),
}
_STRUCTURAL: Final = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5)
_UNARY: Final = ("negative", "abs", "sign", "square", "cube", "sqrt", "cbrt", "reciprocal")


class Way(NamedTuple):
    """An instruction on values, each given by its index."""

    op: str
    args: tuple[int, ...]


@final
class Values:
    """The values of one program, and the ways to compute each.

    Attributes:
      algebra: Algebra of the forms.
      forms: Normal form of each value.
      leaves: Name or number of each value that needs no instruction, else None.
      ways: Instructions that give each value; the program's own come first.
      num_given: Number of values before `grow`.
    """

    def __init__(self, algebra: Algebra):
        self.algebra = algebra
        self.forms: list[Form] = []
        self.leaves: list[Arg | None] = []
        self.ways: list[list[Way]] = []
        self.num_given = 0
        self._depths: list[int] = []
        self._index: dict[Form, int] = {}

    def leaf(self, form: Form, leaf: Arg) -> int:
        """Add an input or a constant under its own name; the first of a form represents it."""
        value = self._new(form, 0)
        self.leaves[value] = leaf
        # A tunable constant that happens to be 1 does not replace the 1 in 1 - b.
        if isinstance(leaf, float) or form.number not in _STRUCTURAL:
            self._index.setdefault(form, value)
        return value

    def value(self, form: Form, depth: int = 0) -> int | None:
        """Return the value of a form, added if it is new and not too far from the program's own."""
        found = self._index.get(form)
        if found is not None:
            return found
        number = form.number
        if number is None and depth and (depth > MAX_DEPTH or len(self.forms) >= MAX_VALUES):
            return None
        value = self._index[form] = self._new(form, depth)
        if number is not None:
            self.leaves[value] = shortest(number)
        return value

    def add_way(self, value: int, op: str, args: Iterable[int | None]) -> None:
        """Add an instruction that gives a value, if all its arguments exist and fit."""
        given = tuple(arg for arg in args if arg is not None)
        if len(given) < OPS[op].arity or value in given or self.leaves[value] is not None:
            return
        way = Way(op, given)
        kinds = [self.algebra.kind(self.forms[arg]) for arg in given]
        try:
            kind = shapes.result_kind(OPS[op], kinds)
        except LoweringError:
            return
        if kind == self.algebra.kind(self.forms[value]) and way not in self.ways[value]:
            self.ways[value].append(way)

    def _new(self, form: Form, depth: int) -> int:
        self.forms.append(form)
        self.leaves.append(None)
        self.ways.append([])
        self._depths.append(depth)
        return len(self.forms) - 1

    # --- finding ways

    def grow(self) -> None:
        """Search for further ways to compute each value, adding values as needed."""
        self.num_given = len(self.forms)
        self._pair()
        value = 0
        while value < len(self.forms):
            if self.leaves[value] is None:
                depth = self._depths[value] + 1
                for op, args in spellings.spellings(self.algebra, self.forms[value]):
                    if self._gives(op, args, self.forms[value]):
                        self.add_way(value, op, [self.value(form, depth) for form in args])
            value += 1

    def _pair(self) -> None:
        """Find the values that one instruction on one or two others gives."""
        values = [v for v, form in enumerate(self.forms) if form.number is None][:_MAX_PAIRED]
        used = {way.op for ways in self.ways for way in ways}
        unary = [op for op in OPS if OPS[op].arity == 1 and (op in _UNARY or op in used)]
        for x in values:
            for op in unary:
                self._look_up(op, x)
            for y in values:
                if x < y:
                    self._look_up("multiply", x, y)
                if x != y:
                    self._look_up("divide", x, y)
                if x < y and "dot" in used:
                    self._look_up("cosine_sim", x, y)
        multiples: dict[Form, list[tuple[int, float]]] = {}
        for x in values:
            form = self.forms[x]
            first = form.terms[0][1]
            multiples.setdefault(self.algebra.scale(form, 1.0 / first), []).append((x, first))
        for same in multiples.values():
            for value, first in same:
                for x, other in same:
                    self._multiple(value, x, first / other)
        for x in values:
            self._combine(x, values, multiples)

    def _gives(self, op: str, args: Sequence[Form], form: Form) -> bool:
        """Return whether the algebra agrees with a spelling, which alone makes it sound."""
        try:
            return identities.apply(self.algebra, op, args) == form
        except (FormError, LoweringError):
            return False

    def _look_up(self, op: str, *args: int) -> None:
        """Add the instruction if its result is an existing value."""
        try:
            form = identities.apply(self.algebra, op, [self.forms[arg] for arg in args])
        except (FormError, LoweringError):
            return
        found = self._index.get(form)
        if found is not None:
            self.add_way(found, op, args)

    def _multiple(self, value: int, x: int, factor: float) -> None:
        if factor == -1.0:
            self.add_way(value, "negative", (x,))
        else:
            self.add_way(value, "multiply", (x, self.value(self.algebra.number(factor))))

    def _combine(
        self, x: int, values: Sequence[int], multiples: Mapping[Form, Sequence[tuple[int, float]]]
    ) -> None:
        """Find the values that are x plus something, or between x and another value."""
        algebra = self.algebra
        directions: dict[Form, list[tuple[int, float]]] = {}
        for y in values:
            try:
                difference = algebra.subtract(self.forms[y], self.forms[x])
            except FormError:
                continue
            if not difference.terms:
                continue
            number, first = difference.number, difference.terms[0][1]
            direction = algebra.scale(difference, 1.0 / first)
            opposite = algebra.scale(difference, -1.0)
            if number is not None or difference in self._index or opposite in self._index:
                self._shifted(y, x, difference)
            elif direction in multiples:
                for z, other in multiples[direction]:
                    sign = 1.0 if first / other > 0.0 else -1.0
                    new = self.value(algebra.scale(difference, sign), 1)
                    if new is not None:
                        self._multiple(new, z, sign * first / other)
                        self.add_way(y, "add" if sign > 0.0 else "subtract", (x, new))
            for other_y, other in directions.setdefault(direction, []):
                self._between(y, x, other_y, first / other)
                self._between(other_y, x, y, other / first)
            directions[direction].append((y, first))

    def _shifted(self, value: int, x: int, difference: Form) -> None:
        """Add `value = x + difference`, where the difference or its negative exists."""
        number = difference.number
        negative = self.algebra.scale(difference, -1.0)
        if negative in self._index or (number is not None and number < 0.0):
            self.add_way(value, "subtract", (x, self.value(negative)))
        if difference in self._index or (number is not None and number > 0.0):
            self.add_way(value, "add", (x, self.value(difference)))

    def _between(self, value: int, x: int, y: int, weight: float) -> None:
        if weight != 1.0:
            self.add_way(value, "interp", (x, y, self.value(self.algebra.number(weight))))


def values_of(
    algebra: Algebra, flow: Dataflow, inputs: Mapping[str, Form], opaque: frozenset[int]
) -> tuple[Values, dict[int, int]]:
    """Return the values of a program, each with the instruction by which it is computed.

    Args:
      algebra: Algebra that keeps the atoms.
      flow: Program, lowered. Constants without an entry in `inputs` count as numbers.
      inputs: Forms of the slots, and of constants that keep their names.
      opaque: Instructions (indices into `flow.values`) without algebra on them.

    Returns:
      The values, and for each live index of `flow.values` the index of its value.
    """
    values = Values(algebra)
    of: dict[int, int] = {}
    leaves: dict[Arg, int] = {}
    for value in flow.values:
        if isinstance(value, Input):
            values.leaf(algebra.atom(input_atom(value)), value.name)

    def whole(index: int) -> int:
        """Return a value as a tensor even if its form is a scalar's, such as g * 0 + 1."""
        value = flow.values[index]
        if value.kind == "scalar" or algebra.kind(values.forms[of[index]]) != "scalar":
            return of[index]
        if isinstance(value, Input):  # a slot that stays zero
            return values.leaves.index(value.name)
        assert isinstance(value, Node), "constants are scalars"
        return as_it_is(index, value, f"#{index}")

    def as_it_is(index: int, node: Node, label: str) -> int:
        """Return the result of an instruction without any algebra on it."""
        args = [whole(arg) for arg in node.args]
        forms = [values.forms[arg] for arg in args]
        form = identities.opaque(algebra, node.op, forms, label=label, kind=node.kind)
        return added(form, node.op, args)

    def added(form: Form, op: str, args: Sequence[int]) -> int:
        value = values.value(form)
        assert value is not None, "the program's own values always fit"
        values.add_way(value, op, args)
        return value

    for index in sorted(flow.live):
        match flow.values[index]:
            case Input(name=name) as leaf:
                form = inputs.get(name, algebra.atom(input_atom(leaf)))
                found = values.value(form)
                assert found is not None, "the program's own values always fit"
                of[index] = found
            case Constant(value=number, name=name):
                known = None if name is None else inputs.get(name)
                key = name or number
                if key not in leaves:
                    leaves[key] = values.leaf(known or _number(algebra, number), key)
                of[index] = leaves[key]
            case Node() as node:
                if index in opaque:
                    of[index] = as_it_is(index, node, f"#{index}")
                    continue
                wanted = zip(OPS[node.op].kinds, node.args, strict=True)
                args = [whole(arg) if kind == "tensor" else of[arg] for kind, arg in wanted]
                try:
                    form = identities.apply(algebra, node.op, [values.forms[arg] for arg in args])
                except (FormError, LoweringError):
                    of[index] = as_it_is(index, node, "")
                else:
                    of[index] = added(form, node.op, args)
    return values, of


def _number(algebra: Algebra, number: float) -> Form:
    """Return a constant; one of extreme size for the algebra is identified by its digits."""
    try:
        return algebra.number(number)
    except FormError:
        atom = Atom(
            "constant",
            label=repr(number),
            kind="scalar",
            bounds=(number, number),
            uniform=True,
            constant=True,
        )
        return algebra.atom(atom)


def input_atom(value: Input) -> Atom:
    """Return the atom of `w`, `g`, a slot, or a scalar that every program may read."""
    is_scalar = value.kind == "scalar"
    bounds = _SCALAR_BOUNDS.get(value.name, ANYTHING) if is_scalar else ANYTHING
    uniform = is_scalar and value.name not in ROLES
    return Atom("input", (), value.name, kind=value.kind, bounds=bounds, uniform=uniform)


def shortest(number: float, tolerance: float = 4e-16) -> float:
    """Return the shortest decimal number that equals a computed one up to a tolerance."""
    for digits in range(1, 17):
        short = float(f"{number:.{digits}g}")
        if abs(short - number) <= tolerance * abs(number):
            return short
    return number
