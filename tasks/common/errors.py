"""Errors of the tasks room: one root, and one class for each thing a user can put right.

Messages are put together by `of`, not by `__init__`: an exception is unpickled by calling its class
with its message, and these cross process boundaries.
"""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path


class TaskError(Exception):
    """Root of the room's errors: a task is unknown, broken, or its data are missing."""


class UnknownNameError(TaskError):
    """Raised for a name that nothing has: a module, a function, a candidate. Exit code 2."""


class UnknownTaskError(UnknownNameError):
    """Raised by `registry.load_task` for a name that is no shipped task."""

    @classmethod
    def of(cls, name: str, known: Iterable[str]) -> "UnknownTaskError":
        """Say which name was given, the nearest known one, and all known ones."""
        known = sorted(known)
        return cls(
            f"unknown task {name!r}{did_you_mean(name, known)}. Known tasks: {', '.join(known)}; "
            'a task of your own is named "module:factory".'
        )


class UnknownSuiteError(UnknownNameError):
    """Raised by `suites.load_suite` for a name that is no shipped suite."""


class MissingDataError(TaskError):
    """Raised by a loader that does not find its files; nothing is ever downloaded."""

    @classmethod
    def of(cls, data_set: str, looked_in: Sequence[Path], cure: str) -> "MissingDataError":
        """Say what is missing, where it was looked for, and how to get it."""
        places = ", ".join(str(path) for path in looked_in)
        return cls(f"{data_set} was not found (looked in {places}). {cure}")


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" with the nearest known spelling, or nothing if none is near."""
    close = difflib.get_close_matches(given, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
