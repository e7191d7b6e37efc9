"""Published trees, laid out here from the authors' code, read into ours."""

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from veldt.learned_opt import errors, published, registry, weight_files
from veldt.learned_opt.architectures import celo2
from veldt.learned_opt.blocks import accumulators, features

# Features of the 14 parts of the first layer: `_ff_mod` of hyper_v2.py and celo2_optax.py.
PARTS = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)
CASES = {
    "celo": ("celo", {"lstm_size": 6}),
    "celo2": ("celo2", {}),
    "celo2_base": ("celo2_base", {}),
    "velo": (
        "velo",
        {
            "lstm_size": 6,
            "bank_size": 3,
            "statistics": "published",
            "loss_horizon": 10.0,
            "recurrence": "held",
        },
    ),
}
EACH = pytest.mark.parametrize("case", CASES)


def make(case):
    name, fields = CASES[case]
    rule = registry.architecture(name, **fields)
    shapes = jax.eval_shape(rule.init, jax.random.key(0))
    rng = np.random.default_rng(1)
    draw = lambda s: rng.normal(scale=0.3, size=s.shape).astype(np.float32)  # noqa: E731
    return rule, jax.tree.map(draw, shapes)


def publish_perceptron(ours, bank_axis):
    """The reverse of what `published` does: one array for each block of features."""
    ends = np.cumsum(PARTS)[:-1]
    theirs = {f"w0__{i}": w for i, w in enumerate(np.split(ours["w0"], ends, axis=-2))}
    theirs |= {key: ours[key] for key in ours if key != "w0"}
    return {"~": {key: w[None] if bank_axis else w for key, w in theirs.items()}}


def publish(case, ours):
    """The tree that the authors' training would have written for our meta-parameters."""
    if case.startswith("celo2"):
        return {"ff_mod_stack": publish_perceptron(ours["mlp"], bank_axis=False)}
    net = ours["scheduler"]
    return {
        "ff_mod_stack": publish_perceptron(ours["mlp"], bank_axis=True)
        if case == "celo"
        else publish_perceptron(ours["bank"], bank_axis=False),
        "lstm_init_state": {key: net["start"][key][None] for key in ("cell", "hidden")},
        "rnn_params": {
            "linear": net["unused"],
            "linear_1": net["mix"],
            "linear_2": net["input"],
            "rnn/linear": net["lstm"],
            "rnn_to_controls": net["controls"],
            "step_size": net["step_size"],
        },
    }


def flat(tree):
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in paths}


def write(tree, path):
    if path.suffix == ".npz":
        np.savez(path, **flat(tree))
    else:
        path.write_bytes(flax.serialization.msgpack_serialize(tree))
    return path


def assert_trees_equal(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@EACH
@pytest.mark.parametrize("name", ["theta.npz", "theta.msgpack", "theta.state"])
def test_every_array_of_a_published_file_has_its_place(case, name, tmp_path):
    rule, ours = make(case)
    path = write(publish(case, ours), tmp_path / name)
    assert_trees_equal(published.read(path, rule), ours)


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=() if c == "celo2" else pytest.mark.slow) for c in CASES]
)
def test_what_was_read_updates_as_what_was_published(case, tmp_path):
    rule, ours = make(case)
    path = write(publish(case, ours), tmp_path / "theta.state")
    rng = np.random.default_rng(2)
    params = {"w": rng.normal(size=(3, 4)).astype(np.float32)}
    grads = {"w": rng.normal(size=(3, 4)).astype(np.float32)}

    def update(meta_params):
        tx = rule.as_optax(meta_params, num_steps=10)
        return tx.update(grads, tx.init(params), params, value=2.0)[0]

    run = jax.jit(update, compiler_options={"xla_backend_optimization_level": 0})
    found = run(published.read(path, rule))
    assert_trees_equal(found, run(jax.device_put(ours)))
    assert np.all(found["w"] != 0)


@pytest.mark.parametrize("blocks", [features.VELO, celo2._BLOCKS])
def test_the_parts_of_the_first_layer_are_our_blocks_of_features(blocks):
    def sizes():
        decays = accumulators.fixed_decays((0.9, 0.99, 0.999), (0.95,), (0.9, 0.99, 0.999))
        tensor = jnp.ones((2, 2))
        known = features.known(tensor, tensor, accumulators.init(tensor, decays))
        return [block(known) for block in blocks]

    assert tuple(len(part) for part in jax.eval_shape(sizes)) == PARTS


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tree: {"params": tree, "gen_id": "a1", "step": 7},
        lambda tree: {"0": tree, "1": "", "2": 0},
    ],
    ids=["ParameterCheckpoint", "tuple"],
)
def test_what_training_writes_around_the_weights_is_taken_off(wrap, tmp_path):
    rule, ours = make("celo")
    path = write(wrap(publish("celo", ours)), tmp_path / "params")
    assert_trees_equal(published.read(path, rule), ours)


