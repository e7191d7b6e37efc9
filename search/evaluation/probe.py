"""Running a lowered program on a small fixed pytree, all steps at once.

`execute.execute` defines the meaning of a program, and this gives the same updates to the last bit.
But it runs for every child that a search draws, where nearly all the cost is that of NumPy calls on
a few numbers. So it makes few calls: the probe's two tensors lie side by side in one row, its steps
in a column of rows, and an instruction that does not depend on state is computed once for all of
them. Only instructions between a slot's old value and its new one run step by step; so do programs
with values of other shapes than the parameters', as a whole.

The probe holds tensors of two shapes and scales, exact zeros in gradients, and an entry whose
gradient is always zero, so that guards and small constants (an eps) show where they matter. One
tensor is the last layer and one an embedding; a program that reads these roles runs again with
neither, as the layers between.
"""

import functools
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from veldt.search.language.dataflow import Constant, Dataflow, Input
from veldt.search.language.ops import OPS, Op
from veldt.search.language.roles import EMBEDDING, LAST, of_shape
from veldt.search.language.statements import LOSS, PROGRESS, STEP
from veldt.search.runtime import execute

NUM_STEPS: Final = 6
SHAPES: Final = ((3, 4), (5,))
_SCALES: Final = (0.5, 2e-3)
_OTHER_GRADIENTS: Final = 20261130  # A seed: to test whether anything depends on the gradients.
# Progress and losses of the probe's steps: no simple functions of the step, so that programs that
# read one or the other differ.
_OF_RUN: Final = {
    PROGRESS: np.array([0.06, 0.19, 0.33, 0.52, 0.74, 0.97]),
    LOSS: np.array([2.31, 1.87, 2.02, 1.11, 0.46, 0.83]),
}
# Entries of each tensor in a row, and the number of entries of a row.
_TENSORS: Final = (slice(0, 12), slice(12, 17))
_WIDTH: Final = 17
_Roles: TypeAlias = tuple[tuple[tuple[int, ...], dict[str, float]], ...]
_Call: TypeAlias = tuple[int, Op, tuple[int, ...]]


def _roles_of(last: int | None, embedding: int | None) -> _Roles:
    """Return the shape and the roles of each tensor."""
    return tuple(
        (shape, {**of_shape(shape), LAST: float(i == last), EMBEDDING: float(i == embedding)})
        for i, shape in enumerate(SHAPES)
    )


# No tensor has both roles, so that programs that read different roles differ.
_AT_THE_ENDS: Final = _roles_of(0, 1)
_BETWEEN: Final = _roles_of(None, None)


class Inputs(NamedTuple):
    """The inputs of the program at each step, one row per step."""

    params: NDArray[np.float64]  # [NUM_STEPS, entries]
    grads: NDArray[np.float64]  # [NUM_STEPS, entries]


@functools.cache
def inputs(seed: int = 20230213) -> Inputs:
    """Return the parameters and gradients of the probe; they do not depend on the program."""
    rng = np.random.default_rng(seed)
    params, grads = [], []
    for _ in range(NUM_STEPS):
        params.append(_row([rng.normal(size=shape) for shape in SHAPES]))
        leaves = [
            scale * rng.normal(size=shape) for shape, scale in zip(SHAPES, _SCALES, strict=True)
        ]
        leaves = [np.where(rng.random(leaf.shape) < 0.15, 0.0, leaf) for leaf in leaves]
        leaves[0][0, 0] = 0.0  # a parameter that never gets a gradient
        grads.append(_row(leaves))
    return Inputs(np.stack(params), np.stack(grads))


def run(flow: Dataflow, given: Inputs | None = None) -> NDArray[np.float64]:
    """Return the updates of a program's first steps, in float64.

    Args:
      flow: Lowered program, with default constants.
      given: Inputs of the program; by default `inputs()`.

    Returns:
      The update of all entries of the probe's tensors, [NUM_STEPS, entries]; of a program that
        reads `is_last` or `is_embedding`, those of layers with and then without these roles.
    """
    given = inputs() if given is None else given
    runner = _run_at_once if flow.fits_registers else _run_by_steps
    first, *others = _role_sets(flow)
    updates = runner(flow, given, first)
    if not others:
        return updates
    return np.concatenate([updates, *(runner(flow, given, roles) for roles in others)], axis=1)


def _role_sets(flow: Dataflow) -> tuple[_Roles, ...]:
    reads_roles = {LAST, EMBEDDING} & set(flow.live_roles)
    return (_AT_THE_ENDS, _BETWEEN) if reads_roles else (_AT_THE_ENDS,)


def _run_at_once(flow: Dataflow, given: Inputs, roles: _Roles) -> NDArray[np.float64]:
    """Return the updates of a program whose values fit the tensors, for tensors of these roles."""
    # By value: [steps or 1, entries or 1], or a number; 1 where all entries are equal.
    values: dict[int, Any] = {
        flow.input_index("w"): given.params,
        flow.input_index("g"): given.grads,
        flow.input_index(STEP): np.arange(1.0, NUM_STEPS + 1)[:, None],
    }
    for index in flow.live:
        value = flow.values[index]
        if type(value) is Constant:
            values[index] = value.value
        elif type(value) is Input and index not in values:
            if value.name in _OF_RUN:
                values[index] = _OF_RUN[value.name][:, None]
            elif value.kind == "scalar":
                row = _row([np.full(shape, of[value.name]) for shape, of in roles])
                values[index] = np.broadcast_to(row, (NUM_STEPS, _WIDTH))
    stateless, recurrent, downstream = (_plan(flow, nodes) for nodes in flow.phases)
    with np.errstate(all="ignore"):
        _compute(stateless, values)
        if flow.slot_updates:
            values.update(_slots(flow, recurrent, values))
        _compute(recurrent, values)
        _compute(downstream, values)
    result = values[flow.update]
    if np.shape(result) != (NUM_STEPS, _WIDTH):
        result = np.broadcast_to(result, (NUM_STEPS, _WIDTH))
    return result


