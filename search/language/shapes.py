"""Kinds: the shapes of values, known before anything runs.

A parameter tensor is a matrix by one convention: its last axis is the columns, all axes before it
together are the rows; a vector is one row, a single number is one by one. (`learned_opt.matrices`
also knows the kernels of libraries that put the outputs first. A program's convention is simpler,
so that a row follows from the shape alone, and so that a stack of matrices is one matrix.)

Shapes are pairs of R, the number of rows, and C, that of columns. Ops that join values need equal
kinds, except that scalars go with any kind; only `transpose` and `matmul` make other kinds than
"tensor". So a product that does not fit is found when a program is read, for all parameters at
once, and the error names the statement.

The results of `row_mean` or `column_norm` are tensors like any other, whose entries are equal along
each row or column; that they can be kept thin does not change their meaning (`constant_axes.py`).
"""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from veldt.search.errors import LoweringError
from veldt.search.language.ops import OPS, Op
from veldt.search.language.types import Kind

if TYPE_CHECKING:
    from veldt.search.language.statements import AbstractProgram

# Rows and columns of each kind that has any.
SHAPES: Final[dict[Kind, tuple[str, str]]] = {
    "tensor": ("R", "C"),
    "transposed": ("C", "R"),
    "row_pairs": ("R", "R"),
    "column_pairs": ("C", "C"),
}
_KIND_OF: Final[dict[tuple[str, str], Kind]] = {shape: kind for kind, shape in SHAPES.items()}


def describe(kind: Kind) -> str:
    """Return the name of a kind in errors."""
    return "a scalar" if kind == "scalar" else f"a [{', '.join(SHAPES[kind])}] tensor"


def shape_of(kind: Kind, rows: int, columns: int) -> tuple[int, int]:
    """Return the shape of a value that is no scalar, for a parameter of this shape."""
    sizes = {"R": rows, "C": columns}
    first, second = SHAPES[kind]
    return sizes[first], sizes[second]


def result_kind(op: Op, kinds: Sequence[Kind]) -> Kind:
    """Return the kind of `op`'s result on arguments of these kinds.

    Raises:
      LoweringError: An argument has the wrong kind, or two do not fit each other.
    """
    return cached_result_kind(op.name, tuple(kinds))


# One entry for each op and well-kinded list of arguments; errors are not kept.
@functools.cache
def cached_result_kind(name: str, kinds: tuple[Kind, ...]) -> Kind:
    """Return `result_kind` by the op's name, from a cache."""
    op = OPS[name]
    for position, (wanted, given) in enumerate(zip(op.kinds, kinds, strict=True), 1):
        if wanted != "any" and (wanted == "scalar") != (given == "scalar"):
            raise LoweringError(
                f"argument {position} of {name} must be a {wanted}, and here it is a {given}"
            )
    if name == "transpose":
        rows, columns = SHAPES[kinds[0]]
        return _KIND_OF[columns, rows]
    if name == "matmul":
        (rows, inner), (also_inner, columns) = (SHAPES[kind] for kind in kinds)
        if inner != also_inner:
            raise LoweringError(
                f"matmul multiplies {describe(kinds[0])} with {describe(kinds[1])}: the columns "
                "of the first must be the rows of the second"
            )
        return _KIND_OF[rows, columns]
    found = dict.fromkeys(kind for kind in kinds if kind != "scalar")
    if len(found) > 1:
        raise LoweringError(f"{name} joins {' with '.join(map(describe, found))}")
    return "scalar" if op.reduces or not found else next(iter(found))


def slot_kinds(program: "AbstractProgram") -> dict[str, Kind]:
    """Return the kind of each state slot, which is the kind of its new value.

    All are tensors where nothing makes other kinds. Otherwise slots start as unknown, and known
    kinds are passed on until nothing changes: each pass settles a slot, or is the last.
    """
    known: dict[str, Kind] = {}
    if any(OPS[s.op].scope == "shape" for s in program.statements if s.op in OPS):
        for _ in program.slots:
            found = _returned_kinds(program, known)
            if found.keys() == known.keys():
                break
            known = found | known
    return {slot: known.get(slot, "tensor") for slot in program.slots}


def _returned_kinds(program: "AbstractProgram", known: dict[str, Kind]) -> dict[str, Kind]:
    """Return the slots' new kinds, as far as they follow from `known`; scalars add nothing."""
    kinds: dict[str, Kind | None] = {slot: known.get(slot) for slot in program.slots}
    kinds |= dict.fromkeys(("w", "g"), "tensor")
    for statement in program.statements:
        args = [kinds.get(a, "scalar") if isinstance(a, str) else "scalar" for a in statement.args]
        kinds[statement.target] = _known_kind(statement.op, args)
    found = {
        slot: kinds.get(value) if isinstance(value, str) else None
        for slot, value in zip(program.slots, program.returns[1:], strict=True)
    }
    return {slot: kind for slot, kind in found.items() if kind is not None and kind != "scalar"}


def _known_kind(op: str, args: Sequence[Kind | None]) -> Kind | None:
    """Return the kind of a result with unknown arguments, where it follows nevertheless."""
    if op not in OPS:  # a copy
        return args[0]
    if OPS[op].reduces:
        return "scalar"
    certain = [kind for kind in args if kind is not None]
    if op == "matmul" and len(certain) < 2:
        return None
    if len(certain) < len(args):
        # An unknown argument of an element op is of the others' kind, if one of them has any.
        return next((kind for kind in certain if kind != "scalar"), None)
    try:
        return cached_result_kind(op, tuple(certain))
    except LoweringError:  # raised again when the program is checked
        return None
