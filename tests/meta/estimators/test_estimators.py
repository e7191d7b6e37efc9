"""What estimates are on average, on systems whose meta-gradient is known in closed form."""

import jax
import numpy as np
import pytest

from tests.meta import inner_problems
from veldt.meta.estimators import antithetic, full_es, truncated_backprop, truncated_es

LENGTH, WINDOW, NUM_REPLICATES, NUM_PARTICLES = 150, 15, 32, 32
# What each system is tried at. Influence balancing is quadratic, so that smoothing leaves its
# gradient as it is; descent is nearly so over 0.01.
THETA = {"descent": 1.0, "influence_balancing": 0.5}
SIGMA = {"descent": 0.01, "influence_balancing": 0.1}
SYSTEMS = {
    "descent": inner_problems.descent(length=LENGTH),
    "influence_balancing": inner_problems.influence_balancing(length=LENGTH),
}
EACH_SYSTEM = pytest.mark.parametrize("name", SYSTEMS)


def estimates_of(cls, name):
    """Return the average over one run of R replicates, [R]: all particles begin together."""
    options = (
        {}
        if cls is truncated_backprop.TruncatedBackprop
        else {"noise": antithetic.Antithetic(sigma=SIGMA[name])}
    )
    if cls is not full_es.FullES:
        options["unlocked"] = False
    estimator = cls(SYSTEMS[name], NUM_PARTICLES, WINDOW, **options)
    num_windows = 1 if cls is full_es.FullES else LENGTH // WINDOW
    keys = jax.random.split(jax.random.key(1), NUM_REPLICATES)
    estimates = inner_problems.replicates(estimator, np.float32(THETA[name]), keys, num_windows)
    return np.asarray(estimates, np.float64).mean(axis=1)


def standard_error(values):
    return values.std(ddof=1) / np.sqrt(values.size)


def test_the_oracle_agrees_with_the_closed_form_of_descent():
    h, theta, t = 0.02, 1.0, np.arange(LENGTH)
    slopes = -(h**2) * t * (1 - theta * h) ** (2 * t - 1)
    assert SYSTEMS["descent"].true_gradient(theta) == pytest.approx(slopes.mean(), rel=1e-6)
    slopes = -(h**2) * (t % WINDOW) * (1 - theta * h) ** (2 * t - 1)
    truncated = SYSTEMS["descent"].true_gradient(theta, WINDOW)
    assert truncated == pytest.approx(slopes.mean(), rel=1e-6)


def test_truncation_gives_influence_balancing_the_wrong_sign():
    system = SYSTEMS["influence_balancing"]
    assert system.true_gradient(0.5) > 1.0
    assert system.true_gradient(0.5, WINDOW) < -1.0


@EACH_SYSTEM
@pytest.mark.parametrize("cls", [full_es.FullES, truncated_es.PES, truncated_es.NRES])
def test_whole_run_estimators_are_unbiased(cls, name):
    estimates, truth = estimates_of(cls, name), SYSTEMS[name].true_gradient(THETA[name])
    error = standard_error(estimates)
    assert abs(estimates.mean() - truth) < 4 * error
    # The estimate says something: the truth is not nothing, nor what truncation makes of it.
    truncated = SYSTEMS[name].true_gradient(THETA[name], WINDOW)
    assert min(abs(truth), abs(truth - truncated)) > 8 * error


@EACH_SYSTEM
def test_truncated_es_converges_to_the_truncated_gradient(name):
    estimates = estimates_of(truncated_es.TruncatedES, name)
    error = standard_error(estimates)
    truncated = SYSTEMS[name].true_gradient(THETA[name], WINDOW)
    assert abs(estimates.mean() - truncated) < 4 * error
    assert abs(estimates.mean() - SYSTEMS[name].true_gradient(THETA[name])) > 8 * error


@EACH_SYSTEM
def test_truncated_backprop_is_the_truncated_gradient(name):
    estimates = estimates_of(truncated_backprop.TruncatedBackprop, name)
    truncated = SYSTEMS[name].true_gradient(THETA[name], WINDOW)
    np.testing.assert_allclose(estimates, truncated, rtol=1e-4)
