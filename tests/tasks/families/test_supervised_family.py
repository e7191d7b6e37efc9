"""What members draw, and families with stored data as pytrees."""

import dataclasses

import jax
import numpy as np
import pytest

from veldt.tasks.data import dataset
from veldt.tasks.families import models

DIGITS = models.Structure("perceptron", (8,), "relu", 16, "digits")


@pytest.fixture(scope="module")
def family():
    return DIGITS.family(init_scales=(3.0, 3.0), contrasts=(0.5, 0.5), brightnesses=(0.25, 0.25))


def test_stored_data_are_leaves_of_the_family_and_shared_by_its_members(family):
    rows = len(dataset.load_digits()["train"].inputs)
    assert (rows, 64) in [leaf.shape for leaf in jax.tree.leaves(family)]
    tasks = [family.task(family.sample(jax.random.key(i))) for i in (0, 1)]
    stored = [task.family.source.splits["train"].inputs for task in tasks]
    assert stored[0] is stored[1]
    through = jax.jit(lambda family: family)(family)
    assert jax.tree.structure(through) == jax.tree.structure(family)
    # In a trace, too, where two members' data must be one array.
    same = []

    @jax.jit
    def trace(family, cfg):
        leaves = [jax.tree.leaves(family.task(cfg)), jax.tree.leaves(family.task(cfg))]
        same.extend(a is b for a, b in zip(*leaves, strict=True))
        return 0

    trace(family, family.sample(jax.random.key(0)))
    assert same and all(same)


def test_images_have_the_members_contrast_and_brightness(family):
    task = family.task(family.sample(jax.random.key(0)))
    # All rows: the scale is that of the whole training part.
    whole = dataclasses.replace(task, family=dataclasses.replace(family, eval_size=10**6))
    images = np.asarray(whole.eval_batch("train").inputs)
    assert images.mean() == pytest.approx(0.25, abs=1e-4)
    assert images.std() == pytest.approx(0.5, rel=1e-3)
    assert np.corrcoef(images.ravel(), np.asarray(dataset.load_digits()["train"].inputs).ravel())[
        0, 1
    ] == pytest.approx(0.72, abs=0.05)


def test_the_scale_is_on_weights_and_not_on_biases(family):
    plain = dataclasses.replace(family, init_scales=(1.0, 1.0))
    key = jax.random.key(7)
    scaled, unscaled = (
        each.task(each.sample(jax.random.key(0))).init(key)["params"]["Dense_0"]
        for each in (family, plain)
    )
    np.testing.assert_allclose(scaled["kernel"], 3 * unscaled["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(scaled["bias"], 0.0)


def test_uniform_weights_have_the_variance_of_normal_ones_and_bounds():
    structure = dataclasses.replace(DIGITS, widths=(64,), initialiser="uniform")
    family = structure.family(init_scales=(1.0, 1.0))
    params = family.task(family.sample(jax.random.key(0))).init(jax.random.key(0))
    kernel = np.asarray(params["params"]["Dense_0"]["kernel"])
    assert kernel.std() == pytest.approx(1 / 8, rel=0.05)
    assert np.abs(kernel).max() <= np.sqrt(3) / 8


@pytest.mark.slow
def test_an_autoencoder_gives_images_back():
    structure = models.Structure("autoencoder", (32, 4), "tanh", 8, "patterns")
    family = structure.family()
    task = family.task(family.sample(jax.random.key(0)))
    batch = task.train_batch(jax.random.key(1))
    np.testing.assert_array_equal(batch.inputs, batch.targets)
    kernels = jax.tree.leaves(task.init(jax.random.key(0)))[1::2]
    assert [kernel.shape for kernel in kernels] == [(64, 32), (32, 4), (4, 32), (32, 64)]
    assert str(structure) == "autoencoder 64-32-4-32-64 tanh batch 8 on patterns"


@pytest.mark.parametrize(
    ("kind", "source"),
    [("perceptron", "patterns"), ("perceptron", "digits"), ("language", "chains")],
)
def test_a_member_has_as_many_training_examples_as_it_drew(kind, source):
    widths, window = ((8,), 8) if kind == "language" else ((4,), 0)
    structure = models.Structure(kind, widths, "relu", 256, source, window=window)
    family = structure.family(data_sizes=(20, 20))
    task = family.task(family.sample(jax.random.key(0)))
    selections = [np.asarray(task.sample(jax.random.key(i))) for i in range(2)]
    rows = np.concatenate(selections).reshape(512, -1)
    assert len(np.unique(rows, axis=0)) == 20
    # The same examples are seen again in later batches.
    assert len(np.unique(selections[0].reshape(256, -1), axis=0)) == 20
    batches = [task.gather(selection) for selection in selections]
    inputs = np.concatenate([np.asarray(b.inputs) for b in batches]).reshape(512, -1)
    assert len(np.unique(inputs, axis=0)) == 20


def test_sizes_of_data_sets_are_drawn_within_their_bounds_and_change_nothing_else():
    structure = dataclasses.replace(DIGITS, source="patterns")
    endless, sized = structure.family(), structure.family(data_sizes=(10, 1000))
    sizes = []
    for i in range(50):
        with_size, without = (f.sample(jax.random.key(i)) for f in (sized, endless))
        sizes.append(int(with_size.num_examples))
        same = dataclasses.replace(with_size, num_examples=without.num_examples)
        for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(without), strict=True):
            np.testing.assert_array_equal(a, b)
    assert min(sizes) >= 10 and max(sizes) <= 1000
    assert 60 < np.median(sizes) < 170  # log-uniform: around 100
