"""Programs as data for the interpreter.

Three things happen here, once per candidate and on the host, so that they cost nothing per
training step:

- constants become registers that are filled once;
- instructions that depend on nothing but the step count, the progress and constants (bias
  corrections, schedules) are computed for all steps at once, as *schedules*; in training each is
  one load;
- registers are shared: a value's row is free again after its last use, and a slot's new value is
  written directly into the slot's row where the old value is no longer needed. Small programs then
  stay in the CPU's nearest caches.
"""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from veldt.search.errors import CapacityError
from veldt.search.language import dataflow
from veldt.search.language.dataflow import Constant, Dataflow, Input
from veldt.search.language.ops import INTERPRETED, OP_SETS, OPS
from veldt.search.language.statements import LOSS, PROGRESS, ROLES, STEP, AbstractProgram

# Opcodes: three of the interpreter's own, then the instructions that it was built with.
LOAD_SCHEDULE: Final = 0  # row <- schedules[step, argument]; column K is the loss of the step
LOAD_ROLE: Final = 1  # row <- role number `argument` of each parameter tensor
MOVE: Final = 2  # row <- row
FIRST_OP: Final = 3

# Columns of an instruction: its opcode, three argument rows, the row of its result.
OPCODE: Final = 0
FIRST_ARGUMENT: Final = 1
ARGUMENTS: Final = slice(1, 4)
RESULT: Final = 4
NUM_COLUMNS: Final = 5

W_ROW: Final = 0
G_ROW: Final = 1
FIRST_SLOT_ROW: Final = 2


@final
@dataclass(frozen=True, slots=True)
class Capacity:
    """The size of an interpreter; programs beyond it are refused with `CapacityError`.

    Attributes:
      statements: Largest number of instructions executed per step.
      registers: Number of rows of the register file, `R`; each holds one number per parameter.
      schedules: Largest number of values that depend on the step alone, `K`.
      ops: Instructions that it knows. Each makes compiling take longer, most of all those that work
        on tensors as matrices, so these are left out unless they are named.
    """

    statements: int = 48
    registers: int = 64
    schedules: int = 16
    ops: tuple[str, ...] = (*OP_SETS["base"], *OP_SETS["periodic"])

    def __post_init__(self) -> None:
        for name in self.ops:
            if name not in INTERPRETED:
                raise ValueError(
                    f"ops names {name!r}, which the interpreter cannot run; it can run: "
                    f"{', '.join(INTERPRETED)}"
                )

    def with_ops(self, ops: Iterable[str]) -> "Capacity":
        """Return the same with more instructions, but for those that no interpreter can run."""
        more = [name for name in ops if name in INTERPRETED and name not in self.ops]
        return replace(self, ops=(*self.ops, *more))

    @property
    def opcodes(self) -> Mapping[str, int]:
        """The opcode of each instruction."""
        return _opcodes(self.ops)


@functools.cache
def _opcodes(ops: tuple[str, ...]) -> dict[str, int]:
    return {name: code for code, name in enumerate(ops, FIRST_OP)}


class Encoded(NamedTuple):
    """A program as arrays; the interpreter's meta-parameters.

    All shapes depend on the capacity and the horizon alone.
    """

    code: NDArray[np.int32]  # [statements, 5]; see `OPCODE` and what follows
    length: np.int32  # []: instructions in use
    fill: NDArray[np.float32]  # [R]: initial content of each row
    schedules: NDArray[np.float32]  # [T, K + 1]; the last column is the loss, filled in training
    update: np.int32  # []: row of the update after the last instruction


def encode(program: AbstractProgram, *, num_steps: int, capacity: Capacity) -> Encoded:
    """Encode a program for a horizon of `num_steps` steps.

    Raises:
      CapacityError: The program needs more than `capacity`; the message names what.
      LoweringError: The program is not well formed.
    """
    return encode_dataflow(
        dataflow.lower(program, fold=True), num_steps=num_steps, capacity=capacity
    )


def encode_dataflow(flow: Dataflow, *, num_steps: int, capacity: Capacity) -> Encoded:
    """Encode a lowered and folded program; see `encode`."""
    return _Encoder(flow, num_steps, capacity).encode()


