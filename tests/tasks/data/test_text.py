"""Texts: how they are cut, and where they come from."""

import gzip
import hashlib
import importlib
import importlib.resources
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from veldt.tasks import registry
from veldt.tasks.common import errors
from veldt.tasks.data import text
from veldt.tasks.shipped import language


def test_a_text_is_cut_into_contiguous_parts_and_windows(tmp_path):
    letters = np.frombuffer(b"abcd", np.uint8)
    rng = np.random.default_rng(0)
    train, valid, test = (
        rng.choice(letters, 8000),
        rng.choice(letters + 1, 1000),
        rng.choice(letters + 4, 1000),
    )
    path = tmp_path / "letters.txt"
    path.write_bytes(np.concatenate([train, valid, test]).tobytes())
    corpus = text.load_own(16, path)
    assert corpus.num_symbols == 5  # four letters, and one for e to h
    for split, part, length in (("train", train, 8000), ("valid", valid, 1000)):
        examples = corpus.splits[split]
        assert examples.inputs.shape == ((length - 1) // 16, 16)
        np.testing.assert_array_equal(examples.inputs[:, 1:], examples.targets[:, :-1])
        symbols = np.minimum(part - ord("a"), 4)
        starts = np.arange(0, length - 16, 16)
        expected = {symbols[start : start + 17].astype(np.uint8).tobytes() for start in starts}
        whole = np.concatenate([examples.inputs, examples.targets[:, -1:]], axis=1)
        assert {window.tobytes() for window in whole} == expected
    assert (corpus.splits["test"].inputs == 4).all()


def test_the_text_is_the_environments_where_it_names_one(monkeypatch, tmp_path):
    path = tmp_path / "ab.txt"
    path.write_bytes(b"ab" * 5000)
    monkeypatch.setenv(text.TEXT_VARIABLE, str(path))
    task = registry.load_task("char_gru")
    assert task.module.num_symbols == 3


def test_the_default_text_is_source_of_this_python():
    folder = Path(sysconfig.get_path("stdlib"))
    sizes = [(folder / f"{m}.py").stat().st_size for m in text.STANDARD_LIBRARY_MODULES]
    corpus = text.load_own(16)
    num_read = sum(part.inputs.size for part in corpus.splits.values())
    assert sum(sizes) - 3 * 17 <= num_read <= sum(sizes)
    assert num_read > 500_000


def test_families_read_other_source_than_tasks_do():
    assert not {*text.FAMILY_MODULES} & {*text.STANDARD_LIBRARY_MODULES}
    folder = Path(sysconfig.get_path("stdlib"))
    sizes = [(folder / f"{m}.py").stat().st_size for m in text.FAMILY_MODULES]
    num_read = sum(part.inputs.size for part in text.load_code(8).splits.values())
    assert sum(sizes) - 3 * 9 <= num_read <= sum(sizes)
    assert num_read > 500_000


def test_the_manual_is_what_help_prints():
    topics = importlib.import_module("pydoc_data.topics").topics
    length = len("\n".join(topics.values()).encode())
    corpus = text.load_manual(8)
    num_read = sum(part.inputs.size for part in corpus.splits.values())
    assert length - 3 * 9 <= num_read <= length


@pytest.mark.parametrize("load", [text.load_code, text.load_manual])
def test_a_python_without_its_texts_is_an_error_with_its_cure(monkeypatch, tmp_path, load):
    monkeypatch.setattr(text.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(errors.MissingDataError, match=r"No such file.*standard library"):
        load(7)


def test_a_missing_or_short_text_is_an_error_with_its_cure(tmp_path):
    with pytest.raises(errors.MissingDataError, match=r"No such file.*Set VELDT_TEXT"):
        language.char_gru(tmp_path / "absent.txt")
    short = tmp_path / "short.txt"
    short.write_bytes(b"too short")
    with pytest.raises(errors.TaskError, match=r"short.txt has 9 bytes.*at least"):
        language.char_transformer(short)


@pytest.mark.parametrize("window", [24, 128])
def test_the_embedded_text_is_the_same_everywhere(window):
    corpus = text.load_jargon(window)
    assert corpus.num_symbols == 97  # 95 printable, newline, and one for the rest
    num_read = sum(part.inputs.size for part in corpus.splits.values())
    assert 399_545 - 3 * (window + 1) <= num_read <= 399_545
    assert corpus.splits["train"].inputs.shape == (319_635 // window, window)


def test_the_embedded_text_is_what_the_readme_says():
    path = importlib.resources.files("veldt.tasks.data") / "jargon.txt.gz"
    content = gzip.decompress(path.read_bytes())
    readme = (path.parent / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(content).hexdigest() in readme
    assert content.startswith(b":abbrev: ")
    assert content.isascii()
