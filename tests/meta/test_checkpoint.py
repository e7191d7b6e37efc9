"""Checkpoints: whole or not there, and what is damaged is named."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from tests.meta import toys
from veldt.learned_opt.blocks import accumulators
from veldt.meta import checkpoint, errors
from veldt.meta.train import build, meta_training, run_meta_training
from veldt.tasks import base

ARRAYS = {
    "meta_params": [np.float32(0.1)],
    "stream": {
        "0": {
            "1": [np.arange(6, dtype=np.uint32).reshape(3, 2), np.array([True, False])],
            "12": [np.full((), i, np.int16) for i in range(12)],
        }
    },
    "version": {"7": [np.float32(2.0)]},
    "best": {"learning_rate": np.float32(0.5), "rate_of_a.b": np.arange(2)},
    "opt_state": [np.int32(7), np.zeros((0, 3), np.float32)],
}
# The same as older versions named them.
NAMED = {
    "meta_params.0": ARRAYS["meta_params"][0],
    **{
        f"stream.0.{family}.{i}": leaf
        for family, leaves in ARRAYS["stream"]["0"].items()
        for i, leaf in enumerate(leaves)
    },
    "version.7.0": ARRAYS["version"]["7"][0],
    **{f"best.{name}": array for name, array in ARRAYS["best"].items()},
    **{f"opt_state.{i}": leaf for i, leaf in enumerate(ARRAYS["opt_state"])},
}
FACTS = {"update": 3, "best_score": None, "wall_s": 0.1, "deep": {"a": [1, 2.5]}}


def stored(update):
    arrays = jax.tree.map(np.asarray, ARRAYS)
    arrays["meta_params"] = [np.asarray(update, np.float32) / 3]
    return checkpoint.Stored(arrays, {**FACTS, "update": update})


def save(folder, *updates):
    with checkpoint.Checkpoints(folder) as checkpoints:
        for update in updates:
            checkpoints.save(update, stored(update))


def restore(folder):
    with checkpoint.Checkpoints(folder) as checkpoints:
        return checkpoints.latest, checkpoints.restore()


def assert_is(found, update):
    expected = stored(update)
    assert found.facts == expected.facts
    assert jax.tree.structure(found.arrays) == jax.tree.structure(expected.arrays)
    for array, wanted in zip(*map(jax.tree.leaves, (found.arrays, expected.arrays)), strict=True):
        assert array.dtype == wanted.dtype
        assert toys.same(array, wanted)


def test_what_is_restored_is_what_was_saved_last(tmp_path):
    save(tmp_path, 1, 2, 7)
    latest, found = restore(tmp_path)
    assert latest == 7
    assert_is(found, 7)
    kept = sorted(path.name for path in (tmp_path / checkpoint.FOLDER).iterdir())
    assert kept == ["2", "7"]


def test_where_nothing_was_saved_there_is_none(tmp_path):
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest is None


def test_what_is_kept_of_an_update_stays(tmp_path):
    save(tmp_path, 1)
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, stored(5))
    assert_is(restore(tmp_path)[1], 1)


def test_one_that_a_kill_left_half_written_is_none(tmp_path):
    """Orbax writes beside the place and moves; this is what is there before the move."""
    save(tmp_path, 1, 2)
    folder = tmp_path / checkpoint.FOLDER
    half = folder / "3.orbax-checkpoint-tmp"
    shutil.copytree(folder / "2", half)
    shutil.rmtree(half / "facts")
    (half / "_CHECKPOINT_METADATA").unlink()
    latest, found = restore(tmp_path)
    assert latest == 2
    assert_is(found, 2)
    save(tmp_path, 3)
    assert restore(tmp_path)[0] == 3
    assert not half.exists()


@pytest.mark.parametrize("part", ["arrays", "facts"])
def test_a_damaged_one_is_named_and_the_one_before_is_still_there(tmp_path, part):
    save(tmp_path, 1, 2)
    last = tmp_path / checkpoint.FOLDER / "2"
    shutil.rmtree(last / part)
    with pytest.raises(errors.MetaTrainError, match=r"checkpoints/2 cannot be read: .*one before"):
        restore(tmp_path)
    shutil.rmtree(last)
    assert_is(restore(tmp_path)[1], 1)


def test_damaged_content_is_named(tmp_path):
    save(tmp_path, 2)
    folder = tmp_path / checkpoint.FOLDER / "2" / "arrays"
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size > 0:
            path.write_bytes(b"\x00" * (path.stat().st_size // 2))
    with pytest.raises(errors.MetaTrainError, match=r"checkpoints/2 cannot be read"):
        restore(tmp_path)


# ------------------------------------------------------------------------------ older versions


def test_one_of_a_newer_form_is_refused(tmp_path, monkeypatch):
    save(tmp_path, 1)
    monkeypatch.setattr(checkpoint, "FORM", checkpoint.FORM - 1)
    with pytest.raises(errors.MetaTrainError, match="a newer veldt wrote it"):
        restore(tmp_path)


def test_names_of_older_checkpoints_become_a_tree():
    tree = checkpoint._as_tree({name: np.asarray(array) for name, array in NAMED.items()})
    wanted = jax.tree.map(np.asarray, ARRAYS)
    assert jax.tree.structure(tree) == jax.tree.structure(wanted)
    assert jax.tree.all(jax.tree.map(np.array_equal, tree, wanted))


def as_written_before(settings, form_2):
    """Progress as a checkpoint of form 1 had it: a tensor's averages next to each other."""
    index, _ = settings.phase_at(form_2.update)
    phase = settings.phases[index]
    moving, frozen = build.split(form_2.meta_params, phase.train)
    each = build.make_estimator(settings, phase, FAMILY, frozen)
    shapes = jax.eval_shape(each.init, moving, jax.random.key(0))

    def before(node):
        if not isinstance(node, accumulators.Moments):
            return node
        parts = (node.momentum, node.rms, *node.factored)
        tensors = {
            name: [part[name] for part in parts if part[name] is not None] for name in node.momentum
        }
        return tensors  # In the order of the fields, as a named tuple's leaves are.

    def old_leaves(leaves):
        state = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
        is_moments = lambda node: isinstance(node, accumulators.Moments)  # noqa: E731
        return tuple(jax.tree.leaves(jax.tree.map(before, state, is_leaf=is_moments)))

    streams = {place: old_leaves(leaves) for place, leaves in form_2.streams.items()}
    return dataclasses.replace(form_2, streams=streams)


