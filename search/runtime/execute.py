"""Running a lowered program on a pytree's leaves, with NumPy or with jax.numpy.

This defines what a program *means*: the native transform (`optax_transform.py`) calls it; the
interpreter, and the probe behind fingerprints (`probe.py`), are tested against it. Every value is a
list with one entry per parameter tensor: an array for a tensor, a number for a scalar. Element,
tensor, matrix and shape ops go leaf by leaf; a global op adds its partial results over all leaves
first.

An array may be thin: of length 1 along axes on which a value does not vary (`constant_axes.py`).
Element ops broadcast; every other op is given its arguments at full size. A dear branch of a choice
that the step decides is computed only where it is chosen (`laziness.py`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from veldt.search.language import constant_axes, laziness
from veldt.search.language import shapes as kinds
from veldt.search.language.dataflow import Constant, Dataflow, Input, Node
from veldt.search.language.ops import OPS, as_matrix
from veldt.search.language.statements import STEP
from veldt.search.language.types import ArrayModule


def execute(
    flow: Dataflow,
    xp: ArrayModule,
    inputs: Mapping[str, Sequence[Any]],
    step: Sequence[Any],
    constants: Mapping[str, Any],
) -> tuple[list[Any], list[list[Any]]]:
    """Run the live instructions of `flow` once.

    Args:
      flow: Lowered program; `L` below is the number of parameter tensors.
      xp: Array module: `numpy` or `jax.numpy`.
      inputs: Sequences of length `L`, by name: `w` and `g`, arrays of equal shapes and dtypes; the
        live slots, arrays that broadcast to those shapes; the live roles, numbers; `progress` and
        `loss` if they are live, scalars as `step`.
      step: Step count from 1, once per leaf, in a floating dtype.
      constants: Values for the named constants, over the defaults in `flow`.

    Returns:
      The update, shaped as the parameters, and the new values of `flow.live_slots`, shaped as
      in `slot_shapes`; each a list of `L` arrays of the parameters' dtypes.
    """
    params = inputs["w"]
    values: dict[int, list[Any]] = {}
    lazy = laziness.lazy_branches(flow)

    def compute(indices: Iterable[int]) -> None:
        for index in sorted(indices):
            match flow.values[index]:
                case Input(name=name):
                    values[index] = list(step if name == STEP else inputs[name])
                case Constant(value=default, name=name):
                    number = default if name is None else constants.get(name, default)
                    values[index] = [number] * len(params)
                case Node() as node if index in lazy:
                    values[index] = choose(index, node)
                case Node() as node:
                    values[index] = _apply(flow, xp, node, values, params)

    def choose(index: int, node: Node) -> list[Any]:
        """Return a choice whose first branch is computed only where it is chosen."""
        condition, new, old = node.args
        if not params:
            return []

        def chosen() -> list[Any]:
            inner = [own for other, own in lazy.items() if other in lazy[index]]
            compute(lazy[index].difference(*inner))
            return _apply(flow, xp, node, {**values, condition: [1.0] * len(params)}, params)

        decides = values[condition][0] > 0
        if xp is np:
            if decides:
                return chosen()
            return _apply(flow, xp, node, {**values, new: values[old]}, params)
        shapes = jax.eval_shape(chosen)
        return jax.lax.cond(
            decides,
            chosen,
            lambda: [
                xp.broadcast_to(xp.asarray(x, dtype=like.dtype), like.shape)
                for x, like in zip(values[old], shapes, strict=True)
            ],
        )

    compute(laziness.of_main(flow, lazy.values()))

    def output(index: int, shapes: Sequence[tuple[int, ...]]) -> list[Any]:
        return [
            xp.broadcast_to(xp.asarray(x, dtype=like.dtype), shape)
            for x, like, shape in zip(values[index], params, shapes, strict=True)
        ]

    shapes = [tuple(like.shape) for like in params]
    new_slots = [
        output(flow.new_slots[flow.slots.index(name)], slot)
        for name, slot in slot_shapes(flow, shapes).items()
    ]
    return output(flow.update, shapes), new_slots


def slot_shapes(
    flow: Dataflow, shapes: Sequence[tuple[int, ...]]
) -> dict[str, list[tuple[int, ...]]]:
    """Return the shapes of each live slot's arrays, for parameters of these shapes."""
    found: dict[str, list[tuple[int, ...]]] = {}
    for name, extent in constant_axes.slot_extents(flow).items():
        kind = flow.values[flow.input_index(name)].kind
        found[name] = [
            extent.shape(shape) if kind == "tensor" else kinds.full_shape(kind, shape)
            for shape in shapes
        ]
    return found


def _apply(
    flow: Dataflow,
    xp: ArrayModule,
    node: Node,
    values: Mapping[int, list[Any]],
    params: Sequence[Any],
) -> list[Any]:
    op = OPS[node.op]
    arg_kinds = [flow.values[arg].kind for arg in node.args]
    mixed = len(set(arg_kinds)) > 1 and op.scope != "shape"
    leaves = []
    for leaf, like in enumerate(params):
        args = [values[arg][leaf] for arg in node.args]
        if op.scope != "element":
            args = [
                arg if kind == "scalar" else _full(xp, arg, kinds.full_shape(kind, like.shape))
                for arg, kind in zip(args, arg_kinds, strict=True)
            ]
        if op.scope == "shape":
            args = [
                as_matrix(arg) if kind == "tensor" else arg
                for arg, kind in zip(args, arg_kinds, strict=True)
            ]
        leaves.append([kinds.matrix_shape(like.shape), *args] if op.takes_shape else args)
    if op.products:
        parts = [op.partial(xp, *args) for args in leaves]
        totals = tuple(map(sum, zip(*parts, strict=True)))
        results = [op.fn(xp, totals, *args) for args in leaves]
    else:
        results = [op.fn(xp, *args) for args in leaves]
    if op.scope == "shape" and node.kind == "tensor":
        results = [x.reshape(like.shape) for x, like in zip(results, params, strict=True)]
    if mixed:
        # A float32 scalar must not widen a bfloat16 tensor. The result is rounded, not the scalar:
        # 0.999 is 1 in bfloat16, and an average with that weight never moves.
        results = [xp.asarray(x, dtype=like.dtype) for x, like in zip(results, params, strict=True)]
    return results


def _full(xp: ArrayModule, x: Any, shape: tuple[int, ...]) -> Any:
    """Return a thin array at full size, laid out row by row, so that sums do not depend on it."""
    if x.shape == shape:
        return x
    return xp.broadcast_to(x, shape).reshape(-1).reshape(shape)
