"""Answers by hand: prompts are written as files, and answers are read from files beside them.

Call 7 is `call_0007.prompt.md`, and its answer is awaited as `call_0007.answer.md`; the repair has
`call_0007.repair.prompt.md`. Whoever answers, a person with a chat window or an agent, writes the
answer under another name and renames it, or writes it in one go: a file counts as complete when it
has not changed for a second. A folder belongs to one run, since an answer to another prompt would
be taken for this run's.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, final

from veldt.search.errors import SearchError
from veldt.search.evolution.llm import chat_format
from veldt.search.evolution.llm.answer_source import Request
from veldt.search.storage import llm_calls
from veldt.search.storage.llm_calls import FAILED, Answer
from veldt.tasks.common.disk import atomic_files

MAX_BYTES: Final = 2**20
CHECK_S: Final = 0.2  # Between checks of the files.
STILL_S: Final = 1.0  # Seconds for which a complete file has not changed.


class _State(NamedTuple):
    """A file as it was when it was seen to change: its size, its time stamp, and when that was."""

    size: int
    stamp_ns: int
    seen: float


@final
class ManualFiles:
    """A folder of files as a source of answers."""

    def __init__(self, folder: Path):
        """Use a folder, which is made where there is none.

        Raises:
          FileError: It cannot be made.
        """
        atomic_files.make_folder(folder)
        self._folder = folder
        self._open: dict[str, tuple[Request, float]] = {}  # By stem, with the time asked.
        self._states: dict[str, _State] = {}
        self._checked = 0.0

    def ask(self, request: Request) -> None:
        """Write the file of a prompt.

        Raises:
          SearchError: The folder holds the answer to another prompt of that number.
          FileError: The file cannot be written.
        """
        stem = _stem(request)
        prompt, text = self._folder / f"{stem}.prompt.md", _text(request)
        if not prompt.is_file() or prompt.read_text(encoding="utf-8") != text:
            if self._answer_file(stem).exists():
                raise SearchError(
                    f"{self._answer_file(stem)} answers another prompt than this run's; set "
                    "llm.manual to another folder, or remove the file"
                )
            atomic_files.write_text(prompt, text)
        self._open[stem] = request, time.monotonic()

    def arrived(self) -> Sequence[Answer]:
        """Return the answers whose files are complete since the last call."""
        now = time.monotonic()
        if now - self._checked < CHECK_S:
            return ()
        self._checked = now
        found = []
        for stem, (request, asked) in list(self._open.items()):
            if self._is_complete(stem, now):
                del self._open[stem]
                found.append(self._read(stem, request, now - asked))
        return found

    def need(self, request: Request) -> None:
        """Take notice that the search waits for an answer, which may take its time."""

    def awaits(self) -> str:
        """Return which files are awaited; empty where none is."""
        if not self._open:
            return ""
        more = f" and {len(self._open) - 1} more" if len(self._open) > 1 else ""
        return f"{self._answer_file(min(self._open))}{more}"

    def close(self) -> None:
        """Leave the files as they are."""

    def _answer_file(self, stem: str) -> Path:
        return self._folder / f"{stem}.answer.md"

    def _is_complete(self, stem: str, now: float) -> bool:
        """Return whether the file of an answer has anything in it and has not changed lately."""
        try:
            status = self._answer_file(stem).stat()
        except OSError:
            return False
        before = self._states.get(stem)
        if before is None or before[:2] != (status.st_size, status.st_mtime_ns):
            self._states[stem] = _State(status.st_size, status.st_mtime_ns, now)
            return False
        return status.st_size > 0 and now - before.seen >= STILL_S

    def _read(self, stem: str, request: Request, latency_s: float) -> Answer:
        try:
            with self._answer_file(stem).open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise SearchError(f"{self._answer_file(stem)} cannot be read: {error}") from None
        asked = chat_format.estimate(request.system, request.user)
        text = content.decode("utf-8", "replace").replace("\0", "")
        status = llm_calls.OK if text.strip() else llm_calls.EMPTY
        if len(content) > MAX_BYTES:
            status, text = f"{FAILED}the answer has more than {MAX_BYTES:,} bytes", ""
        return Answer(
            request.call,
            request.round,
            request.digest,
            status,
            text,
            asked,
            chat_format.estimate(text),
            estimated=True,
            tries=1,
            latency_s=latency_s,
        )


def _stem(request: Request) -> str:
    return f"call_{request.call:04d}{'.repair' if request.round else ''}"


def _text(request: Request) -> str:
    return f"{request.system}\n\n{request.user}\n"
