"""Programs as graphs of values.

`lower` runs a program symbolically: names disappear, and the result is a list of *values* in which
every instruction refers to earlier values by their index (static single assignment). Equal
instructions on equal arguments become one value, and instructions on plain numbers are computed, in
float64. All other parts work on this graph: kind checking, liveness, the structural hash,
simplification, the interpreter's encoding, and the native transform. One lowering, one meaning.

Liveness crosses iterations: a slot's new value is needed only if the slot's old value is read by
something needed (Lion's paper removes dead statements within one iteration, section 2.2; a state
that feeds only itself is dead too, and is found here).
"""

import functools
import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple, NoReturn, TypeAlias, TypeVar, final

import numpy as np

from veldt.search.errors import LoweringError as LoweringError
from veldt.search.language import shapes
from veldt.search.language.ops import OPS
from veldt.search.language.statements import (
    COPY,
    INPUTS,
    OF_RUN,
    READABLE,
    ROLES,
    STEP,
    AbstractProgram,
)
from veldt.search.language.types import Kind

# Values are named tuples, because tens are made for each child that a search draws.


class Input(NamedTuple):
    """`w`, `g`, a state slot, or one of the scalars that every program may read."""

    name: str
    kind: Kind


class Constant(NamedTuple):
    """A number; `name` is the tunable constant that has it as default, or None for a literal."""

    value: float
    name: str | None = None
    kind: Kind = "scalar"


class Node(NamedTuple):
    """One instruction on earlier values."""

    op: str
    args: tuple[int, ...]
    kind: Kind


Value: TypeAlias = Input | Constant | Node
_T = TypeVar("_T")


class Phases(NamedTuple):
    """The live instructions by their dependence on the state; each part in order.

    Attributes:
      stateless: Instructions that depend on no slot: all steps' values can be computed at once.
      recurrent: Instructions between a slot's old and new value: step by step only.
      downstream: Instructions that depend on slots, while no slot depends on them.
    """

    stateless: tuple[int, ...]
    recurrent: tuple[int, ...]
    downstream: tuple[int, ...]


@final
@dataclass(frozen=True)
class Dataflow:
    """A lowered program.

    Attributes:
      values: Inputs (`w`, `g`, slots, `step`, other scalars that are read), constants and
        instructions; arguments come before their users.
      slots: Names of the slots.
      update: Index of the update.
      new_slots: Index of the new value of each slot.
    """

    values: tuple[Value, ...]
    slots: tuple[str, ...]
    update: int
    new_slots: tuple[int, ...]

    @cached_property
    def live(self) -> frozenset[int]:
        """The indices of the values that the update depends on, now or through a slot later."""
        values, first = self.values, len(INPUTS)
        slot_index = dict(enumerate(self.new_slots, first))
        seen = {self.update}
        pending = [self.update]
        while pending:
            index = pending.pop()
            value = values[index]
            if type(value) is Node:
                found = value.args
            elif index in slot_index:
                found = (slot_index[index],)
            else:
                continue
            for arg in found:
                if arg not in seen:
                    seen.add(arg)
                    pending.append(arg)
        return frozenset(seen)

    @cached_property
    def live_nodes(self) -> tuple[int, ...]:
        """The indices of the live instructions, in order."""
        values = self.values
        return tuple([i for i in sorted(self.live) if type(values[i]) is Node])

    @cached_property
    def live_slots(self) -> tuple[str, ...]:
        """The slots that the update depends on."""
        return tuple(name for name in self.slots if self.input_index(name) in self.live)

    def input_index(self, name: str) -> int:
        """Return the index of an input. `w` and `g` come first, then the slots, then `step`."""
        return [*INPUTS, *self.slots, STEP].index(name)

    @cached_property
    def live_roles(self) -> tuple[str, ...]:
        """The parameter's roles that the update depends on."""
        return tuple(name for name in ROLES if name in self._live_scalars)

    @cached_property
    def live_of_run(self) -> tuple[str, ...]:
        """The values among `progress` and `loss` that the update depends on."""
        return tuple(name for name in OF_RUN if name in self._live_scalars)

    @cached_property
    def _live_scalars(self) -> frozenset[str]:
        inputs = (self.values[index] for index in self.live)
        return frozenset(
            value.name for value in inputs if isinstance(value, Input) and value.kind == "scalar"
        )

    @cached_property
    def fits_registers(self) -> bool:
        """Whether every live value is shaped as the parameters, or smaller."""
        return all(self.values[index].kind in ("tensor", "scalar") for index in self.live)

    @cached_property
    def slot_updates(self) -> dict[int, int]:
        """The index of the old value of each live slot, with the index of the new value."""
        pairs = enumerate(self.new_slots, len(INPUTS))
        return {old: new for old, new in pairs if old in self.live}

    @cached_property
    def phases(self) -> Phases:
        """The live instructions by their dependence on the state."""
        nodes = [(index, self.node(index).args) for index in self.live_nodes]
        stateful = set(self.slot_updates)
        for index, args in nodes:
            if not stateful.isdisjoint(args):
                stateful.add(index)
        feeding = set(self.slot_updates.values())
        for index, args in reversed(nodes):
            if index in feeding:
                feeding.update(args)
        return Phases(
            tuple([i for i, _ in nodes if i not in stateful]),
            tuple([i for i, _ in nodes if i in stateful and i in feeding]),
            tuple([i for i, _ in nodes if i in stateful and i not in feeding]),
        )

    def node(self, index: int) -> Node:
        """Return the instruction at an index that is known to hold one."""
        value = self.values[index]
        assert type(value) is Node
        return value

    @cached_property
    def structural_hash(self) -> str:
        """A hash of the live code that ignores names, order, dead code and commuted arguments.

        A slot is identified by what becomes of it, found by refinement as in the minimisation of
        automata: all slots start alike and take the hash of their new value, as many times as
        needed to distinguish the slots of two programs. Equal hashes mean equal behaviour.
        """
        hashes: dict[int, str] = dict.fromkeys(self.slot_updates, "slot")
        for index in self.live:
            value = self.values[index]
            if type(value) is Input:
                hashes.setdefault(index, value.name)
            elif type(value) is Constant:
                hashes[index] = repr(value.value)
        self._hash_nodes(self.phases.stateless, hashes)
        for _ in range(2 * len(self.slot_updates)):
            self._hash_nodes(self.phases.recurrent, hashes)
            marks = {old: _sha1(f"slot({hashes[new]})") for old, new in self.slot_updates.items()}
            hashes.update(marks)
        self._hash_nodes((*self.phases.recurrent, *self.phases.downstream), hashes)
        return _sha1(hashes[self.update])

    def _hash_nodes(self, nodes: Iterable[int], hashes: dict[int, str]) -> None:
        """Add, for each of `nodes`, a hash of the code that computes it."""
        for index in nodes:
            op, args, _ = self.node(index)
            parts = [hashes[arg] for arg in args]
            if op in _COMMUTATIVE:
                parts.sort()
            hashes[index] = _sha1(f"{op}({','.join(parts)})")


