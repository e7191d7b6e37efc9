import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evosax import algorithms

from veldt.meta.baselines import black_box, grids

TARGET = jnp.asarray([-3.0, -1.0, -4.0])
START = jnp.full(3, -2.5)
METHODS = (black_box.RandomSearch(10), black_box.CmaEs(10))


def bowl(knots):
    return jnp.sum(jnp.asarray([1.0, 5.0, 0.2]) * (knots - TARGET) ** 2)


@functools.partial(jax.jit, static_argnames=("loss", "num_generations"))
def run(method, loss, knots, num_generations):
    def generation(state, key):
        key_ask, key_tell = jax.random.split(key)
        candidates, state = method.ask(state, key_ask)
        losses = jax.vmap(loss)(candidates)
        return method.tell(state, candidates, losses, key_tell), (candidates, losses)

    keys = jax.random.split(jax.random.key(1), num_generations)
    return jax.lax.scan(generation, method.init(knots, jax.random.key(0)), keys)


def search(method, loss, knots=START, num_generations=40):
    """Return the last state, all candidates [G, N, K] and their losses [G, N]."""
    state, (candidates, losses) = run(method, loss, knots, num_generations)
    return state, np.asarray(candidates), np.asarray(losses)


def test_random_search_draws_uniformly_around_the_start_whatever_it_was_told():
    _, candidates, _ = search(black_box.RandomSearch(50, half_width=2.0), bowl)
    drawn = candidates.reshape(-1, 3)
    assert len(np.unique(drawn[:, 0])) > 1990
    offset = (drawn - np.asarray(START)) / 2.0
    assert np.all(np.abs(offset) <= 1)
    np.testing.assert_allclose(offset.mean(axis=0), 0.0, atol=0.06)
    np.testing.assert_allclose(offset.std(axis=0), 3**-0.5, atol=0.03)


@pytest.mark.parametrize("method", METHODS)
def test_the_best_of_all_that_was_asked_is_kept(method):
    state, candidates, losses = search(method, bowl)
    best = np.unravel_index(np.argmin(losses), losses.shape)
    np.testing.assert_array_equal(state.best, candidates[best])
    assert float(state.best_loss) == losses.min()


def test_cma_es_finds_the_bottom_and_random_search_does_not():
    random, cma_es = METHODS
    state, _, _ = search(cma_es, bowl)
    np.testing.assert_allclose(cma_es.mean(state), TARGET, atol=0.02)
    assert state.best_loss < 0.01 * search(random, bowl)[0].best_loss


def test_cma_es_is_evosaxs():
    """The same keys give the same candidates as evosax by hand."""
    _, asked, _ = search(dataclasses.replace(METHODS[1], init_std=0.5), bowl)
    algorithm = algorithms.CMA_ES(10, START)
    params = algorithm.default_params.replace(std_init=0.5)
    state = algorithm.init(jax.random.key(0), START, params)
    for index, key in enumerate(jax.random.split(jax.random.key(1), 40)[:3]):
        key_ask, key_tell = jax.random.split(key)
        candidates, state = algorithm.ask(key_ask, state, params)
        state, _ = algorithm.tell(key_tell, candidates, jax.vmap(bowl)(candidates), state, params)
        np.testing.assert_allclose(asked[index], candidates, rtol=1e-4, atol=1e-5)


def test_meta_parameters_may_be_any_pytree():
    """The numbers of a tree are those of its flat vector, and random draws have its shape."""
    tree = {"a": START[:1], "b": START[1:].reshape(2, 1)}

    def ravel(tree):
        return jnp.concatenate([tree["a"], tree["b"][:, 0]])

    _, candidates, _ = search(METHODS[1], bowl)
    found, (asked, _) = run(METHODS[1], lambda tree: bowl(ravel(tree)), tree, 40)
    np.testing.assert_allclose(asked["b"][:3, ..., 0], candidates[:3, :, 1:], rtol=1e-4)
    np.testing.assert_allclose(ravel(found.best), TARGET, atol=0.1)
    drawn, _ = METHODS[0].ask(METHODS[0].init(tree, jax.random.key(0)), jax.random.key(1))
    assert jax.tree.map(jnp.shape, drawn) == {"a": (10, 1), "b": (10, 2, 1)}


def test_a_candidate_that_diverged_counts_as_the_worst_finite_one():
    method = METHODS[1]
    candidates, state = method.ask(method.init(START, jax.random.key(0)), jax.random.key(1))
    losses = jnp.arange(10.0)
    spoilt = losses.at[9].set(jnp.nan).at[3].set(jnp.inf)
    told = method.tell(state, candidates, spoilt, jax.random.key(2))
    worst = losses.at[9].set(8.0).at[3].set(8.0)
    expected = method.tell(state, candidates, worst, jax.random.key(2))
    for one, other in zip(jax.tree.leaves(told), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def cliff(knots):
    return jnp.where(knots[0] > -2.5, jnp.nan, jnp.where(knots[1] > -2.0, -jnp.inf, bowl(knots)))


@pytest.mark.parametrize("method", METHODS)
def test_what_diverges_is_never_the_best(method):
    state, candidates, losses = search(method, cliff)
    assert np.isnan(losses).any() and np.isinf(losses).any()
    assert float(state.best_loss) == losses[np.isfinite(losses)].min()
    assert np.all(np.isfinite(candidates))


def test_a_generation_that_diverged_teaches_cma_es_nothing():
    method = METHODS[1]
    state = method.init(START, jax.random.key(0))
    candidates, state = method.ask(state, jax.random.key(1))
    told = method.tell(state, candidates, jnp.full(10, jnp.nan), jax.random.key(2))
    for one, other in zip(jax.tree.leaves(told), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_knots_of_a_learning_rate_are_found_by_training():
    """Gradient descent on x^2 / 2, of which 8 steps at rate 1 leave nothing."""

    def train(knots):
        return jnp.prod(1 - grids.from_knots(knots, 8)) ** 2

    state, _, _ = search(black_box.CmaEs(10, init_std=0.5), train, jnp.log(jnp.full(3, 0.05)))
    assert train(jnp.log(jnp.full(3, 0.05))) > 0.4
    assert state.best_loss < 1e-4
