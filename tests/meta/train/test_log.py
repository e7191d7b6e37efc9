"""What is written down: lines of JSON, cut back to what is known to be done, and TensorBoard."""

import json
import math
import sys
import types

import hypothesis
import pytest
from hypothesis import strategies

from veldt.meta import errors
from veldt.meta.train import log


def write(folder, last, lines):
    """One session."""
    session = log.JsonLog(folder, last)
    for kind, update in lines:
        session.write(kind, update, {"x": update / 2})
    session.close()


def lines_of(folder):
    return [(line["kind"], line["update"]) for line in log.read(folder)]


def test_lines_come_back_as_they_were_written(tmp_path):
    session = log.JsonLog(tmp_path, {})
    session.write("update", 1, {"meta_loss": [0.5, math.nan], "deep": {"x": (1, -math.inf)}})
    session.flush()
    assert list(log.read(tmp_path)) == [
        {"kind": "update", "update": 1, "meta_loss": [0.5, None], "deep": {"x": [1, None]}}
    ]
    session.close()


def test_no_log_has_no_lines(tmp_path):
    assert list(log.read(tmp_path)) == []


@hypothesis.given(strategies.integers(0, 6), strategies.integers(-1, 6), strategies.integers(0, 60))
def test_going_on_keeps_what_is_done_and_no_more(tmp_path_factory, update, check, cut):
    """Whatever was written after the checkpoint, down to a line that breaks off."""
    folder = tmp_path_factory.mktemp("run")
    before = [("check", 0), *(("update", i) for i in range(1, 7)), ("check", 6)]
    write(folder, {}, before)
    path = folder / log.FILE_NAME
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - cut])
    whole = lines_of(folder)
    last = {"update": update, "check": check}
    write(folder, last, [("update", update + 1)])
    kept = [(kind, u) for kind, u in whole if u <= last[kind]]
    assert lines_of(folder) == [*kept, ("update", update + 1)]
    assert path.read_text().endswith("\n")


def test_a_line_that_broke_off_is_passed_over(tmp_path):
    write(tmp_path, {}, [("update", 1), ("update", 2)])
    path = tmp_path / log.FILE_NAME
    path.write_bytes(path.read_bytes()[:-5])
    assert lines_of(tmp_path) == [("update", 1)]


@pytest.mark.parametrize(
    "damage", ["no json", "[1]", '{"kind": "update"}', '{"kind": 1, "update": 1}', "3"]
)
def test_another_damaged_line_is_named(tmp_path, damage):
    good = json.dumps({"kind": "update", "update": 1})
    (tmp_path / log.FILE_NAME).write_text(f"{good}\n{damage}\n{good}\n")
    with pytest.raises(errors.MetaTrainError, match=r"metrics\.jsonl:2: not a line of this log"):
        list(log.read(tmp_path))


def test_tensorboard_without_its_package_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(errors.MetaTrainError, match=r"pip install 'veldt\[tensorboard\]'"):
        log.TensorBoardLog(tmp_path, 0)


def test_tensorboard_gets_a_scalar_for_each_number(tmp_path, monkeypatch):
    """A stand-in for the package, which takes down what it is told."""
    told = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            told.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            told.append((name, value, step))

        def flush(self):
            told.append("flush")

        def close(self):
            told.append("close")

    module = types.ModuleType("tensorboardX")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    board = log.TensorBoardLog(tmp_path, 3)
    board.write("update", 4, {"phase": "a", "meta_loss": [0.5, 0.25], "norm": 1})
    board.write("check", 4, {"score": -1.0, "tasks": {"digits_mlp": -2.0}})
    board.flush()
    board.close()
    assert told == [
        (str(tmp_path / "tensorboard"), 4),
        ("update/meta_loss/0", 0.5, 4),
        ("update/meta_loss/1", 0.25, 4),
        ("update/norm", 1, 4),
        ("check/score", -1.0, 4),
        ("check/tasks/digits_mlp", -2.0, 4),
        "flush",
        "close",
    ]
