"""Clutter: longer programs of the same behaviour, to test simplification on.

They contain what evolution leaves in a program, and what people remove from it: statements whose
result nothing reads, and a value or an instruction written in a roundabout way.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, TypeAlias

import numpy as np

from veldt.search.language import shapes
from veldt.search.language.ops import OPS
from veldt.search.language.statements import (
    COPY,
    INPUTS,
    AbstractProgram,
    AnyProgram,
    Arg,
    Statement,
)

# Statements whose last one gives `a` again; `n()` draws a new name.
_Detour: TypeAlias = Callable[[Arg, Callable[[], str]], list[Statement]]


def clutter(rng: np.random.Generator, program: AnyProgram, count: int) -> AnyProgram:
    """Make `count` random changes that keep the behaviour. The generator is advanced."""
    for _ in range(count):
        changes = (_dead, _swap, _rewrite, _detour, _detour)
        program = changes[rng.integers(len(changes))](rng, program)
    return program


def _dead(rng: np.random.Generator, program: AnyProgram) -> AnyProgram:
    """Add a statement that nothing reads."""
    at = int(rng.integers(len(program.statements) + 1))
    kinds = shapes.slot_kinds(program)
    names = [*INPUTS, *(slot for slot in program.slots if kinds[slot] == "tensor")]
    op = ("add", "cosh", "interp", "max", "sin")[rng.integers(5)]
    args = tuple(names[rng.integers(len(names))] for _ in range(OPS[op].arity))
    return _spliced(program, at, at, [Statement(next(_fresh(program)), op, args)])


def _swap(rng: np.random.Generator, program: AnyProgram) -> AnyProgram:
    """Swap two arguments."""
    places = [i for i, s in enumerate(program.statements) if s.op in OPS and OPS[s.op].commutative]
    if not places:
        return program
    at = places[rng.integers(len(places))]
    statement = program.statements[at]
    return _spliced(program, at, at + 1, [replace(statement, args=statement.args[::-1])])


def _rewrite(rng: np.random.Generator, program: AnyProgram) -> AnyProgram:
    """Write an instruction in terms of others."""
    names = _fresh(program)
    places = [i for i, s in enumerate(program.statements) if _in_other_words(s, names)]
    if not places:
        return program
    at = places[rng.integers(len(places))]
    return _spliced(program, at, at + 1, _in_other_words(program.statements[at], names))


def _in_other_words(statement: Statement, names: Iterator[str]) -> list[Statement]:
    target = statement.target
    match statement.op, statement.args:
        case "interp", (x, y, a):
            rest, left, right = next(names), next(names), next(names)
            return [
                Statement(rest, "subtract", (1.0, a)),
                Statement(left, "multiply", (rest, x)),
                Statement(right, "multiply", (a, y)),
                Statement(target, "add", (left, right)),
            ]
        case "square", (x,):
            return [Statement(target, "multiply", (x, x))]
        case "divide", (x, y):
            inverse = next(names)
            return [
                Statement(inverse, "reciprocal", (y,)),
                Statement(target, "multiply", (inverse, x)),
            ]
        case "subtract", (x, y):
            negative = next(names)
            return [
                Statement(negative, "negative", (y,)),
                Statement(target, "add", (negative, x)),
            ]
        case "sign", (x,):
            squared, size = next(names), next(names)
            return [
                Statement(squared, "multiply", (x, x)),
                Statement(size, "sqrt", (squared,)),
                Statement(target, "divide", (x, size)),
            ]
        case _:
            return []


def _detour(rng: np.random.Generator, program: AnyProgram) -> AnyProgram:
    """Write an argument in a longer way."""
    places = [(i, j) for i, s in enumerate(program.statements) for j in range(len(s.args))]
    if not places:
        return program
    at, position = places[rng.integers(len(places))]
    statement = program.statements[at]
    names = _fresh(program)
    way = _DETOURS[rng.integers(len(_DETOURS))]
    detour = way(statement.args[position], lambda: next(names))
    args = list(statement.args)
    args[position] = detour[-1].target
    return _spliced(program, at, at + 1, [*detour, replace(statement, args=tuple(args))])


def _twice(first: str, second: str) -> _Detour:
    def way(a: Arg, name: Callable[[], str]) -> list[Statement]:
        one = Statement(name(), first, (a,))
        return [one, Statement(name(), second, (one.target,))]

    return way


def _with(op: str, number: float) -> _Detour:
    return lambda a, name: [Statement(name(), op, (a, number))]


def _there_and_back(a: Arg, name: Callable[[], str]) -> list[Statement]:
    there = Statement(name(), "multiply", (a, 3.0))
    return [there, Statement(name(), "divide", (there.target, 3.0))]


def _sign_and_size(a: Arg, name: Callable[[], str]) -> list[Statement]:
    sign, size = Statement(name(), "sign", (a,)), Statement(name(), "abs", (a,))
    return [sign, size, Statement(name(), "multiply", (size.target, sign.target))]


_DETOURS: Final[tuple[_Detour, ...]] = (
    _twice("negative", "negative"),
    _twice("reciprocal", "reciprocal"),
    _with("multiply", 1.0),
    _with("add", 0.0),
    _there_and_back,
    _sign_and_size,
    lambda a, name: [Statement(name(), "max", (a, a))],
    lambda a, name: [Statement(name(), "interp", (a, a, 0.3))],
    lambda a, name: [Statement(name(), "where", (1.0, a, 2.0))],
)


def _fresh(program: AbstractProgram) -> Iterator[str]:
    used = {s.target for s in program.statements} | {*program.slots, *dict(program.constants)}
    number = 0
    while True:
        number += 1
        if f"z{number}" not in used:
            yield f"z{number}"


def _spliced(program: AnyProgram, start: int, stop: int, new: list[Statement]) -> AnyProgram:
    statements = (*program.statements[:start], *new, *program.statements[stop:])
    assert all(statement.op == COPY or statement.op in OPS for statement in statements)
    return replace(program, statements=statements)
