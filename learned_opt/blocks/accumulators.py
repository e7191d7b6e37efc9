"""Running averages of gradients, of squares and of factored squares, for many decays at once.

Every average is `decay * old + (1 - decay) * new` from zero, without bias correction, as in
google/learned_optimization (`learned_optimizers/common.py`). The factored one is Adafactor's
(Shazeer and Stern 2018, arXiv 1804.04235): the square of a tensor is kept as its means along its
two largest dimensions. The functions take one tensor; none mixes tensors.

The averages are float32 (float64 for float64 parameters) whatever the parameters are: the original
keeps them in the parameters' dtype, in which `1 - 0.999` of a bfloat16 is lost in rounding.

The functions of one tensor have `Moments` of arrays. A state has `Moments` of *trees* shaped as the
parameters, with None where a tensor has no such average: other people's loops (flax.nnx, Orbax,
`flax.serialization`) rebuild what stands in a tree's leaves as something else, and keep what trees
stand in.

Shapes: D decays, N... the tensor's own shape, of rank 1 or more.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from veldt.learned_opt.blocks import tensors
from veldt.tasks.common import types

_Leaf = TypeVar("_Leaf")
_TINY_SQUARE = 1e-30  # keeps a factored square from zero where the gradient is
_FLOOR = 1e-9


class Factored(NamedTuple):
    """Averages of the gradient's square: factored for rank 2 or more, else in full."""

    row: jax.Array | None  # [D, N... without the largest dimension]
    col: jax.Array | None  # [D, N... without the second largest]
    full: jax.Array | None  # [D, N...], rank 1 only


class Moments(NamedTuple):
    """All averages of one tensor; a rule leaves out what it does not read."""

    momentum: jax.Array  # [D, N...]
    rms: jax.Array | None = None  # [D', N...], the mean square, not its root
    factored: Factored | None = None


class Decays(NamedTuple):
    """The decays of each average, each of shape [D]; may be traced."""

    momentum: jax.Array
    rms: jax.Array | None = None
    factored: jax.Array | None = None


class Factors(NamedTuple):
    """Factors that divide a gradient by its factored root mean square.

    Attributes:
      row: [D, ...], broadcasts against [D, N...]; the whole factor for rank 1.
      col: Factor of the other dimension, shaped as `row`; None for rank 1.
    """

    row: jax.Array
    col: jax.Array | None


def fixed_decays(
    momentum: tuple[float, ...],
    rms: tuple[float, ...] | None = None,
    factored: tuple[float, ...] | None = None,
) -> Decays:
    """Return decays that are not learned, float32."""
    return Decays(
        jnp.asarray(momentum, jnp.float32),
        None if rms is None else jnp.asarray(rms, jnp.float32),
        None if factored is None else jnp.asarray(factored, jnp.float32),
    )


