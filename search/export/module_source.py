"""What exported modules for all libraries have alike: names, a docstring, the program as text."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

from veldt.search.errors import ProgramError
from veldt.search.export import embedded_program
from veldt.search.export.source_text import LINE_LENGTH, identifier, plain, wrap
from veldt.search.language.dataflow import Constant, Dataflow, Input
from veldt.search.language.statements import READABLE
from veldt.search.program import Program

_MAX_RULE_NAME: Final = 40
_MAX_NAME: Final = 25
_MAX_LOCAL_NAME: Final = 24

# The parser's names for the parts of nested expressions, which nobody chose.
_TEMPORARY: Final = re.compile(r"t\d+")
# Names that linters refuse, and those of what every export has.
RESERVED: Final = frozenset(
    (embedded_program.PROGRAM, embedded_program.ORIGIN, *("ValueError", "float", "g", "w"))
) | frozenset(("l", "I", "O", "math", *READABLE))


@final
@dataclass(frozen=True, slots=True)
class Names:
    """Distinct names in a module.

    Attributes:
      values: Name of every live value, by index.
      temporary: Instructions whose names nobody chose.
      constants: Names and defaults of the constants.
      slots: Name of each live slot, by the slot's name in the program.
    """

    values: Mapping[int, str]
    temporary: frozenset[int]
    constants: tuple[tuple[str, float], ...]
    slots: Mapping[str, str]


def rule_name(program: Program, reserved: Iterable[str]) -> str:
    """Return the rule's name in a module: the program's, but for names that mean something else."""
    return identifier(program.name, _MAX_RULE_NAME, reserved)


def choose_names(
    program: Program, flow: Dataflow, targets: Sequence[int], reserved: Iterable[str]
) -> Names:
    """Give every live value a distinct name; constants and slots keep the program's names.

    Args:
      program: Rule.
      flow: Lowered rule.
      targets: Index of each statement's value.
      reserved: Names that the module needs for something else.
    """
    taken = {*reserved}
    names: dict[int, str] = {}
    constants: list[tuple[str, float]] = []
    slots: dict[str, str] = {}

    def choose(name: str, length: int) -> str:
        chosen = identifier(name, length, taken)
        taken.add(chosen)
        return chosen

    for index in sorted(flow.live):
        match flow.values[index]:
            case Input(name=name) if name in flow.slots:
                slots[name] = names[index] = choose(name, _MAX_NAME)
            case Input(name=name):
                names[index] = name
            case Constant(value=value, name=str(name)):
                names[index] = choose(name, _MAX_NAME)
                constants.append((names[index], value))
    wished: dict[int, str] = {}
    for index, statement in zip(targets, program.statements, strict=True):
        if index not in wished or _TEMPORARY.fullmatch(wished[index]):
            wished[index] = statement.target
    temporary = {i for i, name in wished.items() if _TEMPORARY.fullmatch(name)}
    for slot in flow.live_slots:
        index = flow.new_slots[flow.slots.index(slot)]
        if index in wished and index not in names:
            # A slot's old and new value have two names here: nothing is assigned twice.
            if wished[index] == slot or index in temporary:
                wished[index] = f"new_{slot}"
                temporary.discard(index)
            names[index] = choose(wished[index], _MAX_LOCAL_NAME)
    if flow.update in temporary and flow.update not in names:
        wished[flow.update] = "update"
    for index in flow.live_nodes:
        if index not in names:
            names[index] = choose(wished[index], _MAX_LOCAL_NAME)
    return Names(names, frozenset(temporary), tuple(constants), slots)


def used_helpers(helpers: dict[str, str], code: str) -> list[str]:
    """Return the functions that code needs, with those that they need, in the table's order."""
    found: list[str] = []
    for name, source in reversed(helpers.items()):
        if re.search(rf"(?<!\w){name}\(", code):
            found.insert(0, source.rstrip("\n"))
            code += source
    return found


def carried_program(
    program: Program, learning_rate: float | None, provenance: Mapping[str, str]
) -> list[str]:
    """Return the constants for veldt; none for a program with names that no text can have."""
    text = str(program)
    try:
        readable = replace(Program.parse(text), doc="") == replace(program, doc="")
    except ProgramError:
        readable = False
    return [embedded_program.constants(text, learning_rate, provenance)] if readable else []


def docstring(usage: Sequence[str], program: Program, provenance: Mapping[str, str]) -> str:
    """Return a module's docstring: what it is, how to use it, the program, its origin.

    Args:
      usage: First lines.
      program: Rule.
      provenance: Origin of the rule.
    """
    lines = [
        *usage,
        "",
        "The program; w is the parameter, g its gradient, step counts from 1, and training",
        "does w <- w - learning_rate * update:",
        "",
        *(
            f"    {part}"
            for line in replace(program, doc="").pretty().splitlines()
            for part in wrap(plain(line), LINE_LENGTH - 4)
        ),
    ]
    if program.doc:
        lines += ["", "Description:", ""]
        lines += [
            f"> {part}".rstrip()
            for line in program.doc.splitlines()
            for part in wrap(plain(line), LINE_LENGTH - 2) or [""]
        ]
    if provenance:
        lines += ["", "Origin:", ""]
        for key, value in provenance.items():
            lines += wrap(f"- {plain(key)}: {plain(value)}", hanging="  ")
    return '"""' + "\n".join(line.rstrip() for line in lines) + '\n"""'