def ignores_gradient(flow: Dataflow, updates: NDArray[np.float64]) -> bool:
    """Return whether a program's updates, as `run` gives them, do not depend on the gradient.

    Either nothing that the update needs reads it, or other gradients on the probe leave every
    update as it was (`g * 0`). A program that reads `step`, `progress` or `loss` as well counts as
    dependent, since it may read the gradient later.
    """
    if flow.input_index("g") not in flow.live:
        return True
    if flow.input_index(STEP) in flow.live or flow.live_of_run:
        return False
    grads = inputs(seed=_OTHER_GRADIENTS).grads
    others = run(flow, inputs()._replace(grads=grads))
    return np.array_equal(updates, others, equal_nan=True)


def run_step_by_step(flow: Dataflow, given: Inputs | None = None) -> NDArray[np.float64]:
    """Return what `run` gives, computed by `execute.execute`, for any program: slower."""
    given = inputs() if given is None else given
    parts = [_run_by_steps(flow, given, roles) for roles in _role_sets(flow)]
    return np.concatenate(parts, axis=1)


def _run_by_steps(flow: Dataflow, given: Inputs, roles: _Roles) -> NDArray[np.float64]:
    fixed: dict[str, Sequence[Any]] = {
        name: [of[name] for _, of in roles] for name in flow.live_roles
    }
    shapes = execute.slot_shapes(flow, SHAPES)
    state = {name: [np.zeros(shape) for shape in slot] for name, slot in shapes.items()}
    updates = []
    with np.errstate(all="ignore"):
        for step, (params, grads) in enumerate(zip(*given, strict=True), 1):
            read = fixed | {"w": _leaves(params), "g": _leaves(grads), **state}
            for name in flow.live_of_run:
                read[name] = [_OF_RUN[name][step - 1]] * len(SHAPES)
            update, slots = execute.execute(flow, np, read, [np.float64(step)] * len(SHAPES), {})
            state = dict(zip(flow.live_slots, slots, strict=True))
            updates.append(_row(update))
    return np.stack(updates)


def _slots(
    flow: Dataflow, recurrent: Sequence[_Call], values: dict[int, Any]
) -> dict[int, NDArray[np.float64]]:
    """Return the old value of each live slot at all steps, by its index; [NUM_STEPS, entries]."""
    updates = flow.slot_updates
    read = {arg for _, _, args in recurrent for arg in args}.union(updates.values())
    now = {i: values[i] for i in read if i in values}
    by_step = [(i, value) for i, value in now.items() if type(value) is np.ndarray and value.ndim]
    history = {slot: np.zeros((NUM_STEPS + 1, _WIDTH)) for slot in updates}
    by_step += history.items()
    for step in range(NUM_STEPS):
        for i, rows in by_step:
            now[i] = rows[step : step + 1]
        _compute(recurrent, now)
        for slot, new in updates.items():
            history[slot][step + 1] = now[new]
    return {slot: rows[:-1] for slot, rows in history.items()}


def _plan(flow: Dataflow, nodes: Iterable[int]) -> list[_Call]:
    """Return the index, the op and the arguments of instructions."""
    plan = []
    for index in nodes:
        name, args, _ = flow.node(index)
        plan.append((index, OPS[name], args))
    return plan


def _compute(calls: Sequence[_Call], values: dict[int, Any]) -> None:
    """Add the values of instructions whose arguments are all there."""
    xp = _per_tensor()
    for index, op, indices in calls:
        args = [values[i] for i in indices]
        if op.products:
            partial = op.partial(xp, *args)
            args = [tuple(sum(x[:, t.start, None] for t in _TENSORS) for x in partial), *args]
        values[index] = _matrices(op, args) if op.scope == "matrix" else op.fn(xp, *args)


def _matrices(op: Op, args: Sequence[Any]) -> NDArray[np.float64]:
    """Return a matrix op on the rows of all steps, one matrix at a time."""
    num_steps = max(arg.shape[0] for arg in args if np.ndim(arg))
    result = np.empty((num_steps, _WIDTH))
    for step in range(num_steps):
        for tensor, shape in zip(_TENSORS, SHAPES, strict=True):
            own = []
            for kind, arg in zip(op.kinds, args, strict=True):
                if np.ndim(arg):  # of scalars, any entry will do
                    row = np.broadcast_to(arg[min(step, len(arg) - 1)], _WIDTH)[tensor]
                    arg = row[0] if kind == "scalar" else row.reshape(shape)
                own.append(arg)
            result[step, tensor] = np.broadcast_to(op.fn(np, *own), shape).ravel()
    return result


@functools.cache
def _per_tensor() -> Any:
    """Return NumPy with reductions that go over one step's entries of one tensor."""
    reductions = {name: _reduction(getattr(np, name)) for name in ("sum", "mean", "max")}
    return types.SimpleNamespace(**{**vars(np), **reductions})


def _reduction(reduce: Callable[..., Any]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return `reduce` over each tensor's entries, written to all: [steps, entries] both ways."""

    def reduced(rows: NDArray[Any]) -> NDArray[Any]:
        result = np.empty_like(rows)
        for tensor in _TENSORS:
            result[:, tensor] = reduce(rows[:, tensor], axis=1, keepdims=True)
        return result

    return reduced


def _leaves(row: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    return [row[tensor].reshape(shape) for tensor, shape in zip(_TENSORS, SHAPES, strict=True)]


def _row(leaves: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate([leaf.ravel() for leaf in leaves])
