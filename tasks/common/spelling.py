"""The nearest known spelling of an unknown name: "Did you mean 'adamw'?"."""

import difflib
from collections.abc import Iterable


def nearest(given: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Return the known names that are spelt much like the given one, the nearest first."""
    return difflib.get_close_matches(given, list(known), n=most)


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" with the nearest known spelling, or nothing if none is near."""
    near = nearest(given, known)
    return f" (did you mean {near[0]!r}?)" if near else ""


def question(given: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?", the same as a sentence of its own."""
    near = nearest(given, known)
    return f" Did you mean {near[0]!r}?" if near else ""
