"""Choosing the shortest program among the ways to compute each value.

The cost of a program is its number of instructions, where each value counts once however often it
is read; then the number of instructions on whole tensors, then how deeply they are nested, then the
number of instructions that the program did not have, so that nothing is rewritten without need, and
the length of their numbers. Exact choice is hard (a directed acyclic graph, not a tree); this is
greedy from below, and then a local search over single choices that starts from the greedy solution
and from the program as it was written. The result is never longer than the program given.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from veldt.search.language import shapes
from veldt.search.language.dataflow import Constant, Dataflow, Input, Node, Value
from veldt.search.language.ops import OPS
from veldt.search.language.statements import INPUTS
from veldt.search.simplify.choices import Values, Way

Choice: TypeAlias = dict[int, Way]
_Weights: TypeAlias = dict[tuple[int, Way], int]
_INSTRUCTION: Final = 10**12
_TENSOR: Final = 10**9
_LEVEL: Final = 10**6
_NEW: Final = 10**3
_MAX_ROUNDS: Final = 30
_MAX_VISITS: Final = 5_000_000


def choose(values: Values, roots: Sequence[int]) -> Choice:
    """Choose a way for each value that the roots need."""
    greedy = _greedy(values)
    given = {v: ways[0] for v, ways in enumerate(values.ways[: values.num_given]) if ways}
    weights = {
        (value, way): _weight(values, value, way)
        for value, ways in enumerate(values.ways)
        for way in ways
    }
    written = _improve(values, roots, greedy | given, weights)
    short = _improve(values, roots, greedy, weights)
    if short is None or (written is not None and written[0] <= short[0]):
        assert written is not None, "the program as given is a choice"
        return written[1]
    return short[1]


def emit(
    values: Values, roots: Sequence[int], choice: Mapping[int, Way], flow: Dataflow
) -> Dataflow:
    """Return the chosen program.

    Args:
      values: Values and the ways to compute them.
      roots: Update and the new value of each slot.
      choice: Way chosen for each value.
      flow: Program with the inputs and slots.
    """
    out: list[Value] = [value for value in flow.values if isinstance(value, Input)]
    names = {value.name: index for index, value in enumerate(out) if isinstance(value, Input)}
    index: dict[int, int] = {}

    def place(value: int) -> int:
        """Return the index of a value; names and numbers are added as they are needed."""
        leaf = values.leaves[value]
        if value not in index:
            if isinstance(leaf, str) and leaf in names:
                index[value] = names[leaf]
            else:
                number = values.forms[value].number if isinstance(leaf, str) else leaf
                name = leaf if isinstance(leaf, str) else None
                # A constant that keeps its name is no number here; `like` has its default.
                out.append(Constant(math.nan if number is None else number, name))
                index[value] = len(out) - 1
        return index[value]

    for value in _needed(values, roots, choice) or ():
        op, args = choice[value]
        given = tuple(place(arg) for arg in args)
        kinds = [out[arg].kind for arg in given]
        out.append(Node(op, given, shapes.result_kind(OPS[op], kinds)))
        index[value] = len(out) - 1
    update, *new_slots = [place(root) for root in roots]
    return Dataflow(tuple(out), flow.slots, update, tuple(new_slots))


def _weight(values: Values, value: int, way: Way) -> int:
    tensor = values.algebra.kind(values.forms[value]) != "scalar"
    total = _INSTRUCTION + _TENSOR * tensor
    if value >= values.num_given or way != values.ways[value][0]:
        numbers = [x for arg in way.args if isinstance(x := values.leaves[arg], float)]
        total += _NEW + 2 * sum(len(repr(number)) for number in numbers)
        first = values.leaves[way.args[0]] if way.args else None
        if way.op == "interp" and isinstance(first, str) and first not in INPUTS:
            total += 1  # people write averages as (new, old, 0.9)
    return total


def _needed(values: Values, roots: Sequence[int], choice: Mapping[int, Way]) -> list[int] | None:
    """Return the values to compute, arguments before their users."""
    order: list[int] = []
    done: dict[int, bool] = {}  # False while its arguments are being visited
    pending = [(root, False) for root in reversed(roots)]
    while pending:
        value, ready = pending.pop()
        if ready:
            done[value] = True
            order.append(value)
        elif value in done:
            if not done[value]:
                return None
        elif values.leaves[value] is None:
            if value not in choice:
                return None
            done[value] = False
            pending.append((value, True))
            pending += [(arg, False) for arg in reversed(choice[value].args)]
    return order


def _total(
    values: Values, roots: Sequence[int], choice: Mapping[int, Way], weights: _Weights
) -> int | None:
    """Return the cost of a choice; None where it is circular or leaves a value out."""
    used = _needed(values, roots, choice)
    if used is None:
        return None
    depths: dict[int, int] = {}
    total = 0
    for value in used:
        depth = depths[value] = 1 + max(
            [depths.get(arg, 0) for arg in choice[value].args], default=0
        )
        total += weights[value, choice[value]] + _LEVEL * depth
    return total


def _improve(
    values: Values, roots: Sequence[int], choice: Choice, weights: _Weights
) -> tuple[int, Choice] | None:
    """Change one value's way at a time for as long as that saves something."""
    choice = dict(choice)
    best = _total(values, roots, choice, weights)
    if best is None:
        return None
    improved = True
    visits = 0
    while improved:
        improved = False
        for value in _needed(values, roots, choice) or ():
            for way in values.ways[value]:
                before = choice[value]
                if way == before:
                    continue
                visits += len(choice)
                if visits > _MAX_VISITS:
                    return best, choice
                choice[value] = way
                total = _total(values, roots, choice, weights)
                if total is not None and total < best:
                    best, improved = total, True
                else:
                    choice[value] = before
    return best, choice


def _greedy(values: Values) -> Choice:
    """Return, for each value by itself, the way that needs the fewest instructions in all."""
    # The instructions needed, as a set of bits; a name or a number needs none.
    needs = {v: 0 for v, leaf in enumerate(values.leaves) if leaf is not None}
    sizes = dict.fromkeys(needs, 0)
    choice: Choice = {}
    changed = True
    rounds = 0
    while changed and rounds < _MAX_ROUNDS:
        changed = False
        rounds += 1
        for value, ways in enumerate(values.ways):
            for way in ways:
                if any(arg not in needs for arg in way.args):
                    continue
                union = 0
                for arg in way.args:
                    union |= needs[arg]
                if union >> value & 1:
                    continue
                size = union.bit_count() + 1
                if size < sizes.get(value, math.inf):
                    needs[value], sizes[value], choice[value] = union | 1 << value, size, way
                    changed = True
    return choice
