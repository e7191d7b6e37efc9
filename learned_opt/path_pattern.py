"""Patterns of parameters' paths, in time that is bounded whoever wrote them.

A regular expression from a file can take longer than anyone waits ("(a+)+$"). What paths need is
less, and is written alike: alternatives parted by "|", each of plain text in which ".*" stands for
any text, "^" at the start for the path's start and "$" at the end for its end.
"""

import re
from typing import Final

_MAX_LENGTH: Final = 1000
# What regular expressions take for more than itself; "." only as part of ".*".
_SPECIAL: Final = re.compile(r"[\\()\[\]{}+?*.^$]")


def check(pattern: str) -> None:
    """See that a pattern is one.

    Raises:
      ValueError: It is not; says what it may be.
    """
    _parse(pattern)


def matches(pattern: str, path: str) -> bool:
    """Return whether a path has a match anywhere, as `re.search` would find it.

    Raises:
      ValueError: The pattern is none.
    """
    return any(_matches(*alternative, path) for alternative in _parse(pattern))


def _parse(pattern: str) -> list[tuple[bool, tuple[str, ...], bool]]:
    """Return for each alternative: from the start, its texts in order, up to the end."""
    if len(pattern) > _MAX_LENGTH:
        raise ValueError(f"a pattern of {len(pattern)} characters; at most {_MAX_LENGTH} are read")
    found = []
    for alternative in pattern.split("|"):
        at_start, at_end = alternative.startswith("^"), alternative.endswith("$")
        texts = alternative[at_start : len(alternative) - at_end].split(".*")
        if any(_SPECIAL.search(text) for text in texts):
            raise ValueError(
                f"{pattern!r} is no pattern of paths: plain text, '.*' for any text, '^' at the "
                "start, '$' at the end, and '|' between alternatives, such as '.*bias.*|embed'"
            )
        found.append((at_start, tuple(texts), at_end))
    return found


def _matches(at_start: bool, texts: tuple[str, ...], at_end: bool, path: str) -> bool:
    first, *rest = texts
    if at_start and not path.startswith(first):
        return False
    if at_end and not rest:
        return path == first if at_start else path.endswith(first)
    place = 0
    # The earliest place of each text leaves the most for those after it.
    for text in (*texts[:-1], *(() if at_end else texts[-1:])):
        found = path.find(text, place)
        if found < 0:
            return False
        place = found + len(text)
    return not at_end or (len(path) - len(texts[-1]) >= place and path.endswith(texts[-1]))
