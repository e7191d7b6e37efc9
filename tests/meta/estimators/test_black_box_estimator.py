import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evosax import algorithms

from tests.meta import inner_problems
from veldt.meta.estimators import black_box_estimator, full_es
from veldt.meta.problems import meta_loss

SYSTEM = inner_problems.descent(h=0.5, length=8)
START = jnp.asarray(0.5)


def make(name, objective=None, **settings):
    algorithm = getattr(algorithms, name)(population_size=12, solution=START)
    params = algorithm.default_params
    params = params.replace(**settings) if settings else params
    return black_box_estimator.Evolution(
        algorithm, params, SYSTEM, 2, 3, objective or meta_loss.MeanLoss()
    )


def closed_form(rate):
    """Mean loss of the first 8 steps; x^2 starts at h = 0.5."""
    return np.mean(0.25 * (1 - 0.5 * rate) ** (2 * np.arange(8)))


def test_a_candidate_is_worth_the_mean_loss_of_whole_runs_though_windows_go_beyond():
    rates = jnp.linspace(0.1, 3.0, 5)
    losses = make("SNES").evaluate(rates, jax.random.key(0))
    np.testing.assert_allclose(losses, [closed_form(float(r)) for r in rates], rtol=1e-5)


@pytest.mark.parametrize("objective", [meta_loss.FinalLoss(), meta_loss.TelescopedLoss()])
def test_the_final_loss_is_that_after_the_last_step_and_the_telescoped_what_it_fell_by(objective):
    rates = jnp.linspace(0.1, 3.0, 5)
    losses = make("SNES", objective).evaluate(rates, jax.random.key(0))
    final = 0.25 * (1 - 0.5 * np.asarray(rates)) ** 16
    start = 0.25 if isinstance(objective, meta_loss.TelescopedLoss) else 0.0
    np.testing.assert_allclose(losses, final - start, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["CMA_ES", "SNES"])
def test_evolution_finds_the_rate_that_ends_descent_in_a_step(name):
    search = make(name, std_init=0.3)
    state = search.init(START, jax.random.key(0))
    for key in jax.random.split(jax.random.key(1), 20):
        state, metrics = search.step(state, key)
    assert search.mean(state) == pytest.approx(2.0, abs=0.1)
    assert metrics.num_nonfinite == 0


def test_a_candidate_that_diverged_counts_as_the_worst_finite_one():
    search = make("SNES", std_init=0.3)
    state = search.init(START, jax.random.key(0))
    candidates, state = search.ask(state, jax.random.key(1))
    losses = jnp.arange(12.0)
    spoilt = losses.at[11].set(jnp.nan).at[3].set(jnp.inf)
    told = search.tell(state, candidates, spoilt, jax.random.key(2))
    expected = search.tell(
        state, candidates, losses.at[11].set(10.0).at[3].set(10.0), jax.random.key(2)
    )
    for a, b in zip(jax.tree.leaves(told), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.all(np.isfinite(a))


def test_a_generation_that_diverged_teaches_nothing():
    search = make("CMA_ES", std_init=0.3)
    state = search.init(START, jax.random.key(0))
    candidates, state = search.ask(state, jax.random.key(1))
    told = search.tell(state, candidates, jnp.full(12, jnp.nan), jax.random.key(2))
    for a, b in zip(jax.tree.leaves(told), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_full_es_takes_runs_to_their_ends_whatever_the_window():
    estimates = [
        inner_problems.estimate(full_es.FullES(SYSTEM, 4, k), START, (), jax.random.key(0))[0]
        for k in (3, 8)
    ]
    assert estimates[0] == pytest.approx(float(estimates[1]), rel=1e-3)