class _Encoder:
    """Allocates rows and emits code for one program."""

    def __init__(self, flow: Dataflow, num_steps: int, capacity: Capacity):
        self.flow = flow
        self.num_steps = num_steps
        self.capacity = capacity
        self.code: list[list[int]] = []
        self.fill = np.zeros(capacity.registers, np.float64)
        self.columns: list[NDArray[np.float64]] = []
        self.row: dict[int, int] = {}
        self.first_free = FIRST_SLOT_ROW + len(flow.slots)
        self.free = list(range(capacity.registers - 1, self.first_free - 1, -1))
        self.slot_row = {name: FIRST_SLOT_ROW + i for i, name in enumerate(flow.slots)}
        # Number of reads of each value that are left; an output counts as one more read, which
        # never happens before the end.
        self.reads: dict[int, int] = {}

    def encode(self) -> Encoded:
        flow = self.flow
        by_step = self.step_only()
        instructions = [i for i in flow.live_nodes if i not in by_step]
        outputs = flow.slot_updates
        needed = (
            {arg for i in instructions for arg in self.args(i)}
            | {flow.update}
            | set(outputs.values())
        )
        for i in instructions:
            for arg in self.args(i):
                self.reads[arg] = self.reads.get(arg, 0) + 1
        for output in (flow.update, *outputs.values()):
            self.reads[output] = self.reads.get(output, 0) + 1
        for index in sorted(needed):
            self.place(index, by_step)
        # A slot's new value may be written directly into the slot's row after the last read of the
        # old value.
        home = {new: self.slot_row[self.input_name(old)] for old, new in outputs.items()}
        slot_of_row = {self.slot_row[self.input_name(old)]: old for old in outputs}
        for i in instructions:
            args = self.args(i)
            for arg in args:
                self.release(arg)
            target = home.get(i)
            if target is not None and self.reads.get(slot_of_row[target], 0) == 0:
                row = target
            else:
                row = self.allocate()
            self.emit(self.opcode(i), [self.row[arg] for arg in args], row)
            self.row[i] = row
        self.move_slots(outputs)
        return self.pack()

    def args(self, index: int) -> tuple[int, ...]:
        return self.flow.node(index).args

    def opcode(self, index: int) -> int:
        op = self.flow.node(index).op
        code = self.capacity.opcodes.get(op)
        if code is None:
            shape = OPS[op].scope == "shape"
            why = "gives other shapes than the parameters'" if shape else "was left out of it"
            raise CapacityError(f"the interpreter cannot run {op}, which {why}")
        return code

    def input_name(self, index: int) -> str:
        value = self.flow.values[index]
        assert isinstance(value, Input)
        return value.name

    def step_only(self) -> dict[int, NDArray[np.float64]]:
        """Return the values that depend on step and constants alone, for steps 1 to T, each [T]."""
        steps = np.arange(1, self.num_steps + 1, dtype=np.float64)
        known: dict[int, NDArray[np.float64]] = {}
        known[self.flow.input_index(STEP)] = steps
        for index, value in enumerate(self.flow.values):
            if isinstance(value, Input) and value.name == PROGRESS and value.kind == "scalar":
                known[index] = steps / self.num_steps
        constant = {i: v.value for i, v in enumerate(self.flow.values) if isinstance(v, Constant)}
        with np.errstate(all="ignore"):
            for index in self.flow.phases.stateless:
                op, args, _ = self.flow.node(index)
                if OPS[op].scope == "element" and all(a in known or a in constant for a in args):
                    result = OPS[op].fn(np, *[known.get(a, constant.get(a)) for a in args])
                    known[index] = np.broadcast_to(np.asarray(result, np.float64), steps.shape)
        return known

    def place(self, index: int, by_step: dict[int, NDArray[np.float64]]) -> None:
        """Give an input, a constant or a schedule a row."""
        value = self.flow.values[index]
        if index in by_step:
            if len(self.columns) == self.capacity.schedules:
                raise CapacityError(
                    f"more than {self.capacity.schedules} values that depend on the step alone"
                )
            row = self.allocate()
            self.emit(LOAD_SCHEDULE, [len(self.columns)], row)
            self.columns.append(by_step[index])
            self.row[index] = row
        elif isinstance(value, Constant):
            self.row[index] = self.allocate()
            self.reads[index] += 1  # never reused: a constant's row is filled once, before training
            self.fill[self.row[index]] = value.value
        elif isinstance(value, Input):
            rows = {**self.slot_row, "w": W_ROW, "g": G_ROW}
            if value.name in rows:
                self.row[index] = rows[value.name]
            elif value.name == LOSS:
                self.row[index] = self.allocate()
                self.emit(LOAD_SCHEDULE, [self.capacity.schedules], self.row[index])
            else:
                self.row[index] = self.allocate()
                self.emit(LOAD_ROLE, [ROLES.index(value.name)], self.row[index])

    def allocate(self) -> int:
        if not self.free:
            raise CapacityError(f"more than {self.capacity.registers} registers")
        return self.free.pop()

    def release(self, index: int) -> None:
        self.reads[index] -= 1
        if self.reads[index] == 0 and self.row[index] >= self.first_free:
            self.free.append(self.row[index])

    def emit(self, opcode: int, args: list[int], row: int) -> None:
        if len(self.code) == self.capacity.statements:
            raise CapacityError(f"more than {self.capacity.statements} instructions")
        unused = [0] * (ARGUMENTS.stop - ARGUMENTS.start - len(args))
        self.code.append([opcode, *args, *unused, row])

    def move_slots(self, outputs: dict[int, int]) -> None:
        """Move new slot values into their slots' rows, and the update out of their way."""
        moves = {}
        for old, new in outputs.items():
            target = self.slot_row[self.input_name(old)]
            if self.row[new] != target:
                moves[target] = self.row[new]
        update = self.row[self.flow.update]
        if update in moves:  # the update is a slot's old value, about to be overwritten
            spare = self.allocate()
            self.emit(MOVE, [update], spare)
            self.row[self.flow.update] = spare
        while moves:
            ready = [target for target in moves if target not in moves.values()]
            if ready:
                self.emit(MOVE, [moves.pop(ready[0])], ready[0])
            else:  # a cycle: slots that exchange their values
                target, source = next(iter(moves.items()))
                spare = self.allocate()
                self.emit(MOVE, [source], spare)
                moves[target] = spare

    def pack(self) -> Encoded:
        code = np.zeros((self.capacity.statements, NUM_COLUMNS), np.int32)
        if self.code:
            code[: len(self.code)] = self.code
        schedules = np.zeros((self.num_steps, self.capacity.schedules + 1), np.float32)
        with np.errstate(over="ignore"):  # larger than float32 becomes infinity
            fill = self.fill.astype(np.float32)
            for column, values in enumerate(self.columns):
                schedules[:, column] = values
        return Encoded(
            code,
            np.int32(len(self.code)),
            fill,
            schedules,
            np.int32(self.row[self.flow.update]),
        )
