"""A value with another function's derivatives."""

import jax
import jax.numpy as jnp
import numpy as np

from veldt.tasks.shipped import estimated_gradient


def wrapped(x):
    return estimated_gradient.with_gradient_of(jnp.exp(x), jnp.sin(3 * x))


def test_value_and_derivatives_are_each_its_own():
    x = 0.7
    np.testing.assert_allclose(wrapped(x), np.exp(x), rtol=1e-6)
    value, gradient = jax.jit(jax.value_and_grad(wrapped))(x)
    np.testing.assert_allclose(value, np.exp(x), rtol=1e-6)
    np.testing.assert_allclose(gradient, 3 * np.cos(3 * x), rtol=1e-5)
    np.testing.assert_allclose(jax.jvp(wrapped, (x,), (2.0,))[1], 6 * np.cos(3 * x), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(jax.grad(wrapped))(x), -9 * np.sin(3 * x), rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(jax.grad(wrapped))(jnp.array([x]))[0], gradient, rtol=1e-6)


def test_an_unused_surrogate_is_not_computed():
    text = jax.jit(wrapped).lower(0.7).compile().as_text()
    assert "exponential" in text
    assert "sine" not in text
