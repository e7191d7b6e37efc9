"""Hashes of a state's bits, on the device, by which a replay is held to the first run.

Each leaf has a hash of 32 bits: every word of it is mixed with its position by a bijection (the
finalizer of MurmurHash3), and the results are added. So a change of any one word always changes
the hash, other changes go unseen once in four thousand million, and the order of the sum, which a
GPU may choose anew each time, does not matter. Equal bits are asked for, not equal values: -0.0 is
not 0.0, and a NaN is itself.
"""

from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from veldt.meta import errors
from veldt.tasks.common import types

_GOLDEN: Final = np.uint32(0x9E3779B9)  # 2^32 over the golden ratio: positions well apart
_OFFSET: Final = np.uint32(0x7F4A7C15)


def hash_leaves(tree: Any) -> jax.Array:
    """Return a hash of each leaf, uint32 [number of leaves]; jittable.

    Args:
      tree: Arrays of any dtype: floats down to 8 bits, integers, booleans, complex numbers, keys.
    """
    leaves = jax.tree.leaves(tree)
    if not leaves:
        return jnp.zeros((0,), jnp.uint32)
    return jnp.stack([hash_leaf(leaf) for leaf in leaves])


def hash_leaf(leaf: jax.Array) -> types.Scalar:
    """Return a hash of an array's bits, uint32 []."""
    words = _words(leaf)
    positions = jax.lax.iota(jnp.uint32, words.size) * _GOLDEN + _OFFSET
    return jnp.sum(_mix(words ^ positions), dtype=jnp.uint32)


def check(step: int, expected: np.ndarray, found: np.ndarray, paths: tuple[str, ...]) -> None:
    """Compare the hashes of one state.

    Args:
      step: Number of the state.
      expected: Hashes of the first run, uint32 [number of leaves].
      found: Hashes of what was loaded or run again.
      paths: Paths of the leaves.

    Raises:
      ReplayError: They differ; names the step, the leaves and what to do.
    """
    differ = np.flatnonzero(expected != found)
    if not differ.size:
        return
    more = f" and {differ.size - 3} more" if differ.size > 3 else ""
    raise errors.ReplayError(
        f"state {step} is not what it was in the first run: "
        f"{', '.join(paths[i] for i in differ[:3])}{more} of {len(paths)} arrays changed. Either "
        "the step is not deterministic (it must be a function of meta-parameters, state and index "
        "alone; on a GPU set XLA_FLAGS=--xla_gpu_deterministic_ops=true), or a stored state was "
        "damaged (a bad disk or bad memory). A gradient from here would be wrong without a sign."
    )


def _words(leaf: jax.Array) -> jax.Array:
    """Return an array's bits as uint32 [N]."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        leaf = jnp.stack([leaf.real, leaf.imag])
    if leaf.dtype == jnp.bool_ or leaf.dtype in (jnp.int4, jnp.uint4):
        words = leaf.astype(jnp.uint8)
    else:
        # Of 64 bits it makes two words, along a new last axis.
        unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(leaf.dtype.itemsize, jnp.uint32)
        words = jax.lax.bitcast_convert_type(leaf, unsigned)
    return jnp.ravel(words).astype(jnp.uint32)


def _mix(words: jax.Array) -> jax.Array:
    """Return a bijection of uint32 in which every bit depends on every other."""
    words = (words ^ (words >> 16)) * np.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * np.uint32(0xC2B2AE35)
    return words ^ (words >> 16)
