"""What all kinds of mutations share: drawing arguments and numbers, fresh names, splicing."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from veldt.search.config.evolution_config import MutationConfig
from veldt.search.evaluation.genotype import MAX_CONSTANT
from veldt.search.language.statements import INPUTS, READABLE, Arg, Statement
from veldt.search.program import Program


def draw_argument(
    rng: np.random.Generator, variables: Sequence[str], config: MutationConfig
) -> Arg:
    """Return a new constant or one of `variables`."""
    if rng.random() < config.new_constant:
        return float(rng.normal())
    return pick(rng, variables)


def pick(rng: np.random.Generator, names: Sequence[str]) -> str:
    """Return one of the names, all as likely."""
    return names[int(rng.integers(len(names)))]


def scaled(rng: np.random.Generator, value: float) -> float:
    """Return a number times 2^N(0, 1), within bounds."""
    return min(max(float(value * 2.0 ** rng.normal()), -MAX_CONSTANT), MAX_CONSTANT)


def variables(program: Program, position: int, reads: Sequence[str]) -> list[str]:
    """Return the names that a statement at `position` may read, in order of first definition."""
    names = [*INPUTS, *program.slots, *reads, *(name for name, _ in program.constants)]
    names += [statement.target for statement in program.statements[:position]]
    return list(dict.fromkeys(names))


def used_names(program: Program) -> set[str]:
    """Return all names that mean something somewhere in a program."""
    constants = (name for name, _ in program.constants)
    targets = (statement.target for statement in program.statements)
    return {*INPUTS, *READABLE, *program.slots, *constants, *targets}


def fresh(used: set[str]) -> str:
    """Return a name that is not in use."""
    number = 1
    while f"x{number}" in used:
        number += 1
    return f"x{number}"


def splice(program: Program, start: int, stop: int, new: tuple[Statement, ...]) -> Program:
    """Return the program with other statements from `start` to `stop`."""
    statements = (*program.statements[:start], *new, *program.statements[stop:])
    return replace(program, statements=statements)
