"""Reading a model's answer: programs, or the reasons why there are none.

Any text gives a result and none an exception: a stranger wrote it. Nothing in it is executed; a
program is what the language's parser makes of it (`language/parse.py`), after spellings that models
are used to are rewritten (`leniency.py`). Whatever else an answer says has no effect.

A program is kept without dead code and without its docstring, under the name `rule`, as all of a
search's children are. The docstring's first lines are the idea behind it.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final, final

from veldt.search import simplify
from veldt.search.errors import ProgramError
from veldt.search.language import parse
from veldt.search.language.statements import COPY, READABLE
from veldt.search.llm_text import code_blocks, leniency
from veldt.search.llm_text.prompt_data import MAX_PROGRAMS
from veldt.search.program import Program

MAX_IDEA: Final = 200
MAX_NAME: Final = 40
# Functions of one answer that are read, the last ones; and problems that are told.
_MAX_FUNCTIONS: Final = 32
_MAX_PROBLEMS: Final = 8
_MAX_PROBLEM: Final = 1_000


@final
@dataclass(frozen=True, slots=True)
class Suggested:
    """A program that a model suggested.

    Attributes:
      program: Program within the limits, with as many slots as the search allows.
      idea: First lines of the docstring, at most 200 characters; empty for none.
    """

    program: Program
    idea: str


@final
@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer holds.

    Attributes:
      programs: Programs, in order, each once.
      problems: What could not be read, and why.
    """

    programs: tuple[Suggested, ...]
    problems: tuple[str, ...]


def read(
    answer: str,
    *,
    num_slots: int,
    max_statements: int,
    instructions: Collection[str],
    reads: Collection[str],
    num_programs: int,
) -> Reading:
    """Return the programs of an answer; of more than are wanted, the last ones.

    Args:
      answer: Text of any kind; what comes after 100 KB does not count.
      num_slots: Largest number of state slots.
      max_statements: Largest number of statements, dead ones not counted.
      instructions: Names of the instructions that are allowed.
      reads: Names that may be read besides variables.
      num_programs: Number of programs wanted; at most 4.
    """
    texts = code_blocks.program_texts(answer)
    if not texts:
        said = "has no program: no line begins with `def`" if answer.strip() else "is empty"
        return Reading((), (f"the answer {said}",))
    found: dict[Program, Suggested] = {}
    problems = []
    skipped = max(len(texts) - _MAX_FUNCTIONS, 0)
    for number, text in enumerate(texts[skipped:], skipped + 1):
        try:
            program, idea = _read_program(text)
            _check(program, num_slots, max_statements, instructions, reads)
        except ProgramError as error:
            problems.append(_shortened(f"program {number} of {len(texts)}: {error}", _MAX_PROBLEM))
        else:
            program = program.with_slots(num_slots)
            found.setdefault(program, Suggested(program, idea))
    wanted = min(num_programs, MAX_PROGRAMS)
    return Reading(tuple(found.values())[-wanted:], tuple(problems[-_MAX_PROBLEMS:]))


def idea_of(answer: str, program: Program) -> str:
    """Return the idea of a program that was read from an answer; empty where there is none.

    Args:
      answer: Text of any kind.
      program: Program that an answer is searched for, by its structure.
    """
    wanted = program.lower().structural_hash
    for text in code_blocks.program_texts(answer):
        try:
            found, idea = _read_program(text)
        except ProgramError:
            continue
        if idea and found.lower().structural_hash == wanted:
            return idea
    return ""


def _read_program(text: str) -> tuple[Program, str]:
    """Return a program without dead code, and its idea."""
    try:
        program = parse.read_tree(leniency.rewrite(parse.syntax_tree(text)), Program)
    except RecursionError:
        raise ProgramError("expressions nest too deeply") from None
    return replace(simplify.prune(program), name="rule", doc=""), _idea(program.doc)


def _idea(doc: str) -> str:
    """Return the first paragraph of a docstring on one line, without control characters."""
    words = doc.split("\n\n")[0].split()
    line = " ".join("".join(c for c in word if c.isprintable()) for word in words)
    return _shortened(line, MAX_IDEA)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3].rstrip() + "..."


def _check(
    program: Program,
    num_slots: int,
    max_statements: int,
    instructions: Collection[str],
    reads: Collection[str],
) -> None:
    """Check a program against the limits of the search.

    Raises:
      ProgramError: It is beyond one of them.
    """
    if len(program.slots) > num_slots:
        raise ProgramError(f"it has {len(program.slots)} state slots; at most {num_slots} may be")
    if len(program.statements) > max_statements:
        raise ProgramError(
            f"it has {len(program.statements)} instructions; at most {max_statements} may be"
        )
    ops = {statement.op for statement in program.statements} - {COPY}
    _check_names("uses", ops, instructions)
    args = {arg for statement in program.statements for arg in statement.args}
    _check_names("reads", ({*args, *program.returns} & {*READABLE}), reads)
    names = (*program.slots, *(name for name, _ in program.constants))
    for name in (*names, *(statement.target for statement in program.statements)):
        if len(name) > MAX_NAME:
            raise ProgramError(f"the name {name[:MAX_NAME]}... has more than {MAX_NAME} letters")


def _check_names(verb: str, used: Iterable[object], allowed: Collection[str]) -> None:
    wrong = sorted({str(name) for name in used} - {*allowed})
    if wrong:
        listed = ", ".join(sorted(allowed)) or "none"
        raise ProgramError(f"it {verb} {', '.join(wrong)}, not allowed here; allowed: {listed}")
