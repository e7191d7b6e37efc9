"""Criteria against independent implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from veldt.tasks.shipped import supervised, tabular


def test_cross_entropy_is_scikit_learns_log_loss():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 7)).astype(np.float32)
    labels = rng.integers(0, 7, 50)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = sklearn.metrics.log_loss(labels, probabilities, labels=np.arange(7))
    loss = supervised.cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    gradient = jax.grad(supervised.cross_entropy)(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(gradient, (probabilities - np.eye(7)[labels]) / 50, atol=1e-6)


def test_binary_cross_entropy_is_scikit_learns_log_loss():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40, 1)).astype(np.float32)
    labels = rng.integers(0, 2, 40)
    expected = sklearn.metrics.log_loss(labels, 1 / (1 + np.exp(-logits[:, 0])))
    loss = tabular.binary_cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("criterion", [supervised.cross_entropy, tabular.binary_cross_entropy])
def test_huge_logits_stay_finite(criterion):
    logits = jnp.array([[1e30], [-1e30]]) * jnp.ones(
        2 if criterion is supervised.cross_entropy else 1
    )
    assert np.isfinite(criterion(logits, jnp.array([0, 1])))
