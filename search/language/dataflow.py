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

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, NoReturn, TypeAlias, TypeVar, final

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
    Arg,
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
        slot_index = {
            self.input_index(name): new
            for name, new in zip(self.slots, self.new_slots, strict=True)
        }
        seen: set[int] = set()
        pending = [self.update]
        while pending:
            index = pending.pop()
            if index in seen:
                continue
            seen.add(index)
            value = self.values[index]
            if isinstance(value, Node):
                pending.extend(value.args)
            elif index in slot_index:
                pending.append(slot_index[index])
        return frozenset(seen)

    @cached_property
    def live_nodes(self) -> tuple[int, ...]:
        """The indices of the live instructions, in order."""
        return tuple(i for i in sorted(self.live) if isinstance(self.values[i], Node))

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
        pairs = ((self.input_index(n), i) for n, i in zip(self.slots, self.new_slots, strict=True))
        return {old: new for old, new in pairs if old in self.live}

    @cached_property
    def phases(self) -> Phases:
        """The live instructions by their dependence on the state."""
        stateful = set(self.slot_updates)
        for index in self.live_nodes:
            if not stateful.isdisjoint(self.node(index).args):
                stateful.add(index)
        feeding = set(self.slot_updates.values())
        for index in reversed(self.live_nodes):
            if index in feeding:
                feeding.update(self.node(index).args)
        return Phases(
            tuple(i for i in self.live_nodes if i not in stateful),
            tuple(i for i in self.live_nodes if i in stateful and i in feeding),
            tuple(i for i in self.live_nodes if i in stateful and i not in feeding),
        )

    def node(self, index: int) -> Node:
        """Return the instruction at an index that is known to hold one."""
        value = self.values[index]
        assert isinstance(value, Node)
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
            if isinstance(value, Input):
                hashes.setdefault(index, value.name)
            elif isinstance(value, Constant):
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
            if OPS[op].commutative:
                parts.sort()
            hashes[index] = _sha1(f"{op}({','.join(parts)})")


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

    def kinds_of(args: tuple[Arg, ...]) -> tuple[Kind, ...]:
        return tuple([kinds[arg] if isinstance(arg, str) else "scalar" for arg in args])

    for position, statement in enumerate(program.statements):
        try:
            args = kinds_of(statement.args)
            copies = statement.op == COPY
            kind = args[0] if copies else shapes.cached_result_kind(statement.op, args)
        except LoweringError as error:
            raise LoweringError(error.message, position) from None
        kinds[statement.target] = kind
    _check_returns(slots, kinds_of(program.returns))


def _check_returns(slots: dict[str, Kind], returned: Sequence[Kind]) -> None:
    """Check that the update is shaped as the parameter, and each slot's new value as the slot."""
    wanted: list[tuple[str, Kind]] = [("the update", "tensor")]
    wanted += [(f"slot {name!r}", kind) for name, kind in slots.items()]
    for (what, kind), given in zip(wanted, returned, strict=True):
        if given not in (kind, "scalar"):
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
    for name, number in program.constants:
        env[name] = builder.constant(float(number), None if fold else name)

    def resolve(args: tuple[Arg, ...]) -> list[int]:
        return [env[a] if isinstance(a, str) else builder.constant(float(a)) for a in args]

    with np.errstate(all="ignore"):  # for instructions computed on plain numbers
        for position, statement in enumerate(program.statements):
            try:
                args = resolve(statement.args)
                target = args[0] if statement.op == COPY else builder.apply(statement.op, args)
            except LoweringError as error:
                raise LoweringError(error.message, position) from None
            targets.append(target)
            env[statement.target] = target
    update, *new_slots = resolve(program.returns)
    _check_returns(slots, [builder.values[i].kind for i in (update, *new_slots)])
    flow = Dataflow(tuple(builder.values), program.slots, update, tuple(new_slots))
    return flow, tuple(targets)


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
    """Collects values; equal ones are stored once, and instructions on literals are computed."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self._index: dict[object, int] = {}

    def add(self, value: Value, key: object = None) -> int:
        """Return the index of a value; values of equal keys (by default, themselves) are one."""
        key = value if key is None else key
        index = self._index.get(key)
        if index is None:
            index = self._index[key] = len(self.values)
            self.values.append(value)
        return index

    def constant(self, number: float, name: str | None = None) -> int:
        # repr distinguishes 0.0 from -0.0, which compare equal.
        key = (number or repr(number), name)
        index = self._index.get(key)
        return self.add(Constant(number, name), key) if index is None else index

    def apply(self, name: str, args: list[int]) -> int:
        op = OPS[name]
        # `a * b` after `b * a` is the same value; the first order is kept, for readers.
        key = (name, *(sorted(args) if op.commutative else args))
        index = self._index.get(key)
        if index is not None:
            return index
        given = [self.values[arg] for arg in args]
        kind = shapes.cached_result_kind(name, tuple([value.kind for value in given]))
        if kind == "scalar" and op.scope == "element":
            numbers = [v.value for v in given if isinstance(v, Constant) and v.name is None]
            if len(numbers) == len(args):
                folded = float(op.fn(np, *[np.float64(number) for number in numbers]))
                if math.isfinite(folded):
                    return self.constant(folded)
        return self.add(Node(name, tuple(args), kind), key)
