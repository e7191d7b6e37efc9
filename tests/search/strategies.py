"""Hypothesis strategies for the language: numbers, random valid programs, renamings."""

import itertools
from typing import Any

import hypothesis
from hypothesis import strategies as st

from veldt.search.errors import LoweringError
from veldt.search.language import dataflow
from veldt.search.language.ops import INTERPRETED, OPS
from veldt.search.language.shapes import result_kind
from veldt.search.language.statements import COPY, INPUTS, OF_RUN, ROLES, STEP, Arg, Statement
from veldt.search.language.types import Kind
from veldt.search.program import Program

SLOT_NAMES = ("m", "v", "acc", "prev")
CONSTANT_NAMES = ("b1", "b2", "eps", "wd")
LOCAL_NAMES = ("a", "b", "c", "update", "t1", "t2", "ratio")

# The constants of published rules, the awkward ones, and anything else of ordinary size.
numbers = st.sampled_from([0.0, 1.0, -1.0, 0.5, 0.9, 0.999, 1e-8, 2.0, -0.1, 10.0]) | st.floats(
    -100.0, 100.0, width=32, allow_subnormal=False
)


# What folds loose ends into the update.
_JOINS = ("add", "subtract", "multiply", "divide", "max", "min")


@st.composite
def programs(
    draw: Any,
    *,
    min_statements: int = 1,
    max_statements: int = 12,
    ops: tuple[str, ...] = INTERPRETED,
) -> Program:
    """A well-formed program: any ops on arguments of the right kinds, names reused, some dead code.

    Values that nothing has read at the end are mostly joined into the update: without this nearly
    all statements are dead.
    """
    slots = SLOT_NAMES[: draw(st.sampled_from([2, 1, 0, len(SLOT_NAMES), 3]))]
    names = CONSTANT_NAMES[: draw(st.sampled_from([2, 0, 1, 4]))]
    constants = tuple((name, draw(numbers)) for name in names)
    kinds: dict[str, Kind] = dict.fromkeys((*ROLES, *OF_RUN, STEP, *names), "scalar")
    kinds |= dict.fromkeys((*INPUTS, *slots), "tensor")
    unread = list(slots)
    statements: list[Statement] = []

    def emit(op: str, args: tuple[Arg, ...]) -> None:
        arg_kinds = [kinds[arg] if isinstance(arg, str) else "scalar" for arg in args]
        kind = arg_kinds[0] if op == COPY else result_kind(OPS[op], arg_kinds)
        # w and g stay tensors, so that there is always one to draw.
        inputs = INPUTS if kind == "tensor" else ()
        target = draw(st.sampled_from([*LOCAL_NAMES, *slots, *inputs]))
        statements.append(Statement(target, op, args))
        kinds.pop(target, None)  # so that the latest name comes last
        kinds[target] = kind
        unread[:] = [name for name in unread if name not in args and name != target] + [target]

    for _ in range(draw(st.integers(min_statements, max_statements))):
        op = draw(st.sampled_from([*ops, COPY]))
        wanted = ("any",) if op == COPY else OPS[op].kinds
        emit(op, tuple(draw(_arg(kinds, kind)) for kind in wanted))
    while len(unread) > 1 and draw(_often):
        emit(draw(st.sampled_from(_JOINS)), (unread[-1], unread[0]))
    returns = [slot if draw(_often) else draw(_arg(kinds, "any")) for slot in slots]
    return Program("rule", slots, constants, tuple(statements), (statements[-1].target, *returns))


_often = st.integers(0, 9).map(lambda n: n < 9)


def _arg(kinds: dict[str, Kind], wanted: str) -> st.SearchStrategy[Arg]:
    names = [name for name, kind in kinds.items() if wanted in ("any", kind)]
    tensors = [name for name, kind in kinds.items() if kind == "tensor"]
    if wanted == "tensor":
        return st.sampled_from(tensors)
    choices = [st.sampled_from(names[-3:]), st.sampled_from(names), numbers]
    return st.one_of(choices if wanted == "scalar" else [st.sampled_from(tensors), *choices])


# Ways to make a value of each kind that is no tensor, from what every program has.
_MADE = {
    "row_pairs": ("row_gram", ("g",)),
    "column_pairs": ("column_gram", ("w",)),
    "sketch": ("sketch", ("g", "step")),
    "transposed": ("transpose", ("g",)),
}
OTHER_SHAPES = tuple(name for name, op in OPS.items() if op.scope == "shape")
ALL_SHAPES = (*INTERPRETED, *OTHER_SHAPES)


