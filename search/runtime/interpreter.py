"""The interpreter: one compiled training loop runs every program.

Compiling each candidate costs about a second, which is nearly all of the time of a small proxy
task. Here the training loop is compiled once per task, and a program is data: `interpret(encoded)`
is an Optax transform on one flat parameter vector (`tasks.inner_loop.flat`), whose meta-parameters
are the program's encoding. A step is a `while` loop over instructions; each reads its argument rows
from a register file [R, D], runs one branch of a `lax.switch` and writes one row.

Four things make it fast, as measured on the CPU with XLA: the opcode is *not* batched (batched, XLA
runs every branch for every lane: Kozax, TensorNEAT); argument rows are read inside the branch, so
that reading fuses with computing; nothing but the register file is carried, and it is updated in
place (a branch that writes the file itself makes XLA copy it); unused arguments are not read. Ops
that work element by element run in *blocks*: all instructions of a run on the first few thousand
numbers of their rows, then on the next, so that the intermediate values of many parameters stay in
the nearer caches. Ops that work on tensors one by one or as matrices end a run, and take static
slices of the flat vector. Every register holds one number per parameter; a scalar, or a value that
is the same along a row, is written out in full.

The cost of a step, on top of the gradient's: 0.15 us for each instruction and block, and 0.3 ns for
each instruction and parameter, of which a copy of the branch's result into its row is about a
third; on a busy machine up to twice that, and up to 1 ns where rows leave the nearer caches.

The interpreter and the native transform (`optax_transform.py`) agree to float32 rounding;
`tests/search/runtime/test_interpreter.py` checks that.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from veldt.search.language.ops import OPS, Op
from veldt.search.language.roles import Roles, of_shape
from veldt.search.language.statements import ROLES
from veldt.search.runtime.encode import (
    ARGUMENTS,
    FIRST_ARGUMENT,
    FIRST_OP,
    G_ROW,
    LOAD_ROLE,
    LOAD_SCHEDULE,
    MOVE,
    NUM_COLUMNS,
    OPCODE,
    RESULT,
    W_ROW,
    Capacity,
    Encoded,
)
from veldt.tasks.inner_loop.flat import Layout

# Numbers of a row that are worked on at once: eight rows of them, which programs of a dozen
# statements use, take a sixteenth of a CPU core's second cache. Half or twice as many run as
# fast. On a GPU every block would be a launch.
BLOCK: Final = 4096

# `branch(registers, instruction, schedules, start)` gives a row's numbers from `start` on: those of
# a block, or all. Instructions are rows of the first array of `_plan`.
Branch = Callable[[jax.Array, jax.Array, jax.Array, Any], jax.Array]


class InterpreterState(NamedTuple):
    """State of `interpret`."""

    step: jax.Array  # shape=(), dtype=jnp.int32; steps taken
    registers: jax.Array  # [R, D or a few more] float32; the state slots from row 2 on


class Segment(NamedTuple):
    """One parameter tensor in the flat vector, as a matrix [rows, columns] (`kinds.py`)."""

    offset: int
    rows: int
    columns: int

    def of(self, vector: jax.Array) -> jax.Array:
        """Return the tensor's part of a vector [D]."""
        return vector[self.offset : self.offset + self.rows * self.columns]


