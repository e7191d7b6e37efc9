"""A view that redraws itself under a notebook's cell.

It is drawn by IPython, which a notebook's kernel has imported already; veldt does not depend on it.
Its style is in the elements, since a notebook's page has no room for a style sheet of ours.
"""

import math
import sys
import time
from collections.abc import Callable
from typing import Any, Final, final

from veldt.tasks.common.html.markup import Html, join, tag
from veldt.tasks.common.progress import activity_clock
from veldt.tasks.common.progress.display import Status

INTERVAL_S: Final = 0.5
MAX_NOTES: Final = 12  # Older ones are left out, so that the output stays short.
_SOFT: Final = "opacity: .7"


def is_here() -> bool:
    """Return whether this process is a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


@final
class NotebookDisplay:
    """A view of the status with a bar, the present activity and the last notes."""

    def __init__(self) -> None:
        import IPython.display

        self._make = IPython.display.HTML
        self._handle: Any = IPython.display.display(self._make(""), display_id=True)
        self._closed = False
        self._last = -math.inf
        self._phase: tuple[str, int, int] | None = None
        self._status: Callable[[], Status] | None = None
        self._notes: list[str] = []
        self._doing = activity_clock.Doing()
        self._ticker = activity_clock.Ticker(self._show, INTERVAL_S)

    def phase(self, text: str, done: int = 0, total: int = 0) -> None:
        self._phase = (text, done, total)
        self._doing.begin(f"{text}, {done}")
        self._ticker.start()
        self._draw(force=done in (0, total))

    def doing(self, text: str) -> None:
        self.phase(text)

    def update(self, status: Callable[[], Status]) -> None:
        self._status, self._phase = status, None
        self._doing.end()
        self._draw(force=False)

    def refresh(self) -> None:
        self._draw(force=False)

    def log(self, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        self._notes.append(text)
        self._draw(force=True)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._ticker.close()
        self._phase = None  # Its activity is over, or was broken off.
        self._draw(force=True)

    def _draw(self, *, force: bool) -> None:
        now = time.monotonic()
        if force or now - self._last >= INTERVAL_S:
            self._last = now
            self._show()

    def _show(self) -> None:
        self._handle.update(self._make(self._render()))

    def _render(self) -> Html:
        parts: list[object] = []
        if self._status is not None:
            parts += render_status(self._status())
        if self._phase is not None:
            text, done, total = self._phase
            count = f" {done:,} of {total:,}" if total else ""
            line = f"{text}{count} {self._doing.clock()}".rstrip()
            parts.append(tag("div", _bar(done, total) if total else "", line))
        parts += [tag("div", note, style=_SOFT) for note in self._notes[-MAX_NOTES:]]
        return tag("div", *parts, style="font-size: .9em")


def render_status(status: Status) -> list[Html]:
    """Return the status: a bar, what must be seen first, figures, source text."""
    parts = []
    if status.total:
        words = " ".join(filter(None, (status.rate, status.time)))
        parts.append(tag("div", _bar(status.done, status.total), words))
    parts += [tag("div", tag("b", line)) for line in status.highlights or (status.line,) if line]
    if status.figures:
        rows = (
            join([tag("span", name, style=_SOFT), tag("span", figure)])
            for name, figure in status.figures.items()
        )
        grid = "display: grid; grid-template-columns: max-content auto; column-gap: 1em"
        parts.append(tag("div", *rows, style=grid))
    if status.source:
        title = tag("div", status.source_title, style=_SOFT)
        parts.append(tag("div", title, tag("pre", status.source.rstrip())))
    return parts


def _bar(done: int, total: int) -> Html:
    return join([tag("progress", value=min(done, total), max=total), " "])
