"""The family of bowls: spectrum, noise, scale, and many members at once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from veldt.tasks import registry
from veldt.tasks.inner_loop import unroll
from veldt.tasks.shipped import quadratic

NUM_MEMBERS = 40


@pytest.fixture(scope="module")
def family():
    return registry.TASK_FAMILIES["quadratics"]()


@pytest.fixture(scope="module")
def cfgs(family):
    """Configurations of 40 members, leaves [40, ...]."""
    return jax.jit(jax.vmap(family.sample))(jax.random.split(jax.random.key(0), NUM_MEMBERS))


def member(cfgs, i):
    return jax.tree.map(lambda leaf: leaf[i], cfgs)


def test_spectrum_and_rotation_are_as_documented(family, cfgs):
    largest, smallest = cfgs.eigenvalues.max(axis=1), cfgs.eigenvalues.min(axis=1)
    np.testing.assert_allclose(largest, 1.0)
    log_condition = np.log10(largest / smallest)
    assert (log_condition >= -1e-6).all()
    assert (log_condition <= 3 + 1e-6).all()
    # Log-uniform in 1..1000: mean 1.5, standard error 3 / sqrt(12 * 40) = 0.14.
    np.testing.assert_allclose(log_condition.mean(), 1.5, atol=0.6)
    for i in range(3):
        cfg = member(cfgs, i)
        np.testing.assert_allclose(cfg.rotation.T @ cfg.rotation, np.eye(32), atol=1e-5)
        hessian = jax.hessian(lambda x, cfg=cfg: family.task(cfg).loss(x, None, jnp.zeros(32))[0])(
            jnp.ones(32)
        )
        np.testing.assert_allclose(
            np.linalg.eigvalsh(hessian), np.sort(cfg.eigenvalues), rtol=1e-3, atol=1e-5
        )


def test_the_loss_is_zero_at_the_minimum_and_a_batch_tilts_it(family, cfgs):
    task = family.task(member(cfgs, 0))
    for split in ("train", "valid", "test"):
        assert task.loss(task.minimum, None, task.eval_batch(split))[0] == 0.0
    noise = jnp.arange(32.0)
    gradient = jax.grad(lambda x: task.loss(x, None, noise)[0])(task.minimum)
    np.testing.assert_allclose(gradient, noise, rtol=1e-6)


def test_gradient_noise_has_the_scale_of_the_configuration(family, cfgs):
    task = family.task(member(cfgs, 1))
    noise = jax.vmap(task.train_batch)(jax.random.split(jax.random.key(0), 300))
    np.testing.assert_allclose(noise.std(), task.noise_scale, rtol=0.05)
    assert abs(noise.mean()) < 5 * task.noise_scale / np.sqrt(noise.size)


def test_the_average_start_is_at_one_on_the_comparable_scale(family, cfgs):
    # Of a quadratic form with little spread, so that nothing is cut off at 1.5.
    cfg = member(cfgs, 2).replace(eigenvalues=jnp.ones(32), minimum=2 * jnp.ones(32))
    task = family.task(cfg)
    starts = jax.vmap(task.init)(jax.random.split(jax.random.key(0), 1000))
    losses = jax.vmap(lambda x: task.loss(x, None, task.eval_batch("valid"))[0])(starts)
    np.testing.assert_allclose(task.normalizer(losses.mean()), 1.0, atol=0.02)


def test_members_trained_together_are_members_trained_alone(family, cfgs):
    tx = optax.sgd(0.5, momentum=0.5)

    def train(cfg, key):
        task = family.task(cfg)
        state, losses = unroll.unroll(task, tx, unroll.init(task, tx, key), num_steps=20)
        return losses, task.normalizer(unroll.evaluate(task, state.params, key, "test"))

    keys = jax.random.split(jax.random.key(1), NUM_MEMBERS)
    losses, finals = jax.jit(jax.vmap(train))(cfgs, keys)
    assert losses.shape == (NUM_MEMBERS, 20)
    assert (finals < 0.9).all()
    alone = jax.jit(train)
    for i in (0, NUM_MEMBERS - 1):
        single_losses, final = alone(member(cfgs, i), keys[i])
        np.testing.assert_allclose(losses[i], single_losses, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(finals[i], final, rtol=1e-4)


def test_the_fixed_task_is_the_same_every_time():
    a, b = quadratic.quadratic(), quadratic.quadratic()
    np.testing.assert_array_equal(a.hessian, b.hessian)
    spectrum = np.linalg.eigvalsh(a.hessian)
    np.testing.assert_allclose(spectrum[-1] / spectrum[0], 100.0, rtol=1e-3)
