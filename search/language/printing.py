"""Printing programs as a person would write them: single-use values nested into their users.

This is for reading only: the hall of fame, the live view, reports and rule files that the search
writes. The text parses to a program of the same behaviour. Expressions do not nest past the width
of a line. The language's power works on the size of its base; `abs` shows that where the base may
be below zero.
"""

import math
import re
from collections.abc import Set
from typing import Final

from veldt.search.language import pruning, signs
from veldt.search.language.ops import OPS
from veldt.search.language.statements import (
    COPY,
    PROGRESS,
    ROLES,
    STEP,
    AbstractProgram,
    Arg,
    Statement,
    format_arg,
)

MAX_EXPRESSION: Final = 60
_PRECEDENCE: Final = {"<": 0, "<=": 0, "==": 0, "+": 1, "-": 1, "*": 2, "/": 2, "**": 4}
_ATOM: Final = 9


def pretty(program: AbstractProgram) -> str:
    """Print the simplified program with single-use values inlined; numbers are kept whole."""
    program = pruning.prune(program)
    inlined: dict[str, tuple[str, int]] = {}
    lines: list[str] = []
    # Names whose value is at least zero, or NaN, at this place.
    unsigned = {STEP, PROGRESS, *ROLES, *(name for name, value in program.constants if value >= 0)}
    for position, statement in enumerate(program.statements):
        text, precedence = _expression(statement, inlined, unsigned)
        (unsigned.add if _is_unsigned(statement, unsigned) else unsigned.discard)(statement.target)
        if _inlinable(program, position, text):
            inlined[statement.target] = (text, precedence)
        else:
            lines.append(f"{statement.target} = {text}")
    returns = [_operand(arg, inlined, -1) for arg in program.returns]
    return (
        "\n".join(
            [
                *program.head(),
                *(f"    {line}" for line in lines),
                f"    return {', '.join(returns)}",
            ]
        )
        + "\n"
    )


def _inlinable(program: AbstractProgram, position: int, text: str) -> bool:
    """Return whether a value is read once, later, with nothing that it reads overwritten."""
    statement = program.statements[position]
    name = statement.target
    if name in program.slots or name == program.returns[0] or len(text) > MAX_EXPRESSION:
        return False
    users = [
        i for i, s in enumerate(program.statements) if i > position for arg in s.args if arg == name
    ]
    reads = len(users) + sum(arg == name for arg in program.returns)
    if reads != 1:
        return False
    last = users[0] if users else len(program.statements)
    overwritten = {s.target for s in program.statements[position + 1 : last]}
    return not overwritten & set(re.findall(r"\w+", text))


def _is_unsigned(statement: Statement, unsigned: Set[str]) -> bool:
    """Return whether a statement's value is at least zero, or NaN, for all inputs."""
    args = statement.args[1:] if statement.op == "where" else statement.args
    keeps = statement.op in (*signs.SIGN_KEEPING, COPY, "where")
    return statement.op in signs.NONNEGATIVE or (
        keeps and all(_arg_is_unsigned(arg, unsigned) for arg in args)
    )


def _arg_is_unsigned(arg: Arg, unsigned: Set[str]) -> bool:
    return arg in unsigned if isinstance(arg, str) else math.copysign(1.0, arg) > 0


def _expression(
    statement: Statement, inlined: dict[str, tuple[str, int]], unsigned: Set[str]
) -> tuple[str, int]:
    op = OPS[statement.op]
    if op.symbol is None:
        if statement.op == "negative":
            return "-" + _operand(statement.args[0], inlined, 3), 3
        return (
            f"{op.name}({', '.join(_operand(arg, inlined, -1) for arg in statement.args)})",
            _ATOM,
        )
    level = _PRECEDENCE[op.symbol]
    # Left-associative, but for ** (right) and comparisons (not at all).
    left = _operand(statement.args[0], inlined, level + (op.symbol in ("**", "<", "<=", "==")))
    right = _operand(statement.args[1], inlined, level + (op.symbol != "**"))
    if op.symbol == "**" and not _arg_is_unsigned(statement.args[0], unsigned):
        left = f"abs({_operand(statement.args[0], inlined, -1)})"
    return f"{left} {op.symbol} {right}", level


def _operand(arg: Arg, inlined: dict[str, tuple[str, int]], level: int) -> str:
    """Return the text of an argument, in parentheses where it binds less than `level`."""
    if isinstance(arg, str):
        text, precedence = inlined.get(arg, (arg, _ATOM))
    else:
        text = format_arg(arg)
        precedence = 3 if text.startswith("-") else _ATOM
    return f"({text})" if precedence < level else text
