"""How the variance of one window's estimate grows with the number of windows of a run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.meta import inner_problems
from veldt.meta.estimators import antithetic, truncated_es

LENGTH, NUMBERS_OF_WINDOWS, NUM_REPLICATES = 64, (1, 4, 16), 2000


def variance_slope(cls):
    """Fit the exponent p of variance ~ windows^p, for a run whose memory is of two steps.

    x <- x / 2 + theta with loss x^2 / 2, from where x stays: of a window's loss only its own noise
    counts, and all the noise before it is what PES adds in vain.
    """
    system = inner_problems.descent(length=LENGTH)
    one = jnp.zeros(inner_problems.DIM).at[0].set(1.0)
    system = dataclasses.replace(
        system, a=0.5 * jnp.diag(one), b=0 * system.b, v=one, start=2 * one
    )
    variances = []
    for num_windows in NUMBERS_OF_WINDOWS:
        estimator = cls(
            system,
            1,
            LENGTH // num_windows,
            noise=antithetic.Antithetic(sigma=0.01),
            unlocked=False,
        )
        keys = jax.random.split(jax.random.key(3), NUM_REPLICATES)
        estimates = inner_problems.replicates(estimator, jnp.float32(1.0), keys, num_windows)
        assert np.mean(estimates) == pytest.approx(4.0, rel=0.25)  # d/dtheta of (2 theta)^2 / 2
        variances.append(np.var(estimates))
    return np.polyfit(np.log(NUMBERS_OF_WINDOWS), np.log(variances), 1)[0]


@pytest.mark.slow
def test_the_variance_of_pes_grows_with_the_number_of_windows():
    # Without any memory it would be that of (e_1 + ... + e_w) e_w, w + 1, on average (W + 3) / 2:
    # an exponent of 0.56. With some, the noise of the window before is not in vain.
    assert 0.25 < variance_slope(truncated_es.PES) < 0.8


@pytest.mark.slow
def test_the_variance_of_nres_does_not_grow():
    assert abs(variance_slope(truncated_es.NRES)) < 0.15
