"""From pytrees to tensors and back: what every rule does before and after its own work.

A scalar parameter counts as a tensor of shape [1]. Tensors are computed with in float32, or float64
where they are float64; an update has the dtype and shape of the gradient that it answers.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, final

import jax
import jax.numpy as jnp

from veldt.learned_opt import errors
from veldt.tasks.common import types

SMALL = 1 << 13
"""Parameters of a tensor below which compiling costs more than running."""

_LARGE = 1 << 18  # numbers of an item: to stack such costs as much as a good part of a step
_MOST_APART = 4  # large items alike that are compiled one by one
_LARGEST_GRADIENT = 1000.0
_Out = TypeVar("_Out")


def as_tensor(leaf: Any) -> jax.Array:
    """Return an array of rank 1 or more, of float32 or wider."""
    array = jnp.atleast_1d(jnp.asarray(leaf))
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


@final
@dataclasses.dataclass(frozen=True)
class Flat:
    """Gradients and parameters as tensors, and the way back to trees.

    Attributes:
      grads: The gradients.
      params: The parameters.
      leaves: The gradients as they came.
      treedef: Structure of the gradients.
    """

    grads: list[jax.Array]
    params: list[jax.Array]
    leaves: list[jax.Array]
    treedef: Any

    def split(self, tree: Any) -> list[Any]:
        """Return a list of what the tree, shaped as the gradients or deeper, has for each leaf."""
        return self.treedef.flatten_up_to(tree)

    def join(self, items: Sequence[Any]) -> Any:
        """Return a tree of one item for each leaf."""
        return self.treedef.unflatten(items)

    def restore(self, steps: Sequence[jax.Array]) -> types.Grads:
        """Return a tree of steps that have the shape and dtype of the gradients."""
        pairs = zip(steps, self.leaves, strict=True)
        return self.join([s.reshape(jnp.shape(g)).astype(jnp.result_type(g)) for s, g in pairs])


def flatten(updates: types.Grads, params: types.Params | None, rule: str) -> Flat:
    """Return gradients and parameters as tensors.

    Args:
      updates: The gradients.
      params: The parameters, shaped as `updates`.
      rule: The rule's name, for the message.

    Raises:
      MissingInputError: `params` is None.
    """
    if params is None:
        raise errors.MissingInputError.params(rule)
    grads, treedef = jax.tree.flatten(updates)
    structure: Any = treedef
    flat_params = [as_tensor(p) for p in structure.flatten_up_to(params)]
    return Flat([as_tensor(g) for g in grads], flat_params, grads, treedef)


def clip(grad: jax.Array, bound: jax.Array | float = _LARGEST_GRADIENT) -> jax.Array:
    """Clip a gradient to +-bound; a NaN counts as 0.

    The originals clip too, but a NaN goes through their clip and stays in every average.
    """
    return jnp.where(jnp.isnan(grad), 0.0, jnp.clip(grad, -bound, bound))


def map_alike(function: Callable[[Any], _Out], items: Sequence[Any]) -> list[_Out]:
    """Map over pytrees of arrays, those of the same shapes together, by `jax.vmap`.

    Compiling costs about as much for a tensor of ten numbers as for one of a million. So a model's
    many layers of one shape are stacked and compiled once. A few large ones are not: there copying
    them costs more.

    Args:
      function: Function from one item to a pytree of arrays.
      items: Pytrees.

    Returns:
      The results, in the order of the items.
    """
    groups: dict[Any, list[int]] = {}
    for i, item in enumerate(items):
        flat, treedef = jax.tree.flatten(item)
        signature = (treedef, tuple((x.shape, x.dtype) for x in flat))
        groups.setdefault(signature, []).append(i)
    results: dict[int, _Out] = {}
    for members in groups.values():
        large = sum(x.size for x in jax.tree.leaves(items[members[0]])) >= _LARGE
        if len(members) <= (_MOST_APART if large else 1):
            results |= {i: function(items[i]) for i in members}
            continue
        stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *(items[i] for i in members))
        out = jax.vmap(function)(stacked)
        for row, i in enumerate(members):
            results[i] = jax.tree.map(lambda x, row=row: x[row], out)
    return [results[i] for i in range(len(items))]