def numbered(settings):
    """Progress in the middle of a phase, each array of its states another number."""
    rule = build.architecture(settings)
    meta_params = jax.tree.map(np.asarray, rule.init(jax.random.key(0)))
    phase = settings.phases[0]
    moving, frozen = build.split(meta_params, phase.train)
    each = build.make_estimator(settings, phase, FAMILY, frozen)
    shapes = jax.eval_shape(each.init, moving, jax.random.key(0))
    leaves = tuple(np.full((), number) for number in range(len(jax.tree.leaves(shapes))))
    return meta_training.MetaTrainProgress(1, meta_params, streams={(0, 0): leaves})


class Layers(base.Task):
    """Two tensors, of two ranks: so that the order of their averages shows."""

    name = "layers"

    def init(self, key):
        return {"kernel": jax.random.normal(key, (3, 2)), "bias": jax.numpy.zeros(2)}

    def loss(self, params, key, batch):
        return jax.numpy.mean((batch @ params["kernel"] + params["bias"]) ** 2), {}

    def train_batch(self, key):
        return jax.random.normal(key, (4, 3))

    def eval_batch(self, split):
        return jax.numpy.ones((4, 3))

    def normalizer(self, loss):
        return loss


@dataclasses.dataclass(frozen=True)
class AllLayers(base.TaskFamily):
    """One task."""

    name: str = "all_layers"

    def sample(self, key):
        return jax.random.normal(key)

    def task(self, cfg):
        del cfg
        return Layers()


FAMILY = AllLayers()


@pytest.mark.parametrize("kind", ["pes", "truncated_es"])
def test_states_of_older_checkpoints_are_put_in_order(kind):
    settings = dataclasses.replace(
        toys.settings(toys.phase("first", 3, kind=kind)),
        architecture="celo2",
        fields={"vectors": "network"},
    )
    wanted = numbered(settings)
    old = as_written_before(settings, wanted)
    found = run_meta_training.in_present_form(settings, old, (FAMILY,))
    assert [int(x) for x in found.streams[0, 0]] == [int(x) for x in wanted.streams[0, 0]]


def test_the_config_of_a_checkpoint_is_that_of_the_run(tmp_path):
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, dataclasses.replace(stored(1), config={"seed": 3}))
    assert restore(tmp_path)[1].config == {"seed": 3}
