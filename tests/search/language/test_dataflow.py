"""The graph of values: liveness over iterations, kinds, folding, and the structural hash."""

import dataclasses
import math
import random
import re
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tests.search import strategies
from veldt.search import rule_sources
from veldt.search.errors import ProgramTypeError
from veldt.search.evaluation import probe
from veldt.search.language import dataflow
from veldt.search.language import shapes as shapes_lib
from veldt.search.language.dataflow import Constant, Dataflow, Input, LoweringError, Node
from veldt.search.language.ops import OPS
from veldt.search.language.roles import Roles
from veldt.search.language.statements import Statement
from veldt.search.program import Program
from veldt.search.runtime.execute import execute, slot_shapes


def lower(*lines: str, head: str = "def rule(w, g, m, v, *, b1=0.9):", fold: bool = False) -> Any:
    text = "\n".join([head, *(f"    {line}" for line in lines)])
    return dataflow.lower(Program.parse(text), fold=fold)


def live_ops(flow: Dataflow) -> list[str]:
    return [flow.values[index].op for index in flow.live_nodes]


@pytest.mark.parametrize(
    ("lines", "slots", "ops"),
    [
        (["return g, m, v"], (), []),
        (["m = g + m", "return g, m, v"], (), []),  # a state that only feeds itself
        (["x = g + m", "m = x * 2", "return g, v, m"], (), []),  # two that only feed each other
        (["m = g + m", "return m, m, v"], ("m",), ["add"]),
        # read one step later, through a slot
        (["x = sin(g)", "return m, x, v"], ("m",), ["sin"]),
        # two steps later, through two slots
        (["x = sin(g)", "return v, x, m"], ("m", "v"), ["sin"]),
        # what is computed after the last use of a name is another value
        (["x = sin(g)", "x = cos(g)", "return x, m, v"], (), ["cos"]),
        (["v = v + g", "return sin(m), g, v"], ("m",), ["sin"]),
        (["x = sin(g)", "y = sin(g)", "return x + y, m, v"], (), ["sin", "add"]),  # equal values
        (["x = g + w", "y = w + g", "return x * y, m, v"], (), ["add", "multiply"]),
        (["x = g - w", "y = w - g", "return x * y, m, v"], (), ["subtract"] * 2 + ["multiply"]),
    ],
)
def test_liveness(lines: list[str], slots: tuple[str, ...], ops: list[str]) -> None:
    flow = lower(*lines)
    assert flow.live_slots == slots
    assert live_ops(flow) == ops


def test_copies_are_names_only() -> None:
    flow = lower("x = g", "y = x", "m = y", "return y + x, m, v")
    assert live_ops(flow) == ["add"]
    assert flow.new_slots[0] == flow.input_index("g")


def test_literals_are_folded_and_constants_are_not() -> None:
    flow = lower("return g * (2 * 3 + b1), m, v")
    assert live_ops(flow) == ["add", "multiply"]
    assert Constant(6.0) in flow.values
    folded = lower("return g * (2 * 3 + b1), m, v", fold=True)
    assert live_ops(folded) == ["multiply"]
    assert Constant(6.9) in folded.values
    assert [v for v in lower("return g * (1 / 0), m, v").values if v == Constant(0.0)]
    # what is not finite stays an instruction: programs hold no infinite numbers
    assert live_ops(lower("return g * exp(1000), m, v")) == ["exp", "multiply"]


def test_targets_say_where_each_statement_went() -> None:
    program = Program.parse(
        "def rule(w, g):\n    a = g\n    b = w + g\n    c = g + w\n    return c"
    )
    flow, targets = dataflow.lower_with_targets(program)
    assert targets[0] == flow.input_index("g")
    assert targets[1] == targets[2] == flow.update
    assert flow == dataflow.lower(program)


def test_signed_zeros_are_different_values() -> None:
    flow = lower("return w / 0.0 + g / -0.0, m, v")
    zeros = [v.value for v in flow.values if isinstance(v, Constant) and v.value == 0.0]
    assert sorted(math.copysign(1.0, zero) for zero in zeros) == [-1.0, 1.0]


