"""Simplification: the same behaviour in the shortest form known.

Lion's authors removed by hand what their search had left in the program it found (Chen et al. 2023,
arXiv 2302.06675, section 2.3). `simplify` does that automatically:

1. `pruning`: dead statements and slots, across iterations; exact to the bit.
2. `recurrence`: relations of the slots that hold at every step, by induction.
3. `forms`, `identities`, `choices`: every value in a normal form, and the ways to compute it;
   m / sqrt(m * m) is sign(m), an average of an average is an average.
4. `extraction`: the shortest program among them.
5. `verification`: the result runs beside the original. If it differs by more than rounding, the
   instruction with the wrong algebra is found by bisection and has no algebra from then on.

Steps 2 to 5 are repeated for as long as the program gets cheaper, so simplifying twice changes
nothing, and nothing gets longer. Two programs count as the same here if they agree up to rounding
where nothing overflows, underflows or is NaN: gradients between 1e-5 and 100 in size are tried, in
float32 and float64. A search's inner loop, which needs thousands of programs a second and must not
change one bit, uses `prune`.
"""

import math
from collections.abc import Mapping
from typing import Final

from veldt.search.errors import LoweringError
from veldt.search.language import dataflow, pruning
from veldt.search.language.dataflow import Dataflow
from veldt.search.language.statements import AbstractProgram, AnyProgram
from veldt.search.simplify import choices, extraction, recurrence, verification
from veldt.search.simplify.choices import Values
from veldt.search.simplify.forms import Algebra, Atom, Form, FormError, Interval
from veldt.search.simplify.recurrence import Facts

_MAX_BLAMED: Final = 4


def simplify(program: AnyProgram, *, fold: bool = False) -> AnyProgram:
    """Return the same behaviour in the shortest form known.

    Args:
      program: Rule to simplify.
      fold: Whether to treat tunable constants as the numbers that they default to. They keep their
        names where they are still read unchanged; a number computed from them alone is a new
        number. Without it the result equals the program at all values of its constants that are on
        the same side of 0 and of 1 as the defaults.

    Returns:
      A program with no more statements and no more slots.
    """
    program = pruning.prune(program)
    reference = verification.Reference(program, fold=fold)
    while True:
        shorter = _shorten(program, reference, fold)
        if shorter is None:
            return program
        program = shorter


def _shorten(
    program: AnyProgram, reference: verification.Reference, fold: bool
) -> AnyProgram | None:
    """Return a cheaper program of the same behaviour, if one is found."""
    flow = dataflow.lower(program)
    nodes = flow.live_nodes
    opaque: frozenset[int] = frozenset()

    def rewritten(opaque: frozenset[int]) -> AnyProgram:
        try:
            return _rewrite(program, flow, opaque, fold)
        # A slot with a kind that only followed from its new value, or a number of extreme size.
        except (LoweringError, FormError):
            return program

    for _ in range(_MAX_BLAMED):
        shorter = rewritten(opaque)
        if _cost(shorter) >= _cost(program):
            return None
        if reference.agrees(shorter):
            return shorter
        # Without algebra on any instruction the result is right, with all of them it is wrong.
        well, ill = 0, len(nodes)
        while ill - well > 1:
            middle = (well + ill) // 2
            if reference.agrees(rewritten(opaque | {*nodes[middle:]})):
                well = middle
            else:
                ill = middle
        opaque |= {nodes[ill - 1]}
    return None


def _cost(program: AbstractProgram) -> tuple[int, ...]:
    """Return the numbers of statements, slots and tensor statements, and their nesting."""
    flow = dataflow.lower(program)
    depths: dict[int, int] = {}
    for index in flow.live_nodes:
        depths[index] = 1 + max((depths.get(arg, 0) for arg in flow.node(index).args), default=0)
    tensors = sum(flow.node(index).kind != "scalar" for index in flow.live_nodes)
    return len(depths), len(flow.live_slots), tensors, sum(depths.values())


def _rewrite(program: AnyProgram, flow: Dataflow, opaque: frozenset[int], fold: bool) -> AnyProgram:
    """Return the shortest program that the algebra finds, without algebra on `opaque`."""

    def lower(algebra: Algebra, slots: Mapping[str, Form]) -> tuple[Values, dict[int, int]]:
        inputs = dict(slots)
        if not fold:
            for name, value in program.constants:
                inputs[name] = algebra.atom(_constant_atom(name, value))
        return choices.values_of(algebra, flow, inputs, opaque)

    facts = recurrence.find(flow, verification.trace(flow), lower)
    algebra = Algebra()
    slots = facts.forms(algebra, flow)
    values, of = lower(algebra, slots)
    # Slots that are multiples of another are handled first, in a round of their own.
    candidates = [] if facts.multiples else recurrence.scales(values, flow, of)
    best = _extract(program, flow, values, of, facts, {})
    for name, scale in candidates:
        if name in facts.nonnegative and algebra.bounds(scale)[0] < 0.0:
            continue
        old = algebra.multiply(scale, slots[name])
        try:
            rescaled, of_rescaled = lower(algebra, {**slots, name: old})
            other = _extract(program, flow, rescaled, of_rescaled, facts, {name: scale})
        except FormError:
            continue
        best = min(best, other, key=_cost)
    return best


def _extract(
    program: AnyProgram,
    flow: Dataflow,
    values: Values,
    of: Mapping[int, int],
    facts: Facts,
    scales: Mapping[str, Form],
) -> AnyProgram:
    """Return the shortest program for the update and the slots, each divided by its scale."""
    zero = values.value(values.algebra.zero)
    assert zero is not None, "numbers always fit"
    roots = [of[flow.update]]
    for name in flow.slots:
        if name not in flow.live_slots or name in facts.multiples:
            # Not read, unless it stays zero and something needs zeros of a tensor's shape.
            roots.append(zero)
            continue
        root = of[flow.new_slots[flow.slots.index(name)]]
        if name in scales:
            inverse = values.algebra.power(scales[name], -1.0, odd=True)
            scaled = values.value(values.algebra.multiply(values.forms[root], inverse))
            assert scaled is not None, "the program's own values always fit"
            root = scaled
        roots.append(root)
    values.grow()
    choice = extraction.choose(values, roots)
    shorter = extraction.emit(values, roots, choice, flow)
    return pruning.to_program(shorter, program)


def _constant_atom(name: str, value: float) -> Atom:
    return Atom(
        "constant",
        label=name,
        kind="scalar",
        bounds=_constant_bounds(value),
        uniform=True,
        constant=True,
    )


def _constant_bounds(value: float) -> Interval:
    """Return the bounds of a constant, which stays on its side of 0 and of 1."""
    if value < 0.0:
        low, high = _constant_bounds(-value)
        return -high, -low
    if value == 0.0:
        return -math.inf, math.inf
    return 1e-6 * value, 1.0 - 1e-6 * (1.0 - value) if value < 1.0 else math.inf
