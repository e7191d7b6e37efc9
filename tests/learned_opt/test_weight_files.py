"""Weight files: what is written comes back, and nothing else is taken for one."""

import dataclasses
import io
import json
import zipfile

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from veldt.learned_opt import errors, registry, weight_files
from veldt.learned_opt.architectures import celo2, velo

RECORD = {"tasks": ["digits_mlp", "quadratic"], "seed": 3, "cost": {"gpu_h": 0.5}, "note": "ä"}


def draw(rule, seed=0):
    shapes = jax.eval_shape(rule.init, jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)


def make(name="celo2", record=RECORD, **fields):
    rule = registry.architecture(name, **fields)
    return weight_files.Weights(name, rule, draw(rule), record)


def assert_same(found, wanted):
    assert found.name == wanted.name
    assert found.architecture == wanted.architecture
    assert found.record == wanted.record
    assert jax.tree.structure(found.meta_params) == jax.tree.structure(wanted.meta_params)
    jax.tree.map(np.testing.assert_array_equal, found.meta_params, wanted.meta_params)


def edited(content, **entries):
    """The file with entries replaced, added, or (None) taken out."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        kept = {name: old.read(name) for name in old.namelist()} | entries
        for name, data in kept.items():
            if data is not None:
                new.writestr(name, data)
    return out.getvalue()


def with_header(content, change):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        header = json.loads(archive.read("header.json"))
    change(header)
    return edited(content, **{"header.json": json.dumps(header)})


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


@pytest.mark.parametrize("name", [n for n in registry.names() if n != "velo"])  # velo: 9 MB
def test_every_architecture_comes_back(name, tmp_path):
    wanted = make(name)
    weight_files.write(tmp_path / "w.npz", wanted)
    assert_same(weight_files.read(tmp_path / "w.npz"), wanted)


@hypothesis.given(
    fields=st.fixed_dictionaries(
        {},
        optional={
            "hidden_size": st.integers(1, 5),
            "momentum_decays": st.tuples(*[st.floats(0, 1)] * 3),
            "adam_paths": st.none()
            | st.text("ab/|", max_size=1000).map(lambda x: f"{x}.*"[-1000:]),
            "vectors": st.sampled_from(["adam", "network"]),
            "learning_rate": st.floats(1e-9, 1e9),
        },
    ),
    record=st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        ).filter(lambda v: "inf" not in repr(v)),
    ),
)
@hypothesis.settings(max_examples=10)
def test_fields_and_records_come_back(fields, record):
    wanted = make("celo2", record, **fields)
    assert_same(weight_files.from_bytes(weight_files.to_bytes(wanted), "w"), wanted)


def test_options_that_published_weights_need_come_back():
    wanted = make(
        "velo", lstm_size=4, bank_size=2, statistics="published", loss_horizon=10, recurrence="held"
    )
    found = weight_files.from_bytes(weight_files.to_bytes(wanted), "w")
    assert found.architecture == velo.Velo(
        lstm_size=4, bank_size=2, statistics="published", loss_horizon=10.0, recurrence="held"
    )


def test_equal_weights_are_equal_bytes():
    one = make(record={"a": 1, "b": [2, 3]})
    other = dataclasses.replace(make(record={"b": (2, 3), "a": 1}))
    content = weight_files.to_bytes(one)
    assert weight_files.to_bytes(other) == content
    assert weight_files.to_bytes(weight_files.from_bytes(content, "w")) == content
    assert weight_files.to_bytes(make(record={"a": 2, "b": [2, 3]})) != content


def test_numpy_reads_the_arrays_under_their_paths(tmp_path):
    wanted = make()
    weight_files.write(tmp_path / "w.npz", wanted)
    with np.load(tmp_path / "w.npz") as found:
        assert sorted(found.files) == [
            "header.json",
            *(f"meta_params/mlp/{name}" for name in ("b0", "b1", "b2", "w0", "w1", "w2")),
        ]
        np.testing.assert_array_equal(found["meta_params/mlp/w1"], wanted.meta_params["mlp"]["w1"])
        assert json.loads(found["header.json"])["record"] == RECORD


def test_the_tasks_of_the_record_are_names():
    assert make().tasks == {"digits_mlp", "quadratic"}
    assert make(record={}).tasks == frozenset()
    assert make(record={"tasks": "digits_mlp"}).tasks == frozenset()
    assert make(record={"tasks": ["a", 3, None]}).tasks == {"a"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(format=2), "its format is 2"),
        (lambda h: h["architecture"].update(name="cello2"), r"did you mean 'celo2'"),
        (
            lambda h: h["architecture"]["fields"].update(hiden_size=8),
            "unknown field of celo2 'hiden_size' .did you mean 'hidden_size'",
        ),
        (
            lambda h: h["architecture"]["fields"].update(hidden_size="8"),
            "field hidden_size of celo2 is '8', not int",
        ),
        (lambda h: h["architecture"]["fields"].update(hidden_size=True), "is True, not int"),
        (lambda h: h["architecture"]["fields"].update(vectors="lion"), "'lion', not .*Literal"),
        (lambda h: h["architecture"]["fields"].update(rms_decays=0.9), r"is 0\.9, not tuple"),
        (lambda h: h["architecture"]["fields"].update(rms_decays=["a"]), "not tuple"),
        (lambda h: h["architecture"]["fields"].update(adam_paths=3), "is 3, not"),
        (
            lambda h: h["architecture"]["fields"].update(hidden_size=9),
            r"\(8,\), not float32 \(9,\)",
        ),
        (lambda h: h["architecture"]["fields"].update(hidden_size=-1), "from 0 to 4096"),
        (lambda h: h["architecture"]["fields"].update(hidden_layers=3), "missing are .*mlp/b3"),
        (lambda h: h.update(record=[1]), "record is no mapping"),
        (lambda h: h.pop("architecture"), "or damaged: KeyError"),
    ],
)
def test_a_header_that_cannot_be_used_says_why(change, message):
    content = with_header(weight_files.to_bytes(make()), change)
    with pytest.raises(errors.WeightsError, match=rf"^some\.npz: .*{message}"):
        weight_files.from_bytes(content, "some.npz")


W1 = "meta_params/mlp/w1.npy"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"header.json": None}, "has no header.json"),
        ({"header.json": b"{"}, "or damaged: JSONDecodeError"),
        ({W1: None}, "missing are meta_params/mlp/w1"),
        ({"meta_params/mlp/w9.npy": npy(np.zeros(2))}, "not known are meta_params/mlp/w9"),
        ({W1: npy(np.full((8, 8), np.nan, np.float32))}, "not finite: meta_params/mlp/w1"),
        (
            {W1: npy(np.zeros((4, 16), np.float32))},
            r"w1 is float32 \(4, 16\), not float.* \(8, 8\)",
        ),
        ({W1: npy(np.zeros((8, 4), np.float64))}, r"w1 is float64 \(8, 4\), not"),
        ({W1: npy(np.zeros((8, 8000), np.float32))}, "w1 is not of shape"),
        ({W1: b"no array" * 99}, "or damaged"),
        ({W1: npy(np.array([{}] * 64, object))}, "or damaged|w1 is not of shape"),
    ],
)
def test_arrays_that_do_not_fit_say_which(entries, message):
    content = edited(weight_files.to_bytes(make()), **entries)
    with pytest.raises(errors.WeightsError, match=rf"^some\.npz: .*({message})"):
        weight_files.from_bytes(content, "some.npz")


@pytest.mark.parametrize("content", [b"", b"veldt", b"PK\x03\x04"])
def test_what_is_no_archive_is_refused(content, tmp_path):
    (tmp_path / "w.npz").write_bytes(content)
    with pytest.raises(errors.WeightsError, match=r"w\.npz: no weight file of veldt, or damaged"):
        weight_files.read(tmp_path / "w.npz")


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=20)
def test_damage_is_an_error_or_harmless(data):
    content = bytearray(weight_files.to_bytes(make()))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = weight_files.from_bytes(bytes(content), "w")
    except errors.WeightsError:
        return
    # What a zip's checksums do not cover: dates, attributes.
    assert_same(found, make())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(errors.WeightsError, match=r"none\.npz: No such file"):
        weight_files.read(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"record": {"a": float("nan")}}, "no JSON"),
        ({"record": {"a": np.zeros(2)}}, "no JSON"),
        ({"meta_params": {"mlp": {}}}, "missing are"),
        ({"meta_params": draw(celo2.Celo2(hidden_size=3))}, r"b0 is float32 \(3,\)"),
        ({"name": "celo2_base", "architecture": velo.Velo()}, "unknown field"),
    ],
)
def test_weights_that_no_file_can_hold_are_not_written(change, message, tmp_path):
    bad = dataclasses.replace(make(), **change)
    with pytest.raises(errors.LearnedOptError, match=message):
        weight_files.write(tmp_path / "w.npz", bad)
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    bad = make()
    bad.meta_params["mlp"]["b1"][2] = np.inf
    with pytest.raises(errors.WeightsError, match="not finite: meta_params/mlp/b1"):
        weight_files.write(tmp_path / "w.npz", bad)


def test_a_field_that_is_newer_than_the_file_has_its_default():
    content = with_header(
        weight_files.to_bytes(make()), lambda h: h["architecture"]["fields"].pop("adam_paths")
    )
    assert_same(weight_files.from_bytes(content, "w"), make())


# What a stranger's header may try, and no field of any architecture takes.
TRAPS = (10**9, -1, 1e9 + 1, 1e300, 10**400, "(a+)+$", "x" * 10**6, [0.9] * 10**5, [[[]]], {}, None)


@pytest.mark.parametrize(
    "name",
    ["mlp", "celo2"]
    + [
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("adafac_mlp", "rnn_mlp", "velo_small", "celo")
    ],
)
def test_no_field_of_a_header_is_a_trap(name):
    """Refused, or harmless: the same arrays in the same sizes; never by allocating what it says."""
    sizes = {"lstm_size": 2, "bank_size": 2} if name == "velo_small" else {}
    wanted = make(name, **sizes)
    content = weight_files.to_bytes(wanted)
    shapes = jax.tree.map(np.shape, wanted.meta_params)
    for field in dataclasses.fields(wanted.architecture):
        for trap in TRAPS:

            def change(header, field=field, trap=trap):
                header["architecture"]["fields"][field.name] = trap

            try:
                found = weight_files.from_bytes(with_header(content, change), "some.npz")
            except errors.WeightsError as error:
                assert str(error).startswith("some.npz: ") and len(str(error)) < 2000
                continue
            assert jax.tree.map(np.shape, found.meta_params) == shapes


def test_a_file_that_is_too_long_is_not_read(tmp_path, monkeypatch):
    weight_files.write(tmp_path / "w.npz", make())
    monkeypatch.setattr(weight_files, "_MAX_FILE_BYTES", 1000)
    with pytest.raises(errors.WeightsError, match=r"w\.npz: longer than 1000 bytes"):
        weight_files.read(tmp_path / "w.npz")
