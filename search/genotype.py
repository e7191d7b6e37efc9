"""What evolves: a program with its dead statements, and its learning rate."""

from dataclasses import dataclass
from typing import final

from veldt.search.program import Program


@final
@dataclass(frozen=True, slots=True)
class Genotype:
    """What evolves: a program with its dead statements, and its learning rate."""

    program: Program
    learning_rate: float
