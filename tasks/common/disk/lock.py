"""Directories that one process works in at a time."""

import contextlib
import datetime
import os
import socket
from pathlib import Path
from typing import Final, Self, final

import filelock

from veldt.tasks.common import errors

FILE_NAME: Final = "lock"


@final
class DirectoryLock:
    """A directory that this process holds until it closes it or ends, in whatever way.

    Readers are not kept out. The lock file says who holds the directory.
    """

    def __init__(self, directory: Path):
        """Take a directory.

        Raises:
          FileError: Another process holds it, or it cannot be written.
        """
        path = directory / FILE_NAME
        self._lock = filelock.FileLock(path, blocking=False, thread_local=False)
        try:
            self._lock.acquire()
        except filelock.Timeout:
            holder = _read(path)
            raise errors.FileError(
                f"{directory} is in use by another veldt process{f' ({holder})' if holder else ''}"
            ) from None
        except (OSError, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or error
            raise errors.FileError(f"{directory} cannot be written: {reason}") from None
        since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        # On a full disk, or on Windows, where no one can write to a locked file, it has no name.
        with contextlib.suppress(OSError):
            path.write_text(f"host {socket.gethostname()}, process {os.getpid()}, since {since}\n")

    def close(self) -> None:
        """Give the directory back."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _read(path: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError), path.open(encoding="utf-8") as handle:
        return handle.read(200).strip()
    return ""
