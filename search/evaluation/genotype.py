"""The genotype: a program with its dead statements, and its learning rate."""

import json
from dataclasses import dataclass
from typing import Final, final

from veldt.search.program import Program

MAX_CONSTANT: Final = 1e10  # as in the released code
MIN_RATE: Final = 1e-8
MAX_RATE: Final = 1e3


@final
@dataclass(frozen=True, slots=True)
class Genotype:
    """What evolves: a program with its dead statements, and its learning rate."""

    program: Program
    learning_rate: float


def constants_text(program: Program) -> str:
    """Return a program's tuned constants as the store names them: JSON."""
    return json.dumps(dict(program.constants))
