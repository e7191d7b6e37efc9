"""The interpreter: one compiled training loop runs every program.

Compiling each candidate costs about a second and nearly all of the time of a small proxy task. Here
the training loop is compiled once per task, and a program is data: `interpret(encoded)` is an Optax
transform on one flat parameter vector (`tasks.flat`), whose meta-parameters are the program's
encoding. A step is a `while` loop over instructions; each reads its argument rows from a register
file [R, D], runs one branch of a `lax.switch` and writes one row.

What makes it fast, measured on the CPU with XLA: the opcode is *not* batched (batched, XLA runs
every branch for every lane: Kozax, TensorNEAT); argument rows are read inside the branch, so that
reading fuses with computing; nothing but the register file is carried, and it is updated in place;
unused arguments are not read. Reductions are per parameter tensor, by static slices of the flat
vector.

The interpreter and the native transform (`transform.py`) agree to float32 rounding;
`tests/search/test_interpreter.py` holds them to it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from veldt.search.encode import G_ROW, W_ROW, Encoded
from veldt.search.ops import OPS, Op

Segments = tuple[tuple[int, int], ...]
Branch = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class InterpreterState(NamedTuple):
    """State of `interpret`."""

    step: jax.Array  # shape=(), dtype=jnp.int32; steps taken
    registers: jax.Array  # [R, D] float32; rows 2 to 5 are the state slots


def interpret(encoded: Encoded, segments: Segments) -> optax.GradientTransformationExtraArgs:
    """An encoded program as a transform of one flat parameter vector, in descent direction.

    Args:
      encoded: the program; its leaves may be traced (they are what changes from candidate to
        candidate).
      segments: (offset, size) of each parameter tensor in the flat vector; static.

    Returns:
      A transform on arrays [D]. It counts steps up to the encoding's horizon `T`; past it the
      schedules keep their last value.
    """
    branches = _branches(segments)

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


def _branches(segments: Segments) -> list[Branch]:
    """One branch per opcode, in the order of `encode.py`."""

    def load_schedule(registers: jax.Array, instruction: jax.Array, now: jax.Array) -> jax.Array:
        return jnp.full(registers.shape[1], now[instruction[1]])

    def move(registers: jax.Array, instruction: jax.Array, now: jax.Array) -> jax.Array:
        del now
        return lax.dynamic_index_in_dim(registers, instruction[1], keepdims=False)

    return [*(_branch(op, segments) for op in OPS.values()), load_schedule, move]


def _branch(op: Op, segments: Segments) -> Branch:
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
            total = sum(op.partial(jnp, *(arg[a : a + n] for arg in args)) for a, n in segments)
            # Scalars fill their row, so any element of it is the scalar.
            return jnp.broadcast_to(op.fn(jnp, total, *args), (width,))
        return jnp.concatenate(
            [jnp.full(n, op.fn(jnp, *(arg[a : a + n] for arg in args))) for a, n in segments]
        )

    return run
