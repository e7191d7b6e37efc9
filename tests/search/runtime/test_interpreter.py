"""The interpreter against the meaning of programs (`execute`) and against native Optax transforms.

Random programs amplify rounding without bound (`sin(1e6 * g)`, `sign` of a difference that
cancels), so that a fixed tolerance would be either wrong or empty. Instead every program is also
run several times in float64 with each result disturbed by a few float32 units in the last place and
with float32's range imposed (Monte Carlo arithmetic): how far these runs spread is how far two
honest float32 executions may differ, element by element.
"""

import functools
from typing import Any

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from tests.search import strategies
from veldt.search import rule_sources
from veldt.search.language.dataflow import Constant, Dataflow, Input
from veldt.search.language.ops import INTERPRETED, OPS
from veldt.search.language.roles import Roles
from veldt.search.language.statements import LOSS, PROGRESS, ROLES, STEP
from veldt.search.program import Program
from veldt.search.runtime.encode import Capacity, encode
from veldt.search.runtime.execute import execute, slot_shapes
from veldt.search.runtime.interpreter import Blocks, interpret
from veldt.tasks.inner_loop.flat import Layout

SHAPES = ((), (3,), (2, 4), (2, 1, 2, 3))  # a number, a vector, a matrix, a kernel
NUM_TENSORS = len(SHAPES)
LAYOUT = Layout.of([jax.ShapeDtypeStruct(shape, np.float32) for shape in SHAPES])
D = 24
BLOCK = 9  # three blocks of eight numbers
NUM_STEPS = 20
CAPACITY = Capacity()
# What sees tensors as matrices takes as long to compile as all else.
FULL = Capacity(statements=64, registers=80, ops=INTERPRETED)
BY_LEAF = Roles().of([np.zeros(shape) for shape in SHAPES])
ROLE_VALUES = {name: [of[name] for of in BY_LEAF] for name in ROLES}

FLOAT32 = np.finfo(np.float32)
JITTER = 2.0**-21  # four float32 units in the last place: transcendental functions differ by two
NUM_SAMPLES = 24
# Their results are selected or exact, and so not rounded.
EXACT = {"negative", "abs", "max", "min", "sign", "invert", "less", "less_equal", "equal", "where"}
EXACT |= {"amax", "row_max", "column_max", "every"}


# One step, one compile: every program is data to it.
@functools.partial(jax.jit, static_argnums=0)
def step_once(capacity: Capacity, e: Any, s: Any, g: Any, w: Any, loss: Any = 0.0) -> Any:
    tx = interpret(e, LAYOUT, capacity=capacity, largest_block=BLOCK)
    return tx.update(g, s, w, value=loss)


@functools.partial(jax.jit, static_argnums=0)
def initial_state(capacity: Capacity, e: Any, w: Any) -> Any:
    return interpret(e, LAYOUT, capacity=capacity, largest_block=BLOCK).init(w)


def loss_at(step: int) -> float:
    """A number of float32 for each step, of either sign."""
    return float(np.float32(1.7 * np.cos(step)))


def split(flat: np.ndarray) -> list[np.ndarray]:
    """[D] -> one array per parameter tensor."""
    ends = zip(LAYOUT.offsets, LAYOUT.sizes, SHAPES, strict=True)
    return [flat[start : start + size].reshape(shape) for start, size, shape in ends]


def spread(leaves: list[Any]) -> list[Any]:
    """Thin arrays at their parameters' sizes."""
    return [np.broadcast_to(leaf, shape) for leaf, shape in zip(leaves, SHAPES, strict=True)]


def join(leaves: list[Any]) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in leaves])


