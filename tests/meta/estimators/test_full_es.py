import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.meta import inner_problems
from veldt.meta.estimators import antithetic, full_es
from veldt.meta.problems import meta_loss

SYSTEM = inner_problems.descent(h=0.5, length=8)
NO_NOISE = antithetic.Antithetic(sigma=1e-6)


def mean_loss(objective, rate, *, window=3):
    """Return the meta-loss of descent on x^2 from 0.5, nearly without noise."""
    estimator = full_es.FullES(SYSTEM, 2, window, objective, NO_NOISE)
    found = inner_problems.estimate(estimator, jnp.float32(rate), (), jax.random.key(0))
    return float(found[2].meta_loss)


@pytest.mark.parametrize("rate", [0.1, 1.5, 3.0])
def test_a_run_is_worth_what_its_objective_says_though_windows_go_beyond_its_end(rate):
    losses = 0.25 * (1 - 0.5 * rate) ** (2 * np.arange(9))
    assert mean_loss(meta_loss.MeanLoss(), rate) == pytest.approx(losses[:8].mean(), rel=1e-3)
    assert mean_loss(meta_loss.FinalLoss(), rate) == pytest.approx(losses[8], rel=1e-3)
    telescoped = mean_loss(meta_loss.TelescopedLoss(), rate)
    assert telescoped == pytest.approx(losses[8] - 0.25, rel=1e-3)


def test_runs_go_to_their_ends_whatever_the_window():
    estimates = [
        inner_problems.estimate(
            full_es.FullES(SYSTEM, 4, window), jnp.float32(0.5), (), jax.random.key(0)
        )[0]
        for window in (3, 8)
    ]
    assert estimates[0] == pytest.approx(float(estimates[1]), rel=1e-3)
