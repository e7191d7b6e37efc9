"""Files are written whole, or the old one stays and the error says which could not be."""

import pytest

from veldt.search import files
from veldt.search.errors import SearchError
from veldt.search.program import Program
from veldt.search.storage import best_rule

PROGRAM = Program.parse("def rule(w, g):\n    return g\n")


def test_a_text_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("one\n", "twö\n"):
        files.write_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_leaves_the_old_text(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    (tmp_path / "a.txt.new").mkdir()  # Where the new text would be prepared.
    with pytest.raises(SearchError, match=r"a\.txt cannot be written: Is a directory"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    with pytest.raises(SearchError, match="cannot be written"):
        files.write_text(tmp_path / "nowhere" / "a.txt", "new")


@pytest.mark.parametrize("name", [best_rule.RULE_FILE, best_rule.PROVENANCE_FILE])
def test_a_best_that_cannot_be_written_is_named(tmp_path, name):
    (tmp_path / f"{name}.new").mkdir()
    with pytest.raises(SearchError, match=f"{name} cannot be written"):
        best_rule.write_best(tmp_path, best_rule.make_best(PROGRAM, 0.1, "discovered", {}))
