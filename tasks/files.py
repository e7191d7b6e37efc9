"""Writing a file whole: a reader sees the old content or the new one, never half of one."""

import os
from pathlib import Path

from veldt.tasks import errors


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there.

    Raises:
      TaskError: It cannot be written, for want of space or of permission; the old file stays.
    """
    draft = path.with_name(path.name + ".new")
    try:
        with draft.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())  # Else a power cut could leave the new name and no content.
        draft.replace(path)
    except OSError as error:
        raise errors.TaskError(f"{path} cannot be written: {error.strerror}") from None
