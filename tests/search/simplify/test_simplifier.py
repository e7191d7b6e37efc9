"""Simplification as a whole: Lion out of the raw program, and the same behaviour always."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.search import clutter, strategies
from veldt.search import rule_sources
from veldt.search.config import evolution_config
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evolution import mutation
from veldt.search.language.ops import INTERPRETED
from veldt.search.program import Program
from veldt.search.simplify import prune, simplify, verification

RAW_LION = rule_sources.load_rule(Path(__file__).parents[1] / "golden" / "raw_lion.txt")
LION = """
def lion(w, g, m, *, b1=0.899, b2=0.996991, wd=0.4602):
    c = interp(g, m, b1)
    m = interp(g, m, b2)
    update = (sign(c) + wd * w)
    return update, m
"""
SCALED_LION = LION.replace("wd * w)", "wd * w) * 0.0002")


def is_same(one, other):
    """Whether two programs are equal but for names, order, and constants being named."""
    return one.lower().structural_hash == other.lower().structural_hash


def ops(program):
    return sorted(statement.op for statement in program.statements)


def test_the_raw_program_of_the_paper_comes_out_as_lion():
    simple = RAW_LION.simplify()
    assert is_same(simple, Program.parse(SCALED_LION))
    (slot,) = simple.slots
    assert {str(s).partition(" = ")[2] for s in simple.statements if s.op == "interp"} == {
        f"interp(g, {slot}, 0.899)",
        f"interp(g, {slot}, 0.996991)",
    }
    # Without its last factor it is the shipped rule, with other constants.
    unscaled = Program.parse(str(RAW_LION).replace("0.0002\n", "1.0\n")).simplify()
    shipped = rule_sources.load_rule("lion").with_constants(b1=0.899, b2=0.996991, wd=0.4602)
    assert is_same(unscaled, shipped)


def test_simplified_raw_lion_takes_the_steps_of_optax(x64):
    with x64():
        rng = np.random.default_rng(0)
        params = {"a": jnp.asarray(rng.normal(size=(4, 3))), "b": jnp.asarray(rng.normal(size=5))}
        noise = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=(300, *p.shape))), params)
        txs = (
            RAW_LION.simplify().as_optax(1.0),
            optax.lion(2e-4, b1=0.899, b2=0.996991, weight_decay=0.4602),
        )

        @jax.jit
        def train(params, noise):
            def step(carry, noise):
                moved = []
                for tx, (params, state) in zip(txs, carry, strict=True):
                    grads = jax.tree.map(lambda n, p: n + jnp.sin(p), noise, params)
                    updates, state = tx.update(grads, state, params)
                    moved.append((optax.apply_updates(params, updates), state))
                return moved, None

            return jax.lax.scan(step, [(params, tx.init(params)) for tx in txs], noise)[0]

        (ours, _), (theirs, _) = train(params, noise)
        for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(x, y, rtol=0.0, atol=1e-13)


@pytest.mark.parametrize("name", ["adamw", "lion", "rmsprop", "yogi", "nesterov"])
def test_shipped_rules_are_simple_or_get_simpler(name):
    rule = rule_sources.load_rule(name)
    simple = rule.simplify()
    saved = {"yogi": 1, "nesterov": 1}.get(name, 0)
    assert len(simple.statements) == len(prune(rule).statements) - saved
    assert simple.constants == rule.constants and simple.slots == rule.slots


def test_nesterov_momentum_is_kept_where_it_is_read():
    # update = g + decay * m: the slot is kept as decay * m.
    assert is_same(
        rule_sources.load_rule("nesterov").simplify(),
        Program.parse(
            "def f(w, g, m, *, decay=0.9):\n    m = decay * (g + m)\n    return g + m, m\n"
        ),
    )


@pytest.mark.parametrize(
    ("wasteful", "simple"),
    [
        # split averages, with numbers and with named constants
        ("m = (1 - 0.9) * g + 0.9 * m\n    u = m", "m = interp(g, m, 0.9)\n    u = m"),
        ("m = m + (1 - b) * (g - m)\n    u = m", "m = interp(g, m, b)\n    u = m"),
        (
            "v = interp(g, m, b)\n    m = interp(g, v, b)\n    u = m",
            "m = interp(g, m, b * b)\n    u = m",
        ),
        # one slot in two, a slot that is a multiple, and a slot that stays zero
        (
            "m = interp(g, m, b)\n    v = interp(g, v, b)\n    u = m * v",
            "m = interp(g, m, b)\n    u = square(m)",
        ),
        (
            "m = g + 0.9 * m\n    v = 3.0 * g + 0.9 * v\n    u = v - m",
            "m = g + 0.9 * m\n    u = 2.0 * m",
        ),
        ("v = v * g\n    u = g + v", "u = g"),
        # kept at another scale
        ("m = 0.1 * g + 0.5 * m\n    u = 10.0 * m", "m = g + 0.5 * m\n    u = m"),
        ("m = g + 0.9 * m\n    u = m * 0.1", "m = interp(g, m, 0.9)\n    u = m"),
        ("m = interp(g, m, 0.9)\n    u = m / 0.1", "m = g + 0.9 * m\n    u = m"),
        # a root of an average of squares needs no |v|
        (
            "v = interp(square(g), v, b)\n    u = g / sqrt(abs(v))",
            "v = interp(square(g), v, b)\n    u = g / sqrt(v)",
        ),
        (
            "v = interp(g * g, v, b)\n    u = sqrt(square(v))",
            "v = interp(square(g), v, b)\n    u = v",
        ),
        # noise that cancels
        ("x = g + w\n    u = -(-(x * 1.0)) - w", "u = g"),
        ("x = 0.5 * g\n    u = norm(x) / norm(g) * x", "u = (norm(g) / norm(g)) * (g * 0.25)"),
        # tensors that are one number everywhere keep their shape where it counts
        ("x = g * 0.0 + 1.0\n    u = g * norm(x)", "u = g * norm(g * 0.0 + 1.0)"),
    ],
)  # fmt: skip
def test_simplifies_to_what_a_person_would_write(wasteful, simple):
    def program(body):
        slots = ", ".join(name for name in "mv" if f"{name} =" in body)
        head = f"def f(w, g, {slots + ', ' if slots else ''}*, b=0.9):\n    "
        return Program.parse(head + body + f"\n    return u{', ' + slots if slots else ''}\n")

    found, wanted = program(wasteful).simplify(), prune(program(simple))
    assert len(found.statements) == len(wanted.statements), str(found)
    assert len(found.slots) == len(wanted.slots)
    assert verification.Reference(wanted).agrees(found)


def test_named_constants_stay_tunable_unless_they_are_folded():
    text = (
        "def f(w, g, m, *, b=0.9, c=0.5, d=2.0):\n    x = interp(g, m, b)\n"
        "    m = interp(g, x, c)\n    return sign(x) * d * 3.0, m\n"
    )
    program = Program.parse(text)
    assert program.simplify().constants == program.constants
    folded = simplify(program, fold=True)
    assert folded.constants == (("b", 0.9),)
    assert {arg for s in folded.statements for arg in s.args if isinstance(arg, float)} == {
        0.45,
        6.0,
    }


def test_a_cancellation_that_float32_feels_is_behaviour():
    # In float32 g + 1e6 keeps a digit of g or none.
    program = Program.parse("def f(w, g):\n    x = g + 1e6\n    u = x - 1e6\n    return u\n")
    assert program.simplify() == prune(program)


def test_what_cannot_be_kept_is_blamed_alone():
    program = Program.parse(
        "def f(w, g):\n    x = g + 1e6\n    y = x - 1e6\n    z = w * 2.0\n    z = z * 3.0\n"
        "    u = y + z\n    return u\n"
    )
    assert ops(program.simplify()) == ["add", "add", "multiply", "subtract"]


def assert_simplified(program, seed):
    """Simplifies; the result is no longer, stays as it is, and does the same on other numbers."""
    simple = program.simplify()
    pruned = prune(program)
    assert len(simple.statements) <= len(pruned.statements)
    assert len(simple.slots) <= len(pruned.slots)
    assert simple.simplify() == simple
    assert Program.parse(str(simple)) == simple
    for dtype, num_steps, rtol in (("float64", 12, 1e-6), ("float32", 6, 1e-2)):
        traces = [
            verification.trace(p.lower(), dtype=dtype, num_steps=num_steps, seed=seed)
            for p in (pruned, simple)
        ]
        for x, y in zip(traces[0].updates, traces[1].updates, strict=True):
            assert verification.is_close(x, y, rtol=rtol, atol=0.1 * rtol)
    return simple


@settings(max_examples=3)
@given(st.sampled_from(["adam", "lion", "rmsprop", "signum"]), st.integers(0, 2**32 - 1))
def test_junk_in_shipped_rules_goes_again(name, seed):
    rule = rule_sources.load_rule(name)
    cluttered = clutter.clutter(np.random.default_rng(seed), rule, 5)
    assert len(assert_simplified(cluttered, seed).statements) <= len(prune(rule).statements)


@pytest.mark.slow
@settings(max_examples=40)
@given(st.sampled_from(rule_sources.RULE_NAMES), st.integers(0, 2**32 - 1))
def test_junk_in_shipped_rules_goes_again_many(name, seed):
    rule = rule_sources.load_rule(name)
    cluttered = clutter.clutter(np.random.default_rng(seed), rule, 10)
    assert_simplified(cluttered, seed)


def evolved(name, seed, num_mutations):
    rng = np.random.default_rng(seed)
    genotype = Genotype(rule_sources.load_rule(name).with_slots(2), 0.1)
    config = evolution_config.MutationConfig(ops=INTERPRETED)
    for _ in range(num_mutations):
        genotype = mutation.mutate(rng, genotype, config).genotype
    return genotype.program


@settings(max_examples=3)
@given(st.sampled_from(["adam", "lion", "rmsprop", "adadelta"]), st.integers(0, 2**32 - 1))
def test_evolved_programs_keep_their_behaviour(name, seed):
    assert_simplified(evolved(name, seed, 12), seed)


@pytest.mark.slow
@settings(max_examples=40)
@given(strategies.programs(), st.integers(0, 2**32 - 1))
def test_random_programs_keep_their_behaviour(program, seed):
    assert_simplified(program, seed)


@settings(max_examples=8)
@given(strategies.programs_of_all_shapes(max_statements=6), st.integers(0, 2**32 - 1))
def test_programs_of_all_shapes_keep_their_behaviour(program, seed):
    assert_simplified(program, seed)


@pytest.mark.slow
@settings(max_examples=60)
@given(strategies.programs_of_all_shapes(max_statements=10), st.integers(0, 2**32 - 1))
def test_programs_of_all_shapes_keep_their_behaviour_many(program, seed):
    assert_simplified(program, seed)


@pytest.mark.parametrize(
    ("wasteful", "simple"),
    [  # What is known of a number of the run: it is never 0, at most 1, the same everywhere.
        ("g * (progress / progress)", "g"),
        ("g * max(progress, -1.0)", "g * progress"),
        ("g * min(progress, 2.0)", "g * progress"),
        ("global_norm(g * progress) * g", "(global_norm(g) * progress) * g"),
        ("g * sqrt(loss * loss)", "g * abs(loss)"),
        ("g * abs(nuclear_norm(w))", "g * nuclear_norm(w)"),
    ],
)
def test_what_the_run_knows_is_simplified(wasteful, simple):
    one = Program.parse(f"def f(w, g):\n    return {wasteful}").simplify()
    other = Program.parse(f"def f(w, g):\n    return {simple}").simplify()
    assert is_same(one, other)
    assert len(one.statements) == len(other.statements)


def test_a_loss_may_be_zero_or_negative():
    for text in ("g * (loss / loss)", "g * abs(loss)"):
        program = Program.parse(f"def f(w, g):\n    return {text}")
        assert len(program.simplify().statements) == len(program.statements)


@pytest.mark.slow
@settings(max_examples=40)
@given(st.sampled_from(rule_sources.RULE_NAMES), st.integers(0, 2**32 - 1))
def test_evolved_programs_keep_their_behaviour_many(name, seed):
    assert_simplified(evolved(name, seed, 15), seed)
