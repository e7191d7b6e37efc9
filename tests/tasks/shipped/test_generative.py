"""Models without labels against closed forms: the code's length, the schedule, the noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from veldt.tasks import registry
from veldt.tasks.data import dataset
from veldt.tasks.shipped import generative

# Without LLVM's optimisation: half the time to compile, and nothing here runs long.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def test_the_length_of_a_code_is_the_divergence_of_two_normal_distributions():
    """Against numerical integration of p log(p / q)."""
    mean, log_variance = np.array([0.3, -1.2]), np.array([0.5, -0.7])
    x = np.linspace(-12, 12, 200_001)
    expected = 0.0
    for m, v in zip(mean, np.exp(log_variance), strict=True):
        p, q = scipy.stats.norm(m, np.sqrt(v)), scipy.stats.norm(0, 1)
        expected += np.trapezoid(p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), x)
    ours = generative.kl_to_standard_normal(jnp.asarray(mean), jnp.asarray(log_variance))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    assert generative.kl_to_standard_normal(jnp.zeros(3), jnp.zeros(3)) == 0.0


def test_the_bound_is_reconstruction_and_code_and_knowing_nothing_is_the_reference():
    task = registry.load_task("digits_vae")
    images = np.asarray(task.splits["train"].inputs)
    nothing = generative.VaeOutputs(jnp.zeros_like(images), jnp.zeros((1, 8)), jnp.zeros((1, 8)))
    loss = generative.negative_elbo(nothing, jnp.asarray(images))
    np.testing.assert_allclose(loss, task.reference_loss, rtol=1e-4)
    # Up to its constant the first part is a log-density.
    density = scipy.stats.norm(0, generative.PIXEL_SCALE)
    constant = 64 * density.logpdf(0)
    expected = -(density.logpdf(images).sum(axis=1) - constant).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_the_code_is_drawn_from_the_encoders_distribution():
    module = generative.Vae((4,), 2)
    images = np.random.default_rng(0).normal(size=(1, 6)).astype(np.float32)
    key = jax.random.key(0)
    params = jit(module.init)(key, images)
    # A decoder that is linear (hidden ReLU shifted to be active, output copies two units).
    decoder = params["params"]["Mlp_1"]
    decoder["Dense_0"] = {"kernel": jnp.eye(2, 4), "bias": jnp.full(4, 100.0)}
    decoder["Dense_1"] = {"kernel": jnp.eye(4, 6), "bias": jnp.full(6, -100.0)}
    keys = jax.random.split(key, 4000)
    outputs = jit(jax.vmap(lambda key: module.apply(params, images, rngs={"noise": key})))(keys)
    codes = outputs.reconstruction[:, 0, :2]
    deviation = np.exp(0.5 * outputs.log_variance[0, 0])
    error = 4 * deviation / np.sqrt(4000)
    assert (np.abs(codes.mean(axis=0) - outputs.mean[0, 0]) < error).all()
    np.testing.assert_allclose(codes.std(axis=0), deviation, rtol=0.06)


def test_the_schedule_is_the_published_one():
    """Nichol and Dhariwal 2021, equation 17, in double precision."""
    time = np.linspace(0, 1, 11)
    f = np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(generative.signal_share(jnp.asarray(time)), f / f[0], atol=1e-6)
    fine = np.asarray(generative.signal_share(jnp.linspace(0, 1, 10_001)))
    assert (fine <= 1).all()
    assert (fine >= 0).all()
    assert (np.diff(fine) <= 1e-6).all()


def test_the_noise_is_standard_normal_and_what_the_model_is_scored_on():
    task = registry.load_task("digits_diffusion")
    images = task.eval_batch("valid").inputs
    params = jit(task.init)(jax.random.key(0))
    outputs = jit(lambda: task.module.apply(params, images, rngs={"noise": jax.random.key(1)}))()
    assert scipy.stats.kstest(np.ravel(outputs.noise), "norm").pvalue > 1e-3
    expected = np.mean((np.asarray(outputs.predicted) - np.asarray(outputs.noise)) ** 2)
    np.testing.assert_allclose(generative.noise_error(outputs, images), expected, rtol=1e-5)
    assert task.normalizer(jnp.mean(outputs.noise**2)) == pytest.approx(1.0, abs=0.03)


def test_centring_takes_the_training_parts_mean_image():
    splits = dataset.load_digits()
    centred = generative.centred(splits)
    mean = splits["train"].inputs.mean(axis=0, dtype=np.float64)
    for split, part in centred.items():
        np.testing.assert_allclose(part.inputs, splits[split].inputs - mean, atol=1e-6)
        np.testing.assert_array_equal(part.inputs, part.targets)
    garments = {
        split: dataset.Examples(np.full((4, 2, 2), value, np.uint8), np.zeros(4))
        for split, value in (("train", 200), ("valid", 100), ("test", 0))
    }
    assert (generative.centred(garments)["train"].inputs == 0).all()
    assert (generative.centred(garments)["valid"].inputs == -0.5).all()
    assert generative.centred(garments)["test"].inputs.shape == (4, 4)
