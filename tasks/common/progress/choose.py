"""The choice of a display for a stream."""

import sys
from typing import TextIO

from veldt.tasks.common.progress import live, notebook, plain
from veldt.tasks.common.progress.display import Display


def make_display(stream: TextIO | None = None) -> Display:
    """Return a live view on a terminal or in a notebook, plain lines elsewhere.

    Args:
      stream: Stream to write to; None for the notebook, where this is one, else standard error.
    """
    if stream is None and notebook.is_here():
        return notebook.NotebookDisplay()
    stream = sys.stderr if stream is None else stream
    return live.LiveDisplay(stream) if stream.isatty() else plain.PlainDisplay(stream)
