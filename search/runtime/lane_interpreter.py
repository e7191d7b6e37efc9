"""The interpreter for many lanes: one program each, all of them at the same instruction.

`interpreter.py` under `vmap` would be right and very slow: where each lane has its own number of
instructions and its own runs, every loop that depends on them carries the whole register file
through a select. Here the loop over instructions is common to all lanes, and ends with the
longest program; a lane that has ended moves its parameters' row onto itself.

A batched opcode makes `lax.switch` a select over all branches (XLA has no batched conditional;
jax-ml/jax#8409): *every instruction computes every op*, in every lane. That suits a GPU, where the
elementwise ops become one kernel over the three argument rows; on a CPU it is many times slower
than one program after the other. Other ops cost a kernel or more per op and tensor, and
`orthogonalize` a dozen matrix products. So each such scope has a condition of its own, whether
*any* lane needs it at this instruction, which is common to all lanes, so that `vmap` leaves it a
condition. A lane's numbers do not depend on it.

There are no blocks: rows are processed whole, since on a GPU every block would be a launch.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from veldt.search.language.ops import OPS, Op
from veldt.search.language.roles import Roles
from veldt.search.runtime import interpreter
from veldt.search.runtime.encode import (
    ARGUMENTS,
    FIRST_ARGUMENT,
    FIRST_OP,
    G_ROW,
    LOAD_ROLE,
    LOAD_SCHEDULE,
    MOVE,
    OPCODE,
    RESULT,
    W_ROW,
    Capacity,
    Encoded,
)
from veldt.search.runtime.interpreter import InterpreterState
from veldt.tasks.inner_loop.flat import Layout

# `branch(arguments [3, D], number, schedules [K])` gives a row [D]; `number` is the first argument
# of an instruction where that is no row.
_Branch = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

# The ops computed under one condition. The first scope, which works element by element, always is.
_SCOPES: Final = (("element",), ("tensor", "global"), ("matrix",))

# An instruction whose arguments are the rows of `arguments` in order.
_IN_ORDER: Final = np.array([0, 0, 1, 2, 0], np.int32)


class Together(NamedTuple):
    """The needs of the programs of all lanes, taken together; not mapped under `vmap`."""

    length: jax.Array  # []: int32, instructions of the longest
    scopes: jax.Array  # [statements, scopes]: bool, whether any runs an op of that scope there


def together(encoded: Encoded, capacity: Capacity) -> Together:
    """Return what several programs need together.

    Args:
      encoded: All programs, stacked: leaves [N, ...].
      capacity: Capacity of the encoding.
    """
    scope_of, _ = _where(capacity.ops)
    index = jnp.arange(encoded.code.shape[1])
    lengths = jnp.asarray(encoded.length)
    used = index < lengths[:, None]  # [N, statements]
    scopes = jnp.asarray(scope_of)[jnp.asarray(encoded.code)[:, :, 0]]
    each = [(used & (scopes == number)).any(axis=0) for number in range(len(_SCOPES))]
    return Together(lengths.max(), jnp.stack(each, axis=1))


def interpret(
    encoded: Encoded,
    of_all: Together,
    layout: Layout,
    *,
    capacity: Capacity,
    roles: Roles | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Return one lane's program as a transform of one flat parameter vector, in descent direction.

    It computes what `interpreter.interpret` computes, and has to be called under `vmap`.

    Args:
      encoded: Program of the lane; batched under `vmap`.
      of_all: Needs of the programs of all lanes; not batched.
      layout: Places of the parameter tensors in the flat vector; static.
      capacity: Capacity of the encoding.
      roles: Roles of the parameters, where the guesses from their names are wrong.

    Returns:
      A transform on arrays [D].
    """
    num_params = layout.num_params
    branches = _branches(layout, capacity.ops, roles or Roles())
    scope_of, position_of = (jnp.asarray(numbers) for numbers in _where(capacity.ops))
    code = jnp.asarray(encoded.code)
    idle = jnp.array([MOVE, W_ROW, W_ROW, W_ROW, W_ROW], code.dtype)
    code = jnp.where((jnp.arange(len(code)) < encoded.length)[:, None], code, idle)

    def init_fn(params: jax.Array) -> InterpreterState:
        del params
        fill = jnp.asarray(encoded.fill)
        registers = jnp.broadcast_to(fill[:, None], (len(fill), num_params))
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
        now = interpreter.numbers_of_step(encoded, state.step, value)

        def execute(index: jax.Array, registers: jax.Array) -> jax.Array:
            instruction = code[index]
            opcode = instruction[OPCODE]
            # Read before the conditions: they would copy the register file.
            arguments = registers[instruction[ARGUMENTS]]

            def run(branches: Sequence[_Branch]) -> jax.Array:
                # For an opcode of another scope the position is that of some branch, whose row is
                # dropped.
                return lax.switch(
                    position_of[opcode], branches, arguments, instruction[FIRST_ARGUMENT], now
                )

            rows = [run(branches[0])]
            for number in range(1, len(_SCOPES)):
                compute = functools.partial(run, branches[number])
                needed = of_all.scopes[index, number]
                rows.append(lax.cond(needed, compute, lambda: zeros) if branches[number] else zeros)
            row = lax.select_n(scope_of[opcode], *rows)
            return lax.dynamic_update_slice(registers, row[None], (instruction[RESULT], 0))

        registers = state.registers.at[W_ROW].set(params).at[G_ROW].set(updates)
        zeros = jnp.zeros(num_params, registers.dtype)
        registers = lax.fori_loop(0, of_all.length, execute, registers)
        update = lax.dynamic_index_in_dim(registers, encoded.update, keepdims=False)
        return update, InterpreterState(state.step + 1, registers)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _opcodes(ops: Sequence[str]) -> list[list[int]]:
    """Return the opcodes of each of `_SCOPES`, in the order of their branches."""
    named = list(enumerate(ops, FIRST_OP))
    of_scopes = [[code for code, name in named if OPS[name].scope in one] for one in _SCOPES]
    element, reducing, matrix = of_scopes
    return [[LOAD_SCHEDULE, MOVE, *element], [LOAD_ROLE, *reducing], matrix]


