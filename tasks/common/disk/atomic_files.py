"""Files that are written whole or not at all.

A reader sees a file's old content or the new one, never half of one.
"""

import os
from pathlib import Path

from veldt.tasks.common import errors


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, if they do not exist.

    Raises:
      FileError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.FileError(f"{folder} cannot be made: {error.strerror}") from None


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file next to its place and move it there.

    Raises:
      FileError: It cannot be written, for lack of space or of permission; the old file stays.
    """
    draft = path.with_name(path.name + ".new")
    try:
        with draft.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())  # Else a power cut could leave the new name without content.
        draft.replace(path)
    except OSError as error:
        raise errors.FileError(f"{path} cannot be written: {error.strerror}") from None


def write_text(path: Path, text: str, *, errors: str = "strict") -> None:
    """Write a text file in UTF-8, as `write_bytes` does.

    Args:
      path: The file.
      text: The content.
      errors: Handling of characters that UTF-8 has no form for, as for `open`.
    """
    write_bytes(path, text.encode("utf-8", errors))
