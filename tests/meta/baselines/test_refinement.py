import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st

from veldt.meta.baselines import refinement


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_constant_norms_ask_for_the_linear_decay(smoothing):
    found = refinement.refine(np.full(50, 3.7), smoothing=smoothing)
    np.testing.assert_allclose(found, 1 - np.arange(50) / 49, atol=1e-12)


def test_it_is_the_sum_of_the_paper():
    norms = np.random.RandomState(0).uniform(0.5, 2.0, 30)
    weights = [norm**-2 for norm in norms]
    expected = np.array([weights[t] * sum(weights[t + 1 :]) for t in range(30)])
    found = refinement.refine(norms, smoothing=0.0)
    np.testing.assert_allclose(found, expected / expected.max(), rtol=1e-12)
    assert found[-1] == 0.0


def test_norms_that_fall_ask_for_a_warm_up():
    norms = np.concatenate([np.geomspace(10.0, 1.0, 20), np.ones(80)])
    found = refinement.refine(norms, smoothing=0.0)
    assert np.all(np.diff(found[:19]) > 0)
    assert np.all(np.diff(found[20:]) < 0)


@given(length=st.integers(2, 60), smoothing=st.floats(0, 0.6), seed=st.integers(0, 100))
def test_the_filter_is_that_of_the_readme(length, smoothing, seed):
    norms = np.random.RandomState(seed).lognormal(size=length)
    width = 2 * (int(smoothing * length) // 2) + 1
    padded = np.pad(norms, (0, 2 * width), mode="reflect")
    expected = scipy.ndimage.median_filter(padded, size=width, mode="nearest")[: -2 * width]
    np.testing.assert_allclose(refinement.median_filter(norms, smoothing), expected)


@given(scale=st.floats(1e-3, 1e3), power=st.sampled_from([1.0, 2.0]))
def test_the_unit_of_the_norms_does_not_matter(scale, power):
    norms = np.random.RandomState(1).lognormal(size=25)
    np.testing.assert_allclose(
        refinement.refine(scale * norms, power=power), refinement.refine(norms, power=power)
    )


@pytest.mark.parametrize("bad", [[1.0, 0.0], [1.0, np.nan], [1.0, np.inf], [1.0], [[1.0, 2.0]]])
def test_norms_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match="norm"):
        refinement.refine(np.asarray(bad))


@pytest.mark.parametrize("order", [1, 2])
def test_a_runs_norms_are_recorded_and_its_training_is_untouched(order):
    tx = optax.chain(refinement.record_gradient_norms(4, order=order), optax.sgd(0.1))
    params = {"a": jnp.asarray([3.0, -4.0]), "b": jnp.asarray(1.0)}
    state, plain = tx.init(params), params
    for step in range(6):
        flat = np.concatenate([np.asarray(plain["a"]), [float(plain["b"])]])
        norm = np.sum(np.abs(flat) ** order) ** (1 / order)
        updates, state = jax.jit(tx.update)(plain, state)  # The gradient of |x|^2 / 2.
        plain = optax.apply_updates(plain, updates)
        if step < 4:
            assert float(state[0].norms[step]) == pytest.approx(norm, rel=1e-5)
    np.testing.assert_allclose(plain["a"], 0.9**6 * params["a"], rtol=1e-5)
    assert state[0].norms.shape == (4,)
