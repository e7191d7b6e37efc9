"""Update rules as values: statements, and the program that they make.

A program is a straight-line function `(w, g, *slots; constants, step) -> (update, *slots)` (Lion,
arXiv 2302.06675, section 2.1; the grammar is in `parse.py`, what each function means in `ops.py`).
It is a frozen value: hashable, comparable, printable as valid Python that parses back to the same
program. Training does `w <- w - lr * update`; the learning rate stays outside.

Unlike the paper's, a program reads `step` (from 1), `progress` (the step over the length of the
run, at most 1), `loss` (the batch's, before the step) and the parameter's roles (`roles.py`), keeps
up to six state slots, and names its tunable constants as keyword arguments.
"""

from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias, TypeVar, final

from veldt.search.errors import ProgramError
from veldt.search.language.ops import OPS

Arg: TypeAlias = str | float

MAX_SLOTS: Final = 6
STEP: Final = "step"
PROGRESS: Final = "progress"
LOSS: Final = "loss"
# Readable values that only a training run has; a program's transform asks for them.
OF_RUN: Final = (PROGRESS, LOSS)
# Roles of a parameter tensor in its model; one number per tensor, fixed during training.
ROLES: Final = ("ndim", "fan_in", "fan_out", "is_last", "is_embedding")
INPUTS: Final = ("w", "g")
# Scalars that every program may read besides its constants.
READABLE: Final = (STEP, *OF_RUN, *ROLES)
# `x = y` binds a second name to a value; it is no instruction and costs nothing.
COPY: Final = "copy"


def format_arg(arg: Arg) -> str:
    """Return a name unchanged, or a number as the shortest decimal that reads back equal."""
    return arg if isinstance(arg, str) else repr(float(arg))


@final
@dataclass(frozen=True, slots=True)
class Statement:
    """One assignment: `target = op(*args)`, each argument a name or a number."""

    target: str
    op: str
    args: tuple[Arg, ...]
    # The text, once it is known: a child shares its parent's statements.
    _text: str = field(default="", init=False, repr=False, compare=False)

    def __str__(self) -> str:
        if not self._text:
            object.__setattr__(self, "_text", self._written())
        return self._text

    def __reduce__(self) -> "tuple[type[Statement], tuple[str, str, tuple[Arg, ...]]]":
        return Statement, (self.target, self.op, self.args)

    def _written(self) -> str:
        parts = [format_arg(arg) for arg in self.args]
        if self.op == COPY:
            return f"{self.target} = {parts[0]}"
        symbol = OPS[self.op].symbol
        if symbol is None:
            return f"{self.target} = {self.op}({', '.join(parts)})"
        if symbol == "**" and parts[0].startswith("-"):
            parts[0] = f"({parts[0]})"
        return f"{self.target} = {parts[0]} {symbol} {parts[1]}"


AnyProgram = TypeVar("AnyProgram", bound="AbstractProgram")
"""The class of a program that is returned as it was given."""


@dataclass(frozen=True, slots=True)
class AbstractProgram:
    """The text of an update rule as a value; the base class of `veldt.Program`.

    Lowering, execution and simplification work on this class, so that none of them depends on the
    methods of `Program`, which call them.

    Attributes:
      name: Name of the function; exports are called `scale_by_<name>`.
      slots: Names of the state slots, zero at the start, in the order in which they are returned.
        At most six.
      constants: Tunable constants and their defaults, in order.
      statements: Statements of the body.
      returns: Update, then the slots' new values; each a name or a number.
      doc: Docstring, without meaning for the search.
    """

    name: str
    slots: tuple[str, ...]
    constants: tuple[tuple[str, float], ...]
    statements: tuple[Statement, ...]
    returns: tuple[Arg, ...]
    doc: str = ""

    def __str__(self) -> str:
        """Return the program as a Python function, one instruction per line, which parses back."""
        lines = self.head()
        lines += ["    " + str(statement) for statement in self.statements]
        lines.append(f"    return {', '.join(format_arg(arg) for arg in self.returns)}")
        return "\n".join(lines) + "\n"

    def head(self) -> list[str]:
        """Return the first lines: `def name(arguments):`, and the docstring if there is one."""
        signature = [*INPUTS, *self.slots]
        if self.constants:
            signature += ["*", *(f"{name}={float(value)!r}" for name, value in self.constants)]
        lines = [f"def {self.name}({', '.join(signature)}):"]
        if self.doc:
            lines.append(f"    {quote_doc(self.doc)}")
        return lines

    def with_constants(self: AnyProgram, /, **values: float) -> AnyProgram:
        """Return the same program with other defaults for some of its constants."""
        unknown = sorted(set(values) - {name for name, _ in self.constants})
        if unknown:
            allowed = ", ".join(name for name, _ in self.constants) or "none"
            raise ProgramError(f"{self.name} has no constant {unknown[0]!r}; it has: {allowed}")
        constants = tuple((name, float(values.get(name, value))) for name, value in self.constants)
        return replace(self, constants=constants)

    def with_slots(self: AnyProgram, num_slots: int) -> AnyProgram:
        """Return the same program with unused state slots added, up to `num_slots` in all."""
        used = {*INPUTS, *READABLE, *OPS, *self.slots, *(name for name, _ in self.constants)}
        used |= {statement.target for statement in self.statements}
        free = (name for i in range(1, len(used) + MAX_SLOTS) if (name := f"s{i}") not in used)
        new = tuple(next(free) for _ in range(len(self.slots), num_slots))
        return replace(self, slots=(*self.slots, *new), returns=(*self.returns, *new))


def quote_doc(doc: str) -> str:
    """Return `doc` as a docstring, or as a string literal where its content would break out."""
    if (
        '"""' in doc
        or "\\" in doc
        or doc.endswith('"')
        or any(not (c.isprintable() or c == "\n") for c in doc)
    ):
        return repr(doc)
    first, *rest = doc.split("\n")
    if not rest:
        return f'"""{doc}"""'
    return "\n".join([f'"""{first}', *(f"    {line}" if line else "" for line in rest), '    """'])
