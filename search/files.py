"""Writing a file whole, in the words of this room's errors."""

from pathlib import Path

from veldt.search.errors import SearchError
from veldt.tasks.common import errors as task_errors
from veldt.tasks.common.disk import atomic_files


def write_text(path: Path, text: str, *, errors: str = "strict") -> None:
    """Writes a text file beside its place and moves it there.

    Args:
      path: the file.
      text: its content, written as UTF-8.
      errors: what happens to characters that UTF-8 has no form for, as for `open`.

    Raises:
      SearchError: it cannot be written, for want of space or of permission; the old file stays.
    """
    try:
        atomic_files.write_bytes(path, text.encode("utf-8", errors))
    except task_errors.TaskError as error:
        raise SearchError(str(error)) from None