def test_kinds() -> None:
    tensor, scalar = "tensor", "scalar"
    for op, kinds, result in [
        ("add", [tensor, scalar], tensor),
        ("add", [scalar, scalar], scalar),
        ("where", [tensor, scalar, scalar], tensor),
        ("norm", [tensor], scalar),
        ("dot", [tensor, tensor], scalar),
        ("global_norm", [tensor], scalar),
        ("clip_by_global_norm", [tensor, scalar], tensor),
        ("get_pi", [], scalar),
    ]:
        assert shapes_lib.result_kind(OPS[op], kinds) == result, op
    for op, kinds in [("norm", [scalar]), ("dot", [tensor, scalar]), ("global_norm", [scalar])]:
        with pytest.raises(LoweringError, match="must be a tensor"):
            shapes_lib.result_kind(OPS[op], kinds)


def test_kinds_of_products() -> None:
    tensor, transposed, rows, columns = "tensor", "transposed", "row_pairs", "column_pairs"
    for op, kinds, result in [
        ("transpose", [tensor], transposed),
        ("transpose", [columns], columns),
        ("matmul", [tensor, transposed], rows),
        ("matmul", [transposed, tensor], columns),
        ("matmul", [rows, tensor], tensor),
        ("matmul", [columns, transposed], transposed),
        ("add", [rows, "scalar"], rows),
        ("norm", [columns], "scalar"),
        ("row_mean", [transposed], transposed),
    ]:
        assert shapes_lib.result_kind(OPS[op], kinds) == result, op
    for op, kinds, message in [
        ("matmul", [tensor, tensor], "a [R, C] tensor with a [R, C] tensor: the columns of"),
        ("add", [rows, tensor], "add joins a [R, R] tensor with a [R, C] tensor"),
        ("matmul", [tensor, "scalar"], "argument 2 of matmul must be a tensor"),
    ]:
        with pytest.raises(LoweringError, match=re.escape(message)):
            shapes_lib.result_kind(OPS[op], kinds)


def test_a_slot_has_the_kind_of_what_it_is_given() -> None:
    program = Program.parse(
        "def rule(w, g, late, left, m):\n    left = left + matmul(g, transpose(g))\n"
        "    m = interp(matmul(late, g), m, 0.9)\n    return m, left, left, m"
    )
    assert shapes_lib.slot_kinds(program) == {
        "late": "row_pairs", "left": "row_pairs", "m": "tensor",
    }  # fmt: skip
    for body, message in [
        ("m = matmul(g, transpose(g))\n    return norm(m) + m, m", r"the update is a \[R, C\]"),
        ("m = m + g\n    return g, matmul(m, transpose(m))", r"add joins a \[R, R\] .* \[R, C\]"),
    ]:
        with pytest.raises(ProgramTypeError, match=message):
            Program.parse(f"def rule(w, g, m):\n    {body}")


def test_errors_say_which_statement() -> None:
    good = Statement("x", "add", ("w", "g"))
    for bad, message in [
        (Statement("y", "norm", ("step",)), "must be a tensor"),
        (Statement("y", "sin", ("nowhere",)), "'nowhere' is not defined"),
    ]:
        program = Program("rule", (), (), (good, bad, good), ("x",))
        with pytest.raises(LoweringError, match=message) as info:
            program.lower()
        assert info.value.statement == 1


def outcome(function: Any, program: Program) -> Any:
    try:
        function(program)
    except LoweringError as error:
        return error.message, error.statement
    return None


@hypothesis.given(program=strategies.programs(), data=st.data())
def test_checking_and_lowering_give_the_same_errors(program: Program, data: Any) -> None:
    assert outcome(dataflow.check, program) is None
    # A statement is lost, and an op changes for another of as many arguments.
    statements = list(program.statements)
    position = data.draw(st.integers(0, len(statements) - 1))
    old = statements[position]
    if old.op in OPS:
        likes = [name for name, op in OPS.items() if op.arity == OPS[old.op].arity]
        new = data.draw(st.sampled_from(likes))
        statements[position] = dataclasses.replace(old, op=new)
    del statements[data.draw(st.integers(0, len(statements) - 1))]
    broken = dataclasses.replace(program, statements=tuple(statements))
    assert outcome(dataflow.check, broken) == outcome(dataflow.lower, broken)


# --- phases


@pytest.mark.parametrize(
    ("lines", "stateless", "recurrent", "downstream"),
    [
        (["return sin(g), m, v"], ["sin"], [], []),
        (["return sin(m), cos(g), v"], ["cos"], [], ["sin"]),
        (["m = m * cos(g)", "return sin(m), m, v"], ["cos"], ["multiply"], ["sin"]),
        # a slot's way through another slot
        (["return v, sin(g), cos(m)"], ["sin"], ["cos"], []),
        (["return v, sin(v), cos(m)"], [], ["sin", "cos"], []),
    ],
)
def test_phases(
    lines: list[str], stateless: list[str], recurrent: list[str], downstream: list[str]
) -> None:
    flow = lower(*lines)
    found = [sorted(flow.node(i).op for i in part) for part in flow.phases]
    assert found == [sorted(part) for part in (stateless, recurrent, downstream)]


