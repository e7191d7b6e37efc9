"""A run's best rule on disk: what is read back is what was found, and damage is an error."""

import json

import numpy as np
import pytest
from hypothesis import given

from tests.search.strategies import programs
from veldt.search.errors import SearchError
from veldt.search.language import printing
from veldt.search.program import Program
from veldt.search.storage import best_rule
from veldt.tasks.common.errors import FileError

RULE = Program.parse(
    "def found(w, g, m, *, b1=0.9, c1=0.25):\n"
    "    m = interp(g, m, b1)\n"
    "    x = m * 0.3125\n"
    "    y = x + 0.3125\n"
    "    z = y * 7.5\n"
    "    u = z / 2.0\n"
    "    c2 = u * c1\n"
    "    update = c2 - 1.0\n"
    "    return update, m\n"
)
FOUND = best_rule.Best(RULE, 0.004, {"run": "a run", "seeds": "3"})


def literals(program):
    return [arg for s in program.statements for arg in s.args if not isinstance(arg, str)]


def test_literals_get_names_equal_ones_the_same_and_structure_stays():
    named = best_rule.name_constants(RULE)
    # c1 and c2 are taken: by a constant, and by a statement's target.
    assert dict(named.constants) == {"b1": 0.9, "c1": 0.25, "c3": 0.3125, "c4": 7.5}
    assert literals(named) == [2.0, 1.0]
    assert [s.args for s in named.statements[1:4]] == [("m", "c3"), ("x", "c3"), ("y", "c4")]
    named.lower()


@given(programs())
def test_naming_changes_no_value(program):
    named = best_rule.name_constants(program)
    assert Program.parse(str(named)) == named
    structural = {0.0, 1.0, -1.0, 2.0, -2.0, 0.5}
    assert set(literals(named)) <= structural
    values = dict(named.constants)
    # Putting each constant's value back where its name stands gives the first program.
    new = [name for name in values if name not in dict(program.constants)]
    back = [tuple(values[arg] if arg in new else arg for arg in s.args) for s in named.statements]
    assert back == [s.args for s in program.statements]


def test_what_is_written_is_read_back(tmp_path):
    best_rule.write_best(tmp_path, FOUND)
    read = best_rule.read_best(tmp_path)
    assert (read.learning_rate, dict(read.provenance)) == (0.004, dict(FOUND.provenance))
    assert read.program.name == "found" and read.program.doc == ""
    # The file nests expressions, so the same rule is the same graph, not the same statements.
    assert read.program.lower().structural_hash == RULE.lower().structural_hash
    text = (tmp_path / "best.py").read_text(encoding="utf-8")
    assert "run: a run" in text and "learning rate: 0.004" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.json", "best.py"]


def test_odd_provenance_stays_text(tmp_path):
    odd = 'a """ quote\\ and \x07 "'
    best_rule.write_best(tmp_path, best_rule.Best(RULE, 0.1, {"run": odd}))
    assert best_rule.read_best(tmp_path).provenance == {"run": odd}


def test_the_rule_handed_over_is_simple_and_named():
    wasteful = Program.parse(
        "def rule(w, g, m, v):\n    'doc'\n    v = square(g)\n    x = g * 0.7\n    y = g * 0.7\n"
        "    update = x + y\n    return update, m, v\n"
    )
    made = best_rule.make_best(wasteful, 0.1, "mine", {"a": "b"})
    assert made.program.name == "mine" and made.program.doc == "" and not made.program.slots
    assert dict(made.program.constants) == {"c1": 1.4}
    assert len(made.program.statements) == 1
    assert "c1=1.4" in printing.pretty(made.program)


def test_a_newer_best_takes_the_place_of_the_older(tmp_path):
    best_rule.write_best(tmp_path, FOUND)
    best_rule.write_best(tmp_path, best_rule.Best(RULE, 0.5, {}))
    assert best_rule.read_best(tmp_path).learning_rate == 0.5


@pytest.mark.parametrize("name", ["best.py", "best.json"])
def test_a_missing_file_is_a_clear_error(tmp_path, name):
    best_rule.write_best(tmp_path, FOUND)
    (tmp_path / name).unlink()
    with pytest.raises(SearchError, match="holds no best rule"):
        best_rule.read_best(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("best.py", b""),
        ("best.py", b"\xff\xfe"),
        ("best.py", b"import os\n"),
        ("best.py", b"def f(w, g):\n    return g"[:15]),
        ("best.json", b""),
        ("best.json", b"\xff"),
        ("best.json", b"[1, 2]"),
        ("best.json", b"{}"),
        ("best.json", b'{"learning_rate": "fast", "provenance": {}}'),
        ("best.json", b'{"learning_rate": null, "provenance": {}}'),
        ("best.json", b'{"learning_rate": 0.1, "provenance": 3}'),
        ("best.json", b'{"learning_rate": 0.1, "prov'),
    ],
)
def test_a_damaged_file_is_a_clear_error(tmp_path, name, content):
    best_rule.write_best(tmp_path, FOUND)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SearchError):
        best_rule.read_best(tmp_path)


def test_a_finished_run_s_best_is_its_winner(finished_run):
    found = best_rule.read_best(finished_run)
    data = json.loads((finished_run / "best.json").read_text(encoding="utf-8"))
    assert found.program.name == "discovered"
    assert np.isfinite(found.learning_rate) and found.learning_rate == data["learning_rate"]
    assert found.provenance["run"] == finished_run.name


@pytest.mark.parametrize("name", [best_rule.RULE_FILE, best_rule.PROVENANCE_FILE])
def test_a_best_that_cannot_be_written_is_named(tmp_path, name):
    (tmp_path / f"{name}.new").mkdir()
    with pytest.raises(FileError, match=f"{name} cannot be written"):
        best_rule.write_best(tmp_path, best_rule.make_best(RULE, 0.1, "discovered", {}))
