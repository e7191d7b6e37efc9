"""Run directories: made, locked, labelled, and refused to what is another run."""

import dataclasses
import json
import re

import pytest

from veldt.tasks.common.disk import run_directory
from veldt.tasks.common.disk.lock import DirectoryLock
from veldt.tasks.common.disk.run_directory import RunDirectory, Terms
from veldt.tasks.common.errors import FileError


@dataclasses.dataclass(frozen=True)
class Pool:
    num_workers: int = 1


@dataclasses.dataclass(frozen=True)
class Config:
    task: str
    seed: int = 0
    hurdle: float = float("inf")
    steps: tuple[int, ...] = (1, 2)
    pool: Pool = dataclasses.field(default_factory=Pool)


TERMS = Terms("search", Config, may_differ=("pool",), may_grow=("steps",))


def begin(path, config=Config("digits"), *, holds_run=False, resume=False, terms=TERMS):
    with RunDirectory(path, terms, config) as directory:
        directory.begin(holds_run=holds_run, resume=resume)
    return run_directory.read_record(path)


def test_a_run_is_labelled_with_what_it_is(tmp_path):
    record = begin(tmp_path / "a" / "run")
    assert record.kind == run_directory.kind_of(tmp_path / "a" / "run") == "search"
    assert record.config["hurdle"] == float("inf") and record.config["steps"] == [1, 2]
    assert {"veldt", "jax", "optax", "numpy", "python"} <= set(record.versions)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:]+\+00:00", record.created)
    assert run_directory.read_config(tmp_path / "a" / "run") == record.config
    assert run_directory.describe(tmp_path / "a" / "run") == "it holds a search"


def test_a_resumed_run_keeps_its_beginning_and_takes_what_may_change(tmp_path):
    first = begin(tmp_path)
    now = Config("digits", steps=(1, 2, 3), pool=Pool(4))
    with pytest.raises(
        FileError, match="holds a run: continue it with --resume \\(resume=True in Python\\), or ch"
    ):
        begin(tmp_path, now, holds_run=True)
    second = begin(tmp_path, now, holds_run=True, resume=True)
    assert (second.created, second.versions) == (first.created, first.versions)
    assert second.config["pool"] == {"num_workers": 4} and second.config["steps"] == [1, 2, 3]
    assert "num_workers: 4" in (tmp_path / "config.yaml").read_text()


def test_another_run_is_one_error_that_says_what_may_differ(tmp_path):
    begin(tmp_path)
    with pytest.raises(FileError) as caught:
        begin(tmp_path, Config("digits", seed=7), holds_run=True, resume=True)
    assert str(caught.value) == (
        f"{tmp_path} holds a run with seed = 0, not 7; resumed, a run may differ only in pool, and "
        "have more steps at the end. Choose another --run-dir, or resume with "
        f"{tmp_path}/config.yaml"
    )
    with pytest.raises(FileError, match=r"steps = \[1, 2\], not \[1\]"):
        begin(tmp_path, Config("digits", steps=(1,)), holds_run=True, resume=True)


@dataclasses.dataclass(frozen=True)
class Model:
    name: str
    url: str = ""
    options: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Models:
    models: tuple[Model, ...] = ()


def test_a_part_of_each_item_of_a_list_may_differ_and_the_rest_may_not(tmp_path):
    terms = Terms("search", Models, may_differ=("models.*.url",))
    old = Models((Model("a", "here"), Model("b")))
    begin(tmp_path, old, terms=terms)
    moved = Models((Model("a", "there"), Model("b", "here")))
    begin(tmp_path, moved, holds_run=True, resume=True, terms=terms)
    for other, words in (
        (Models((Model("a"), Model("c"))), r'models\.1\.name = "b", not "c"'),
        (Models((Model("a"),)), r'models\.1 = \{"name": "b".*, not null'),
        (Models((Model("a", options=(1,)), Model("b"))), r"models\.0\.options = \[\], not \[1\]"),
    ):
        with pytest.raises(FileError, match=words):
            begin(tmp_path, other, holds_run=True, resume=True, terms=terms)
    assert terms.lets_differ("models.0.url") and not terms.lets_differ("models.0")


def test_what_left_nothing_to_go_on_with_is_begun_anew(tmp_path):
    begin(tmp_path)
    assert begin(tmp_path, Config("digits", seed=7)).config["seed"] == 7


def test_another_kind_of_run_is_refused(tmp_path):
    begin(tmp_path)
    terms = dataclasses.replace(TERMS, kind="evaluate", option="--out")
    with pytest.raises(FileError, match="holds a search, not an evaluation: choose another --out"):
        begin(tmp_path, terms=terms)
    DirectoryLock(tmp_path).close()  # It was given back.


def test_a_run_of_a_version_that_did_not_label_its_runs_is_labelled_when_resumed(tmp_path):
    (tmp_path / "config.yaml").write_text("task: digits\nseed: 0\n")
    record = begin(tmp_path, holds_run=True, resume=True)
    assert record.config["hurdle"] == float("inf")
    assert (record.created, record.versions) == ("", None)  # Nobody knows.
    with pytest.raises(FileError, match="seed = 0, not 3"):
        begin(tmp_path, Config("digits", seed=3), holds_run=True, resume=True)


def test_a_lost_config_is_an_error_that_names_it(tmp_path):
    for text, message in (("[1, 2]", "is no config of a run"), ("{", r"config\.yaml cannot be re")):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(FileError, match=message):
            begin(tmp_path, holds_run=True, resume=True)
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(FileError, match=r"config\.yaml cannot be read"):
        begin(tmp_path, holds_run=True, resume=True)


def test_a_label_that_is_damaged_or_newer_is_refused(tmp_path):
    begin(tmp_path)
    path = tmp_path / "run.json"
    text = path.read_text()
    for changed in (text.replace('"seed": 0', '"seed": 1'), text[:50], "[]", "{}"):
        path.write_text(changed)
        with pytest.raises(FileError, match=r"run\.json is damaged .*restore it from a copy"):
            begin(tmp_path)
    content = json.loads(text)
    del content["digest"]
    path.write_text(json.dumps(content | {"format": 2}))
    with pytest.raises(FileError, match=r"another version of veldt \(format 2, this one reads 1"):
        run_directory.kind_of(tmp_path)


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"store.sqlite": ""}, "search"),
        ({"config.yaml": "architecture: celo2", "metrics.jsonl": ""}, "meta-train"),
        ({"config.yaml": "tune: {}", "metrics.jsonl": ""}, "tune"),
        ({"weights.npz": ""}, "meta-train"),
        ({"results.json": "{}"}, "evaluate"),
        ({"config.yaml": "tune: {}"}, None),
        ({}, None),
    ],
)
def test_older_runs_are_known_by_what_they_left(tmp_path, files, kind):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert run_directory.kind_of(tmp_path) == kind


@pytest.mark.parametrize("name", ["nowhere", "lion", "a\0b", "x" * 300])
def test_what_is_no_directory_holds_no_run(tmp_path, name):
    assert run_directory.kind_of(tmp_path / name) is None
    assert run_directory.describe(tmp_path / name) == "it holds no run"


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"file/run cannot be made: Not a dir"):
        begin(tmp_path / "file" / "run")