def disturbed(flow: Dataflow, tensors: dict[str, np.ndarray], step: int, rng: Any) -> Any:
    """One run in float64 with float32-sized disturbances: the update and live slots, [D] each."""

    def jitter(x: Any) -> Any:
        x = np.asarray(x, np.float64)
        x = x * (1.0 + rng.uniform(-JITTER, JITTER, x.shape))
        # Numbers below float32's normal range may or may not be flushed to zero.
        flushed = (np.abs(x) < FLOAT32.tiny) & (rng.random(x.shape) < 0.5)
        x = np.where(flushed, 0.0, x)
        return np.where(np.abs(x) > FLOAT32.max, np.copysign(np.inf, x), x)

    values: dict[int, list[Any]] = {}
    for index, value in enumerate(flow.values):
        if index not in flow.live:
            continue
        if isinstance(value, Input):
            if value.name in (STEP, PROGRESS, LOSS):
                exact = {STEP: float(step), PROGRESS: step / NUM_STEPS, LOSS: loss_at(step)}
                values[index] = [np.float64(exact[value.name])] * NUM_TENSORS
            elif value.name in ROLES:
                values[index] = ROLE_VALUES[value.name]
            else:
                values[index] = split(tensors[value.name])
        elif isinstance(value, Constant):
            exact = float(np.float32(value.value)) == value.value
            values[index] = [value.value if exact else jitter(value.value)] * NUM_TENSORS
        else:
            op = OPS[value.op]
            leaves = [[values[arg][leaf] for arg in value.args] for leaf in range(NUM_TENSORS)]
            if op.name not in EXACT and op.symbol is None:  # inner roundings, as in sums and powers
                leaves = [[jitter(arg) for arg in args] for args in leaves]
            if op.products:
                totals = np.sum([op.partial(np, *args) for args in leaves], axis=0)
                results = [op.fn(np, tuple(totals), *args) for args in leaves]
            else:
                results = [op.fn(np, *args) for args in leaves]
            if op.scope == "matrix":
                results = spread(results)
            values[index] = results if op.name in EXACT else [jitter(x) for x in results]
    outputs = [flow.update, *(flow.new_slots[flow.slots.index(s)] for s in flow.live_slots)]
    return [
        join([np.broadcast_to(x, s) for x, s in zip(values[i], SHAPES, strict=True)])
        for i in outputs
    ]


def reference(flow: Dataflow, dtype: Any, tensors: dict[str, np.ndarray], step: int) -> Any:
    """One run of `execute` in NumPy, flattened as `disturbed`'s."""
    leaves = {name: split(flat.astype(dtype)) for name, flat in tensors.items()}
    for name, shapes in slot_shapes(flow, SHAPES).items():  # as thin as the native state
        leaves[name] = [
            leaf[tuple(slice(length) for length in shape)]
            for leaf, shape in zip(leaves[name], shapes, strict=True)
        ]
    numbers = {STEP: step, PROGRESS: step / NUM_STEPS, LOSS: loss_at(step)}
    of_run = {name: [dtype(number)] * NUM_TENSORS for name, number in numbers.items()}
    update, slots = execute(flow, np, leaves | ROLE_VALUES | of_run, of_run[STEP], {})
    return [join(update), *(join(spread(slot)) for slot in slots)]


def assert_agrees(actual: np.ndarray, expected: np.ndarray, samples: list[np.ndarray]) -> float:
    """Checks the elements on which all runs agree in kind; returns their share."""
    runs = np.stack([expected, *samples])

    def kind(x: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(x), 2.0, np.where(np.isinf(x), np.sign(x), 0.0))

    decided = np.all(kind(runs) == kind(expected), axis=0)
    np.testing.assert_array_equal(kind(actual)[decided], kind(expected)[decided])
    finite = decided & np.isfinite(expected)
    spread = np.max(np.abs(runs[:, finite] - expected[finite]), axis=0)
    tolerance = 8.0 * spread + 2e-6 * np.abs(expected[finite]) + FLOAT32.tiny
    excess = np.abs(actual[finite] - expected[finite]) - tolerance
    assert np.all(excess <= 0), (actual[finite], expected[finite], spread)
    return float(np.mean(decided))


def check_program(
    program: Program, seed: int, num_steps: int, capacity: Capacity = CAPACITY
) -> float:
    """Compares step by step, each from the interpreter's own state; the comparable share."""
    flow = program.lower()
    rng = np.random.default_rng(seed)
    encoded = encode(program, num_steps=NUM_STEPS, capacity=capacity)
    w = rng.normal(size=D).astype(np.float32)
    shares = []
    state = initial_state(capacity, encoded, w)
    for step in range(1, num_steps + 1):
        g = (rng.normal(size=D) * (rng.random(D) > 0.2)).astype(np.float32)
        registers = np.asarray(state.registers, np.float64)
        tensors = {"w": np.float64(w), "g": np.float64(g)}
        rows = {name: 2 + flow.slots.index(name) for name in flow.live_slots}
        tensors |= {name: registers[row] for name, row in rows.items()}
        update, state = step_once(capacity, encoded, state, g, w, loss_at(step))
        actual = [np.float64(update), *(np.float64(state.registers[r]) for r in rows.values())]
        with np.errstate(all="ignore"):
            expected = reference(flow, np.float32, tensors, step)
            samples = [reference(flow, np.float64, tensors, step)]
            samples += [disturbed(flow, tensors, step, rng) for _ in range(NUM_SAMPLES)]
        for index in range(len(actual)):
            shares.append(
                assert_agrees(actual[index], expected[index], [s[index] for s in samples])
            )
        w = np.where(np.isfinite(actual[0]), w - 0.1 * actual[0], w).clip(-9, 9).astype(np.float32)
    return min(shares)


