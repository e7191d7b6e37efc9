"""Drawing families: the same for a seed, all different, of what was asked for; and configs."""

import collections
import dataclasses
import re

import jax
import pytest

from veldt import config
from veldt.tasks import base
from veldt.tasks.common.config import codec
from veldt.tasks.common.errors import ConfigError
from veldt.tasks.data import dataset
from veldt.tasks.families import augmentations, distribution, models


def member(family):
    """A member, sampled in one compile."""
    return family.task(jax.jit(family.sample)(jax.random.key(0)))


def names(spec, seed):
    return [family.name for family in distribution.draw(spec, seed)]


def test_a_seed_gives_the_same_families_and_another_seed_others():
    spec = distribution.Distribution(num_families=8)
    assert names(spec, 3) == names(spec, 3)
    assert names(spec, 3) != names(spec, 4)


def test_names_are_unique_and_say_what_it_is():
    spec = distribution.Distribution(num_families=60)
    drawn_names = names(spec, 0)
    assert len(set(drawn_names)) == 60
    pattern = re.compile(r"(\w+) [-x\d]+ (window \d+ )?(\w+ )?(uniform )?batch \d+ on \w+(, .*)?")
    assert all(pattern.fullmatch(name) for name in drawn_names)


def test_kinds_come_with_their_odds():
    spec = dataclasses.replace(
        distribution.Distribution(num_families=300), kinds={"perceptron": 3.0, "convolution": 1.0}
    )
    counts = collections.Counter(name.split()[0] for name in names(spec, 0))
    assert set(counts) == {"perceptron", "convolution"}
    assert abs(counts["perceptron"] - 225) < 4 * (300 * 0.75 * 0.25) ** 0.5


def test_what_is_drawn_twice_for_want_of_others_is_numbered():
    spec = dataclasses.replace(distribution.TINY, num_families=4)
    first, second, *more = names(spec, 0)
    assert {first, second} == {f"perceptron 64-{w}-10 relu batch 8 on patterns" for w in (4, 8)}
    assert all(re.search(r" \(\d\)$", name) for name in more)
    assert len({first, second, *more}) == 4


def test_the_diet_of_celo_has_each_source_once():
    found = names(distribution.CELO, 5)
    assert sorted(re.search(r" on (\w+)", name)[1] for name in found) == [
        "clusters",
        "clutter",
        "patterns",
        "textures",
    ]
    assert all("64-32-10 relu batch 64" in name for name in found)
    assert all("stretched by global" in name for name in found)


@pytest.mark.parametrize(
    "kind",
    [
        "perceptron",
        *(
            pytest.param(k, marks=pytest.mark.slow)
            for k in ("autoencoder", "transformer", "recurrent")
        ),
    ],
)
def test_everything_at_once_keeps_the_contract(kind):
    """All augmentations on top of each other, by shapes alone."""
    odds = augmentations.AugmentationConfig(
        stretch={"parameter": 1.0}, smaller_batch=1.0, estimated=1.0, normalised=1.0, delayed=1.0
    )
    spec = distribution.Distribution(num_families=1, kinds={kind: 1.0}, augmentations=odds)
    (family,) = distribution.draw(spec, 1)
    for part in ("pairs", "stretched by parameter", "normalised", "late by"):
        assert part in family.name
    base.check_task(member(family))


def test_every_kind_is_built():
    for kind in models.Kind.__args__:
        spec = distribution.Distribution(
            num_families=1, kinds={kind: 1.0}, augmentations=augmentations.NO_AUGMENTATIONS
        )
        (family,) = distribution.draw(spec, 0)
        base.check_task(member(family))


@pytest.mark.parametrize(
    ("kind", "field", "source"),
    [
        *(("perceptron", "images", source) for source in models.IMAGE_SOURCES),
        *(("language", "texts", source) for source in models.TEXT_SOURCES),
        *(("tabular", "tables", source) for source in dataset.TABLES),
    ],
)
def test_every_source_is_read(kind, field, source):
    spec = distribution.Distribution(
        num_families=1,
        kinds={kind: 1.0},
        augmentations=augmentations.NO_AUGMENTATIONS,
        **{field: {source: 1.0}},
    )
    (family,) = distribution.draw(spec, 0)
    assert family.name.endswith(f" on {source}")
    base.check_task(member(family))


def test_perceptrons_are_normalised_where_it_is_drawn():
    spec = distribution.Distribution(
        num_families=40,
        kinds={"perceptron": 1.0, "tabular": 1.0, "autoencoder": 1.0},
        normalisations=("none", "layer"),
        augmentations=augmentations.NO_AUGMENTATIONS,
    )
    drawn_names = names(spec, 0)
    counts = collections.Counter(
        name.split()[0] for name in drawn_names if "layer-normalised" in name
    )
    assert set(counts) == {"perceptron", "tabular"}
    assert 5 < counts.total() < 25
    family = next(f for f in distribution.draw(spec, 0) if "layer-normalised" in f.name)
    params = jax.eval_shape(member(family).init, jax.random.key(0))["params"]
    assert any(name.startswith("LayerNorm") for name in params)


def test_what_is_new_changes_no_older_draw():
    """Names that version 0.5 drew; stored runs are resumed on the same families."""
    assert names(distribution.Distribution(num_families=3), 3) == [
        "convolution 4-4 relu batch 32 on clutter, 27 rows of it, bfloat16, stretched by tensor",
        "perceptron 64-32-32-32-10 elu uniform batch 32 on clusters, stretched by tensor",
        "transformer 16x1 elu uniform batch 64 on clutter, stretched by parameter",
    ]


def test_a_config_goes_through_yaml_and_back(tmp_path):
    spec = dataclasses.replace(distribution.CELO, windows=(8,), num_families=3)
    path = tmp_path / "spec.yaml"
    path.write_text(codec.dump(spec))
    assert config.load_config(distribution.Distribution, path) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kinds: {perceptrons: 1}", r"unknown 'perceptrons' \(did you mean 'perceptron'\?\)"),
        ("kinds: {}", "kinds has no entry above 0"),
        ("images: {digits: -1}", r"images.digits is -1"),
        ("texts: {jargn: 1}", "did you mean 'jargon'"),
        ("tables: {wines: 1}", "did you mean 'wine'"),
        ("normalisations: []", "normalisations is empty"),
        ("widths: []", r"widths is \[\]"),
        ("model_widths: [7]", "two heads need even ones"),
        ("activations: [rleu]", "activations"),
        ("contrasts: [2, 1]", "contrasts has"),
        ("augmentations: {delayed: 2}", "delayed is 2"),
        ("augmentations: {stretch: {tensors: 1}}", "did you mean 'tensor'"),
        ("num_families: 0", "num_families is 0"),
    ],
)
def test_what_is_wrong_in_a_config_is_said(tmp_path, text, message):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        config.load_config(distribution.Distribution, path)
