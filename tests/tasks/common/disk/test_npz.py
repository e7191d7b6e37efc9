"""Archives from strangers: nothing larger, smaller or other than it says."""

import io
import zipfile
from typing import Any

import numpy as np
import pytest

from veldt.tasks.common.disk import npz


def archive(**entries: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as made:
        for name, entry in entries.items():
            made.writestr(f"{name}.npy", entry)
    return content.getvalue()


def entry(array: Any, **kwargs: Any) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array(content, np.asarray(array), **kwargs)
    return content.getvalue()


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    content = io.BytesIO()
    described = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(content, described)
    return content.getvalue()


def test_what_numpy_writes_is_read():
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": np.asfortranarray(np.arange(6).reshape(3, 2)),
        "c": np.float32(1.5),
        "d": np.zeros((0, 3)),
        "e": np.array(["x", "yy"]),
    }
    for write in (np.savez, np.savez_compressed):
        content = io.BytesIO()
        write(content, **arrays)
        found = npz.read(content.getvalue())
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype


@pytest.mark.parametrize(
    "content",
    [
        archive(a=header((1 << 40,))),
        archive(a=header((1 << 20, 1 << 20, 1 << 20))),
        archive(a=header((2,)) + bytes(4)),
        archive(a=header((2,)) + bytes(12)),
        archive(a=header((-1,)) + bytes(4)),
        archive(a=header((2,), "|O") + bytes(16)),
        archive(a=entry([{}], allow_pickle=True)),
        archive(a=entry([1.0], version=(3, 0))),
        archive(a=b""),
        b"PK",
    ],
    ids=range(10),
)
def test_what_is_not_as_long_as_it_says_is_refused(content: bytes):
    with pytest.raises((ValueError, zipfile.BadZipFile, EOFError)):
        npz.read(content)


def test_a_bomb_is_refused_before_it_is_unpacked():
    """A file a thousand times smaller than what is in it."""
    bomb = archive(a=header((1 << 22,)) + bytes(1 << 24))
    assert len(bomb) < 1 << 16
    with pytest.raises(ValueError, match=r"at most 1000000 are read"):
        npz.read(bomb, max_bytes=1_000_000)
