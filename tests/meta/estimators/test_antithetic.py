import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.meta import inner_problems
from veldt.meta.estimators import antithetic, truncated_es

MIXED = {
    "scalar": jnp.float32(2.0),
    "matrix": [jnp.ones((3, 2)), jnp.zeros(4)],
    "half": jnp.ones(5, jnp.bfloat16),
}


def test_noise_has_the_shapes_and_types_of_the_leaves_and_its_own_standard_deviation():
    noise = antithetic.Antithetic(sigma=0.1).sample(jax.random.key(0), MIXED, 4000)
    for e, leaf in zip(jax.tree.leaves(noise), jax.tree.leaves(MIXED), strict=True):
        assert e.shape == (4000, *leaf.shape) and e.dtype == leaf.dtype
    flat = np.concatenate(
        [np.asarray(e, np.float64).reshape(4000, -1) for e in jax.tree.leaves(noise)], axis=1
    )
    covariance = flat.T @ flat / 4000
    # Independent in every pair of elements: 4 standard errors, of 120 distinct entries.
    np.testing.assert_allclose(covariance, 0.01 * np.eye(16), atol=0.01 * 4.5 * np.sqrt(2 / 4000))


def test_a_pair_lies_evenly_about_the_meta_params():
    rule = antithetic.Antithetic(sigma=0.5)
    noise = rule.sample(jax.random.key(1), MIXED, 3)
    pair = rule.pair(MIXED, noise)
    for sides, e, leaf in zip(*map(jax.tree.leaves, (pair, noise, MIXED)), strict=True):
        assert sides.shape == (2, *e.shape) and sides.dtype == leaf.dtype
        exact = np.asarray(leaf, np.float64) + np.asarray(e, np.float64)
        np.testing.assert_allclose(np.asarray(sides[0], np.float64), exact, rtol=1e-2)
        middle = (sides[0].astype(jnp.float32) + sides[1].astype(jnp.float32)) / 2
        np.testing.assert_allclose(middle, jnp.broadcast_to(leaf, e.shape), atol=2e-2)


FLOATS = st.floats(-1e6, 1e6, width=32) | st.sampled_from([np.nan, np.inf, -np.inf])


@given(
    plus=FLOATS,
    minus=FLOATS,
    clip=st.none() | st.floats(0.125, 100, width=32),
    sign=st.booleans(),
)
def test_a_difference_is_finite_clipped_and_reduced_to_its_sign(plus, minus, clip, sign):
    rule = antithetic.Antithetic(clip=clip, sign=sign)
    (value,), (bad,) = rule.difference(jnp.array([[plus], [minus]], jnp.float32))
    with np.errstate(invalid="ignore"):
        exact = np.float32(plus) - np.float32(minus)
    expected = 0.0
    if np.isfinite(exact):
        expected = exact if clip is None else np.clip(exact, -clip, clip)
        expected = np.sign(expected) if sign else expected
    assert bad == (not np.isfinite(exact))
    assert value == np.float32(expected)


def test_the_gradient_is_the_mean_of_noise_times_difference_over_twice_the_variance():
    rule = antithetic.Antithetic(sigma=0.2)
    noise = rule.sample(jax.random.key(2), {"a": jnp.zeros((2, 3)), "b": jnp.zeros(())}, 5)
    differences = jnp.array([1.0, -2.0, 0.0, 0.5, 3.0])
    gradient = rule.gradient(differences, noise)
    for name, e in noise.items():
        weighted = [float(d) * np.asarray(x) for d, x in zip(differences, e, strict=True)]
        expected = sum(weighted) / 5 / (2 * 0.2**2)
        np.testing.assert_allclose(gradient[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sign", [False, True])
def test_one_particles_explosion_cannot_outweigh_a_clip(sign):
    """With differences of at most c each is bounded, for the noise is; twice for two segments."""
    rule = antithetic.Antithetic(sigma=0.5, clip=1e-3, sign=sign)
    estimator = truncated_es.PES(inner_problems.Leaky(), 3, 4, noise=rule)
    state = inner_problems.init(estimator, inner_problems.LEAKY_META_PARAMS, jax.random.key(0))
    accumulated = jax.tree.map(lambda x: np.zeros_like(x), state.noise)
    bound = 1.0 if sign else 1e-3
    largest = 0.0
    for seed in range(4):
        key = jax.random.key(seed)
        new = rule.sample(jax.random.split(key)[0], inner_problems.LEAKY_META_PARAMS, 3)
        accumulated = jax.tree.map(lambda a, e: a + np.abs(e), accumulated, new)
        grad, state, _ = inner_problems.estimate(
            estimator, inner_problems.LEAKY_META_PARAMS, state, key
        )
        for g, a in zip(jax.tree.leaves(grad), jax.tree.leaves(accumulated), strict=True):
            assert np.all(np.abs(g) <= 1.001 * bound * 2 * np.mean(a, axis=0) / (2 * 0.5**2))
            largest = max(largest, float(np.max(np.abs(g))))
    assert largest > 0
