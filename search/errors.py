"""Errors of the search package.

All derive from `SearchError`.
"""

from veldt.tasks.common import errors


class SearchError(errors.VeldtError):
    """Root of every error that the search package raises on purpose."""


class ProgramError(SearchError):
    """A program that is not well formed. Raised by `Program.parse` and by lowering.

    Attributes:
      line: Line in the program's text, from 1, or None where there is no text.
      column: Column, from 1, or None.
    """

    def __init__(self, message: str, *, line: int | None = None, column: int | None = None):
        self.line = line
        self.column = column
        where = f"line {line}, column {column}: " if line is not None else ""
        super().__init__(where + message)


class ProgramSyntaxError(ProgramError):
    """The text uses something outside the language: a loop, an import, an unknown function."""


class ProgramTypeError(ProgramError):
    """An operation was given a scalar where it needs a tensor, or the other way round."""


class LoweringError(ProgramTypeError):
    """A statement uses a name that is not defined, or an argument of the wrong kind.

    Attributes:
      message: Description of the error.
      statement: Index of the statement, or None.
    """

    def __init__(self, message: str, statement: int | None = None):
        self.message = message
        self.statement = statement
        super().__init__(message)


class CapacityError(SearchError):
    """A program needs more than the interpreter was built for.

    It has too many statements, registers or schedules, an op that the interpreter was built
    without, or values with other shapes than the parameters.
    """


class UnknownNameError(SearchError):
    """A name that does not exist."""

    exit_code = errors.USAGE


class UnknownRuleError(UnknownNameError):
    """A rule name that is neither shipped nor a file nor a run directory."""


class TemplateError(SearchError):
    """A template of a prompt that cannot be used: a placeholder is missing or unknown."""

    exit_code = errors.USAGE


class StoreError(SearchError):
    """A run directory or its store cannot be used: damaged, of another version, or in use."""
