"""The present activity of a command while it shows nothing new, and its time: for displays.

Compiling takes seconds to minutes, often on the very thread that draws; a running clock shows
that the command is still at work.
"""

import threading
import time
from collections.abc import Callable
from typing import Final, final

SHOWN_FROM_S: Final = 1.0  # A shorter activity needs no clock.


@final
class Doing:
    """The present piece of work; read by one thread while another sets it."""

    def __init__(self) -> None:
        self._now: tuple[str, float] | None = None

    def begin(self, text: str) -> None:
        """Set the present activity; the clock goes on if it is the same."""
        if self._now is None or self._now[0] != text:
            self._now = text, time.monotonic()

    def end(self) -> None:
        """Set no activity."""
        self._now = None

    def clock(self) -> str:
        """Return the time spent on it, as 0:35; empty if it is too short."""
        now = self._now
        elapsed_s = 0.0 if now is None else time.monotonic() - now[1]
        minutes, seconds = divmod(int(elapsed_s), 60)
        return f"{minutes}:{seconds:02d}" if elapsed_s >= SHOWN_FROM_S else ""

    def line(self) -> str:
        """Return the activity with its time; empty if it is too short."""
        now, clock = self._now, self.clock()
        return f"{now[0]} [{clock}]" if now is not None and clock else ""


@final
class Ticker:
    """A thread that calls a function repeatedly, until it is closed."""

    def __init__(self, tick: Callable[[], object], interval_s: float):
        self._tick = tick
        self._interval_s = interval_s
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, if it is not started."""
        if self._thread is None and not self._closed.is_set():
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End, and wait for a call under way. May be called twice."""
        self._closed.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(self._interval_s):
            self._tick()
