import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veldt.meta.baselines import grids

T = 40
COUNTS = np.arange(T)


def row(grid, **settings):
    """Return the schedule of one setting."""
    match = np.all([np.isclose(grid.settings[name], v) for name, v in settings.items()], axis=0)
    (index,) = np.flatnonzero(match)
    return grid.rates[index]


def optax_rates(schedule):
    return [float(schedule(count)) for count in COUNTS]


def test_constant_schedules_are_constant():
    grid = grids.constant([0.1, 0.3], num_steps=T)
    np.testing.assert_allclose(grid.rates, [[0.1] * T, [0.3] * T], rtol=1e-6)


@pytest.mark.parametrize("end", [0.0, 0.25])
def test_decays_are_optaxs(end):
    linear = grids.linear([0.1, 0.3], [0.0, 0.25], num_steps=T)
    cosine = grids.cosine([0.1, 0.3], [0.0, 0.25], num_steps=T)
    assert linear.rates.shape == cosine.rates.shape == (4, T)
    expected = optax_rates(optax.linear_schedule(0.3, 0.3 * end, T))
    np.testing.assert_allclose(row(linear, peak=0.3, end=end), expected, rtol=1e-5)
    expected = optax_rates(optax.cosine_decay_schedule(0.3, T, alpha=end))
    np.testing.assert_allclose(row(cosine, peak=0.3, end=end), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.5])
def test_power_decays_are_optaxs(exponent):
    grid = grids.power([0.1, 0.3], [0.5, 1.0, 2.5], num_steps=T)
    expected = optax_rates(optax.polynomial_schedule(0.3, 0.0, exponent, T))
    np.testing.assert_allclose(row(grid, peak=0.3, exponent=exponent), expected, rtol=1e-5)


@pytest.mark.parametrize("exponent", [1.0, 1.2])
def test_a_cooldown_is_flat_and_then_optaxs_power(exponent):
    grid = grids.cooldown([0.1, 0.4], [0.0, 0.5], num_steps=T, exponent=exponent)
    expected = optax.polynomial_schedule(0.4, 0.0, exponent, T // 2, transition_begin=T // 2)
    np.testing.assert_allclose(row(grid, peak=0.4, start=0.5), optax_rates(expected), rtol=1e-5)
    assert np.all(np.diff(row(grid, peak=0.1, start=0.0)) < 0)


def test_one_cycle_is_two_of_optaxs_lines():
    grid = grids.one_cycle([0.1, 0.4], [0.0, 0.5], [0.1], [0.25, 0.5], num_steps=T)
    assert grid.rates.shape == (8, T)
    expected = optax.join_schedules(
        [optax.linear_schedule(0.2, 0.4, 10), optax.linear_schedule(0.4, 0.04, 30)], [10]
    )
    found = row(grid, peak=0.4, start=0.5, peak_time=0.25)
    np.testing.assert_allclose(found, optax_rates(expected), rtol=1e-5)


def test_the_thousand_are_a_thousand_different_schedules_with_their_peaks():
    grid = grids.one_cycle_thousand(1e-3, 1.0, num_steps=200)
    assert grid.rates.shape == (1000, 200)
    assert len(np.unique(np.asarray(grid.rates), axis=0)) == 1000
    assert np.all(grid.rates >= 0)
    np.testing.assert_allclose(jnp.max(grid.rates, axis=1), grid.settings["peak"], rtol=1e-5)
    assert {len(np.unique(each)) for each in grid.settings.values()} == {10, 5, 4}


@given(
    peak=st.floats(0.01, 1.0), start=st.floats(0, 1), end=st.floats(0, 1), when=st.floats(0.05, 0.9)
)
def test_a_cycle_rises_to_its_peak_and_falls_after_it(peak, start, end, when):
    rates = np.asarray(grids.one_cycle([peak], [start], [end], [when], num_steps=T).rates[0])
    rising = when >= COUNTS / T
    assert np.all(np.diff(rates[rising]) >= -1e-6)
    assert np.all(np.diff(rates[~rising]) <= 1e-6)
    assert np.all(rates <= peak * (1 + 1e-5))
    assert rates[0] == pytest.approx(peak * start, rel=1e-4, abs=1e-7)


def test_a_grid_is_trained_at_once_and_its_best_found():
    """Of gradient descent on x^2 / 2, of which each step leaves a factor 1 - rate."""
    grid = grids.one_cycle_thousand(1e-3, 1.5, num_steps=20)

    def train(rates):
        tx = optax.sgd(grids.as_schedule(rates))
        carry = (jnp.asarray(1.0), tx.init(jnp.asarray(1.0)))

        def body(carry, _):
            x, state = carry
            update, state = tx.update(x, state)
            return (x + update, state), None

        (x, _), _ = jax.lax.scan(body, carry, None, length=20)
        return x

    left = jax.jit(jax.vmap(train))(grid.rates)
    expected = np.prod(1 - np.asarray(grid.rates), axis=1)
    np.testing.assert_allclose(left, expected, rtol=1e-3, atol=1e-7)
    assert grid.best(left**2) == np.argmin(left**2)


def test_a_schedule_stays_at_its_last_rate():
    schedule = grids.as_schedule(jnp.asarray([0.3, 0.2]))
    assert [float(schedule(count)) for count in (0, 1, 5)] == pytest.approx([0.3, 0.2, 0.2])


def test_losses_that_are_not_finite_are_never_best():
    grid = grids.constant([0.1, 0.2, 0.3], num_steps=2)
    assert grid.best(jnp.asarray([jnp.nan, -jnp.inf, 2.0])) == 2
    with pytest.raises(ValueError, match="none of the 3 losses"):
        grid.best(jnp.full(3, jnp.nan))


def test_rates_go_through_their_knots_and_are_geometric_between():
    knots = jnp.log(jnp.asarray([0.01, 0.1, 0.001]))
    found = grids.from_knots(knots, 9)
    np.testing.assert_allclose(found[jnp.asarray([0, 4, 8])], jnp.exp(knots), rtol=1e-5)
    np.testing.assert_allclose(found[2], np.sqrt(0.01 * 0.1), rtol=1e-5)
    np.testing.assert_allclose(found[1:5] / found[:4], 10**0.25, rtol=1e-4)
    np.testing.assert_allclose(grids.from_knots(knots[:1], 5), 0.01, rtol=1e-5)