def factored_dims(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return the second largest and the largest dimension of a shape, None below rank 2.

    Of equal dimensions the later one counts as larger: the order of a stable sort, which is that of
    the original (published weights depend on it).
    """
    if len(shape) < 2:
        return None
    order = sorted(range(len(shape)), key=lambda dim: shape[dim])
    return order[-2], order[-1]


def init(tensor: jax.Array, decays: Decays) -> Moments:
    """Return averages of zero for a tensor of rank 1 or more, in the tensor's dtype."""

    def zeros(decay: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jnp.zeros((decay.shape[0], *shape), tensor.dtype)

    shape = tensor.shape
    rms = None if decays.rms is None else zeros(decays.rms, shape)
    factored = None
    if decays.factored is not None:
        dims = factored_dims(shape)
        if dims is None:
            factored = Factored(None, None, zeros(decays.factored, shape))
        else:
            rows, cols = (shape[:dim] + shape[dim + 1 :] for dim in (dims[1], dims[0]))
            factored = Factored(zeros(decays.factored, rows), zeros(decays.factored, cols), None)
    return Moments(zeros(decays.momentum, shape), rms, factored)


def init_tree(params: types.Params, decays: Decays) -> Moments:
    """Return averages of zero for a tree of parameters: a state's `Moments`, of trees."""
    leaves, treedef = jax.tree.flatten(params)
    return join(treedef, [init(tensors.as_tensor(leaf), decays) for leaf in leaves])


def join(treedef: Any, moments: Sequence[Moments]) -> Moments:
    """Return a state's `Moments`, of trees, from those of each tensor.

    Args:
      treedef: The parameters' structure.
      moments: Moments of the leaves, in order.
    """
    if not moments:
        nothing = treedef.unflatten([])
        return Moments(nothing, nothing, Factored(nothing, nothing, nothing))
    momentum, rms, row, col, full = (
        treedef.unflatten(field) for field in zip(*map(_fields, moments), strict=True)
    )
    return Moments(momentum, rms, Factored(row, col, full))


def split(treedef: Any, moments: Moments) -> list[Moments]:
    """Return the `Moments` of each tensor; the inverse of `join`."""
    by_tensor = zip(*(treedef.flatten_up_to(tree) for tree in _fields(moments)), strict=True)
    return [_of_tensor(*fields) for fields in by_tensor]


def from_older_order(state: Any, leaves: Sequence[_Leaf]) -> tuple[_Leaf, ...]:
    """Return a state's leaves in order, given in the order in which older versions had them.

    There a state had a tree of `Moments`, so that a tensor's averages were next to each other.

    Args:
      state: A pytree of the same structure, which may hold states anywhere.
      leaves: Leaves of the state of an older version, as many.
    """
    structure: Any = jax.tree.structure(state)

    def older(node: Any) -> Any:
        if not isinstance(node, Moments):
            return node
        treedef: Any = jax.tree.structure(node.momentum)
        return treedef.unflatten(split(treedef, node))

    numbered = structure.unflatten(range(structure.num_leaves))
    places = jax.tree.leaves(
        jax.tree.map(older, numbered, is_leaf=lambda node: isinstance(node, Moments))
    )
    return tuple(leaf for _, leaf in sorted(zip(places, leaves, strict=True), key=lambda x: x[0]))


def _fields(moments: Moments) -> tuple[Any, Any, Any, Any, Any]:
    factored = moments.factored or Factored(None, None, None)
    return moments.momentum, moments.rms, factored.row, factored.col, factored.full


def _of_tensor(momentum: Any, rms: Any, row: Any, col: Any, full: Any) -> Moments:
    is_factored = row is not None or full is not None
    return Moments(momentum, rms, Factored(row, col, full) if is_factored else None)


def update(moments: Moments, grad: jax.Array, decays: Decays) -> Moments:
    """Take one gradient into the averages.

    Args:
      moments: Moments from `init` or from the step before.
      grad: Gradient, [N...].
      decays: Decays that `init` was given; the decays of squares are clipped to [0, 1].

    Returns:
      The averages after this step.
    """
    square = grad * grad
    rms = factored = None
    if moments.rms is not None and decays.rms is not None:
        rms = _average(moments.rms, square, jnp.clip(decays.rms, 0.0, 1.0))
    if moments.factored is not None and decays.factored is not None:
        factored = _update_factored(moments.factored, square, jnp.clip(decays.factored, 0.0, 1.0))
    return Moments(_average(moments.momentum, grad, decays.momentum), rms, factored)


def factors(factored: Factored, shape: tuple[int, ...]) -> Factors:
    """Return what divides a tensor of `shape` by the root of its averaged square."""
    if factored.full is not None:
        return Factors(safe_rsqrt(factored.full + _FLOOR), None)
    rows = expand_row(factored, shape)
    mean = jnp.mean(rows, axis=_dims(shape)[0] + 1, keepdims=True)
    return Factors(safe_rsqrt(rows / (mean + _FLOOR)), safe_rsqrt(expand_col(factored, shape)))


def expand_row(factored: Factored, shape: tuple[int, ...]) -> jax.Array:
    """Return the rows [D, N... with 1 for the largest dimension]; all of it for rank 1."""
    if factored.row is None:
        assert factored.full is not None
        return factored.full
    return jnp.expand_dims(factored.row, _dims(shape)[1] + 1)


def expand_col(factored: Factored, shape: tuple[int, ...]) -> jax.Array:
    """Return the columns [D, N... with 1 for the second largest]; all of it for rank 1."""
    if factored.col is None:
        assert factored.full is not None
        return factored.full
    return jnp.expand_dims(factored.col, _dims(shape)[0] + 1)


def safe_rsqrt(x: jax.Array) -> jax.Array:
    """Return 1 / sqrt(max(x, 1e-9))."""
    return jax.lax.rsqrt(jnp.maximum(x, _FLOOR))


def _dims(shape: tuple[int, ...]) -> tuple[int, int]:
    dims = factored_dims(shape)
    assert dims is not None, shape
    return dims


def _average(old: jax.Array, new: jax.Array, decay: jax.Array) -> jax.Array:
    """Average [D, N...] of `new` [N...]."""
    decay = decay.astype(old.dtype).reshape(-1, *(1,) * new.ndim)
    return decay * old + (1 - decay) * new


def _update_factored(factored: Factored, square: jax.Array, decay: jax.Array) -> Factored:
    if factored.full is not None:
        return Factored(None, None, _average(factored.full, square + _TINY_SQUARE, decay))
    assert factored.row is not None and factored.col is not None
    second, largest = _dims(square.shape)
    rows, cols = (jnp.mean(square, axis=dim) + _TINY_SQUARE for dim in (largest, second))
    return Factored(_average(factored.row, rows, decay), _average(factored.col, cols, decay), None)
