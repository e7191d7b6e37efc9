"""Criteria and models against independent implementations."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from veldt.tasks import images, supervised, tabular


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


@pytest.mark.parametrize("side", [7, 8])
def test_dense_on_patches_is_flaxs_convolution(side):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, side, side, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 5)), jnp.float32)
    ours = images.patches(x) @ kernel.reshape(27, 5)
    theirs = nn.Conv(5, (3, 3), strides=2, use_bias=False).apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_pooling_averages_squares():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 28, 28)).astype(np.uint8)
    halved = np.stack([image.reshape(14, 2, 14, 2).mean(axis=(1, 3)) for image in pixels]) / 255
    pooled = images.Conv((4,), pool=2, pixel_max=255.0)
    params = jax.jit(pooled.init)(jax.random.key(0), pixels)
    np.testing.assert_allclose(
        pooled.apply(params, pixels),
        images.Conv((4,)).apply(params, jnp.asarray(halved, jnp.float32)),
        rtol=1e-4,
        atol=1e-5,
    )