def _where(ops: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each opcode's scope, and of its branch there; int32 [opcodes]."""
    scope_of, position_of = np.zeros((2, FIRST_OP + len(ops)), np.int32)
    for number, opcodes in enumerate(_opcodes(ops)):
        scope_of[opcodes] = number
        position_of[opcodes] = np.arange(len(opcodes))
    return scope_of, position_of


def _branches(layout: Layout, ops: Sequence[str], roles: Roles) -> list[list[_Branch]]:
    """Return the branches of each of `_SCOPES`."""
    num_params = layout.num_params

    def load_schedule(arguments: jax.Array, number: jax.Array, now: jax.Array) -> jax.Array:
        return jnp.full(num_params, now[number], arguments.dtype)

    def move(arguments: jax.Array, number: jax.Array, now: jax.Array) -> jax.Array:
        del number, now
        return arguments[0]

    def of_element(op: Op) -> _Branch:
        def run(arguments: jax.Array, number: jax.Array, now: jax.Array) -> jax.Array:
            del number, now
            row = jnp.asarray(op.fn(jnp, *arguments[: op.arity]), arguments.dtype)
            return jnp.broadcast_to(row, (num_params,))

        return run

    def of_rows(opcode: int, branch: interpreter.Branch) -> _Branch:
        def run(arguments: jax.Array, number: jax.Array, now: jax.Array) -> jax.Array:
            by_number = jnp.zeros(5, jnp.int32).at[1].set(number)
            instruction = by_number if opcode == LOAD_ROLE else jnp.asarray(_IN_ORDER)
            return branch(arguments, instruction, now, 0).astype(arguments.dtype)

        return run

    by_opcode: dict[int, _Branch] = {LOAD_SCHEDULE: load_schedule, MOVE: move}
    for code, name in enumerate(ops, FIRST_OP):
        if OPS[name].scope == "element":
            by_opcode[code] = of_element(OPS[name])
    # Ops that work on whole rows are the same for one lane and for many.
    for code, branch in interpreter.row_branches(layout, ops, roles).items():
        by_opcode[code] = of_rows(code, branch)
    return [[by_opcode[code] for code in opcodes] for opcodes in _opcodes(ops)]
