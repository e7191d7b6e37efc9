"""Checking that a rewritten program behaves as before.

Both programs run side by side, without training: parameters and gradients are given and do not
depend on the updates, so that a difference at one step cannot be undone at the next. The probes
hold matrices and vectors, gradients of very different scales, zeros, and an entry that never gets a
gradient; everything runs in float64 and, because training computes in it, in float32. Where
constants stay tunable, other values of them are tried too.

The effect of rounding is bounded: per entry, and per tensor for values that cancel within it. A
difference beyond that, or an infinity or NaN on one side alone, is a difference in behaviour.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from veldt.search.language import dataflow
from veldt.search.language.dataflow import Dataflow
from veldt.search.language.roles import Roles
from veldt.search.language.statements import LOSS, PROGRESS, AbstractProgram
from veldt.search.runtime import execute

NUM_STEPS: Final = 50
# By dtype: steps, and the allowed difference relative to an entry and to its tensor's largest.
_TOLERANCES: Final = (("float64", NUM_STEPS, 1e-9, 1e-10), ("float32", 20, 2e-3, 1e-4))
# In float32, for entries below this, the change of a parameter's last bits by a step.
_LAST_BITS: Final = 1e-6
_TREES: Final = (
    (((4, 3), 0.5), ((5,), 2e-3)),
    (((3, 3), 30.0), ((2,), 1e-5)),
)  # shape of each tensor and scale of its gradients
_ZEROS: Final = 0.15  # share of the gradients that are exactly zero
# The probe ends before the run that it belongs to, and its losses are of either sign.
_RUN_LENGTH: Final = NUM_STEPS + 7


@final
@dataclass(frozen=True, slots=True)
class Trace:
    """The behaviour of a program on one probe.

    Attributes:
      updates: Updates by tensor, [num_steps, *shape].
      slots: Values before each step by slot, then by tensor, [num_steps, *shape].
    """

    updates: tuple[NDArray[np.floating], ...]
    slots: Mapping[str, tuple[NDArray[np.floating], ...]]


@functools.cache
def _inputs(
    tree: int, seed: int
) -> tuple[tuple[NDArray[np.float64], ...], tuple[NDArray[np.float64], ...]]:
    """Return parameters and gradients of all steps, by tensor: [NUM_STEPS, *shape]."""
    rng = np.random.default_rng((seed, tree))
    params, grads = [], []
    for shape, scale in _TREES[tree]:
        params.append(rng.normal(size=(NUM_STEPS, *shape)))
        drift = 0.3 * rng.normal(size=shape)
        grad = scale * (drift + rng.normal(size=(NUM_STEPS, *shape)))
        grad = np.where(rng.random(grad.shape) < _ZEROS, 0.0, grad)
        grad.reshape(NUM_STEPS, -1)[:, 0] = 0.0
        grads.append(grad)
    return tuple(params), tuple(grads)


def trace(
    flow: Dataflow,
    tree: int = 0,
    dtype: str = "float64",
    num_steps: int = NUM_STEPS,
    constants: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Trace:
    """Run a lowered program on a probe.

    Args:
      flow: Lowered program.
      tree: Number of the probe's tree.
      dtype: Precision: float64 or float32.
      num_steps: Number of steps, at most `NUM_STEPS`.
      constants: Values of constants, in place of the defaults.
      seed: Seed of the parameters and gradients.
    """
    params, grads = (
        [tensor.astype(dtype) for tensor in tensors] for tensors in _inputs(tree, seed)
    )
    shapes = execute.slot_shapes(flow, [tensor.shape[1:] for tensor in params])
    state: dict[str, Sequence[Any]] = {
        name: [np.zeros(shape, dtype) for shape in leaves] for name, leaves in shapes.items()
    }
    roles = Roles().of([tensor[0] for tensor in params])
    fixed = {name: [leaf[name] for leaf in roles] for name in flow.live_roles}
    updates: list[list[Any]] = []
    history: dict[str, list[Sequence[Any]]] = {name: [] for name in state}
    with np.errstate(all="ignore"):
        for step in range(num_steps):
            for name, leaves in state.items():
                history[name].append(leaves)
            tensors = {
                "w": [p[step] for p in params],
                "g": [g[step] for g in grads],
                **fixed,
                **state,
            }
            of_run = {PROGRESS: (step + 1.0) / _RUN_LENGTH, LOSS: _losses(seed)[step]}
            for name in flow.live_of_run:
                tensors[name] = [np.asarray(of_run[name], dtype=dtype)] * len(params)
            count = [np.asarray(step + 1.0, dtype=dtype)] * len(params)
            update, new = execute.execute(flow, np, tensors, count, constants or {})
            updates.append(update)
            state = dict(zip(flow.live_slots, new, strict=True))
    return Trace(_stack(updates), {name: _stack(rows) for name, rows in history.items()})


@functools.cache
def _losses(seed: int) -> NDArray[np.float64]:
    return np.random.default_rng((seed, len(_TREES))).normal(1.0, 1.0, NUM_STEPS)


def _stack(steps: Sequence[Sequence[Any]]) -> tuple[NDArray[np.floating], ...]:
    return tuple(np.stack(leaves) for leaves in zip(*steps, strict=True))


@final
class Reference:
    """A program's behaviour, with which others are compared."""

    def __init__(self, program: AbstractProgram, *, fold: bool = False):
        """Run the program on all probes.

        Args:
          program: Program with the right behaviour.
          fold: Whether constants count with their defaults only.
        """
        settings = [dict(program.constants)]
        if not fold and program.constants:
            settings.append({name: _moved(value) for name, value in program.constants})
        self._cases = [
            (tree, dtype, num_steps, constants, rtol, atol)
            for constants in settings
            for dtype, num_steps, rtol, atol in _TOLERANCES
            for tree in range(len(_TREES))
        ]
        flow = dataflow.lower(program)
        self._updates = [trace(flow, *case[:4]).updates for case in self._cases]

    def agrees(self, program: AbstractProgram) -> bool:
        """Return whether a program's updates are the same up to rounding."""
        flow = dataflow.lower(program)
        known = {name for name, _ in program.constants}
        for case, expected in zip(self._cases, self._updates, strict=True):
            tree, dtype, num_steps, constants, rtol, atol = case
            given = {name: value for name, value in constants.items() if name in known}
            actual = trace(flow, tree, dtype, num_steps, given).updates
            if not all(
                is_close(x, y, rtol=rtol, atol=atol) for x, y in zip(expected, actual, strict=True)
            ):
                return False
        return True