@hypothesis.given(program=strategies.programs(ops=CAPACITY.ops), seed=st.integers(0, 2**32))
def test_random_programs_mean_the_same(program: Program, seed: int) -> None:
    share = check_program(program, seed, num_steps=3)
    hypothesis.event("comparable", "all" if share == 1.0 else "most" if share > 0.5 else "few")


def capacity_for(*ops: str) -> Capacity:
    return CAPACITY if set(ops) <= set(CAPACITY.ops) else FULL


def with_full_as_slow(named_ops: dict[str, tuple[str, ...]]) -> list[Any]:
    """The names of what needs the full interpreter are marked as slow."""
    return [
        pytest.param(name, marks=[pytest.mark.slow] if capacity_for(*ops) is FULL else [])
        for name, ops in named_ops.items()
    ]


RULE_OPS = {
    name: tuple(s.op for s in program.statements if s.op in OPS)
    for name in rule_sources.RULE_NAMES
    if (program := rule_sources.load_rule(name)).lower().fits_registers
}


@pytest.mark.slow
@hypothesis.given(program=strategies.programs(), seed=st.integers(0, 2**32))
def test_random_programs_over_matrices_mean_the_same(program: Program, seed: int) -> None:
    check_program(program, seed, num_steps=3, capacity=FULL)


@pytest.mark.parametrize("op", with_full_as_slow({op: (op,) for op in INTERPRETED}))
def test_every_op_means_the_same(op: str) -> None:
    args = [{"tensor": "w", "scalar": "b1", "any": "g"}[kind] for kind in OPS[op].kinds]
    text = f"def rule(w, g, m, *, b1=0.7):\n    u = {op}({', '.join(args)})\n    return u + m, u"
    share = check_program(Program.parse(text), seed=0, num_steps=3, capacity=capacity_for(op))
    assert share == 1.0


@pytest.mark.parametrize("role", ROLES)
def test_every_role_means_the_same(role: str) -> None:
    program = Program.parse(f"def rule(w, g, m):\n    return {role} * g + m, {role} + norm(w)")
    assert check_program(program, seed=0, num_steps=2) == 1.0


@pytest.mark.parametrize("name", [PROGRESS, LOSS])
def test_what_the_run_knows_means_the_same(name: str) -> None:
    program = Program.parse(
        f"def rule(w, g, m):\n    m = interp(g, m, {name})\n    return m / {name} + 1 / {name}, m"
    )
    assert check_program(program, seed=0, num_steps=4) == 1.0


@pytest.mark.parametrize("name", with_full_as_slow(RULE_OPS))
def test_shipped_rules_mean_the_same(name: str) -> None:
    capacity = capacity_for(*RULE_OPS[name])
    assert (
        check_program(rule_sources.load_rule(name), seed=1, num_steps=4, capacity=capacity) == 1.0
    )


@pytest.mark.parametrize(
    "text",
    [
        "def swap(w, g, a, b):\n    return a - b, b, a + g",
        "def exchange(w, g, a, b):\n    a = a + g\n    return a, b, a",
        "def rotate(w, g, a, b, c, d):\n    return g + a + b + c + d, b + 1, c, d, a",
        "def old_slot(w, g, a):\n    return a, a + g",
        "def inputs(w, g, a, b):\n    return a + b, w, g",
        "def constants(w, g, a, b, *, k=0.25):\n    return a * b + g, k, 3.0",
        "def twins(w, g, a, b):\n    c = a + g\n    return c * b, c, c",
        "def schedule_slot(w, g, a, b):\n    return a + b * g, step, 1 / step",
        "def all_one(w, g):\n    return 1.0",
        "def count(w, g):\n    return step",
        "def old_and_new(w, g, m):\n    n = m + g\n    return n - m, n",
        "def read_after(w, g, m):\n    n = m + g\n    k = n * n\n    return k - m * n, n",
        "def scalar_slot(w, g, m):\n    return g / (m + 1), norm(g)",
        "def clip(w, g, m):\n    c = clip_by_global_norm(g + m, norm(w))\n    return c, c",
        "def nothing(w, g, a, b):\n    return 0.0, b, a",
        "def weights(w, g):\n    return w",
    ],
)
def test_register_allocation(text: str) -> None:
    """Values that change places: a move, a spare row, or a constant that must be kept."""
    assert check_program(Program.parse(text), seed=2, num_steps=5) == 1.0