class Blocks(NamedTuple):
    """The blocks of rows of D numbers: `num` blocks of `size`, D or a few more in all."""

    num: int
    size: int

    @classmethod
    def of(cls, num_params: int, largest: int) -> "Blocks":
        """Return blocks of at most `largest` numbers, as equal as possible."""
        num = max(-(-num_params // largest), 1)
        return cls(num, -(-num_params // num))


def interpret(
    encoded: Encoded,
    layout: Layout,
    *,
    capacity: Capacity,
    roles: Roles | None = None,
    largest_block: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Return an encoded program as a transform of one flat parameter vector, in descent direction.

    Args:
      encoded: Encoded program, with leaves that may be traced, since they change from candidate to
        candidate.
      layout: Places of the parameter tensors in the flat vector; static.
      capacity: Capacity of the encoding, with the ops to compile.
      roles: Roles of the parameters, where the guesses from their names are wrong.
      largest_block: Largest number of a row's numbers worked on at once; by default `BLOCK` on a
        CPU and all elsewhere.

    Returns:
      A transform on arrays [D]. It counts steps up to the encoding's horizon `T`; past it the
      schedules keep their last value. A program that reads the loss gets NaN without `value=`.
    """
    num_params = layout.num_params
    if largest_block is None:
        largest_block = BLOCK if jax.default_backend() == "cpu" else num_params
    blocks = Blocks.of(num_params, largest_block)
    of_blocks = _block_branches(capacity.ops, blocks.size)
    of_rows = row_branches(layout, capacity.ops, roles or Roles())
    instructions, branch_of, run_end = _plan(encoded, [*of_blocks], [*of_rows])

    def init_fn(params: jax.Array) -> InterpreterState:
        del params
        shape = (encoded.fill.shape[0], blocks.num * blocks.size)
        registers = jnp.broadcast_to(jnp.asarray(encoded.fill)[:, None], shape)
        return InterpreterState(jnp.zeros([], jnp.int32), registers)

    def update_fn(
        updates: jax.Array,
        state: InterpreterState,
        params: jax.Array | None = None,
        *,
        value: Any = None,
        **extra_args: Any,
    ) -> tuple[jax.Array, InterpreterState]:
        del extra_args
        if params is None:
            raise ValueError(
                "the interpreter reads the parameters: call update(grads, state, params)"
            )
        now = numbers_of_step(encoded, state.step, value)

        def execute(
            branches: Mapping[int, Branch], index: jax.Array, registers: jax.Array, start: Any
        ) -> jax.Array:
            instruction = instructions[index]
            choices = list(branches.values())
            row = lax.switch(branch_of[index], choices, registers, instruction, now, start)
            return lax.dynamic_update_slice(registers, row[None], (instruction[RESULT], start))

        def run(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            """Run a stretch in blocks, perhaps empty, and the whole-row instruction after it."""
            first, registers = carry
            end = run_end[first]

            def block(number: jax.Array, registers: jax.Array) -> jax.Array:
                start = number * blocks.size
                return lax.fori_loop(
                    first, end, lambda i, x: execute(of_blocks, i, x, start), registers
                )

            # Loops rather than conditions: a condition would copy the register file.
            count = jnp.where(first < end, blocks.num, 0)
            registers = lax.fori_loop(0, count, block, registers)
            after = jnp.minimum(end + 1, encoded.length)
            registers = lax.fori_loop(end, after, lambda i, x: execute(of_rows, i, x, 0), registers)
            return after, registers

        registers = state.registers.at[W_ROW, :num_params].set(params)
        registers = registers.at[G_ROW, :num_params].set(updates)
        _, registers = lax.while_loop(
            lambda carry: carry[0] < encoded.length, run, (jnp.int32(0), registers)
        )
        update = lax.dynamic_slice(registers, (encoded.update, 0), (1, num_params))[0]
        return update, InterpreterState(state.step + 1, registers)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def numbers_of_step(encoded: Encoded, step: jax.Array, loss: Any) -> jax.Array:
    """Return the schedules at a step (from 0), and then the loss, NaN if it is None; [K + 1]."""
    schedules = jnp.asarray(encoded.schedules)
    now = lax.dynamic_index_in_dim(schedules, step, keepdims=False)
    return now.at[-1].set(jnp.nan if loss is None else jnp.asarray(loss, now.dtype))


def _plan(
    encoded: Encoded, of_blocks: Sequence[int], of_rows: Sequence[int]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return what follows from the code alone; computed once, outside the training loop.

    Args:
      encoded: Encoded program.
      of_blocks: Opcodes of ops that work in blocks, in the order of their branches.
      of_rows: Opcodes of all other ops, in the order of their branches.

    Returns:
      Three arrays of int32. [statements, 8]: the code, and for each argument whether its row
      varies; a row that nothing writes holds one number, so that any block of it will do, and one
      block stays in the nearest cache. [statements]: position of each instruction's branch among
      those of its sort. [statements]: for each instruction the first at or after it that works on
      whole rows, or the program's length.
    """
    code = jnp.asarray(encoded.code)
    index = jnp.arange(code.shape[0], dtype=jnp.int32)
    in_use = index < encoded.length
    written = jnp.where(in_use, code[:, RESULT], W_ROW)
    varies = jnp.zeros(encoded.fill.shape[0], jnp.int32).at[written].set(1).at[G_ROW].set(1)
    varies = varies.at[W_ROW].set(1)
    positions = np.zeros(len(of_blocks) + len(of_rows), np.int32)
    for opcodes in (of_blocks, of_rows):
        positions[list(opcodes)] = np.arange(len(opcodes))
    ends = jnp.isin(code[:, OPCODE], jnp.array(of_rows)) & in_use
    return (
        jnp.concatenate([code, varies[code[:, ARGUMENTS]]], axis=1),
        jnp.asarray(positions)[code[:, OPCODE]],
        lax.cummin(jnp.where(ends, index, jnp.int32(encoded.length)), reverse=True),
    )


def _block_branches(ops: Sequence[str], size: int) -> dict[int, Branch]:
    """Return the branches of ops that work element by element on `size` numbers, by opcode."""

    def read(
        registers: jax.Array, instruction: jax.Array, start: Any, arity: int
    ) -> list[jax.Array]:
        return [
            lax.dynamic_slice(
                registers,
                (instruction[FIRST_ARGUMENT + i], start * instruction[NUM_COLUMNS + i]),
                (1, size),
            )[0]
            for i in range(arity)
        ]

    def load_schedule(
        registers: jax.Array, instruction: jax.Array, now: jax.Array, start: Any
    ) -> jax.Array:
        del registers, start
        return jnp.full(size, now[instruction[FIRST_ARGUMENT]])

    def move(registers: jax.Array, instruction: jax.Array, now: jax.Array, start: Any) -> jax.Array:
        del now
        return read(registers, instruction, start, 1)[0]

    def of(op: Op) -> Branch:
        def run(
            registers: jax.Array, instruction: jax.Array, now: jax.Array, start: Any
        ) -> jax.Array:
            del now
            args = read(registers, instruction, start, op.arity)
            return jnp.broadcast_to(jnp.asarray(op.fn(jnp, *args), registers.dtype), (size,))

        return run

    branches = {
        code: of(OPS[name])
        for code, name in enumerate(ops, FIRST_OP)
        if OPS[name].scope == "element"
    }
    return {LOAD_SCHEDULE: load_schedule, MOVE: move, **branches}


def row_branches(layout: Layout, ops: Sequence[str], roles: Roles) -> dict[int, Branch]:
    """Return the branches of ops that work on whole rows, by opcode.

    Args:
      layout: Layout of the parameters, D in all.
      ops: Ops of the capacity.
      roles: Roles of the parameters.

    Returns:
      Functions `branch(registers, instruction, now, start)` that give a row [D].
    """
    # A tensor without entries has no part in the vector, and no part in reductions of tensors.
    like = [
        jax.ShapeDtypeStruct(shape, float) if size else None
        for shape, size in zip(layout.shapes, layout.sizes, strict=True)
    ]
    by_tensor = roles.of(layout.treedef.unflatten(like))

    def load_role(
        registers: jax.Array, instruction: jax.Array, now: jax.Array, start: Any
    ) -> jax.Array:
        del now, start
        numbers = jnp.array([[of[name] for of in by_tensor] for name in ROLES], registers.dtype)
        own = lax.dynamic_index_in_dim(numbers, instruction[FIRST_ARGUMENT], keepdims=False)
        sizes = [size for size in layout.sizes if size]
        return jnp.concatenate([jnp.full(size, own[i]) for i, size in enumerate(sizes)])

    segments = [
        Segment(offset, int(shape["fan_in"]), int(shape["fan_out"]))
        for offset, size, shape in zip(
            layout.offsets, layout.sizes, map(of_shape, layout.shapes), strict=True
        )
        if size
    ]
    branches = {
        code: _row_branch(OPS[name], segments, layout.num_params)
        for code, name in enumerate(ops, FIRST_OP)
        if OPS[name].scope != "element"
    }
    return {LOAD_ROLE: load_role, **branches}


def _row_branch(op: Op, segments: Sequence[Segment], num_params: int) -> Branch:
    def run(registers: jax.Array, instruction: jax.Array, now: jax.Array, start: Any) -> jax.Array:
        del now, start
        args = [
            lax.dynamic_slice(registers, (instruction[FIRST_ARGUMENT + i], 0), (1, num_params))[0]
            for i in range(op.arity)
        ]
        if op.products:
            sums = [op.partial(jnp, *(s.of(arg) for arg in args)) for s in segments]
            totals = tuple(map(sum, zip(*sums, strict=True)))
            # Scalars fill their row, so any element of it is the scalar.
            return jnp.broadcast_to(op.fn(jnp, totals, *args), (num_params,))
        parts = []
        for segment in segments:
            own = [
                arg[segment.offset] if kind == "scalar" else segment.of(arg)
                for kind, arg in zip(op.kinds, args, strict=True)
            ]
            shape = (segment.rows, segment.columns)
            if op.scope == "matrix":
                own = [arg.reshape(shape) if arg.ndim else arg for arg in own]
            parts.append(jnp.broadcast_to(op.fn(jnp, *own), shape).ravel())
        return jnp.concatenate(parts)

    return run
