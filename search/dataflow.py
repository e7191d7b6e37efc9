"""Programs as graphs of values.

`lower` runs a program symbolically: names disappear, and what is left is a list of *values* in
which every instruction refers to earlier values by their index (static single assignment). Equal
instructions on equal arguments become one value, and instructions on plain numbers are computed, in
float64. The graph is what everything else works on: kind checking, liveness, the structural hash,
simplification, the interpreter's encoding, and the native transform. One lowering, one meaning.

Liveness crosses iterations: a slot's new value is needed only if the slot's old value is read by
something needed (Lion's paper removes dead statements within one iteration, section 2.2; a state
that feeds only itself is dead too, and is found here).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias, final

import numpy as np

from veldt.search.errors import ProgramTypeError
from veldt.search.ops import OPS, Op
from veldt.search.program import COPY, INPUTS, STEP, Arg, Program
from veldt.search.types import Kind


class LoweringError(ProgramTypeError):
    """A statement uses a name that is not defined, or an argument of the wrong kind.

    Attributes:
      message: what is wrong.
      statement: the index of the statement, or None.
    """

    def __init__(self, message: str, statement: int | None = None):
        self.message = message
        self.statement = statement
        super().__init__(message)


@final
@dataclass(frozen=True, slots=True)
class Input:
    """`w`, `g`, a state slot, or `step`."""

    name: str
    kind: Kind


@final
@dataclass(frozen=True, slots=True)
class Constant:
    """A number; `name` is the tunable constant it is the default of, or None for a literal."""

    value: float
    name: str | None = None
    kind: Kind = "scalar"


@final
@dataclass(frozen=True, slots=True)
class Node:
    """One instruction on earlier values."""

    op: str
    args: tuple[int, ...]
    kind: Kind


Value: TypeAlias = Input | Constant | Node


@final
@dataclass(frozen=True)
class Dataflow:
    """A lowered program.

    Attributes:
      values: inputs (`w`, `g`, slots, `step`), constants and instructions; arguments come before
        their users.
      slots: the slots' names.
      update: index of the update.
      new_slots: for each slot, the index of its new value.
    """

    values: tuple[Value, ...]
    slots: tuple[str, ...]
    update: int
    new_slots: tuple[int, ...]

    @cached_property
    def live(self) -> frozenset[int]:
        """Indices of the values that the update depends on, now or through a slot later."""
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
        """Indices of the live instructions, in order."""
        return tuple(i for i, v in enumerate(self.values) if isinstance(v, Node) and i in self.live)

    @cached_property
    def live_slots(self) -> tuple[str, ...]:
        """The slots that the update depends on."""
        return tuple(name for name in self.slots if self.input_index(name) in self.live)

    def input_index(self, name: str) -> int:
        """Index of the input called `name`. `w` and `g` come first, then the slots, then `step`."""
        return [*INPUTS, *self.slots, STEP].index(name)

    @cached_property
    def structural_hash(self) -> str:
        """A hash of the live code, blind to names, order, dead code and commuted arguments.

        A slot is known by what becomes of it, found by refinement as in the minimisation of
        automata: all slots start alike and take up the hash of their new value, as often as it may
        take to tell the slots of two programs apart. Equal hashes mean equal behaviour.
        """
        marks = dict.fromkeys(self.live_slots, "slot")
        for _ in range(2 * len(marks)):
            hashes = self._hashes(marks)
            marks = {
                name: _sha1(f"slot({hashes[self.new_slots[self.slots.index(name)]]})")
                for name in marks
            }
        return _sha1(self._hashes(marks)[self.update])

    def _hashes(self, marks: Mapping[str, str]) -> dict[int, str]:
        """For each live value a hash of the code that computes it, slots read as their marks."""
        hashes: dict[int, str] = {}
        for index, value in enumerate(self.values):
            if isinstance(value, Input):
                hashes[index] = marks.get(value.name, value.name)
            elif isinstance(value, Constant):
                hashes[index] = repr(value.value)
            elif index in self.live:
                parts = [hashes[arg] for arg in value.args]
                if OPS[value.op].commutative:
                    parts.sort()
                hashes[index] = _sha1(f"{value.op}({','.join(parts)})")
        return hashes


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def result_kind(op: Op, kinds: list[Kind]) -> Kind:
    """The kind of `op`'s result on arguments of these kinds.

    Raises:
      LoweringError: an argument has the wrong kind.
    """
    for position, (wanted, given) in enumerate(zip(op.kinds, kinds, strict=True), 1):
        if wanted != "any" and wanted != given:
            raise LoweringError(
                f"argument {position} of {op.name} must be a {wanted}, and here it is a {given}"
            )
    if op.reduces:
        return "scalar"
    return "tensor" if "tensor" in kinds else "scalar"


def lower(program: Program, *, fold: bool = False) -> Dataflow:
    """Turns a program into its graph of values.

    Args:
      program: the program.
      fold: treat the tunable constants as the numbers that they default to.

    Raises:
      LoweringError: a kind does not fit or a name is not defined; the statement's index is given.
    """
    return lower_with_targets(program, fold=fold)[0]


def lower_with_targets(program: Program, *, fold: bool = False) -> tuple[Dataflow, tuple[int, ...]]:
    """`lower`, and for each statement the index of the value that it gives to its target."""
    builder = Builder()
    targets: list[int] = []
    env: dict[str, int] = {}
    for name in (*INPUTS, *program.slots):
        env[name] = builder.add(Input(name, "tensor"))
    env[STEP] = builder.add(Input(STEP, "scalar"))
    for name, number in program.constants:
        env[name] = builder.add(Constant(float(number), None if fold else name))

    def resolve(arg: Arg) -> int:
        if not isinstance(arg, str):
            return builder.add(Constant(float(arg)))
        if arg not in env:
            raise LoweringError(f"the name {arg!r} is not defined here")
        return env[arg]

    for position, statement in enumerate(program.statements):
        try:
            args = [resolve(arg) for arg in statement.args]
            targets.append(args[0] if statement.op == COPY else builder.apply(statement.op, args))
            env[statement.target] = targets[-1]
        except LoweringError as error:
            raise LoweringError(error.message, position) from None
    update, *new_slots = [resolve(arg) for arg in program.returns]
    flow = Dataflow(tuple(builder.values), program.slots, update, tuple(new_slots))
    return flow, tuple(targets)


class Builder:
    """Collects values; equal ones are stored once, and instructions on literals are computed."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self._index: dict[object, int] = {}

    def add(self, value: Value) -> int:
        # repr tells 0.0 from -0.0, which compare equal.
        key = (repr(value.value), value.name) if isinstance(value, Constant) else value
        if key not in self._index:
            self._index[key] = len(self.values)
            self.values.append(value)
        return self._index[key]

    def apply(self, name: str, args: list[int]) -> int:
        op = OPS[name]
        kind = result_kind(op, [self.values[arg].kind for arg in args])
        numbers = [
            v.value
            for v in (self.values[arg] for arg in args)
            if isinstance(v, Constant) and v.name is None
        ]
        if len(numbers) == len(args) and op.scope == "element":
            with np.errstate(all="ignore"):
                folded = float(op.fn(np, *[np.float64(number) for number in numbers]))
            if np.isfinite(folded):
                return self.add(Constant(folded))
        node = Node(name, tuple(args), kind)
        # `a * b` after `b * a` is the same value; the order first written is kept, for readers.
        swapped = Node(name, (args[1], args[0]), kind) if op.commutative else node
        return self._index.get(swapped) or self.add(node)
