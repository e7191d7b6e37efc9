"""Plain lines of text: one every few seconds, and those that must be seen."""

import time
from collections.abc import Callable
from typing import Final, TextIO, final

from veldt.tasks.common.progress import activity_clock
from veldt.tasks.common.progress.display import Status

INTERVAL_S: Final = 5.0
WAITING_INTERVAL_S: Final = 10.0


@final
class PlainDisplay:
    """A display of the first and the last count of each stage, and a line every few seconds."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._last = time.monotonic()
        self._doing = activity_clock.Doing()
        self._ticker = activity_clock.Ticker(self._tick, WAITING_INTERVAL_S)

    def phase(self, text: str, done: int = 0, total: int = 0) -> None:
        line = f"{text}: {done} of {total}" if total else text
        self._doing.begin(line)
        self._ticker.start()
        if done in (0, total) or self._due():
            self.note(line)

    def doing(self, text: str) -> None:
        self._doing.begin(text)
        self._ticker.start()

    def update(self, status: Callable[[], Status]) -> None:
        self._doing.end()
        if self._due() and (line := status().line):
            self.note(line)

    def refresh(self) -> None:
        pass

    def log(self, text: str) -> None:
        self.note(text)

    def note(self, text: str) -> None:
        self._last = time.monotonic()
        self._print(text)

    def close(self) -> None:
        self._ticker.close()
        self._stream.flush()

    def _tick(self) -> None:
        if line := self._doing.line():
            self._print(line)

    def _due(self) -> bool:
        return time.monotonic() - self._last >= INTERVAL_S

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)
