"""Pruning and pretty printing: the same behaviour to the bit, less text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search import strategies
from veldt.search import rule_sources
from veldt.search.program import Program
from veldt.search.simplify import prune, verification


def run(program):
    """Updates over a few steps, float64, with NumPy."""
    return verification.trace(program.lower(), num_steps=4).updates


@given(strategies.programs())
def test_pruned_and_pretty_programs_take_the_same_steps(program):
    simple = prune(program)
    for other in (simple, Program.parse(program.pretty()), Program.parse(str(simple))):
        for a, b in zip(run(program), run(other), strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(simple.statements) <= len(program.statements)
    assert prune(simple) == simple


@pytest.mark.parametrize("name", rule_sources.RULE_NAMES)
def test_shipped_rules_are_already_simple_and_print_readably(name):
    program = rule_sources.load_rule(name)
    simple = prune(program)
    assert simple.slots == program.slots
    text = program.pretty()
    assert Program.parse(text).lower().structural_hash == simple.lower().structural_hash
    # About as many lines as a person needs: fewer than instructions.
    assert len(text.splitlines()) < len(str(simple).splitlines()) or len(simple.statements) < 3


def test_dead_statements_go_across_iterations():
    program = Program.parse(
        """
def f(w, g, m, v, *, b=0.9, unused=3.0):
    m = interp(g, m, b)
    v = interp(m, v, unused)   # v feeds only itself
    x = cosh(v)
    return sign(m), m, v
"""
    )
    simple = prune(program)
    assert simple.slots == ("m",)
    assert simple.constants == (("b", 0.9),)
    assert [statement.op for statement in simple.statements] == ["interp", "sign"]


def test_equal_values_are_computed_once_and_numbers_folded():
    program = Program.parse(
        "def f(w, g):\n    a = g * w\n    b = w * g\n    return a + b * (2 + 3)\n"
    )
    ops = [statement.op for statement in prune(program).statements]
    assert ops == ["multiply", "multiply", "add"]


def test_pretty_keeps_a_read_before_its_slot_is_overwritten():
    text = """
def f(w, g, m):
    old = 2.0 * m
    m = interp(g, m, 0.9)
    return old + m, m
"""
    program = Program.parse(text)
    for a, b in zip(run(program), run(Program.parse(program.pretty())), strict=True):
        np.testing.assert_array_equal(a, b)


@given(st.integers(0, 4))
def test_slots_are_added_unused(num_slots):
    program = rule_sources.load_rule("lion")
    padded = program.with_slots(num_slots)
    assert len(padded.slots) == max(1, num_slots)
    assert Program.parse(str(padded)) == padded
    assert prune(padded) == prune(program)
    assert padded.lower().structural_hash == program.lower().structural_hash
