"""Files that survive: written whole or not at all, in directories that one process holds at a time.

A reader sees a file's old content or the new one, never half of one.
"""

import contextlib
import datetime
import fcntl
import os
import socket
from pathlib import Path
from typing import Final, TextIO

from veldt.tasks.common import errors

LOCK_NAME: Final = "lock"


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


def lock(directory: Path) -> TextIO:
    """Take a directory for this process; the system gives it back when the process ends.

    Returns:
      The open lock file, which says who holds it; closing it gives the directory back.

    Raises:
      TaskError: Another process holds it, or it cannot be written.
    """
    try:
        # Not "w": who holds it would be forgotten before it is known to be free.
        handle = (directory / LOCK_NAME).open("a+", encoding="utf-8")
    except OSError as error:
        raise errors.TaskError(f"{directory} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        with handle:
            handle.seek(0)
            holder = handle.read(200).strip()
        raise errors.TaskError(
            f"{directory} is in use by another veldt process{f' ({holder})' if holder else ''}"
        ) from None
    since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with contextlib.suppress(OSError):  # A full disk: the lock holds without a name.
        handle.truncate(0)
        handle.write(f"host {socket.gethostname()}, process {os.getpid()}, since {since}\n")
        handle.flush()
    return handle
