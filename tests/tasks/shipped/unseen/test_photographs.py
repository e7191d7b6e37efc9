"""Distortions against SciPy's filters, and what the models are given and scored on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from veldt.tasks.data import photos
from veldt.tasks.shipped.unseen import photographs

# Without LLVM's optimisation: half the time to compile, and nothing here runs long.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

IMAGES = np.random.default_rng(0).uniform(size=(3, 8, 8, 3))


@pytest.mark.parametrize(("distortion", "share"), [("blurred", 1.0), ("sharpened", -1.0)])
def test_blurring_mixes_in_a_box_filter(distortion, share):
    filtered = scipy.ndimage.uniform_filter(IMAGES, (1, 3, 3, 1), mode="nearest")
    changed = photographs.distort(IMAGES, distortion, np.random.RandomState(0))
    np.testing.assert_allclose(changed, IMAGES + share * (filtered - IMAGES))


def test_other_distortions():
    random = np.random.RandomState(0)
    np.testing.assert_array_equal(photographs.distort(IMAGES, "unchanged", random), IMAGES)
    noise = photographs.distort(IMAGES, "noisy", random) - IMAGES
    assert noise.std() == pytest.approx(0.05, rel=0.1)
    coarse = photographs.distort(IMAGES, "pixelated", random)
    squares = scipy.ndimage.uniform_filter(IMAGES, (1, 2, 2, 1))[:, 1::2, 1::2]
    np.testing.assert_allclose(coarse[:, ::2, ::2], squares)
    np.testing.assert_allclose(coarse[:, 1::2, ::2], squares)


def test_patches_are_cut_row_by_row():
    cut = photographs.cut(jnp.asarray(IMAGES), 4)
    np.testing.assert_allclose(cut[1, 2].reshape(4, 4, 3), IMAGES[1, 4:, :4], rtol=1e-6)


def test_only_what_is_hidden_is_scored_and_what_is_hidden_is_not_read():
    module = photographs.MaskedTransformer(
        patch=4, width=8, num_heads=2, num_layers=1, num_hidden=3
    )
    images = jnp.asarray(IMAGES, jnp.float32)
    key = jax.random.key(0)

    @jit
    def run(images):
        params = module.init(key, jnp.zeros((3, 8, 8, 3)))
        return module.apply(params, images, rngs={"noise": key})

    outputs = run(images)
    np.testing.assert_array_equal(outputs.hidden.sum(axis=1), 3)
    truth = np.asarray(photographs.cut(images, 4))
    errors = np.square(np.asarray(outputs.patches) - truth).mean(axis=-1)
    expected = errors[np.asarray(outputs.hidden) == 1].mean()
    np.testing.assert_allclose(photographs.hidden_error(outputs, images), expected, rtol=1e-5)
    mask = np.kron(np.asarray(outputs.hidden).reshape(3, 2, 2), np.ones((4, 4)))[..., None]
    again = run(images + 5.0 * jnp.asarray(mask, jnp.float32))
    np.testing.assert_array_equal(again.patches, outputs.patches)


def test_pixels_are_the_photographs_each_once():
    photo = photos.load_photos()["flower"]
    splits = photographs.pixels(photo)
    rebuilt = np.full(photo.shape, np.nan)
    for part in splits.values():
        rows, columns = np.rint(part.inputs * photo.shape[1]).astype(int).T
        assert np.isnan(rebuilt[rows, columns]).all()
        rebuilt[rows, columns] = part.targets
    shift = photo / 255 - rebuilt
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0, 0], shift.shape), atol=1e-6)
