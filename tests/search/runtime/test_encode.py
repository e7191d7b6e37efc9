"""Programs as data: shapes, schedules, rows and capacity. What the code means: test_interpreter."""

import dataclasses

import hypothesis
import numpy as np
import pytest

from tests.search import strategies
from veldt.search import rule_sources
from veldt.search.errors import CapacityError
from veldt.search.language.ops import INTERPRETED
from veldt.search.language.statements import ROLES
from veldt.search.program import Program
from veldt.search.runtime.encode import FIRST_OP, LOAD_ROLE, LOAD_SCHEDULE, MOVE, Capacity, encode

CAPACITY = Capacity(ops=INTERPRETED)
OPCODES = CAPACITY.opcodes
NUM_STEPS = 50


def parse(*lines: str, head: str = "def rule(w, g, m, v):") -> Program:
    return Program.parse("\n".join([head, *(f"    {line}" for line in lines)]))


def opcodes(program: Program) -> list[int]:
    encoded = encode(program, num_steps=NUM_STEPS, capacity=CAPACITY)
    return encoded.code[: encoded.length, 0].tolist()


@hypothesis.given(strategies.programs())
def test_every_program_has_the_same_shapes_and_stays_in_bounds(program: Program) -> None:
    encoded = encode(program, num_steps=NUM_STEPS, capacity=CAPACITY)
    shapes = [(np.shape(x), np.asarray(x).dtype.name) for x in encoded]
    assert shapes == [
        ((CAPACITY.statements, 5), "int32"),
        ((), "int32"),
        ((CAPACITY.registers,), "float32"),
        ((NUM_STEPS, CAPACITY.schedules + 1), "float32"),
        ((), "int32"),
    ]
    assert 0 <= encoded.length <= CAPACITY.statements
    assert np.all((encoded.code >= 0) & (encoded.code[:, :1] < FIRST_OP + len(INTERPRETED)))
    assert np.all(encoded.code[:, 1:] < CAPACITY.registers)
    # w and g are inputs: nothing is written over them.
    assert np.all(encoded.code[: encoded.length, 4] >= 2)
    assert np.all(encoded.fill[: 2 + len(program.slots)] == 0.0)  # slots start at zero


def test_opcodes_are_the_capacitys_order() -> None:
    assert list(OPCODES) == list(INTERPRETED)
    assert list(OPCODES.values()) == list(range(FIRST_OP, FIRST_OP + len(INTERPRETED)))
    assert Capacity(ops=("sin", "multiply")).opcodes == {"sin": FIRST_OP, "multiply": FIRST_OP + 1}
    assert opcodes(parse("return sin(g) * w, m, v")) == [OPCODES["sin"], OPCODES["multiply"]]


def test_a_role_is_loaded() -> None:
    program = parse("return g * is_last, m, v")
    encoded = encode(program, num_steps=NUM_STEPS, capacity=CAPACITY)
    assert opcodes(program) == [LOAD_ROLE, OPCODES["multiply"]]
    assert encoded.code[0, 1] == ROLES.index("is_last")


def test_ops_that_the_interpreter_lacks_are_refused() -> None:
    small = Capacity(ops=("sin",))
    encode(parse("x = cos(g)", "return sin(g), m, v"), num_steps=3, capacity=small)  # dead
    for lines, capacity, message in [
        (["return cos(g), m, v"], small, "cannot run cos, which was left out of it"),
        (["return row_mean(g), m, v"], Capacity(), "cannot run row_mean"),
        (
            ["return matmul(matmul(g, transpose(g)), g), m, v"],
            CAPACITY,
            "cannot run transpose, which gives other shapes than the parameters'",
        ),
    ]:
        with pytest.raises(CapacityError, match=message):
            encode(parse(*lines), capacity=capacity, num_steps=3)
    with pytest.raises(ValueError, match="'matmul', which the interpreter cannot run"):
        Capacity(ops=("matmul",))


def test_a_capacity_for_a_searchs_instructions() -> None:
    more = Capacity(ops=("sin", "cos")).with_ops(("cos", "row_mean", "matmul", "add"))
    assert more == Capacity(ops=("sin", "cos", "row_mean", "add"))


