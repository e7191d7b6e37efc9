"""Classes whose instances are pytrees: their arrays are leaves, all else is static.

`tasks.base` explains why tasks are. The difference from `flax.struct.dataclass` is that no field
needs a mark: an attribute is a leaf if it is an array (or holds some), so a plain class will do.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np


class ArrayTree:
    """A class whose instances are pytrees: array attributes are leaves, the rest is static.

    Subclasses are registered when they are defined; static attributes must be hashable.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        jax.tree_util.register_pytree_node(cls, _flatten, lambda *parts: _rebuild(cls, *parts))


_STRUCTURE = "_array_structure"
"""Attribute of an object rebuilt from leaves for its structure: JAX also rebuilds with placeholders
(axes for vmap, None), whose type no longer distinguishes an array from the rest."""


def _flatten(tree: ArrayTree) -> tuple[list[Any], Any]:
    """Split an object's attributes into array leaves and hashable static structure."""
    attributes = dict(vars(tree))
    if _STRUCTURE in attributes:
        treedef, is_array = attributes.pop(_STRUCTURE)
        leaves = treedef.flatten_up_to(attributes)
    else:
        leaves, treedef = jax.tree.flatten(attributes)
        is_array = tuple(isinstance(leaf, _ARRAY_TYPES) for leaf in leaves)
    arrays = [leaf for leaf, dynamic in zip(leaves, is_array, strict=True) if dynamic]
    static = tuple(leaf for leaf, dynamic in zip(leaves, is_array, strict=True) if not dynamic)
    return arrays, (treedef, is_array, static)


_ARRAY_TYPES = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)


def _rebuild(cls: type[ArrayTree], structure: Any, arrays: Sequence[Any]) -> ArrayTree:
    """Rebuild an object from `_flatten`'s parts; as JAX requires, `__init__` is not run."""
    treedef, is_array, static = structure
    arrays_left, static_left = iter(arrays), iter(static)
    leaves = [next(arrays_left if dynamic else static_left) for dynamic in is_array]
    tree = object.__new__(cls)
    # Straight into the dictionary: a frozen dataclass refuses attribute assignment.
    vars(tree).update(jax.tree.unflatten(treedef, leaves))
    vars(tree)[_STRUCTURE] = (treedef, is_array)
    return tree