def test_one_compile_for_all_programs() -> None:
    jax.clear_caches()
    for name in ("adamw", "lamb", "dog", "yogi"):
        check_program(rule_sources.load_rule(name), seed=3, num_steps=2)
    assert step_once._cache_size() == 1
    assert initial_state._cache_size() == 1


def test_agrees_with_the_native_transform() -> None:
    """The same 20 steps through `as_optax`, on a pytree, under jit: adamw, and reductions."""
    head = "def rule(w, g, m):\n    m = clip_by_global_norm(g + m, 1.0)\n"
    reductions = Program.parse(head + "    return m * norm(w) + mean(m), m")
    for program in (rule_sources.load_rule("adamw"), reductions):
        encoded = encode(program, num_steps=NUM_STEPS, capacity=CAPACITY)
        tx = program.as_optax(1.0)
        native = jax.jit(tx.update)
        rng = np.random.default_rng(4)
        w = rng.normal(size=D).astype(np.float32)
        state, native_state = initial_state(CAPACITY, encoded, w), tx.init(split(w))
        for _ in range(NUM_STEPS):
            g = rng.normal(size=D).astype(np.float32)
            update, state = step_once(CAPACITY, encoded, state, g, w)
            expected, native_state = native(split(g), native_state, split(w))
            # 1 - 0.999^step loses three digits of float32's seven, and only on the native side.
            np.testing.assert_allclose(-join(expected), update, rtol=5e-4, atol=1e-6)


def test_the_schedule_holds_after_the_horizon() -> None:
    program = Program.parse("def rule(w, g):\n    return step")
    encoded = encode(program, num_steps=NUM_STEPS, capacity=CAPACITY)
    w = np.ones(D, np.float32)
    state = initial_state(CAPACITY, encoded, w)._replace(step=np.int32(NUM_STEPS + 5))
    update, _ = step_once(CAPACITY, encoded, state, w, w)
    np.testing.assert_array_equal(update, np.full(D, NUM_STEPS))


def test_parameters_are_asked_for() -> None:
    encoded = encode(rule_sources.load_rule("sgd"), num_steps=1, capacity=CAPACITY)
    tx = interpret(encoded, LAYOUT, capacity=CAPACITY)
    w = np.ones(D, np.float32)
    with pytest.raises(ValueError, match="reads the parameters"):
        tx.update(w, tx.init(w))


RUNS_AND_REDUCTIONS = """\
def rule(w, g, m, v):
    m = interp(g, m, 0.9)
    v = interp(square(g), v, 1 - 1 / (step + 1))
    u = m / (sqrt(v) + 1e-3) * norm(w)
    u = u / (global_norm(u) + 1) + fan_in
    return u * mean(u), v, m
"""


def test_blocks_change_no_bit() -> None:
    """Runs before, between and after what sees whole rows; a last block beyond the vector's end."""
    layout = Layout.of([jax.ShapeDtypeStruct(shape, np.float32) for shape in ((3,), (2, 5))])
    program = Program.parse(RUNS_AND_REDUCTIONS)
    capacity = Capacity(ops=tuple(sorted({s.op for s in program.statements} & set(OPS))))
    encoded = encode(program, num_steps=NUM_STEPS, capacity=capacity)

    def train(largest_block: int) -> Any:
        tx = interpret(encoded, layout, capacity=capacity, largest_block=largest_block)
        rng = np.random.default_rng(6)
        w, gs = rng.normal(size=13), rng.normal(size=(4, 13))

        def body(carry: Any, g: jax.Array) -> Any:
            w, state = carry
            update, state = tx.update(g, state, w)
            return (w - 1e-3 * update, state), (update, state.registers[:4, :13])

        w = w.astype(np.float32)
        return jax.jit(lambda: jax.lax.scan(body, (w, tx.init(w)), np.float32(gs))[1])()

    whole = train(13)
    assert np.isfinite(whole[0]).all() and np.abs(whole[0]).min() > 0
    for actual, expected in zip(train(5), whole, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_blocks_cover_a_row_and_are_no_larger_than_allowed() -> None:
    for num_params in (1, 2, 12, 13, 4096, 4097, 301_066):
        for largest in (1, 5, 4096):
            num, size = Blocks.of(num_params, largest)
            assert size <= largest and num_params <= num * size < num_params + num
