"""Make the reference of the instruction set, from its table."""

from collections.abc import Mapping
from typing import Final

from _generate import markdown
from veldt.search.language import ops

SCOPES: Final[Mapping[str, str]] = {
    "element": "Element by element",
    "tensor": "One number for each parameter tensor",
    "global": "Over all parameter tensors",
    "matrix": "On each tensor as a matrix",
    "shape": "Values of other shapes",
}
ABOUT: Final[Mapping[str, str]] = {
    "element": "Arguments of different sizes are broadcast.",
    "tensor": "The result is a scalar, whatever the arguments are.",
    "global": "The parts of all tensors are added up before the function sees them.",
    "matrix": "Each tensor is seen as a matrix: rows lie along its last axis, columns go through "
    "all others.",
    "shape": "[Square matrices, sketches and histories](programs.md#shapes). Programs that use "
    "these cannot be interpreted; they are compiled.",
}


def instruction_set() -> str:
    """Return the page of all instructions."""
    parts = [
        f"There are {len(ops.OPS)} instructions. Each one is total: it returns a value for every "
        "input, and the guard says what comes out where plain arithmetic would fail. A "
        "`scalar` argument is one number; a `tensor` has the shape of a parameter; `any` is "
        "either. In a guard, `x`, `y` and `z` are the first, second and third argument. How "
        "programs are written is in [the language of programs](programs.md).",
    ]
    for scope, title in SCOPES.items():
        rows = [op for op in ops.OPS.values() if op.scope == scope]
        parts += [f"## {title}", ABOUT[scope], _table(rows)]
    sets = markdown.table(
        ["part", "instructions"],
        [
            [f"`{name}`", ", ".join(f"`{op}`" for op in members)]
            for name, members in ops.OP_SETS.items()
        ],
    )
    return markdown.page(
        "The instruction set",
        *parts,
        "## What a search draws from",
        "A search draws new instructions from the part `base`; `mutation.ops` names other parts or "
        "single instructions. Parts may share instructions.",
        sets,
    )


def _table(rows: list[ops.Op]) -> str:
    return markdown.table(
        ["name", "arguments", "infix", "meaning", "guard", "source"],
        [
            [
                f"`{op.name}`",
                ", ".join(op.kinds),
                f"`{op.symbol}`" if op.symbol else "",
                op.meaning,
                op.guard,
                op.source,
            ]
            for op in rows
        ],
    )