def _moved(value: float) -> float:
    """Return another value of a constant, on the same side of 0 and of 1."""
    if 0.5 <= value < 1.0:
        return 1.0 - 1.6 * (1.0 - value) if value > 0.7 else 0.8 * value
    return 0.7 * value or 0.3


def is_close(x: NDArray[np.floating], y: NDArray[np.floating], *, rtol: float, atol: float) -> bool:
    """Return whether updates are equal to rounding, and infinite or NaN at the same places.

    Args:
      x: Updates by step, [num_steps, *shape].
      y: Updates to compare, of the same shape.
      rtol: Allowed difference, relative to an entry.
      atol: Allowed difference, relative to the tensor's largest entry at that step.
    """
    finite = np.isfinite(x)
    if not np.array_equal(finite, np.isfinite(y)):
        return False
    x, y = np.where(finite, x, 0.0), np.where(finite, y, 0.0)
    last_bits = _LAST_BITS if x.dtype == np.float32 else 0.0
    largest = np.abs(x).max(axis=tuple(range(1, x.ndim)), keepdims=True)  # of each step
    with np.errstate(over="ignore"):
        return bool(
            np.all(
                np.abs(x - y)
                <= rtol * np.maximum(np.abs(x), np.abs(y)) + atol * largest + last_bits
            )
        )