_COMMUTATIVE: Final = frozenset(name for name, op in OPS.items() if op.commutative)


# Most of what a child of a search computes its parent computed too.
@functools.lru_cache(maxsize=1 << 14)
def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def check(program: AbstractProgram) -> None:
    """Check that a program is well formed, at a fraction of what `lower` costs.

    Raises:
      LoweringError: The program is not well formed, as for `lower`.
    """
    kinds = _Names[Kind]()
    for name in INPUTS:
        kinds[name] = "tensor"
    slots = shapes.slot_kinds(program)
    kinds.update(slots)
    for name in (*READABLE, *(name for name, _ in program.constants)):
        kinds[name] = "scalar"

    result_kind, position = shapes.cached_result_kind, 0
    try:
        for statement in program.statements:
            op = statement.op
            args = tuple([kinds[a] if type(a) is str else "scalar" for a in statement.args])
            kinds[statement.target] = args[0] if op == COPY else result_kind(op, args)
            position += 1
    except LoweringError as error:
        raise LoweringError(error.message, position) from None
    returned = [kinds[arg] if type(arg) is str else "scalar" for arg in program.returns]
    _check_returns(slots, returned)


def _check_returns(slots: dict[str, Kind], returned: Sequence[Kind]) -> None:
    """Check that the update is shaped as the parameter, and each slot's new value as the slot."""
    wanted: list[tuple[str, Kind]] = [("", "tensor"), *slots.items()]
    for (name, kind), given in zip(wanted, returned, strict=True):
        if given not in (kind, "scalar"):
            what = f"slot {name!r}" if name else "the update"
            raise LoweringError(
                f"{what} is {shapes.describe(kind)}, and what is returned for it is "
                f"{shapes.describe(given)}"
            )


def lower(program: AbstractProgram, *, fold: bool = False) -> Dataflow:
    """Turn a program into its graph of values.

    Args:
      program: Program to lower.
      fold: Whether to treat the tunable constants as the numbers that they default to.

    Raises:
      LoweringError: A kind does not fit or a name is not defined; the error has the statement's
        index.
    """
    return lower_with_targets(program, fold=fold)[0]


