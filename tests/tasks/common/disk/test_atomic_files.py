"""Files are written whole, or the old one stays and the error says which could not be."""

import pytest

from veldt.tasks.common import errors
from veldt.tasks.common.disk import atomic_files


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a.bin"
    for content in (b"\x00one", b"two\xff"):
        atomic_files.write_bytes(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_leaves_the_old_content(tmp_path):
    path = tmp_path / "a.bin"
    atomic_files.write_bytes(path, b"old")
    (tmp_path / "a.bin.new").mkdir()  # Where the new content would be prepared.
    with pytest.raises(errors.FileError, match=r"a\.bin cannot be written: Is a directory"):
        atomic_files.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    with pytest.raises(errors.FileError, match="cannot be written"):
        atomic_files.write_bytes(tmp_path / "nowhere" / "a.bin", b"new")


def test_a_text_is_written_as_utf_8(tmp_path):
    path = tmp_path / "a.txt"
    atomic_files.write_text(path, "twö\n")
    assert path.read_bytes() == "twö\n".encode()
    atomic_files.write_text(path, "\ud800", errors="replace")
    assert path.read_bytes() == b"?"