@hypothesis.given(program=strategies.programs())
def test_phases_part_the_live_instructions(program: Program) -> None:
    flow = program.lower()
    slots = {flow.input_index(name) for name in flow.live_slots}

    def reads(index: int) -> set[int]:
        """The value and all that it is computed from."""
        value = flow.values[index]
        args = value.args if isinstance(value, Node) else ()
        return {index}.union(*map(reads, args))

    assert sorted(i for part in flow.phases for i in part) == list(flow.live_nodes)
    feeding = set[int]().union(*(reads(new) for new in flow.slot_updates.values()))
    for part, stateful in zip(flow.phases, (False, True, True), strict=True):
        assert all(bool(slots & reads(i)) == stateful for i in part)
    assert feeding.issuperset(flow.phases.recurrent)
    assert feeding.isdisjoint(flow.phases.downstream)


# --- the structural hash


def test_hashes_are_those_of_earlier_stores() -> None:
    """A run that was stopped goes on with the hashes that its store holds."""
    hashes = {name: digest(rule_sources.load_rule(name)) for name in ("adamw", "lion")}
    assert hashes == {
        "adamw": "3403b98f8841bba5996061703412c0d01050efef",
        "lion": "9267aa25c9a40384b7a3c082e9d1208d5216ecb4",
    }


def digest(program: Program) -> str:
    return program.lower().structural_hash


@hypothesis.given(program=strategies.programs(), data=st.data())
def test_hash_is_blind_to_names(program: Program, data: Any) -> None:
    old = [*program.slots, *dict(program.constants), *strategies.LOCAL_NAMES]
    new = data.draw(st.permutations([f"n{i}" for i in range(len(old))]))
    assert digest(strategies.rename(program, dict(zip(old, new, strict=True)))) == digest(program)


@hypothesis.given(program=strategies.programs(), data=st.data())
def test_hash_is_blind_to_dead_code_and_copies(program: Program, data: Any) -> None:
    statements = list(program.statements)
    for op in ("sin", "copy"):
        position = data.draw(st.integers(0, len(statements)))
        statements.insert(position, Statement("dead", op, ("g",)))
    changed = dataclasses.replace(program, statements=tuple(statements))
    assert digest(changed) == digest(program)
    if len(program.slots) < 4:
        # A slot that only feeds itself is dead as well.
        slots, returns = (*program.slots, "extra"), (*program.returns, "extra")
        assert digest(dataclasses.replace(changed, slots=slots, returns=returns)) == digest(program)


@hypothesis.given(program=strategies.programs())
def test_hash_is_blind_to_commuted_arguments(program: Program) -> None:
    statements = tuple(
        dataclasses.replace(s, args=s.args[::-1]) if s.op in OPS and OPS[s.op].commutative else s
        for s in program.statements
    )
    assert digest(dataclasses.replace(program, statements=statements)) == digest(program)


def test_hash_is_blind_to_the_order_of_independent_statements() -> None:
    head = "def rule(w, g, m):\n"
    first = Program.parse(head + "    a = sin(g)\n    b = cos(w)\n    return a - b * m, a")
    second = Program.parse(head + "    b = cos(w)\n    a = sin(g)\n    return a - b * m, a")
    assert digest(first) == digest(second)


def test_hash_is_blind_to_the_places_of_slots() -> None:
    first = Program.parse("def rule(w, g, a, b):\n    return a * b + g, a + g, b - g")
    second = Program.parse("def rule(w, g, a, b):\n    return b * a + g, a - g, b + g")
    assert digest(first) == digest(second)


def test_hash_sees_what_becomes_of_slots() -> None:
    bodies = [
        "a * b, g, g", "a * b, g, w", "a * b, b, g", "a * b, b, w", "a * a, w, g", "a, b, g",
        "a, g, g", "a - b, g, w", "b - a, g, w", "a, a + g, g", "b, a + g, a", "a, b, a + g",
    ]  # fmt: skip
    programs = [Program.parse(f"def rule(w, g, a, b):\n    return {body}") for body in bodies]
    assert len({digest(program) for program in programs}) == len(bodies)
    # Two slots that always hold the same are one.
    twins = [Program.parse(f"def rule(w, g, a, b):\n    return a * {x}, g, g") for x in "ab"]
    np.testing.assert_array_equal(*map(behaviour, twins))


