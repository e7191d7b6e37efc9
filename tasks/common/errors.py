"""The root of all errors that veldt raises on purpose, and those of the package `tasks`.

Each error is one that a user can correct, and its message says how; the command line prints it on
one line and ends with its exit code. Messages are put together by `of`, not by `__init__`: an
exception is unpickled by calling its class with its message, and these cross process boundaries.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Final

from veldt.tasks.common import spelling

FAILURE: Final = 1
USAGE: Final = 2


class VeldtError(Exception):
    """Root of the errors of all packages.

    Attributes:
      exit_code: Exit code of the command line: 1, or 2 if the input cannot be used.
    """

    exit_code: ClassVar[int] = FAILURE


class ConfigError(VeldtError):
    """A config, or a command line's override of one, cannot be used."""

    exit_code = USAGE


class FileError(VeldtError):
    """A file or a directory cannot be read, written or locked, or holds something else."""


class TaskError(VeldtError):
    """Root of the errors of `tasks`: a task is unknown, broken, or its data are missing."""


class UnknownNameError(TaskError):
    """Raised for a name that does not exist: of a module, a function, a candidate."""

    exit_code = USAGE


class UnknownTaskError(UnknownNameError):
    """Raised by `registry.load_task` for a name that is no shipped task."""

    @classmethod
    def of(cls, name: str, known: Iterable[str]) -> "UnknownTaskError":
        """Return an error with the given name, the nearest known one, and all known ones."""
        known = sorted(known)
        return cls(
            f"unknown task {name!r}{spelling.did_you_mean(name, known)}. "
            f"Known tasks: {', '.join(known)}; "
            'a task of your own is named "module:factory".'
        )


class UnknownSuiteError(UnknownNameError):
    """Raised by `suites.load_suite` for a name that is no shipped suite."""


class MissingDataError(TaskError):
    """Raised by a loader that does not find its files; nothing is ever downloaded."""

    @classmethod
    def of(cls, data_set: str, looked_in: Sequence[Path], cure: str) -> "MissingDataError":
        """Return an error that says what is missing, where it was searched, and how to get it."""
        places = ", ".join(str(path) for path in looked_in)
        return cls(f"{data_set} was not found (looked in {places}). {cure}")
