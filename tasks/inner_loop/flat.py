"""A task's parameters as one flat vector: `Layout`, and the wrapper `FlatTask`.

An interpreter that walks an update rule pays for every array it touches, so it wants one vector [D]
instead of a tree of small leaves. `Layout` is the static map between the two.

The gradient with respect to the vector should be one concatenation of the leaves' gradients.
Slicing `vec[a:b]` would not give that: the transpose of a slice is a pad with zeros to [D], and of
L slices L pads and L - 1 additions, O(L D) work per step. `jax.lax.split` cuts all leaves at once
and its transpose is `concatenate`. (A `custom_vjp` would do for reverse mode, but forbid forward.)
"""

import dataclasses
import functools
import itertools
import math
from typing import Any, final

import jax
import jax.numpy as jnp

from veldt.tasks import base, wrapper
from veldt.tasks.common import types


@final
@dataclasses.dataclass(frozen=True)
class Layout:
    """The place of each leaf of a parameter tree in the flat vector; hashable, static under jit.

    Attributes:
      treedef: Structure of the tree.
      shapes: Shapes of the leaves, in the tree's order.
      dtypes: Dtypes of the leaves.
    """

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[jnp.dtype, ...]

    @classmethod
    def of(cls, params: types.Params) -> "Layout":
        """Return the layout of a tree of arrays or of shapes (`jax.eval_shape`'s)."""
        leaves, treedef = jax.tree.flatten(params)
        return cls(
            treedef=treedef,
            shapes=tuple(tuple(leaf.shape) for leaf in leaves),
            dtypes=tuple(jnp.dtype(leaf.dtype) for leaf in leaves),
        )

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of entries of each leaf."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @functools.cached_property
    def offsets(self) -> tuple[int, ...]:
        """Position in the vector at which each leaf begins."""
        return tuple(itertools.accumulate(self.sizes, initial=0))[:-1]

    @property
    def num_params(self) -> int:
        """Length D of the vector."""
        return sum(self.sizes)

    @property
    def dtype(self) -> jnp.dtype:
        """The vector's dtype: float32, or float64 if a leaf is."""
        return jnp.result_type(jnp.float32, *self.dtypes)

    def ravel(self, tree: types.Params) -> jax.Array:
        """Concatenate the leaves of a tree of this layout into a vector [D]."""
        leaves = self.treedef.flatten_up_to(tree)
        return jnp.concatenate([jnp.ravel(leaf).astype(self.dtype) for leaf in leaves])

    def unravel(self, vec: jax.Array) -> types.Params:
        """Cut a vector [D] into the tree; the inverse of `ravel`."""
        pieces = jax.lax.split(vec, self.sizes)
        leaves = [
            piece.reshape(shape).astype(dtype)
            for piece, shape, dtype in zip(pieces, self.shapes, self.dtypes, strict=True)
        ]
        return jax.tree.unflatten(self.treedef, leaves)


@final
class FlatTask(wrapper.TaskWrapper):
    """The same task with its parameters as one float32 vector [D].

    Attributes:
      task: Wrapped task.
      layout: Places of the parameters in the vector.
    """

    def __init__(self, task: base.Task) -> None:
        self.task = task
        self.layout = Layout.of(jax.eval_shape(task.init, jax.random.key(0)))
        self.name = task.name

    def init(self, key: types.Key) -> types.Params:
        """Return the initial parameters as a vector [D]. The key is consumed."""
        return self.layout.ravel(self.task.init(key))

    def loss(
        self, params: types.Params, key: types.Key, batch: types.Batch
    ) -> tuple[types.Scalar, types.Aux]:
        """Return the task's loss at the vector `params` [D]."""
        return self.task.loss(self.layout.unravel(params), key, batch)