def test_a_published_velo_is_as_large_as_the_original():
    """2,320,385 numbers, counted in the original with Haiku."""
    shapes = jax.eval_shape(registry.architecture("velo").init, jax.random.key(0))
    zeros = jax.tree.map(lambda s: np.zeros(s.shape, np.float32), shapes)
    theirs = flat(publish("velo", zeros))
    assert sum(leaf.size for leaf in theirs.values()) == 2_320_385
    assert theirs["rnn_params/rnn/linear/w"].shape == (1024, 2048)
    assert theirs["ff_mod_stack/~/w0__13"].shape == (256, 3, 4)


def test_published_weights_become_a_weight_file_that_veldt_uses(tmp_path):
    _, ours = make("celo2")
    theirs = write(publish("celo2", ours), tmp_path / "theta.state")
    weights = published.load(theirs, "celo2")
    weight_files.write(tmp_path / "mine.npz", weights)
    read = weight_files.read(tmp_path / "mine.npz")
    assert_trees_equal(read.meta_params, ours)
    assert read.architecture == registry.architecture("celo2", adam_paths=".*bias.*|.*embed.*")
    assert read.record == {"published_as": "celo2", "file": "theta.state"}
    with pytest.raises(errors.UnknownArchitectureError, match="did you mean 'celo2'"):
        published.load(theirs, "cello2")


@pytest.mark.parametrize("form", published._FORMS)
def test_every_form_has_an_architecture(form):
    name, fields = published._FORMS[form]
    assert type(registry.architecture(name, **fields)) in published._PERCEPTRONS


def test_what_does_not_map_is_listed(tmp_path):
    rule, ours = make("celo")
    tree = publish("celo", ours)
    tree["rnn_params"]["linear_3"] = tree["rnn_params"].pop("linear_2")
    tree["rnn_params"]["step_size"] = {"w": np.zeros((5, 1)), "b": np.full(1, np.nan)}
    with pytest.raises(errors.WeightsError) as caught:
        published.read(write(tree, tmp_path / "theta.msgpack"), rule)
    message = str(caught.value)
    assert "theta.msgpack: does not fit Celo" in message
    assert "nothing in it maps to: scheduler/input/b, scheduler/input/w;" in message
    assert "maps to nothing of the architecture: rnn_params/linear_3/b, rnn_par" in message
    assert "of another shape: scheduler/step_size/w (5, 1) for (6, 1)" in message
    assert "not finite: scheduler/step_size/b" in message


def test_a_first_layer_without_one_of_its_parts_is_refused(tmp_path):
    rule, ours = make("celo2")
    tree = publish("celo2", ours)
    del tree["ff_mod_stack"]["~"]["w0__4"]
    with pytest.raises(errors.WeightsError, match=r"another shape: mlp/w0 \(29, 8\) for \(30, 8\)"):
        published.read(write(tree, tmp_path / "theta.npz"), rule)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 no zip", b"\x93\x01\x02", b"\x81\xa1a\xa1b", b"\x05"]
)
def test_what_is_no_file_of_arrays_is_one_clear_error(content, tmp_path):
    path = tmp_path / "theta.state"
    path.write_bytes(content)
    with pytest.raises(errors.WeightsError, match=r"theta\.state: (no \.npz or msg|does not fit)"):
        published.read(path, registry.architecture("celo2"))


def test_pickled_objects_are_never_loaded(tmp_path):
    path = tmp_path / "theta.npz"
    np.savez(path, **{"ff_mod_stack/~/b0": np.array([{"a": 1}], object)})
    with pytest.raises(errors.WeightsError, match="an array of Python objects"):
        published.read(path, registry.architecture("celo2"))


def test_missing_files_and_other_architectures_are_refused(tmp_path):
    with pytest.raises(errors.WeightsError, match=r"none\.npz: No such file"):
        published.read(tmp_path / "none.npz", registry.architecture("celo2"))
    with pytest.raises(errors.WeightsError, match="Velo, Celo, Celo2, not for Mlp"):
        published.read(tmp_path / "none.npz", registry.architecture("mlp"))
