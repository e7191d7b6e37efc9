"""The program in an export: the text that an Optax module was written from.

The last lines of an exported module are one or two constants that nothing in it reads: the program,
and its origin. So an export is also a rule file. Its text is data: it is parsed to a tree and
nothing is run.
"""

import ast
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, final

from veldt.search.errors import ProgramSyntaxError
from veldt.search.export.source_text import LINE_LENGTH

PROGRAM: Final = "VELDT_PROGRAM"
ORIGIN: Final = "VELDT_ORIGIN"

_COMMENT: Final = "# For veldt only: the program that this file was written from."
_PIECE: Final = 80
# Imported by code that makes an optimizer, and by no program.
_LIBRARIES: Final = frozenset(("equinox", "flax", "jax", "numpy", "optax", "torch"))


@final
@dataclass(frozen=True, slots=True)
class Exported:
    """The program in an export, with its origin.

    Attributes:
      program: Text of the program.
      learning_rate: Learning rate that it was found with; None where no search found it.
      provenance: Origin of the rule, by short descriptions.
    """

    program: str
    learning_rate: float | None
    provenance: Mapping[str, str]


def constants(program: str, learning_rate: float | None, provenance: Mapping[str, str]) -> str:
    """Return the source of the constants that `read` finds.

    Args:
      program: Text of the program.
      learning_rate: Learning rate that it was found with, or None.
      provenance: Origin of the rule.
    """
    lines = [_COMMENT, *_constant(PROGRAM, program)]
    if learning_rate is not None:
        origin = {"learning_rate": learning_rate, "provenance": dict(provenance)}
        lines += _constant(ORIGIN, json.dumps(origin, indent=1))
    return "\n".join(lines)


def read(text: str) -> Exported | None:
    """Return the program in an export; None for a text that is no export.

    Raises:
      ProgramSyntaxError: The constant that holds the origin is damaged.
    """
    tree = _tree(text) if PROGRAM in text else None
    found = {} if tree is None else dict(_strings(tree))
    if PROGRAM not in found:
        return None
    if ORIGIN not in found:
        return Exported(found[PROGRAM], None, {})
    try:
        origin = json.loads(found[ORIGIN])
        rate = float(origin["learning_rate"])
        provenance = {str(key): str(value) for key, value in origin["provenance"].items()}
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"the learning rate is {rate}")
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ProgramSyntaxError(f"{ORIGIN} is damaged: {error}") from None
    return Exported(found[PROGRAM], rate, provenance)


def remedy(text: str, module: str) -> str:
    """Return advice on a file that is no program but code; empty for anything else.

    Args:
      text: Text of the file.
      module: Name of the module in Python.
    """
    tree = _tree(text)
    imported: set[str] = set()
    for node in tree.body if tree is not None else ():
        if isinstance(node, ast.Import):
            imported.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    if tree is None or not imported & _LIBRARIES:
        return ""
    if "written by veldt" in (ast.get_docstring(tree) or ""):
        return (
            ". This is an export without its program (its last lines are gone, or an earlier "
            "version wrote it): name the rule or run that it was exported from, or export it again"
        )
    return (
        ". This is code that makes an optimizer, and is not run: a rule file holds a program, one "
        "function `def rule(w, g, ...)` of veldt's instructions. Code is compared by "
        f"`veldt evaluate {module}:FUNCTION`"
    )


def _tree(text: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's warnings about odd literals.
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _strings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the module's constants that are strings."""
    for node in tree.body:
        match node:
            case ast.Assign([ast.Name(name)], ast.Constant(str(value))):
                yield name, value


def _constant(name: str, text: str) -> list[str]:
    """Return the lines of `name = "text"`, in pieces where the text is long."""
    pieces = []
    for line in text.splitlines(keepends=True):
        piece = ""
        for char in map(_escaped, line):
            if len(piece) + len(char) > _PIECE:
                pieces.append(piece)
                piece = ""
            piece += char
        pieces.append(piece)
    # Formatters join pieces that fit a line.
    joined = f'"{"".join(pieces)}"'
    if len(name) + 3 + len(joined) <= LINE_LENGTH:
        return [f"{name} = {joined}"]
    if 4 + len(joined) <= LINE_LENGTH:
        return [f"{name} = (", f"    {joined}", ")"]
    return [f"{name} = (", *(f'    "{piece}"' for piece in pieces), ")"]


def _escaped(char: str) -> str:
    # A quote is written by its number: formatters would change the quotes around an escaped one.
    if char.isascii() and char.isprintable() and char not in '"\\':
        return char
    if char in "\n\\":
        return {"\n": "\\n", "\\": "\\\\"}[char]
    number = ord(char)
    if number < 1 << 8:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}"
