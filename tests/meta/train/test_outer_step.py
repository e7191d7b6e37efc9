import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.meta import inner_problems, meta_trainer
from veldt.meta.estimators import antithetic, truncated_backprop, truncated_es
from veldt.meta.train import outer_step

THETA = jnp.asarray(0.2)


def backprop(h):
    system = inner_problems.descent(h=h, length=8)
    return truncated_backprop.TruncatedBackprop(system, 2, 8, unlocked=False)


def test_a_step_moves_by_the_clipped_average_of_the_estimates():
    """Whole runs, nothing random: the closed form of descent at two curvatures."""
    trainer = meta_trainer.MetaTrainer((backprop(0.5), backprop(0.8)), optax.sgd(2.0))
    state = trainer.init(THETA, jax.random.key(0))
    moved, metrics = trainer.step(state, jax.random.key(1))
    truth = np.mean([each.problem.true_gradient(0.2) for each in trainer.estimators])
    assert moved.meta_params == pytest.approx(0.2 - 2 * truth, rel=1e-4)
    assert metrics.meta_grad_norm == pytest.approx(abs(truth), rel=1e-4)
    assert metrics.estimates.meta_loss.shape == (2,)
    assert moved.meta_step == 1

    tx = optax.chain(optax.clip(0.5 * abs(truth)), optax.sgd(2.0))
    clipped = meta_trainer.MetaTrainer(trainer.estimators, tx)
    moved, _ = clipped.step(clipped.init(THETA, jax.random.key(0)), jax.random.key(1))
    assert moved.meta_params == pytest.approx(0.2 - truth, rel=1e-4)


def test_estimators_that_differ_in_arrays_alone_compile_once():
    trainer = meta_trainer.MetaTrainer(
        (backprop(0.3), backprop(0.4), backprop(0.6)), optax.adam(0.1)
    )
    state = trainer.init(jnp.asarray([0.1, 0.2])[0], jax.random.key(0))
    before = outer_step.estimate.compiled()._cache_size()
    trainer.step(state, jax.random.key(1))
    assert outer_step.estimate.compiled()._cache_size() <= before + 1


def test_meta_training_finds_the_rate_that_ends_descent_in_a_step():
    estimator = truncated_es.NRES(
        inner_problems.descent(h=0.5, length=8), 32, 4, noise=antithetic.Antithetic(sigma=0.05)
    )
    trainer = meta_trainer.MetaTrainer((estimator,), optax.adam(0.1))

    @jax.jit
    def train(trainer, state, keys):
        return jax.lax.scan(trainer.step, state, keys)

    state = trainer.init(THETA, jax.random.key(0))
    state, metrics = train(trainer, state, jax.random.split(jax.random.key(1), 100))
    assert state.meta_params == pytest.approx(2.0, abs=0.2)
    losses = metrics.estimates.meta_loss
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:20])
