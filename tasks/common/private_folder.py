"""Folders that no one else on this machine can change, for what is loaded as code.

Compiled programs are machine code, and whoever can write to a worker's socket can run any
code. In a folder under `/tmp` that others can write to, or have made before, such files could be
theirs. So veldt keeps them in folders of its own, and checks each time who owns them.
"""

import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from veldt.tasks.common import errors

_ROOT: Final = 0
_UNMAPPED: Final = 65534  # Owner of the system's folders as seen in an unprivileged container.


def temporary() -> Path:
    """Return this user's own folder among the temporary ones, made if need be.

    A short path, since sockets lie in it: `veldt-1000`; RAY_TMPDIR or TMPDIR move it.

    Raises:
      TaskError: Someone else could change the files in it.
    """
    base = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    return make(Path(base) / f"veldt-{os.getuid()}", "set TMPDIR to a folder of yours")


def make(path: Path, remedy: str) -> Path:
    """Return a folder of mode 0700, made if need be with those above it.

    Args:
      path: The folder.
      remedy: Advice to the user if the folder is refused, besides removing it.

    Raises:
      TaskError: It is another user's, or a link; or others can write to it or move it away.
      OSError: It cannot be made.
    """
    path = Path(os.path.abspath(path))
    for folder in (*reversed(path.parents), path):
        if not folder.exists() and not folder.is_symlink():
            folder.mkdir(mode=0o700, exist_ok=True)
    wrong = _fault(path)
    if wrong:
        raise errors.TaskError(
            f"{wrong}. Compiled programs and sockets would be kept there, and another user could "
            f"put their own in their place: remove it, or {remedy}"
        )
    path.chmod(0o700)
    return path


def is_safe_file(path: Path) -> bool:
    """Return whether a file was written by this user or by root."""
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_uid in (os.getuid(), _ROOT)


def _fault(path: Path) -> str:
    """Return what is wrong with a folder; empty if it is this user's alone."""
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return f"{path} is a link or a file, not a folder"
    if found.st_uid != os.getuid():
        return f"{path} belongs to user {found.st_uid}, not to you ({os.getuid()})"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{path} can be written by others (its mode is {stat.S_IMODE(found.st_mode):04o})"
    for folder in path.resolve().parents:
        above = folder.stat()
        if above.st_uid not in (os.getuid(), _ROOT, _UNMAPPED):
            return f"{folder}, in which {path.name} lies, belongs to user {above.st_uid}"
        if above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX:
            return f"{folder}, in which {path.name} lies, can be written by everyone"
    return ""
