"""Writing a file whole: a reader sees the old text or the new one, never half of one."""

import os
from pathlib import Path

from veldt.search.errors import SearchError


def write_text(path: Path, text: str, *, errors: str = "strict") -> None:
    """Writes a text file beside its place and moves it there.

    Args:
      path: the file.
      text: its content, written as UTF-8.
      errors: what happens to characters that UTF-8 has no form for, as for `open`.

    Raises:
      SearchError: it cannot be written, for want of space or of permission; the old file stays.
    """
    draft = path.with_name(path.name + ".new")
    try:
        with draft.open("w", encoding="utf-8", errors=errors) as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())  # Else a power cut could leave the new name and no text.
        draft.replace(path)
    except OSError as error:
        raise SearchError(f"{path} cannot be written: {error.strerror}") from None
