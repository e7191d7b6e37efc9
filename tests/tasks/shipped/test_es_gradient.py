"""ES-estimated gradients: right on average, noisy as they should be, the loss untouched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from veldt.tasks import registry
from veldt.tasks.shipped import es_gradient, images, quadratic


@pytest.fixture(scope="module")
def gradients():
    """The true gradient on a bowl, and 4,000 estimates of it."""
    bowl = quadratic.quadratic()
    task = es_gradient.EsGradientTask("bowl_es", bowl, num_pairs=2, scale=0.1)
    params = task.init(jax.random.key(0))
    batch = task.train_batch(jax.random.key(1))
    true = jax.grad(lambda params: bowl.loss(params, None, batch)[0])(params)
    grad_fn = jax.value_and_grad(lambda params, key: task.loss(params, key, batch)[0])
    keys = jax.random.split(jax.random.key(2), 4000)
    losses, estimates = jax.jit(jax.vmap(grad_fn, (None, 0)))(params, keys)
    np.testing.assert_allclose(losses, bowl.loss(params, None, batch)[0], rtol=1e-6)
    return np.asarray(true), np.asarray(estimates)


def test_the_mean_of_estimates_is_the_gradient(gradients):
    """A quadratic's antithetic difference is exact in every direction, so there is no bias."""
    true, estimates = gradients
    error = estimates.std(axis=0) / np.sqrt(len(estimates))
    # 32 coordinates: chi-squared of the standardised errors, within 5 standard deviations.
    chi_squared = np.sum(((estimates.mean(axis=0) - true) / error) ** 2)
    assert abs(chi_squared - 32) < 5 * np.sqrt(2 * 32)


def test_the_spread_of_estimates_is_that_of_gaussian_directions(gradients):
    """The covariance of e (e . g) is g g' + |g|^2 I, over the number of pairs."""
    true, estimates = gradients
    expected = (true**2 + np.sum(true**2)) / 2
    np.testing.assert_allclose(estimates.var(axis=0), expected, rtol=0.15)


def test_the_key_draws_the_directions_and_evaluation_needs_none():
    task = registry.load_task("digits_mlp_es")
    plain = images.digits_mlp()
    params = jax.jit(task.init)(jax.random.key(0))
    batch = task.eval_batch("valid")
    compiled = (
        jax.jit(lambda key: task.loss(params, key, batch)[0]).lower(jax.random.key(0)).compile()
    )
    np.testing.assert_allclose(
        compiled(jax.random.key(0)),
        jax.jit(plain.loss)(params, jax.random.key(0), batch)[0],
        rtol=1e-6,
    )
    # One forward pass, not seventeen.
    forward = jax.jit(lambda: plain.loss(params, jax.random.key(0), batch)[0]).lower().compile()
    assert compiled.cost_analysis()["flops"] < 1.5 * forward.cost_analysis()["flops"]
    grad_fn = jax.jit(jax.grad(lambda params, key: task.loss(params, key, batch)[0]))
    first, again, other = (grad_fn(params, jax.random.key(i)) for i in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.allclose(jax.tree.leaves(first)[0], jax.tree.leaves(other)[0])


def test_a_random_loss_gets_the_same_key_on_both_sides():
    """Else the difference would be that of two draws, not of two parameters."""

    task = es_gradient.EsGradientTask("es", NoisyLine(), num_pairs=64, scale=1e-3)
    grad = jax.jit(jax.grad(lambda params, key: task.loss(params, key, None)[0]))
    slopes = [grad(jnp.ones(1), jax.random.key(i))[0] for i in range(20)]
    np.testing.assert_allclose(np.mean(slopes), 3.0, rtol=0.2)
    assert np.std(slopes) < 2.0


class NoisyLine:
    """Loss 3 x plus a draw of the key's; only what the wrapper calls."""

    def loss(self, params, key, batch):
        return 3.0 * params[0] + jax.random.normal(key), {}
