"""Procedural images: against sums of cosines, on the scale that sources promise, without end."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from veldt.tasks.families import hashing, patterns

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
sample = jit(lambda source, key: source.sample(key))
examples_of = jit(lambda source, cfg, names: source.examples(cfg, names))
CLEAN = patterns.Patterns(shifts=(2.0, 2.0))


@pytest.fixture(scope="module")
def cfg():
    cfg = sample(CLEAN, jax.random.key(1))
    return dataclasses.replace(cfg, deformation=jnp.zeros(()), noise=jnp.zeros(()))


def test_an_example_is_its_class_prototype_moved(cfg):
    names = CLEAN.select(jax.random.key(2), 5)
    examples = examples_of(CLEAN, cfg, names)
    words = hashing.words(names, 0, 4)
    shifts = 2.0 * (2 * np.asarray(hashing.uniform(words[:, 2:4])) - 1)
    assert np.abs(shifts).max() > 1
    for image, label, (down, right) in zip(*map(np.asarray, examples), shifts, strict=True):
        rows, columns = np.meshgrid(np.arange(8) - down, np.arange(8) - right, indexing="ij")
        cosines, sines = np.asarray(cfg.prototypes)[label]
        expected = np.zeros((8, 8))
        for (k, m), a, b in zip(patterns._WAVES, cosines, sines, strict=True):
            phase = 2 * np.pi * (k * rows + m * columns) / 8
            expected += a * np.cos(phase) + b * np.sin(phase)
        # The strength is its own; direction is all.
        cosine = image @ expected.ravel() / np.linalg.norm(image) / np.linalg.norm(expected)
        assert cosine == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("name", sorted(patterns.PATTERNS))
def test_pixels_have_mean_square_one_and_classes_equal_odds(name):
    source = patterns.PATTERNS[name]
    cfg = sample(source, jax.random.key(3))
    examples = examples_of(source, cfg, source.select(jax.random.key(4), 4000))
    np.testing.assert_allclose(np.mean(np.square(examples.inputs)), 1.0, atol=0.05)
    counts = np.bincount(np.asarray(examples.targets), minlength=10)
    assert np.sum((counts - 400) ** 2) / 400 < 28  # chi-squared of 9 degrees, one in a thousand


def test_training_and_held_out_images_are_all_different():
    source = patterns.PATTERNS["patterns"]
    cfg = sample(source, jax.random.key(5))

    @jit
    def parts(cfg):
        held_out = [source.held_out(cfg, split, 300) for split in ("train", "valid", "test")]
        names = [source.select(jax.random.key(i), 300) for i in (0, 1)]
        return [part.inputs for part in held_out + [source.examples(cfg, n) for n in names]]

    rows = np.concatenate([np.asarray(part) for part in parts(cfg)])
    assert len(np.unique(rows, axis=0)) == 1500


def test_held_out_images_are_fixed_and_begin_alike_at_any_number():
    source = patterns.PATTERNS["patterns"]
    cfg = sample(source, jax.random.key(5))
    few, many = (
        jit(lambda cfg, n=n: source.held_out(cfg, "valid", n).inputs)(cfg) for n in (10, 20)
    )
    np.testing.assert_allclose(few, many[:10], rtol=1e-5, atol=1e-6)
