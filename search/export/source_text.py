"""Pieces of generated Python source: numbers, calls, names, and text from outside made harmless.

All that an export takes from a program's author goes through `identifier` (names) or `plain`
(text), so that nothing of it is ever code.
"""

import keyword
import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Final

LINE_LENGTH: Final = 100


def number_text(number: float) -> str:
    """Return a number as Python source, in the form that formatters do not change."""
    if not math.isfinite(number):
        return f'float("{float(number)}")'
    return repr(float(number)).replace("e+", "e")


def call_lines(head: str, args: Sequence[str], tail: str, indent: str) -> list[str]:
    """Return `head(args` and `tail`, on one line, or one argument per line if it is too long."""
    line = f"{head}({', '.join(args)}{tail}"
    if len(line) <= LINE_LENGTH or not args:
        return [line]
    return [f"{head}(", *(f"{indent}    {arg}," for arg in args), f"{indent}{tail}"]


def identifier(name: str, length: int, taken: Iterable[str]) -> str:
    """Return a plain ASCII name that is none of `taken` and at most `length` long."""
    base = re.sub(r"[^A-Za-z0-9_]", "", name).lstrip("_")[:length]
    if not base or base[0].isdigit() or keyword.iskeyword(base):
        base = f"v{base}"[:length]
    candidate = base
    number = 2
    while candidate in taken:
        suffix = f"_{number}"
        candidate = base[: length - len(suffix)] + suffix
        number += 1
    return candidate


def camel_case(name: str) -> str:
    """Return a name with underscores as the name of a class."""
    return "".join(part[0].upper() + part[1:] for part in name.split("_") if part)


def plain(text: str) -> str:
    """Return text for any docstring: nothing that ends it, escapes, or does not print."""
    text = text.replace("\\", "/").replace('"""', "'''")
    return "".join(char if char.isprintable() else " " for char in text)


def wrap(text: str, width: int = LINE_LENGTH, hanging: str = "") -> list[str]:
    """Return text as lines of at most `width` columns; those after the first begin `hanging`."""
    # Some characters take two columns.
    width = width if text.isascii() else width // 2
    return textwrap.wrap(text, width, subsequent_indent=hanging)