def test_constants_are_filled_once_and_cost_no_instruction() -> None:
    program = parse("return g * (b1 + 2 * 3), m, v", head="def rule(w, g, m, v, *, b1=0.5):")
    encoded = encode(program, num_steps=NUM_STEPS, capacity=CAPACITY)
    assert encoded.length == 1
    assert np.count_nonzero(encoded.fill) == 1
    assert 6.5 in encoded.fill


def test_constants_beyond_float32_are_infinite() -> None:
    encoded = encode(parse("return g * 1e300, m, v"), num_steps=NUM_STEPS, capacity=CAPACITY)
    assert np.inf in encoded.fill


def test_what_depends_on_the_step_alone_is_computed_before_training() -> None:
    encoded = encode(rule_sources.load_rule("adamw"), num_steps=NUM_STEPS, capacity=CAPACITY)
    steps = np.arange(1, NUM_STEPS + 1)
    # In float64: 1 - 0.999^step in float32 would lose three digits at the first steps.
    expected = np.float32(np.stack([1 - 0.9**steps, 1 - 0.999**steps], axis=1))
    np.testing.assert_array_equal(encoded.schedules[:, :2], expected)
    assert not encoded.schedules[:, 2:].any()
    used = encoded.code[: encoded.length, 0].tolist()
    assert used.count(LOAD_SCHEDULE) == 2
    assert OPCODES["power"] not in used


def test_dead_code_and_dead_slots_are_not_encoded() -> None:
    program = parse("x = sin(g)", "m = m + g", "return g * 2, m, x")
    assert opcodes(program) == [OPCODES["multiply"]]


def test_slots_are_updated_in_place_where_they_can_be() -> None:
    assert MOVE not in opcodes(parse("m = m + g", "v = v * m", "return v, m, v"))
    assert MOVE not in opcodes(rule_sources.load_rule("adamw"))
    assert opcodes(parse("return m - v + g, v, m")).count(MOVE) == 3  # an exchange, over a spare
    assert opcodes(parse("return m, m + g, v")).count(MOVE) == 2  # the update is the old value


def test_rows_are_shared() -> None:
    """A long chain of values needs a few rows, not one each."""
    lines = [f"x = {op}(x)" for op in ("sin", "cos", "tanh", "abs") * 10]
    small = Capacity(statements=48, registers=8, schedules=1)
    encoded = encode(parse("x = g", *lines, "return x, m, v"), num_steps=3, capacity=small)
    assert encoded.length == 40


@pytest.mark.parametrize(
    ("capacity", "lines", "message"),
    [
        (Capacity(statements=2), ["return sin(cos(tan(g))), m, v"], "more than 2 instructions"),
        (Capacity(registers=7), ["return (g + 1) * (w + 2), m, v"], "more than 7 registers"),
        (Capacity(schedules=1), ["return g * sin(step) + cos(step), m, v"], "more than 1 values"),
        (Capacity(statements=0), ["return m, v, m"], "more than 0 instructions"),
        (Capacity(registers=5), ["return m + v, v, m"], "more than 5 registers"),
    ],
)
def test_capacity(capacity: Capacity, lines: list[str], message: str) -> None:
    program = parse(*lines)
    encode(program, num_steps=5, capacity=CAPACITY)
    with pytest.raises(CapacityError, match=message):
        encode(program, num_steps=5, capacity=capacity)


@pytest.mark.parametrize("name", rule_sources.RULE_NAMES)
def test_all_shipped_rules_fit(name: str) -> None:
    rule = rule_sources.load_rule(name)
    statements = 64 if name == "adamp" else CAPACITY.statements
    capacity = dataclasses.replace(CAPACITY, statements=statements)
    if rule.lower().fits_registers:
        encode(rule, num_steps=NUM_STEPS, capacity=capacity)
        return
    with pytest.raises(CapacityError, match="gives other shapes"):
        encode(rule, num_steps=NUM_STEPS, capacity=capacity)