def test_hash_is_blind_to_whether_a_number_has_a_name() -> None:
    named = Program.parse("def rule(w, g, *, k=0.5):\n    return g * k")
    literal = Program.parse("def rule(w, g):\n    return g * 0.5")
    assert digest(named) == digest(literal)
    assert digest(named.with_constants(k=0.25)) != digest(literal)


def test_hash_distinguishes_different_rules() -> None:
    digests = {name: digest(rule_sources.load_rule(name)) for name in rule_sources.RULE_NAMES}
    assert len(set(digests.values())) == len(digests)
    for text in ("w - g", "g - w", "w + g", "w", "-g", "step", "g * 2", "g * 2.5", "g ** 2"):
        digests[text] = digest(Program.parse(f"def rule(w, g):\n    return {text}"))
    assert len(set(digests.values())) == len(digests)


@hypothesis.given(
    first=strategies.programs(max_statements=4), second=strategies.programs(max_statements=4)
)
def test_equal_hashes_mean_equal_behaviour(first: Program, second: Program) -> None:
    """Only ever true of equal behaviour: a false hit would give one rule another's fitness."""
    if digest(first) == digest(second):
        np.testing.assert_array_equal(behaviour(first), behaviour(second))


@hypothesis.given(program=strategies.programs())
def test_a_single_change_that_shows_changes_the_hash(program: Program) -> None:
    """Behaviour differs, so the hash must."""
    generator = random.Random(str(program))
    position = generator.randrange(len(program.statements))
    statement = program.statements[position]
    if not statement.args:
        return
    args = list(statement.args)
    args[generator.randrange(len(args))] = "g" if "g" not in args else "w"
    statements = list(program.statements)
    statements[position] = dataclasses.replace(statement, args=tuple(args))
    changed = dataclasses.replace(program, statements=tuple(statements))
    try:
        new = digest(changed)
    except LoweringError:
        return
    if new == digest(program):
        np.testing.assert_array_equal(behaviour(changed), behaviour(program))


def behaviour(program: Program) -> np.ndarray:
    """Updates of three steps on two tensors, in NumPy."""
    flow = program.lower()
    generator = np.random.default_rng(0)
    w = [generator.normal(size=3), generator.normal(size=(2, 2))]
    thin = slot_shapes(flow, [x.shape for x in w])
    slots = {name: [np.zeros(shape) for shape in shapes] for name, shapes in thin.items()}
    updates = []
    by_leaf = Roles().of(w)
    roles = {name: [of[name] for of in by_leaf] for name in flow.live_roles}
    for step in range(1, 4):
        g = [generator.normal(size=x.shape) for x in w]
        with np.errstate(all="ignore"):
            of_run = {"progress": [np.float64(step / 7)] * 2, "loss": [np.float64(2 - step)] * 2}
            inputs = {"w": w, "g": g, **slots, **roles, **of_run}
            update, new = execute(flow, np, inputs, [np.float64(step)] * 2, {})
        slots = dict(zip(flow.live_slots, new, strict=True))
        updates += [x.ravel() for x in update]
    return np.concatenate(updates)


def test_inputs_have_fixed_places() -> None:
    flow = lower("return g, m, v")
    assert [flow.input_index(name) for name in ("w", "g", "m", "v", "step")] == [0, 1, 2, 3, 4]
    assert flow.values[0] == Input("w", "tensor")
    assert not [value for value in flow.values if isinstance(value, Node)]


@hypothesis.given(program=strategies.programs())
def test_folding_a_graph_is_lowering_with_numbers(program):
    """The live part, folded after lowering, is that of the program lowered with `fold`."""
    whole, live = dataflow.lower(program, fold=True), dataflow.folded(dataflow.lower(program))
    assert live.structural_hash == whole.structural_hash
    assert live.slots == whole.live_slots == live.live_slots

    def described(flow):
        values = [flow.values[index] for index in flow.live]
        return sorted(
            f"{value.op} {value.kind}" if isinstance(value, Node) else repr(value)
            for value in values
        )

    assert described(live) == described(whole)
    np.testing.assert_array_equal(probe.run(live), probe.run(whole))
