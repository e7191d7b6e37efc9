"""Mutations: small random changes to a program and its learning rate.

Lion (arXiv 2302.06675, section 2.1): (1) insert a statement at a random place with a random
function and arguments, (2) delete a random statement, (3) modify: alter one argument of a random
statement to a variable or a constant; new constants are drawn from N(0, 1), existing ones
multiplied by 2^a, a ~ N(0, 1). The paper gives no odds; the released code's are equal. Added here:
`constant` scales one constant anywhere in the program (the released code's `hparam_tune`), and
`learning_rate` scales the learning rate, which is part of the candidate.

Statements that no longer matter stay in the program: later mutations may build on them. A child
that is not well formed is drawn again, as published; how often is counted.
"""

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np

from veldt.search.config.evolution_config import MutationConfig
from veldt.search.evaluation.genotype import MAX_CONSTANT, MAX_RATE, MIN_RATE, Genotype
from veldt.search.language import dataflow
from veldt.search.language.dataflow import LoweringError
from veldt.search.language.ops import OPS
from veldt.search.language.statements import INPUTS, READABLE, Arg, Statement
from veldt.search.program import Program

MAX_TRIES: Final = 100


@final
@dataclass(frozen=True, slots=True)
class Child:
    """A mutated genotype.

    Attributes:
      genotype: Well-formed genotype.
      mutation: Names of the mutations made, joined by `+`.
      invalid: Number of draws thrown away because they were not well formed.
    """

    genotype: Genotype
    mutation: str
    invalid: int


def mutate(rng: np.random.Generator, parent: Genotype, config: MutationConfig) -> Child:
    """Draw a well-formed child. The generator is advanced.

    Args:
      rng: Source of all randomness.
      parent: Genotype that is mutated.
      config: Odds of the mutations.
    """
    invalid = 0
    genotype = parent
    names: list[str] = []
    while True:
        step = None
        for _ in range(MAX_TRIES):
            step = _mutate_once(rng, genotype, config)
            if step is not None:
                break
            invalid += 1
        if (
            step is None
        ):  # nothing fits, as for deletion in a program where every statement is needed
            return Child(genotype, "+".join(names) or "copy", invalid)
        genotype, name = step
        names.append(name)
        if rng.random() >= config.repeat:
            return Child(genotype, "+".join(names), invalid)


def _mutate_once(
    rng: np.random.Generator, parent: Genotype, config: MutationConfig
) -> tuple[Genotype, str] | None:
    """Return one mutation, or None where the draw cannot be made or is not well formed."""
    weights = config.weights()
    program = parent.program
    if len(program.statements) >= config.max_statements:
        weights["insert"] = 0.0
    if not sum(weights.values()):
        return None
    name = _choose(rng, weights)
    if name == "learning_rate":
        rate = float(parent.learning_rate * 2.0 ** rng.normal())
        return Genotype(program, min(max(rate, MIN_RATE), MAX_RATE)), name
    child = {"insert": _insert, "delete": _delete, "modify": _modify, "constant": _scale}[name](
        rng, program, config
    )
    if child is None:
        return None
    try:
        dataflow.check(child)
    except LoweringError:
        return None
    return Genotype(child, parent.learning_rate), name


def _choose(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    """Return `rng.choice(names, p=weights / sum)`, exact to the bit, without its set-up."""
    total = sum(weights.values())
    sums = list(itertools.accumulate(weight / total for weight in weights.values()))
    cumulative = [partial / sums[-1] for partial in sums]
    return list(weights)[bisect.bisect_right(cumulative, rng.random())]


def _insert(rng: np.random.Generator, program: Program, config: MutationConfig) -> Program:
    names = config.instructions
    op = OPS[names[rng.integers(len(names))]]
    position = int(rng.integers(len(program.statements) + 1))
    variables = _variables(program, position, config.reads)
    args = tuple(_draw_argument(rng, variables, config) for _ in op.kinds)
    # Half of the results overwrite a variable that later statements may read, half get a new
    # name.
    fixed = {*READABLE, *(name for name, _ in program.constants)}
    overwritable = [name for name in variables if name not in fixed]
    target = _pick(rng, overwritable) if rng.random() < 0.5 else _fresh(program)
    statement = Statement(target, op.name, args)
    return _with_statements(program, position, position, (statement,))


def _delete(rng: np.random.Generator, program: Program, config: MutationConfig) -> Program | None:
    del config
    if not program.statements:
        return None
    position = int(rng.integers(len(program.statements)))
    return _with_statements(program, position, position + 1, ())


def _modify(rng: np.random.Generator, program: Program, config: MutationConfig) -> Program | None:
    places = [i for i, s in enumerate(program.statements) if s.args]
    if not places:
        return None
    position = places[int(rng.integers(len(places)))]
    statement = program.statements[position]
    which = int(rng.integers(len(statement.args)))
    old = statement.args[which]
    if not isinstance(old, str) and rng.random() < 0.5:
        new: Arg = _scaled(rng, old)
    else:
        new = _draw_argument(rng, _variables(program, position, config.reads), config)
    args = (*statement.args[:which], new, *statement.args[which + 1 :])
    return _with_statements(program, position, position + 1, (replace(statement, args=args),))


def _scale(rng: np.random.Generator, program: Program, config: MutationConfig) -> Program | None:
    del config
    literals = [
        (i, j)
        for i, statement in enumerate(program.statements)
        for j, arg in enumerate(statement.args)
        if not isinstance(arg, str)
    ]
    which = (
        int(rng.integers(len(literals) + len(program.constants)))
        if literals or program.constants
        else -1
    )
    if which < 0:
        return None
    if which < len(program.constants):
        constants = list(program.constants)
        name, value = constants[which]
        constants[which] = (name, _scaled(rng, value))
        return replace(program, constants=tuple(constants))
    i, j = literals[which - len(program.constants)]
    statement = program.statements[i]
    literal = statement.args[j]
    assert not isinstance(literal, str)
    args = (*statement.args[:j], _scaled(rng, literal), *statement.args[j + 1 :])
    return _with_statements(program, i, i + 1, (replace(statement, args=args),))


def _scaled(rng: np.random.Generator, value: float) -> float:
    return min(max(float(value * 2.0 ** rng.normal()), -MAX_CONSTANT), MAX_CONSTANT)


def _draw_argument(
    rng: np.random.Generator, variables: Sequence[str], config: MutationConfig
) -> Arg:
    if rng.random() < config.new_constant:
        return float(rng.normal())
    return _pick(rng, variables)


def _pick(rng: np.random.Generator, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))]


def _variables(program: Program, position: int, reads: Sequence[str]) -> list[str]:
    """Return the names that a statement at `position` may read, in order of first definition."""
    names = [*INPUTS, *program.slots, *reads, *(name for name, _ in program.constants)]
    names += [statement.target for statement in program.statements[:position]]
    return list(dict.fromkeys(names))


def _fresh(program: Program) -> str:
    """Return a name that the program does not use."""
    used = {statement.target for statement in program.statements} | set(_variables(program, 0, ()))
    number = 1
    while f"x{number}" in used:
        number += 1
    return f"x{number}"


def _with_statements(
    program: Program, start: int, stop: int, new: tuple[Statement, ...]
) -> Program:
    statements = (*program.statements[:start], *new, *program.statements[stop:])
    return replace(program, statements=statements)