@st.composite
def programs_of_all_shapes(draw: Any, *, max_statements: int = 8) -> Program:
    """A well-formed program whose values and slots have any kinds."""
    kinds: dict[str, Kind] = dict.fromkeys((*ROLES, *OF_RUN, STEP, "b1"), "scalar")
    slots = {name: draw(st.sampled_from(_SLOT_KINDS)) for name in SLOT_NAMES[: draw(_few)]}
    kinds |= dict.fromkeys(INPUTS, "tensor") | slots
    statements: list[Statement] = []

    def emit(op: str, args: tuple[Arg, ...]) -> str:
        arg_kinds = [kinds[arg] if isinstance(arg, str) else "scalar" for arg in args]
        target = f"x{len(statements)}"
        kinds[target] = result_kind(OPS[op], arg_kinds)
        statements.append(Statement(target, op, args))
        return target

    def fitting(op: str) -> list[tuple[Arg, ...]]:
        """The arguments that an op takes, with all names that have a kind for it."""
        names = [name for name in kinds if name not in ROLES] + [0.5]
        found = []
        for args in itertools.product(*[names[-10:]] * OPS[op].arity):
            try:
                result_kind(OPS[op], [kinds.get(arg, "scalar") for arg in args])
            except LoweringError:
                continue
            found.append(args)
        return found

    for _ in range(draw(st.integers(1, max_statements))):
        op = draw(st.sampled_from(OTHER_SHAPES if draw(st.booleans()) else ALL_SHAPES))
        choices = fitting(op)
        if not choices:
            op, args = draw(st.sampled_from(list(_MADE.values())))
            emit(op, args)
        else:
            emit(op, draw(st.sampled_from(choices)))
    # Each slot gets a value of its kind, and all that is read nowhere goes into the update.
    returns = []
    for slot, kind in slots.items():
        own = [name for name, other in kinds.items() if other == kind and name != slot]
        if kind == "history":
            new = emit("remember", (slot, "step"))
        else:
            new = draw(st.sampled_from(own)) if own else emit(*_MADE[kind])
            new = emit("interp", (new, slot, 0.5))
        returns.append(new)
    update = emit("add", ("g", 0.0))
    for name, kind in [item for item in kinds.items() if item[0][0] == "x"]:
        if name != update and kind in ("scalar", "tensor"):
            update = emit("add", (update, name))
        elif name != update:
            update = emit("add", (update, emit("mean", (name,))))
    program = Program("rule", tuple(slots), (("b1", 0.7),), tuple(statements), (update, *returns))
    try:
        dataflow.check(program)
    except LoweringError:  # A slot that is only ever averaged with itself.
        hypothesis.reject()
    return program


_SLOT_KINDS = ("tensor", "row_pairs", "column_pairs", "sketch", "history")
_few = st.integers(0, len(SLOT_NAMES))

_INFIX = ("+", "-", "*", "/", "**", "<", ">", "<=", ">=", "==")
_LEAVES = ("g", "w", "m", "k", "step", "2.0", "-0.5", "0.9")

# Nested expressions as text, all in parentheses, over g, w, a slot m, a constant k and the step.
expressions = st.recursive(
    st.sampled_from(_LEAVES),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(_INFIX), inner).map(lambda x: f"({x[0]} {x[1]} {x[2]})"),
        inner.map(lambda x: f"(-{x})"),
        st.tuples(st.sampled_from(("sqrt", "sign", "square", "sin")), inner).map(
            lambda x: f"{x[0]}({x[1]})"
        ),
        st.tuples(inner, inner, inner).map(lambda x: f"interp({x[0]}, {x[1]}, {x[2]})"),
        st.tuples(inner, inner, inner).map(lambda x: f"where({x[0]}, {x[1]}, {x[2]})"),
    ),
    max_leaves=12,
)


def rename(program: Program, names: dict[str, str]) -> Program:
    """The program with its slots, constants and local names changed."""

    def new(arg: Arg) -> Arg:
        return names.get(arg, arg) if isinstance(arg, str) else arg

    return Program(
        program.name,
        tuple(names.get(slot, slot) for slot in program.slots),
        tuple((names.get(name, name), value) for name, value in program.constants),
        tuple(
            Statement(names.get(s.target, s.target), s.op, tuple(map(new, s.args)))
            for s in program.statements
        ),
        tuple(map(new, program.returns)),
        program.doc,
    )
