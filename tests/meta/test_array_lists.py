"""Pytrees to plain arrays and back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.meta import toys
from veldt.meta import array_lists


def tree():
    """Of what estimators' states are made: keys, counts, floats, nothing."""
    params = {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.zeros((0,))}
    return {
        "key": jax.random.key(3),
        "keys": jax.random.split(jax.random.key(4), 5),
        "state": optax.adam(0.1).init(params),
        "flags": (jnp.array([True, False]), None, jnp.int32(7)),
        "half": jnp.float16(0.1),
    }


def test_what_is_rebuilt_is_what_was_taken_apart():
    before = tree()
    after = array_lists.rebuild(jax.eval_shape(tree), array_lists.leaves(before))
    assert jax.tree.structure(after) == jax.tree.structure(before)
    for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
    assert toys.same(array_lists.leaves(before), array_lists.leaves(after))
    draws = [jax.random.normal(each["keys"][2], (4,)) for each in (before, after)]
    assert np.array_equal(*draws)


def test_leaves_are_numpy_arrays_without_keys():
    leaves = array_lists.leaves(tree())
    assert all(type(leaf) is np.ndarray for leaf in leaves)
    assert {leaf.dtype.kind for leaf in leaves} <= set("fiub")
    assert [leaf.shape for leaf in leaves if leaf.dtype == np.uint32] == [(2,), (5, 2)]


def test_arrays_of_another_tree_are_refused():
    with pytest.raises(ValueError, match="1 arrays were given for a tree of 2"):
        array_lists.rebuild((0.0, 1.0), [np.zeros(())])
    with pytest.raises(ValueError, match=r"shape \[3\]"):
        array_lists.rebuild([jax.ShapeDtypeStruct((2,), jnp.float32)], [np.zeros(3, np.float32)])
