"""Errors of the front door: what a user typed or wrote in a config cannot be used.

The rooms have roots of their own (`TaskError`, ...); the command line knows
them all and turns each into one line and an exit code.
"""

import difflib
from collections.abc import Iterable


class ConfigError(Exception):
    """A config or an override cannot be used. Raised by `veldt.config`; exit code 2."""


class UsageError(Exception):
    """A command line that asks for something that is not there. Raised by `veldt.cli`; exit 2."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the nearest known spelling, or nothing if none is near."""
    near = difflib.get_close_matches(given, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
