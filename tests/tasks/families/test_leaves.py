"""Figures on fallen leaves: natural statistics, hidden parts, classes as easy as they are told."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from veldt.tasks.families import hashing, leaves

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SOURCE = leaves.Leaves()


def config(**fields):
    cfg = jit(SOURCE.sample)(jax.random.key(1))
    return dataclasses.replace(cfg, **{k: jnp.asarray(v, jnp.float32) for k, v in fields.items()})


def draw(cfg, num=2000, source=SOURCE):
    names = source.select(jax.random.key(2), num)
    return jit(lambda cfg: source.examples(cfg, names))(cfg)


def test_backgrounds_have_the_power_spectrum_of_photographs():
    """Power falls as a power of the frequency; in photographs the exponent is about 2."""
    large = leaves.Leaves(side=32, num_leaves=30)
    words = hashing.words(large.select(jax.random.key(0), 300), 0, 4 * 30)
    images = np.asarray(jit(large.background)(words))
    power = np.mean(np.abs(np.fft.fft2(images - images.mean())) ** 2, axis=0)
    frequency = np.fft.fftfreq(32) * 32
    radius = np.hypot(*np.meshgrid(frequency, frequency))
    rings = np.arange(1, 12)
    means = [power[(radius >= ring - 0.5) & (radius < ring + 0.5)].mean() for ring in rings]
    exponent, _ = np.polyfit(np.log(rings), np.log(means), 1)
    assert -2.8 < exponent < -1.6


def test_later_leaves_hide_earlier_ones():
    """One leaf that covers all, of known grey, is all that is seen."""
    two = leaves.Leaves(num_leaves=2)
    words = np.zeros((1, 2, 4), np.uint32)
    words[0, 1] = [2**31, 2**31, 2**32 - 1, 12345]  # in the middle, as large as may be
    image = np.asarray(two.background(jnp.asarray(words.reshape(1, 8))))
    np.testing.assert_allclose(image, hashing.centred(jnp.uint32([12345]))[0], rtol=1e-5)


def test_pixels_are_on_the_scale_that_sources_promise():
    examples = draw(config(), 4000)
    images = np.asarray(examples.inputs)
    assert images.mean() == pytest.approx(0.0, abs=0.1)
    assert np.mean(images**2) == pytest.approx(1.0, abs=0.25)
    counts = np.bincount(np.asarray(examples.targets), minlength=10)
    assert np.sum((counts - 400) ** 2) / 400 < 28  # chi-squared of 9 degrees, one in a thousand


@pytest.mark.parametrize(("told", "least", "most"), [(1.0, 0.5, 1.0), (0.0, 0.05, 0.3)])
def test_a_linear_model_sees_classes_by_what_greys_tell_of_them(told, least, most):
    cfg = config(told=told, noise=0.1)
    examples = draw(cfg, 4000)
    inputs, targets = np.asarray(examples.inputs), np.asarray(examples.targets)
    inputs = np.column_stack([inputs, np.ones(len(inputs))])
    weights, *_ = np.linalg.lstsq(inputs[:3000], np.eye(10)[targets[:3000]], rcond=None)
    right = np.mean(np.argmax(inputs[3000:] @ weights, axis=1) == targets[3000:])
    assert least < right < most


def test_a_figure_is_moved_by_whole_pixels_at_most_as_far_as_said():
    cfg = config()
    names = SOURCE.select(jax.random.key(5), 64)
    words = hashing.words(names, 0, 4)
    figures = cfg.figures[np.asarray(words[:, 0] % 10, np.int32)]
    moved = np.asarray(SOURCE._moved(figures, words[:, 1:3]))
    found = set()
    for before, after in zip(np.asarray(figures), moved, strict=True):
        matches = [
            (down, right)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            if np.array_equal(np.roll(before, (down, right), (0, 1)), after)
        ]
        assert len(matches) == 1
        found.update(matches)
    assert len(found) == 9
