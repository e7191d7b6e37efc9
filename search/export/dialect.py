"""Dialects: how a program's instructions are written for one array library.

A dialect is a set of tables (the call for each instruction, the source of each value that comes
from outside) and the few things whose form differs: results, comparisons, and choices that are
computed lazily. `leaf_code.py` writes programs with one. All forms, and the functions that they
call, compute what the instruction's `fn` in `ops.py` computes, guards and all.
"""

import abc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from veldt.search.export.source_text import LINE_LENGTH
from veldt.search.language.constant_axes import Extent
from veldt.search.language.types import Kind

# How tightly an expression binds, as in Python.
CHOICE: Final = 0
SUM: Final = 1
PRODUCT: Final = 2
NEGATION: Final = 3
POWER: Final = 4
ATOM: Final = 9

# Operators: the expression and how tightly it binds. They replace calls where they fit.
INFIX: Final[dict[str, tuple[str, int]]] = {
    "add": ("{0:1} + {1:2}", SUM),
    "subtract": ("{0:1} - {1:2}", SUM),
    "multiply": ("{0:2} * {1:3}", PRODUCT),
    "negative": ("-{0:5}", NEGATION),
    "interp": ("(1 - {2}) * {0:3} + {2} * {1:3}", SUM),
}
COMPARISONS: Final = {"less": ("<", ">"), "less_equal": ("<=", ">="), "equal": ("==", "==")}


@final
@dataclass(frozen=True, slots=True)
class Code:
    """An expression in the exported source.

    In format strings, `{code:2}` is in parentheses where it binds less tightly than 2, and
    `{code:t}` or `{code:t2}` is a tensor also where the expression is a number of Python.

    Attributes:
      text: Expression on one line.
      level: How tightly it binds.
      call: Function, arguments and rest of a call, for splitting it over lines; else None.
      is_number: Whether it is a number of Python, and has to be made a tensor for functions.
    """

    text: str
    level: int = ATOM
    call: tuple[str, tuple[str, ...], str] | None = None
    is_number: bool = False

    def __format__(self, spec: str) -> str:
        if self.is_number and spec.startswith("t"):
            return f"_number({self.text}, g)"
        level = int(spec.removeprefix("t") or 0)
        return f"({self.text})" if self.level < level else self.text

    @classmethod
    def of_call(cls, function: str, args: Iterable[str], suffix: str = "") -> "Code":
        args = tuple(args)
        return cls(f"{function}({', '.join(args)}){suffix}", ATOM, (function, args, suffix))


def statement(indent: str, name: str, code: Code) -> list[str]:
    """Return `name = code`, over several lines where it is too long for one."""
    line = f"{indent}{name} = {code.text}"
    if len(line) <= LINE_LENGTH:
        return [line]
    if code.call is None:
        return [f"{indent}{name} = (", f"{indent}    {code.text}", f"{indent})"]
    function, args, suffix = code.call
    return [
        f"{indent}{name} = {function}(",
        *(f"{indent}    {arg}," for arg in args),
        f"{indent}){suffix}",
    ]


@dataclass(frozen=True, slots=True)
class Dialect(abc.ABC):
    """Source for one array library.

    Attributes:
      calls: Function and arguments by instruction. `{0:2}` is the instruction's first argument.
      constants: Source of the instructions without arguments.
      full_shapes: Full shape of a value of each kind that is no scalar.
      shape_roles: Source of the roles that follow from a tensor's shape.
      of_run: Source of step, progress and loss.
      cast: Method that converts to a dtype.
      as_typed: Function that makes an array of a given dtype; empty if there is none.
      broadcast: Function that broadcasts.
      retyping: Instructions whose results may have another dtype than the tensor.
      scalars_widen: Whether a scalar array of a wider dtype makes a tensor's dtype wider.
      keeps_numbers: Whether constants are numbers of Python, which functions do not take.
    """

    calls: Mapping[str, tuple[str, tuple[str, ...]]]
    constants: Mapping[str, str]
    full_shapes: Mapping[Kind, str]
    shape_roles: Mapping[str, str]
    of_run: Mapping[str, str]
    cast: str
    as_typed: str
    broadcast: str
    retyping: frozenset[str]
    scalars_widen: bool
    keeps_numbers: bool

    @abc.abstractmethod
    def truth(self, comparison: str, kind: Kind, *, is_number: bool) -> Code:
        """Return a comparison as a value: 1 where it holds, else 0.

        Args:
          comparison: Source of the comparison.
          kind: Kind of the value.
          is_number: Whether numbers of Python are compared.
        """

    @abc.abstractmethod
    def scalar(self, code: Code, full: Kind) -> str:
        """Return a number as a value of the full shape of a kind, typed as the tensor."""

    @abc.abstractmethod
    def spread(self, code: Code, wanted: Extent) -> str:
        """Return a value as one that varies in the wanted directions, typed as the tensor."""

    @abc.abstractmethod
    def choice(
        self, name: str, condition: str, new: tuple[Sequence[str], str], old: str, indent: str
    ) -> list[str]:
        """Return the lines of a choice whose first branch is computed only where it is chosen.

        Args:
          name: Name of the result.
          condition: Source of the condition, a comparison.
          new: Lines of the first branch, indented once more, and the source of its result.
          old: Source of the second branch.
          indent: Spaces at the beginning of every line.
        """
