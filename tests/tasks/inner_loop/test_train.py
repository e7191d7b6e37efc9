"""`veldt.train`: the curve, and its independence of how often it is validated."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from veldt.tasks import registry
from veldt.tasks.common import errors
from veldt.tasks.inner_loop import train, unroll
from veldt.tasks.shipped import quadratic

TX = optax.sgd(0.3)


@pytest.fixture(scope="module")
def bowl():
    return quadratic.quadratic()


def test_the_curve_is_that_of_the_inner_loop(bowl):
    curve = train.train(bowl, TX, 25, seed=7)
    key = jax.random.key(7)

    @jax.jit
    def run(task):
        return unroll.unroll(task, TX, unroll.init(task, TX, key), num_steps=25)

    state, losses = run(bowl)
    np.testing.assert_allclose(curve.train_losses, losses, rtol=1e-5)
    np.testing.assert_allclose(curve.params, state.params, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(curve.steps, [0, 25])
    # The height above the minimum, by NumPy.
    offset = np.asarray(curve.params - bowl.minimum)
    np.testing.assert_allclose(
        curve.final_valid_loss, 0.5 * offset @ np.asarray(bowl.hessian) @ offset, rtol=1e-4
    )
    assert curve.final_valid_loss < curve.valid_losses[0]


def test_validating_more_often_changes_nothing_else(bowl):
    rare = train.train(bowl, TX, 25)
    often = train.train(bowl, TX, 25, eval_every=10)
    np.testing.assert_array_equal(often.steps, [0, 10, 20, 25])
    assert often.valid_losses.shape == (4,)
    np.testing.assert_array_equal(often.train_losses, rare.train_losses)
    np.testing.assert_array_equal(often.params, rare.params)
    np.testing.assert_array_equal(often.valid_losses[[0, -1]], rare.valid_losses)


def test_seeds_differ_and_do_not_compile_again(bowl):
    first = train.train(bowl, TX, 25, seed=0)
    num_compiled = train._advance._cache_size()
    second = train.train(bowl, TX, 25, seed=1)
    assert train._advance._cache_size() == num_compiled
    assert first.final_valid_loss != second.final_valid_loss


def test_divergence_is_in_the_curve_and_raises_nothing(bowl):
    cliff = jax.tree.map(lambda array: 1e6 * array, bowl)
    curve = train.train(cliff, TX, 25)
    assert np.isnan(curve.final_valid_loss)
    assert bowl.normalizer(jnp.asarray(curve.final_valid_loss)) == 1.5


def test_wrong_arguments_are_named(bowl):
    with pytest.raises(ValueError, match="num_steps=0"):
        train.train(bowl, TX, 0)
    with pytest.raises(ValueError, match="eval_every=-1"):
        train.train(bowl, TX, 5, eval_every=-1)
    with pytest.raises(errors.TaskError, match="must be an Optax transform, not a float"):
        train.train(bowl, 0.1)
    with pytest.raises(errors.TaskError, match=r"no veldt\.Task"):
        train.train("digits_mlp", TX)


def test_a_curve_says_where_its_end_is_hollow(bowl):
    assert train.train(bowl, TX, 25).hollow == ""
    task = registry.load_task("digits_mlp")
    push = optax.GradientTransformation(
        lambda params: (), lambda g, s, p=None: (jax.tree.map(lambda x: 0 * x + 1e9, g), s)
    )
    curve = train.train(task, push, 3)
    assert curve.final_valid_loss == 0.0 and "float32" in curve.hollow
