"""Running a lowered program on a pytree's leaves, with NumPy or with jax.numpy.

This is what a program *means*: the native transform (`transform.py`) calls it; the interpreter, and
the probe behind fingerprints (`probe.py`), are tested against it. Every value is a list with one
entry per parameter tensor: an array for a tensor, a number for a scalar. Element and tensor ops go
leaf by leaf; a global op adds its partial results over all leaves first.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from veldt.search.dataflow import Constant, Dataflow, Input, Node
from veldt.search.ops import OPS
from veldt.search.program import STEP
from veldt.search.types import ArrayModule


def execute(
    flow: Dataflow,
    xp: ArrayModule,
    tensors: Mapping[str, Sequence[Any]],
    step: Sequence[Any],
    constants: Mapping[str, Any],
) -> tuple[list[Any], list[list[Any]]]:
    """Runs the live instructions of `flow` once.

    Args:
      flow: a lowered program; `L` below is the number of parameter tensors.
      xp: `numpy` or `jax.numpy`.
      tensors: `w`, `g` and the live slots, each a sequence of `L` arrays of equal shapes and
        dtypes.
      step: the step count from 1, once per leaf, in a floating dtype.
      constants: values for the named constants, over the defaults in `flow`.

    Returns:
      The update and the new values of `flow.live_slots`, each a list of `L` arrays shaped and typed
      as the parameters.
    """
    shapes = tensors["w"]
    values: dict[int, list[Any]] = {}
    for index, value in enumerate(flow.values):
        if index not in flow.live:
            continue
        match value:
            case Input(name=name):
                values[index] = list(step if name == STEP else tensors[name])
            case Constant(value=default, name=name):
                number = default if name is None else constants.get(name, default)
                values[index] = [number] * len(shapes)
            case Node():
                values[index] = _apply(flow, xp, value, values, shapes)

    def output(index: int) -> list[Any]:
        return [
            xp.broadcast_to(xp.asarray(x, dtype=like.dtype), like.shape)
            for x, like in zip(values[index], shapes, strict=True)
        ]

    new_slots = [output(flow.new_slots[flow.slots.index(name)]) for name in flow.live_slots]
    return output(flow.update), new_slots


def _apply(
    flow: Dataflow,
    xp: ArrayModule,
    node: Node,
    values: Mapping[int, list[Any]],
    shapes: Sequence[Any],
) -> list[Any]:
    op = OPS[node.op]
    mixed = len({flow.values[arg].kind for arg in node.args}) > 1
    leaves = [[values[arg][leaf] for arg in node.args] for leaf in range(len(shapes))]
    if op.partial is not None:
        total = sum(op.partial(xp, *args) for args in leaves)
        results = [op.fn(xp, total, *args) for args in leaves]
    else:
        results = [op.fn(xp, *args) for args in leaves]
    if mixed:
        # A float32 scalar must not widen a bfloat16 tensor; and it is the result that is rounded,
        # not the scalar: 0.999 is 1 in bfloat16, and an average with that weight never moves.
        results = [xp.asarray(x, dtype=like.dtype) for x, like in zip(results, shapes, strict=True)]
    return results
