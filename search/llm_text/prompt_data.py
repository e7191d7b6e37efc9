"""What a prompt shows: plain values, which whoever runs the search fills in."""

from dataclasses import dataclass
from typing import Final, final

# Programs that one answer may have.
MAX_PROGRAMS: Final = 4
# Names of the state slots where veldt gives them.
SLOT_NAMES: Final = ("m", "v", "s", "q", "h", "z")


@final
@dataclass(frozen=True, slots=True)
class Shown:
    """A program as a prompt shows it.

    Attributes:
      number: Number of the proposal; -1 for the initial rule.
      program: Text of the program without dead code.
      learning_rate: Learning rate that it was trained with.
      loss: Fitness, a mean log loss, lower is better; None where it is not known.
      by_task: Names of tasks with the mean log loss on each; may be empty.
      note: Reason of a failure, such as "same behaviour as #812"; empty for none.
    """

    number: int
    program: str
    learning_rate: float
    loss: float | None
    by_task: tuple[tuple[str, float], ...]
    note: str = ""


@final
@dataclass(frozen=True, slots=True)
class PromptData:
    """All that a prompt is made from.

    Attributes:
      tasks: Names of the proxy tasks with the training steps on each.
      objective: Name of the search's objective.
      notes: Words of the user about the tasks; may be empty.
      instructions: Names of the instructions that an answer may use.
      reads: Names that an answer may read besides variables: step, progress, loss and roles.
      max_statements: Largest number of statements.
      num_slots: Largest number of state slots.
      num_programs: Number of programs asked for, 1 to 4.
      parent: Program to improve.
      best: Best few programs of other kinds.
      failed: Recent failures with their reasons.
    """

    tasks: tuple[tuple[str, int], ...]
    objective: str
    notes: str
    instructions: tuple[str, ...]
    reads: tuple[str, ...]
    max_statements: int
    num_slots: int
    num_programs: int
    parent: Shown
    best: tuple[Shown, ...]
    failed: tuple[Shown, ...]
