"""`Program`: an update rule and its methods.

The value itself is in `language/statements.py`. This class adds the methods that need other parts
of the search: parsing, lowering, simplification, printing, and the Optax transform.
"""

from dataclasses import dataclass
from typing import final

from veldt.search import simplify
from veldt.search.language import dataflow, parse
from veldt.search.language import printing as pretty
from veldt.search.language.latex import formula
from veldt.search.language.statements import AbstractProgram
from veldt.search.runtime import optax_transform


@final
@dataclass(frozen=True, slots=True)
class Program(AbstractProgram):
    """An update rule: a frozen value that prints as valid Python and parses back equal."""

    __doc__ = AbstractProgram.__doc__

    @classmethod
    def parse(cls, text: str) -> "Program":
        """Read a program from its text without ever executing it.

        Raises:
          ProgramSyntaxError: The text is outside the language; the message names line, column and
            what is allowed.
          ProgramTypeError: A scalar is given where a tensor is needed, or the other way round.
        """
        return parse.parse_program(text, cls)

    def lower(self) -> dataflow.Dataflow:
        """Return the program as a graph of values, checked; see `dataflow.lower`."""
        return dataflow.lower(self)

    def simplify(self) -> "Program":
        """Return the same behaviour up to rounding, in the shortest form known."""
        return simplify.simplify(self)

    def pretty(self) -> str:
        """Return the text as a person would write it, with single-use values nested.

        It parses to the same behaviour.
        """
        return pretty.pretty(self)

    def latex(self) -> str:
        """Return the rule as a formula in LaTeX: an `aligned` block for a display with amsmath."""
        return formula.formula(self)

    def _repr_latex_(self) -> str:
        """Return the formula as notebooks show it."""
        return f"$$\n{self.latex()}\n$$"

    @property
    def as_optax(self) -> optax_transform.OptaxFactory:
        """Return the factory of an Optax transform, `as_optax(learning_rate, **constants)`.

        Its signature names the program's constants. A program that reads a guessed role takes
        `roles=veldt.Roles(...)` too.
        """
        return optax_transform.optax_factory(self)
