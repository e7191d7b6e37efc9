r"""Programs as files of LaTeX.

`export_latex` puts a display around the formula of `search/language/latex`, with a caption as
comments: the rule's name, its origin, the defaults of its constants, and how to read it. It goes
into a paper as it is; amsmath is all that it needs. Nothing from outside gets out of the comments.
"""

from collections.abc import Mapping

from veldt.search.language.latex import formula, notation
from veldt.search.program import Program

_HOW_TO_READ = (
    "Needs amsmath. The step t counts from 1; w is the parameter, g its gradient. Fractions,",
    r"powers, roots, functions and \odot go element by element; x / 0 counts as 0.",
)


def export_latex(
    program: Program,
    *,
    learning_rate: float | None = None,
    provenance: Mapping[str, str] | None = None,
) -> str:
    """Write a program as a displayed formula.

    Args:
      program: Rule.
      learning_rate: Learning rate that the rule was found with; None if no search found it.
      provenance: Lines of the caption on the rule's origin.

    Returns:
      The text of the file, ending with a newline.

    Raises:
      LoweringError: The program is not well formed.
    """
    numbers = formula.constants(program)
    if learning_rate is not None:
        numbers = {r"\eta": float(learning_rate)} | numbers
    values = [f"{name} = {notation.number(value).shown.text}" for name, value in numbers.items()]
    caption = [
        f"The update rule {program.name}, written by veldt.",
        *(f"{key}: {value}" for key, value in (provenance or {}).items()),
        *_HOW_TO_READ,
        *([", ".join(values)] if values else []),
    ]
    lines = [f"% {_one_line(line)}" for line in caption]
    return "\n".join([*lines, r"\[", formula.formula(program), r"\]", ""])


def _one_line(text: str) -> str:
    """Return a text without what could end a comment."""
    return "".join(char if char.isprintable() else " " for char in text)
