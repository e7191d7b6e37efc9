"""The choice of a display for a stream."""

import sys
from typing import TextIO

from veldt.tasks.common.progress import live, plain
from veldt.tasks.common.progress.display import Display


def make_display(stream: TextIO | None = None) -> Display:
    """Return a live view on a terminal, plain lines elsewhere; None is standard error."""
    stream = sys.stderr if stream is None else stream
    return live.LiveDisplay(stream) if stream.isatty() else plain.PlainDisplay(stream)
