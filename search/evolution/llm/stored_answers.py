"""Answers from the store of another run, or from none: a search without any network.

A run that is resumed finds the answers that it has in its own store, and needs no source for them.
What is asked beyond that comes from the store of the run that is replayed, by the number of the
call, where the prompt must be the same; or it is not there, and the search ends with an error.
"""

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

from veldt.search.errors import SearchError
from veldt.search.evolution.llm.answer_source import Request
from veldt.search.storage import llm_calls
from veldt.search.storage.llm_calls import Answer
from veldt.search.storage.store import Store


@final
class StoredAnswers:
    """A store as a source of answers; it is only read."""

    def __init__(self, run_dir: Path | None):
        """Open the store of a run; None stands for no answers at all.

        Raises:
          StoreError: There is no run, or its store cannot be read.
        """
        self._run_dir = run_dir
        self._store = None if run_dir is None else Store.open(run_dir, read_only=True)
        self._open: list[Request] = []

    def ask(self, request: Request) -> None:
        """Take a request; whether its answer is there shows when it is needed."""
        self._open.append(request)

    def arrived(self) -> Sequence[Answer]:
        """Return the answers that are there.

        Those that are not there are left out, as if they were on their way: the end of a search
        may not need them.
        """
        asked, self._open = self._open, []
        found = []
        for request in asked:
            answer = self._find(request)
            if answer is not None:
                found.append(replace(answer, tries=0))
        return found

    def awaits(self) -> str:
        """Return that nothing is awaited from people."""
        return ""

    def need(self, request: Request) -> None:
        """Take notice that the search waits for an answer that has not arrived.

        Raises:
          SearchError: Always, since it is not there; the message says what differs.
        """
        what = f"call {request.call}{' (repair)' if request.round else ''}"
        if self._store is None or self._run_dir is None:
            raise SearchError(
                f"llm.offline: the answer to {what} of model {request.model} is not in the run's "
                "store; go on without llm.offline, or name a run with it by llm.replay"
            )
        asked = llm_calls.prompt_of(self._store, request.call)
        if asked is not None and request.round == 0:
            ours, theirs = f"{request.system}\n{request.user}", "\n".join(asked)
            if ours != theirs:
                raise SearchError(
                    f"llm.replay: {what} has another prompt than in {self._run_dir}: "
                    f"{_first_difference(theirs, ours)}"
                )
        raise SearchError(f"llm.replay: {self._run_dir} has no answer to {what}")

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()

    def _find(self, request: Request) -> Answer | None:
        if self._store is None:
            return None
        for answer in llm_calls.answers(self._store, request.call):
            if answer.round == request.round and answer.digest == request.digest:
                return answer
        return None


def _first_difference(before: str, after: str) -> str:
    """Return in words where two texts begin to differ."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    changed = [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    old = next((line[1:] for line in changed if line[0] == "-"), "")
    new = next((line[1:] for line in changed if line[0] == "+"), "")
    return f"there {old[:100]!r}, here {new[:100]!r}"
