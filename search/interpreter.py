"""The interpreter: one compiled training loop runs every program.

Compiling each candidate costs about a second and nearly all of the time of a small proxy task. Here
the training loop is compiled once per task, and a program is data: `interpret(encoded)` is an Optax
transform on one flat parameter vector (`tasks.flat`), whose meta-parameters are the program's
encoding. A step is a `while` loop over instructions; each reads its argument rows from a register
file [R, D], runs one branch of a `lax.switch` and writes one row.

What makes it fast, measured on the CPU with XLA: the opcode is *not* batched (batched, XLA runs
every branch for every lane: Kozax, TensorNEAT); argument rows are read inside the branch, so that
reading fuses with computing; nothing but the register file is carried, and it is updated in place;
unused arguments are not read. What sees tensors one by one or as matrices takes static slices of
the flat vector. Every register holds one number per parameter; a scalar, or what is the same all
along a row, is written out in full.

The interpreter and the native transform (`transform.py`) agree to float32 rounding;
`tests/search/test_interpreter.py` holds them to it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from veldt.search.encode import G_ROW, W_ROW, Capacity, Encoded
from veldt.search.ops import OPS, Op
from veldt.search.program import ROLES
from veldt.search.roles import Roles, of_shape
from veldt.tasks.flat import Layout

Branch = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class InterpreterState(NamedTuple):
    """State of `interpret`."""

    step: jax.Array  # shape=(), dtype=jnp.int32; steps taken
    registers: jax.Array  # [R, D] float32; the state slots from row 2 on


class Segment(NamedTuple):
    """One parameter tensor in the flat vector, as a matrix [rows, columns] (`kinds.py`)."""

    offset: int
    rows: int
    columns: int

    def of(self, vector: jax.Array) -> jax.Array:
        """The tensor's part of a vector [D]."""
        return vector[self.offset : self.offset + self.rows * self.columns]


def interpret(
    encoded: Encoded,
    layout: Layout,
    *,
    capacity: Capacity,
    roles: Roles | None = None,
) -> optax.GradientTransformationExtraArgs:
    """An encoded program as a transform of one flat parameter vector, in descent direction.

    Args:
      encoded: the program; its leaves may be traced (they are what changes from candidate to
        candidate).
      layout: where each parameter tensor lies in the flat vector; static.
      capacity: that of the encoding; its ops are what is compiled.
      roles: what the parameters are, where the guesses from their names are wrong.

    Returns:
      A transform on arrays [D]. It counts steps up to the encoding's horizon `T`; past it the
      schedules keep their last value.
    """
    branches = _branches(layout, capacity.ops, roles or Roles())

    def init_fn(params: jax.Array) -> InterpreterState:
        registers = jnp.broadcast_to(
            jnp.asarray(encoded.fill)[:, None], (encoded.fill.shape[0], params.shape[0])
        )
        return InterpreterState(jnp.zeros([], jnp.int32), registers)

    def update_fn(
        updates: jax.Array,
        state: InterpreterState,
        params: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[jax.Array, InterpreterState]:
        del extra_args
        if params is None:
            raise ValueError(
                "the interpreter reads the parameters: call update(grads, state, params)"
            )
        schedules = jnp.asarray(encoded.schedules)
        now = lax.dynamic_index_in_dim(schedules, state.step, keepdims=False)  # [K]
        registers = state.registers.at[W_ROW].set(params).at[G_ROW].set(updates)

        def execute(index: jax.Array, registers: jax.Array) -> jax.Array:
            instruction = jnp.asarray(encoded.code)[index]
            row = lax.switch(instruction[0], branches, registers, instruction, now)
            return lax.dynamic_update_index_in_dim(registers, row, instruction[4], 0)

        registers = lax.fori_loop(0, encoded.length, execute, registers)
        update = lax.dynamic_index_in_dim(registers, encoded.update, keepdims=False)
        return update, InterpreterState(state.step + 1, registers)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _branches(layout: Layout, ops: Sequence[str], roles: Roles) -> list[Branch]:
    """One branch per opcode, in the order of `encode.py`."""
    like = [jax.ShapeDtypeStruct(shape, float) for shape in layout.shapes]
    by_tensor = roles.of(layout.treedef.unflatten(like))

    def load_schedule(registers: jax.Array, instruction: jax.Array, now: jax.Array) -> jax.Array:
        return jnp.full(registers.shape[1], now[instruction[1]])

    def load_role(registers: jax.Array, instruction: jax.Array, now: jax.Array) -> jax.Array:
        del now
        numbers = jnp.array([[of[name] for of in by_tensor] for name in ROLES], registers.dtype)
        own = lax.dynamic_index_in_dim(numbers, instruction[1], keepdims=False)
        return jnp.concatenate([jnp.full(n, own[i]) for i, n in enumerate(layout.sizes)])

    def move(registers: jax.Array, instruction: jax.Array, now: jax.Array) -> jax.Array:
        del now
        return lax.dynamic_index_in_dim(registers, instruction[1], keepdims=False)

    segments = [
        Segment(offset, int(shape["fan_in"]), int(shape["fan_out"]))
        for offset, shape in zip(layout.offsets, map(of_shape, layout.shapes), strict=True)
    ]
    return [load_schedule, load_role, move, *(_branch(OPS[name], segments) for name in ops)]


def _branch(op: Op, segments: Sequence[Segment]) -> Branch:
    def run(registers: jax.Array, instruction: jax.Array, now: jax.Array) -> jax.Array:
        del now
        args = [
            lax.dynamic_index_in_dim(registers, instruction[1 + i], keepdims=False)
            for i in range(op.arity)
        ]
        width = registers.shape[1]
        if op.scope == "element":
            return jnp.broadcast_to(jnp.asarray(op.fn(jnp, *args), registers.dtype), (width,))
        if op.partial is not None:
            total = sum(op.partial(jnp, *(s.of(arg) for arg in args)) for s in segments)
            # Scalars fill their row, so any element of it is the scalar.
            return jnp.broadcast_to(op.fn(jnp, total, *args), (width,))
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
