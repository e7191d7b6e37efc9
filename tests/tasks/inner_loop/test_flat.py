"""Flat parameters: the layout's round trip, and the same training as with the tree."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from veldt.tasks import base, registry
from veldt.tasks.inner_loop import flat, unroll

SHAPES = st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1, max_size=6)


@given(shapes=SHAPES)
@settings(max_examples=10)
def test_ravel_and_unravel_are_inverse_and_agree_with_numpy(shapes):
    rng = np.random.default_rng(0)
    leaves = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    tree = {"a": leaves[:1], "b": tuple(leaves[1:])}
    layout = flat.Layout.of(tree)
    vec = layout.ravel(tree)
    np.testing.assert_array_equal(vec, np.concatenate([leaf.ravel() for leaf in leaves]))
    jax.tree.map(np.testing.assert_array_equal, layout.unravel(vec), tree)
    assert layout.num_params == vec.size
    for leaf, offset, size in zip(leaves, layout.offsets, layout.sizes, strict=True):
        np.testing.assert_array_equal(vec[offset : offset + size], leaf.ravel())


def test_layouts_are_values():
    tree = {"w": jnp.zeros((2, 3)), "b": jnp.zeros(3, jnp.bfloat16)}
    from_arrays = flat.Layout.of(tree)
    from_shapes = flat.Layout.of(jax.eval_shape(lambda: tree))
    assert from_arrays == from_shapes
    assert hash(from_arrays) == hash(from_shapes)
    assert from_arrays != flat.Layout.of({"w": jnp.zeros((3, 2)), "b": jnp.zeros(3, jnp.bfloat16)})
    vec = from_arrays.ravel(tree)
    assert vec.dtype == jnp.float32
    assert from_arrays.unravel(vec)["b"].dtype == jnp.bfloat16


def test_a_tree_of_another_structure_is_refused():
    layout = flat.Layout.of({"w": jnp.zeros(2)})
    with pytest.raises(ValueError, match="expected keys"):
        layout.ravel({"v": jnp.zeros(2)})


@pytest.fixture(scope="module")
def digits():
    return registry.load_task("digits_mlp")


def test_the_flat_gradient_is_one_concatenation(digits):
    task = flat.FlatTask(digits)
    key = jax.random.key(0)
    params = jax.eval_shape(task.init, key)
    batch = jax.eval_shape(task.train_batch, key)
    gradient = jax.make_jaxpr(jax.grad(lambda p, b: task.loss(p, key, b)[0]))(params, batch)
    counted = [eqn.primitive.name for eqn in gradient.eqns]
    assert counted.count("concatenate") == 1
    assert counted.count("pad") == 0


def test_a_flat_task_trains_like_the_tree(digits):
    # A trace without decay: the accumulator after training is the sum of all gradients.
    tx = optax.chain(optax.trace(decay=1.0), optax.scale(-0.1))

    @jax.jit
    def run(task, key):
        state, losses = unroll.unroll(task, tx, unroll.init(task, tx, key), num_steps=5)
        final = unroll.evaluate(task, state.params, key, "test")
        return state.params, state.opt_state[0].trace, losses, task.normalizer(final)

    flat_task = base.check_task(flat.FlatTask(digits))
    key = jax.random.key(4)
    vec, vec_grads, vec_losses, vec_final = run(flat_task, key)
    params, grads, losses, final = run(digits, key)
    ravel = flat_task.layout.ravel
    assert vec.shape == (2410,)
    assert vec.dtype == jnp.float32
    np.testing.assert_allclose(vec_losses, losses, rtol=1e-5)
    np.testing.assert_allclose(vec, ravel(params), atol=1e-5)
    np.testing.assert_allclose(vec_grads, ravel(grads), atol=1e-5)
    np.testing.assert_allclose(vec_final, final, rtol=1e-5)


def test_unravel_is_differentiable_forward_and_twice():
    layout = flat.Layout.of({"a": jnp.zeros((2, 2)), "b": jnp.zeros(3)})
    weights = jnp.arange(1.0, 8.0)

    def cubic(vec):
        return sum(jnp.sum(leaf**3) for leaf in jax.tree.leaves(layout.unravel(weights * vec)))

    at = jnp.linspace(0.5, 1.5, 7)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(cubic))(at), 3 * weights**3 * at**2, rtol=1e-5)
    np.testing.assert_allclose(
        jax.jit(jax.hessian(cubic))(at), np.diag(6 * weights**3 * at), rtol=1e-5, atol=1e-4
    )
