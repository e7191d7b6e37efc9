"""Kinds: the shapes of values, known before anything runs.

A parameter tensor is a matrix by one convention: its last axis is the columns, all axes before it
together are the rows; a vector is one row, a single number is one by one. (`learned_opt.matrices`
also knows the kernels of libraries that put the outputs first. A program's convention is simpler,
so that a row follows from the shape alone, and so that a stack of matrices is one matrix.)

Shapes are pairs of R, the number of rows, C, that of columns, K and L, those of a sketch
(`sketching.py`). Ops that join values need equal kinds, except that scalars go with any kind; only
ops of the scope "shape" make other kinds than "tensor". So a product that does not fit is found
when a program is read, for all parameters at once, and the error names the statement.

The results of `row_mean` or `column_norm` are tensors like any other, whose entries are equal along
each row or column; that they can be kept thin does not change their meaning (`constant_axes.py`).
"""

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from veldt.search.errors import LoweringError
from veldt.search.language import matrix_functions, sketching
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
    "sketch": ("K", "L"),
}
_KIND_OF: Final[dict[tuple[str, str], Kind]] = {shape: kind for kind, shape in SHAPES.items()}


def describe(kind: Kind) -> str:
    """Return the name of a kind in errors."""
    if kind in ("scalar", "history"):
        return f"a {kind}"
    return f"a [{', '.join(SHAPES[kind])}] {'sketch' if kind == 'sketch' else 'tensor'}"


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the rows and columns of a tensor as a matrix."""
    return math.prod(shape[:-1]), shape[-1] if shape else 1


def full_shape(kind: Kind, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a value that is no scalar, for a parameter of some shape.

    Square matrices may be kept as one number: see `matrix_functions.py`.
    """
    if kind == "tensor":
        return shape
    if kind == "history":
        return (sketching.HISTORY,)
    rows, columns = matrix_shape(shape)
    if kind == "sketch":
        return sketching.sketch_shape(rows, columns)
    if kind == "transposed":
        return columns, rows
    side, other = (rows, columns) if kind == "row_pairs" else (columns, rows)
    return 2 * (matrix_functions.kept_side(side, other),)


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
    if op.scope == "shape":
        return _shape_kind(name, kinds)
    found = dict.fromkeys(kind for kind in kinds if kind != "scalar")
    if len(found) > 1:
        raise LoweringError(f"{name} joins {' with '.join(map(describe, found))}")
    return "scalar" if op.gives_scalar or not found else next(iter(found))


# Kinds of the first argument and of the result, of ops that take and give one kind only.
_ALWAYS: Final[dict[str, Kind]] = {
    "sketch": "sketch",
    "unsketch": "tensor",
    "sketch_norm": "tensor",
    "remember": "history",
}
_TAKES: Final[dict[str, Kind]] = {
    "sketch": "tensor",
    "unsketch": "sketch",
    "sketch_norm": "sketch",
    "remember": "history",
    "percentile": "history",
}
_SQUARE: Final = ("row_pairs", "column_pairs")


def _shape_kind(name: str, kinds: Sequence[Kind]) -> Kind:
    """Return the kind of the result of an op whose arguments have a fixed shape."""
    first = kinds[0]
    if name in _TAKES:
        if first != _TAKES[name]:
            raise LoweringError(
                f"argument 1 of {name} must be {describe(_TAKES[name])}, and here it is "
                f"{describe(first)}"
            )
        return _ALWAYS.get(name, "scalar")
    if name in ("inverse_root", "eigenbasis"):
        if first not in _SQUARE or (name == "eigenbasis" and kinds[1] != first):
            given = " and ".join(describe(kind) for kind in kinds if kind != "scalar")
            raise LoweringError(
                f"{name} works on square matrices of one kind, such as row_gram gives, and here "
                f"has {given}"
            )
        return first
    if "history" in kinds:
        raise LoweringError(f"{name} works on matrices, and here it has a history")
    rows, columns = SHAPES[first]
    if name == "matmul":
        also_columns, new_columns = SHAPES[kinds[1]]
        if columns != also_columns:
            raise LoweringError(
                f"matmul multiplies {describe(first)} with {describe(kinds[1])}: the columns "
                "of the first must be the rows of the second"
            )
        shape = (rows, new_columns)
    else:
        shape = {
            "transpose": (columns, rows),
            "row_gram": (rows, rows),
            "column_gram": (columns, columns),
        }[name]
    if shape not in _KIND_OF:
        raise LoweringError(f"{name} of {describe(first)} would be a [{', '.join(shape)}] tensor")
    return _KIND_OF[shape]


_MAKE_SHAPES: Final = frozenset(name for name, op in OPS.items() if op.scope == "shape")


def slot_kinds(program: "AbstractProgram") -> dict[str, Kind]:
    """Return the kind of each state slot, which is the kind of its new value.

    All are tensors where nothing makes other kinds. Otherwise slots start as unknown, and known
    kinds are passed on until nothing changes: each pass settles a slot, or is the last.
    """
    known: dict[str, Kind] = {}
    if not _MAKE_SHAPES.isdisjoint([statement.op for statement in program.statements]):
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
    if OPS[op].gives_scalar:
        return "scalar"
    if op in _ALWAYS:
        return _ALWAYS[op]
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
