"""Prompts: what a language model is asked, as a function of what the search knows.

A prompt states the language (from the instruction table), the form and the limits of a program, the
tasks, the rule to improve with its losses, the best of other kinds and what failed and why. It
holds no path, no data and no name of the user's: programs are shown without their docstring under
the name `rule`, and tasks and objectives of the user's own code by a number. The words that the
user gives about the tasks are sent as they are.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, final

from veldt.search.config import objectives
from veldt.search.errors import ProgramError
from veldt.search.llm_text import language_lines, templates_folder
from veldt.search.llm_text.prompt_data import SLOT_NAMES, PromptData, Shown
from veldt.search.program import Program

# Programs that are shown of each list, and characters of other texts.
MAX_SHOWN: Final = 4
_MAX_NOTES: Final = 4_000
_MAX_NOTE: Final = 200
_MAX_ANSWER: Final = 8_000
_MAX_PROBLEM: Final = 2_000
_INITIAL: Final = -1


@final
@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent to a model.

    Attributes:
      system: Text of the system's message.
      user: Text of the user's message.
    """

    system: str
    user: str

    @property
    def digest(self) -> str:
        """SHA-256 of both texts, in hexadecimal digits."""
        sizes = f"{len(self.system)} {len(self.user)}\n"
        text = sizes + self.system + self.user
        return hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()


def build(data: PromptData, templates: Path | None = None) -> Prompt:
    """Return the prompt that asks for new programs.

    Args:
      data: What it shows.
      templates: Folder of the user's own templates; None for veldt's.

    Raises:
      TemplateError: A template cannot be used.
    """
    own = _own_names(data)
    system = {
        "signature": ", ".join(["w", "g", *SLOT_NAMES[: data.num_slots], "*", "b1=0.9", "c=1e-8"]),
        "max_slots": str(data.num_slots),
        "max_statements": str(data.max_statements),
        "reads": language_lines.readable_names(data.reads),
        "instructions": language_lines.instruction_lines(data.instructions),
    }
    tasks = [f"{own.get(name, name)} ({steps} steps)" for name, steps in data.tasks]
    user = {
        "tasks": ", ".join(tasks),
        "objective": _objective(data.objective),
        "about": _about(data.notes),
        "parent": _shown(data.parent, own),
        "best": _list(data.best, own, "No other rule is known yet."),
        "failed": _list(data.failed, own, "Nothing yet."),
        "num_programs": "one new program"
        if data.num_programs == 1
        else f"{data.num_programs} new programs that differ in their ideas",
    }
    return Prompt(
        _filled(templates_folder.SYSTEM, templates, system),
        _filled(templates_folder.USER, templates, user),
    )


def repair(prompt: Prompt, answer: str, problem: str, templates: Path | None = None) -> Prompt:
    """Return the prompt of a further try, with the answer and what was wrong with it.

    Args:
      prompt: Prompt that was answered.
      answer: Text of the answer.
      problem: Words of the parser.
      templates: Folder of the user's own templates; None for veldt's.
    """
    values = {
        "request": prompt.user,
        "answer": _shortened(answer, _MAX_ANSWER),
        "problem": _shortened(problem, _MAX_PROBLEM),
    }
    return replace(prompt, user=_filled(templates_folder.REPAIR, templates, values))


def check_templates(folder: Path) -> None:
    """Check a user's templates; see `templates_folder.check`."""
    templates_folder.check(folder)


def _filled(name: str, templates: Path | None, values: dict[str, str]) -> str:
    text = templates_folder.fill(templates_folder.read(name, templates), values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _own_names(data: PromptData) -> dict[str, str]:
    """Return what stands for the names of the user's own tasks, which name modules."""
    own = [name for name, _ in data.tasks if ":" in name]
    return {name: f"own_task_{number}" for number, name in enumerate(own, 1)}


def _objective(name: str) -> str:
    meaning = "a score of the user's own"
    if name in objectives.OBJECTIVES:
        meaning = objectives.describe(name)
    return (
        f"The loss of a rule is its {meaning}; lower is better. Where it is a log loss, 0 means "
        "that nothing was learnt, and a difference of -0.1 means losses that are 10% lower."
    )


def _list(programs: Sequence[Shown], own: dict[str, str], none: str) -> str:
    return "\n\n".join(_shown(each, own) for each in programs[:MAX_SHOWN]) or none


def _shown(shown: Shown, own: dict[str, str]) -> str:
    """Return a program in a fence, below a line with its number, its losses and its failure."""
    name = "The initial rule" if shown.number == _INITIAL else f"Rule #{shown.number}"
    said = [f"learning rate {shown.learning_rate:.3g}"]
    if shown.loss is not None:
        said.append(f"loss {_number(shown.loss)}")
    if len(shown.by_task) > 1 or (shown.by_task and shown.loss is None):
        said += [f"{own.get(task, task)} {_number(loss)}" for task, loss in shown.by_task]
    if shown.note:
        note = shown.note
        for task, stands_for in own.items():
            note = note.replace(task, stands_for)
        said.append(_shortened(" ".join(note.split()), _MAX_NOTE))
    return f"{name}: {', '.join(said)}.\n\n```python\n{_program_text(shown.program)}```"


def _program_text(text: str) -> str:
    """Return a program as a person would write it, without names and words that are not its own."""
    try:
        program = replace(Program.parse(text), name="rule", doc="")
    except ProgramError:
        return "# (not shown)\n"
    return program.pretty()


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "none"


def _about(notes: str) -> str:
    said = _shortened(notes.strip(), _MAX_NOTES)
    return f"What the user says about the tasks:\n\n{said}" if said else ""


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