def lower_with_targets(
    program: AbstractProgram, *, fold: bool = False
) -> tuple[Dataflow, tuple[int, ...]]:
    """Lower a program, and return for each statement the index of its target's value too."""
    builder = _Builder()
    targets: list[int] = []
    env = _Names[int]()
    for name in INPUTS:
        env[name] = builder.add(Input(name, "tensor"))
    slots = shapes.slot_kinds(program)
    for name, kind in slots.items():
        env[name] = builder.add(Input(name, kind))
    env[STEP] = builder.add(Input(STEP, "scalar"))
    for name in _scalars_read(program):
        env[name] = builder.add(Input(name, "scalar"))
    constant, known, values = builder.constant, builder.known, builder.values
    for name, number in program.constants:
        env[name] = constant(float(number), None if fold else name)
    position = 0
    try:
        for statement in program.statements:
            args = tuple([env[a] if type(a) is str else constant(float(a)) for a in statement.args])
            op = statement.op
            if op == COPY:
                target = args[0]
            else:
                # `a * b` after `b * a` is the same value; the first order is kept, for readers.
                swap = op in _COMMUTATIVE and args[0] > args[1]
                key = (op, args[1], args[0]) if swap else (op, *args)
                found = known.get(key)
                if found is None:
                    kind = shapes.cached_result_kind(op, tuple([values[a].kind for a in args]))
                    if kind == "scalar":
                        found = builder.number(op, args)
                    if found is None:
                        found = known[key] = len(values)
                        values.append(Node(op, args, kind))
                target = found
            targets.append(target)
            env[statement.target] = target
            position += 1
    except LoweringError as error:
        raise LoweringError(error.message, position) from None
    update, *new_slots = [env[a] if type(a) is str else constant(float(a)) for a in program.returns]
    _check_returns(slots, [values[i].kind for i in (update, *new_slots)])
    flow = Dataflow(tuple(values), program.slots, update, tuple(new_slots))
    return flow, tuple(targets)


def folded(flow: Dataflow) -> Dataflow:
    """Return the live part of a graph, with the tunable constants as plain numbers.

    The live values are those of the program lowered with `fold`.
    """
    given, live, step = flow.values, flow.live, len(INPUTS) + len(flow.slots)
    slots = [i for i in range(len(INPUTS), step) if i in live]
    kept = [*range(len(INPUTS)), *slots, step]
    builder = _Builder()
    builder.values += [given[index] for index in kept]
    new = {index: number for number, index in enumerate(kept)}
    known, values = builder.known, builder.values
    for index in sorted(live):
        value = given[index]
        if type(value) is Node:
            op, of, kind = value
            args = tuple([new[arg] for arg in of])
            swap = op in _COMMUTATIVE and args[0] > args[1]
            key = (op, args[1], args[0]) if swap else (op, *args)
            found = known.get(key)
            if found is None and kind == "scalar":
                found = builder.number(op, args)
            if found is None:
                found = known[key] = len(values)
                values.append(Node(op, args, kind))
            new[index] = found
        elif type(value) is Constant:
            new[index] = builder.constant(value.value)
        elif index > step:
            new[index] = len(values)
            values.append(value)
    names = tuple([flow.slots[i - len(INPUTS)] for i in slots])
    new_slots = tuple([new[flow.new_slots[i - len(INPUTS)]] for i in slots])
    return Dataflow(tuple(values), names, new[flow.update], new_slots)


def _scalars_read(program: AbstractProgram) -> list[str]:
    """Return the readable scalars but the step, which every program has."""
    read = set(program.returns).union(*(statement.args for statement in program.statements))
    return [name for name in READABLE if name in read and name != STEP]


@final
class _Names(dict[str, _T]):
    """The meaning of each name that is defined so far."""

    def __missing__(self, name: str) -> NoReturn:
        raise LoweringError(f"the name {name!r} is not defined here")


@final
class _Builder:
    """Collects values; equal ones are stored once, and instructions on literals are computed.

    Attributes:
      values: Values so far.
      known: Index of each value by what computes it.
    """

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.known: dict[object, int] = {}

    def add(self, value: Value) -> int:
        """Return the index of a value that is new."""
        self.values.append(value)
        return len(self.values) - 1

    def constant(self, number: float, name: str | None = None) -> int:
        """Return the index of a constant."""
        # repr distinguishes 0.0 from -0.0, which compare equal.
        key = (number or repr(number), name)
        index = self.known.get(key)
        if index is None:
            index = self.known[key] = len(self.values)
            self.values.append(Constant(number, name))
        return index

    def number(self, op: str, args: Sequence[int]) -> int | None:
        """Return the index of the number that an instruction gives; None where it reads others."""
        if op not in _OF_NUMBERS:
            return None
        numbers = []
        for arg in args:
            value = self.values[arg]
            if type(value) is not Constant or value.name is not None:
                return None
            numbers.append(value.value)
        # Equal keys must give equal results, and 0.0 equals -0.0.
        compute = _computed.__wrapped__ if 0.0 in numbers else _computed
        number = compute(op, *numbers)
        return self.constant(number) if math.isfinite(number) else None


_OF_NUMBERS: Final = frozenset(name for name, op in OPS.items() if op.scope == "element")


@functools.lru_cache(maxsize=1 << 12)
def _computed(op: str, *numbers: float) -> float:
    """Return the result of an instruction on plain numbers."""
    with np.errstate(all="ignore"):
        return float(OPS[op].fn(np, *[np.float64(number) for number in numbers]))
