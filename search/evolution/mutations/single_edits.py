"""The published mutations: one statement or one number is changed, wherever it stands.

Lion (arXiv 2302.06675, section 2.1): insert a statement at a random place with a random function
and arguments, delete a random statement, alter one argument of a random statement. New constants
are drawn from N(0, 1), existing ones multiplied by 2^a, a ~ N(0, 1). `scale` does the latter alone,
anywhere in the program (the released code's `hparam_tune`). A change of what nothing reads leaves
the rule as it was.
"""

from dataclasses import replace

import numpy as np

from veldt.search.config.evolution_config import MutationConfig
from veldt.search.evolution.mutations import drawing
from veldt.search.language.ops import OPS
from veldt.search.language.statements import READABLE, Arg, Statement
from veldt.search.program import Program


def insert(rng: np.random.Generator, program: Program, config: MutationConfig) -> Program:
    """Return the program with a random statement more."""
    names = config.instructions
    op = OPS[names[rng.integers(len(names))]]
    position = int(rng.integers(len(program.statements) + 1))
    variables = drawing.variables(program, position, config.reads)
    args = tuple(drawing.draw_argument(rng, variables, config) for _ in op.kinds)
    # Half of the results overwrite a variable that later statements may read, half get a new
    # name.
    fixed = {*READABLE, *(name for name, _ in program.constants)}
    overwritable = [name for name in variables if name not in fixed]
    if rng.random() < 0.5:
        target = drawing.pick(rng, overwritable)
    else:
        target = drawing.fresh(drawing.used_names(program))
    return drawing.splice(program, position, position, (Statement(target, op.name, args),))


def delete(rng: np.random.Generator, program: Program, config: MutationConfig) -> Program | None:
    """Return the program with a statement less; None where there is none."""
    del config
    if not program.statements:
        return None
    position = int(rng.integers(len(program.statements)))
    return drawing.splice(program, position, position + 1, ())


def modify(rng: np.random.Generator, program: Program, config: MutationConfig) -> Program | None:
    """Return the program with another argument in one statement; None where there is none."""
    places = [i for i, s in enumerate(program.statements) if s.args]
    if not places:
        return None
    position = places[int(rng.integers(len(places)))]
    statement = program.statements[position]
    which = int(rng.integers(len(statement.args)))
    old = statement.args[which]
    if not isinstance(old, str) and rng.random() < 0.5:
        new: Arg = drawing.scaled(rng, old)
    else:
        variables = drawing.variables(program, position, config.reads)
        new = drawing.draw_argument(rng, variables, config)
    args = (*statement.args[:which], new, *statement.args[which + 1 :])
    return drawing.splice(program, position, position + 1, (replace(statement, args=args),))


def scale(rng: np.random.Generator, program: Program, config: MutationConfig) -> Program | None:
    """Return the program with one number scaled; None where there is none."""
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
        constants[which] = (name, drawing.scaled(rng, value))
        return replace(program, constants=tuple(constants))
    i, j = literals[which - len(program.constants)]
    statement = program.statements[i]
    literal = statement.args[j]
    assert not isinstance(literal, str)
    args = (*statement.args[:j], drawing.scaled(rng, literal), *statement.args[j + 1 :])
    return drawing.splice(program, i, i + 1, (replace(statement, args=args),))
