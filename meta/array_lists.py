"""Pytrees of arrays as plain lists of NumPy arrays, for other processes and for files.

JAX's random keys become the unsigned numbers that they are made of, and keys again.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Leaves: TypeAlias = tuple[np.ndarray, ...]
"""The leaves of a pytree in JAX's order; keys as their data, uint32 [..., 2]."""


def leaves(tree: Any) -> Leaves:
    """Return a pytree's leaves; waits until they are computed."""
    return tuple(np.asarray(_data(leaf)) for leaf in jax.tree.leaves(tree))


def rebuild(shapes: Any, plain: Sequence[np.ndarray]) -> Any:
    """Return the pytree that `leaves` was given.

    Args:
      shapes: A pytree with the structure of the result, of arrays or `jax.ShapeDtypeStruct`s.
      plain: Arrays from `leaves`.

    Raises:
      ValueError: The arrays are of another tree.
    """
    likes, treedef = jax.tree.flatten(shapes)
    if len(likes) != len(plain):
        raise ValueError(f"{len(plain)} arrays were given for a tree of {len(likes)}")
    return jax.tree.unflatten(treedef, [_like(*pair) for pair in zip(likes, plain, strict=True)])


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _like(like: Any, plain: np.ndarray) -> Any:
    if _is_key(like):
        array: Any = jax.random.wrap_key_data(jnp.asarray(plain))
    else:
        array = np.asarray(plain, jnp.result_type(like))
    if array.shape != jnp.shape(like):
        raise ValueError(f"an array of shape {list(array.shape)} stands for {like}")
    return array
