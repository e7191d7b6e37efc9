"""Means of many arrays in few passes over memory.

The features of a per-parameter network are cheap to compute and dear to store: some thirty values
for each parameter. Taking their means in a multi-operand reduction lets XLA compute each feature
where it is summed, so that none is written to memory (three times as fast as one reduction for each
on a CPU, at a million parameters).

On a CPU such a reduction runs on vector units only if its loop over the terms is unrolled, so that
the loop around it, over the sums, is what is left: that takes few terms, and few operands. Large
arrays are therefore summed by a few terms at first, some arrays at a time; what is left is small
(twice as fast again).
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from veldt.learned_opt.blocks import tensors

# A float32 sum of this many like terms, taken one by one, is right to about 1e-4.
_LONGEST_RUN = 1 << 18
_SHORTEST_RUN = 64
# What LLVM unrolls; at twice the product of both it does not, and the sums are slower than a run.
_NUM_TERMS = 8
_NUM_OPERANDS = 5
_NUM_LANES = 16


def means(arrays: Sequence[jax.Array], axes: Sequence[int] | None = None) -> list[jax.Array]:
    """Return the mean of each array over `axes`, these kept with size 1.

    Args:
      arrays: Arrays of one shape and dtype, of rank 1 or more.
      axes: Axes from 0; None for all axes. Means of no elements are 0.

    Returns:
      One array for each of `arrays`, in their order.
    """
    if not arrays:
        return []
    ndim = arrays[0].ndim
    return list(_means(tuple(arrays), tuple(range(ndim)) if axes is None else tuple(axes)))


def mean_squares(arrays: Sequence[jax.Array], axes: Sequence[int] | None = None) -> list[jax.Array]:
    """Return the mean square of each array, which may differ in shape, as `means` does.

    Arrays of the same shape share a pass. An array that stands for a larger one by broadcasting has
    that one's mean square.
    """
    results: list[jax.Array | None] = [None] * len(arrays)
    for shape in dict.fromkeys(array.shape for array in arrays):
        members = [i for i, array in enumerate(arrays) if array.shape == shape]
        found = means([jnp.square(arrays[i]) for i in members], axes)
        for i, result in zip(members, found, strict=True):
            results[i] = result
    return [result for result in results if result is not None]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _means(arrays: tuple[jax.Array, ...], axes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    shape = arrays[0].shape
    split = _split(shape, axes)
    if split is not None and len(arrays) > 1:
        return _means_of_few_terms(arrays, axes, *split)
    run, length = _run_axes(shape, axes)
    if not run or length > _LONGEST_RUN:
        return _plain_means(arrays, axes)
    sums = _sums(arrays, run)
    rest = tuple(axis for axis in axes if axis not in run)
    scale = 1 / max(math.prod(shape[axis] for axis in axes), 1)
    kept = jnp.stack([jnp.expand_dims(total, run) for total in sums])
    if rest:
        kept = jnp.sum(kept, axis=tuple(axis + 1 for axis in rest), keepdims=True)
    return tuple(kept * scale)


@_means.defjvp
def _means_jvp(
    axes: tuple[int, ...],
    primals: tuple[tuple[jax.Array, ...]],
    tangents: tuple[tuple[jax.Array, ...]],
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """Differentiate means, with plain means in the tangent, whose transpose is a broadcast."""
    return _means(primals[0], axes), _plain_means(tangents[0], axes)


def _means_of_few_terms(
    arrays: tuple[jax.Array, ...], axes: tuple[int, ...], split: tuple[int, ...], terms: int
) -> tuple[jax.Array, ...]:
    """Means over `axes`, those along axis `terms` of the shape `split` taken first."""
    sums: list[jax.Array] = []
    for first in range(0, len(arrays), _NUM_OPERANDS):
        group = arrays[first : first + _NUM_OPERANDS]
        sums += _sums(tuple(array.reshape(split) for array in group), (terms,))
    shape = arrays[0].shape
    rest = axes if len(split) == len(shape) + 1 else (*axes, len(shape))
    scale = 1 / math.prod(shape[axis] for axis in axes)
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return tuple(jnp.sum(total, axis=rest).reshape(kept) * scale for total in sums)


def _plain_means(arrays: tuple[jax.Array, ...], axes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    scale = 1 / max(math.prod(arrays[0].shape[axis] for axis in axes), 1)
    return tuple(jnp.sum(array, axis=axes, keepdims=True) * scale for array in arrays)


def _sums(arrays: tuple[jax.Array, ...], run: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """Sum each array over the axes of `run`, which go, in one pass."""
    zero = jnp.zeros((), arrays[0].dtype)

    def add(left: tuple[jax.Array, ...], right: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(a + b for a, b in zip(left, right, strict=True))

    return tuple(jax.lax.reduce(arrays, (zero,) * len(arrays), add, run))


def _split(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[tuple[int, ...], int] | None:
    """Return a shape with an axis of few terms for a large array, and that axis.

    The terms are rows of a matrix where they can be: rows stay where they are if the columns are
    sharded, and a device's rows stay its own.
    """
    if math.prod(shape) < tensors.SMALL or shape[-1] < _NUM_LANES:
        return None
    last = len(shape) - 1
    for axis in reversed(axes):
        if axis != last and shape[axis] % _NUM_TERMS == 0:
            size = shape[axis] // _NUM_TERMS
            return (*shape[:axis], size, _NUM_TERMS, *shape[axis + 1 :]), axis + 1
    size, rest = divmod(shape[-1], _NUM_TERMS * _NUM_LANES)
    if last in axes and not rest:
        return (*shape[:-1], size, _NUM_TERMS, _NUM_LANES), last + 1
    return None


def _run_axes(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Return the trailing axes that one run of the fused sum takes, and the run's length."""
    run: tuple[int, ...] = ()
    length = 1
    for axis in reversed(range(len(shape))):
        if axis not in axes or (run and length >= _SHORTEST_RUN):
            break
        run, length = (axis, *run), length * shape[axis]
    return run, length
