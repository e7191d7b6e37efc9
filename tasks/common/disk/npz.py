"""NumPy's archives from strangers: only arrays, with sizes known before they are read.

`numpy.load` unpacks as much as an entry claims to hold, even a terabyte of zeros. It reads no
further than an array's own header says, so that a damaged header may go unnoticed, and does not
verify the checksum of what it has not read. Here every entry is as long as its array, all of it is
read, and its checksum holds.
"""

import io
import math
import zipfile
from typing import Any, Final

import numpy as np

MAX_BYTES: Final = 1 << 30
_MAX_ENTRIES: Final = 100_000
_SUFFIX: Final = ".npy"


def read(content: bytes, *, max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """Return the arrays of an archive by their names.

    Args:
      content: Content of the file.
      max_bytes: Limit of the bytes of all arrays together.

    Raises:
      ValueError, zipfile.BadZipFile, ...: It is not an archive, is damaged, or holds too much.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
        names = [entry.filename.removesuffix(_SUFFIX) for entry in entries]
        if len(entries) > _MAX_ENTRIES or len(set(names)) < len(names):
            raise ValueError(f"{len(entries)} entries, which are too many or of equal names")
        total = sum(entry.file_size for entry in entries)
        if total > max_bytes:
            raise ValueError(f"it would take {total} bytes; at most {max_bytes} are read")
        return {
            name: array(archive.read(entry)) for name, entry in zip(names, entries, strict=True)
        }


def array(content: bytes) -> np.ndarray:
    """Return the array of an `.npy` file.

    Raises:
      ValueError: It is not an array, or longer or shorter than its header says.
    """
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    readers: Any = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"an array file of version {version}")
    shape, is_fortran, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    begin = stream.tell()
    if math.prod(shape) * dtype.itemsize != len(content) - begin:
        raise ValueError(f"{len(content) - begin} bytes for an array {dtype} {list(shape)}")
    flat = np.frombuffer(content, dtype, math.prod(shape), begin)
    return flat.reshape(shape, order="F" if is_fortran else "C").copy()
