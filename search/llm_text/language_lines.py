"""The language of programs in a few lines for a prompt, made from the instruction table."""

from collections.abc import Collection
from typing import Final

from veldt.search.language.ops import OPS, Op, Scope
from veldt.search.language.statements import READABLE

_READ: Final = {
    "step": "the step, from 1",
    "progress": "the step over the length of the run, at most 1",
    "loss": "the loss of the batch",
    "ndim": "the number of axes of w",
    "fan_in": "the rows of w as a matrix",
    "fan_out": "the columns of w as a matrix",
    "is_last": "1 for the last layer's matrix, else 0",
    "is_embedding": "1 for an embedding, else 0",
}
_SCOPES: Final[dict[Scope, str]] = {
    "element": "Element by element:",
    "tensor": "Of one tensor:",
    "global": "Of all parameter tensors together:",
    "matrix": "Of a tensor as a matrix, whose rows lie along the last axis:",
    "shape": "Values of other shapes; row_gram gives [R, R], column_gram [C, C], transpose [C, R]:",
}
_ARGS: Final = ("x", "y", "z")


def instruction_lines(instructions: Collection[str]) -> str:
    """Return one line for each of the instructions, under a heading for each scope."""
    parts = []
    for scope, title in _SCOPES.items():
        ops = [op for op in OPS.values() if op.scope == scope and op.name in instructions]
        if ops:
            parts.append("\n".join([title, *map(_line, ops)]))
    return "\n\n".join(parts)


def readable_names(reads: Collection[str]) -> str:
    """Return what may be read with its meaning; "nothing" where there is nothing."""
    known = [f"`{name}` ({_READ[name]})" for name in READABLE if name in reads]
    return ", ".join(known) or "nothing"


def _line(op: Op) -> str:
    args = [
        arg if kind == "any" else f"{arg}: {'number' if kind == 'scalar' else kind}"
        for arg, kind in zip(_ARGS, op.kinds, strict=False)
    ]
    form = f"`{op.name}({', '.join(args)})`"
    if op.symbol:
        form = f"`x {op.symbol} y`"
    if op.gives_scalar:
        form += " -> number"
    said = "; ".join(part for part in (op.meaning, op.guard) if part)
    return f"- {form}: {said}" if said else f"- {form}"
