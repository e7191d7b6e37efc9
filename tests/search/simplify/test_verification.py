"""The check that stands behind simplification: it sees changes, and lets rounding pass."""

import numpy as np
import pytest

from veldt.search import rule_sources
from veldt.search.program import Program
from veldt.search.simplify import verification

HEAD = "def f(w, g, m, *, b=0.9):\n    m = interp(g, m, b)\n    u = "
TAIL = "\n    return u, m\n"


def program(expression):
    return Program.parse(HEAD + expression + TAIL)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("m * 3.0 + w", "w + 3.0 * m"),
        ("sign(m)", "m / sqrt(m * m)"),
        ("m / (1 - b)", "m * (1 / (1 - b))"),
        ("sinh(1e4 * g)", "0.0 + sinh(g * 1e4)"),  # infinite here and there, on both sides
    ],
)
def test_rounding_passes(one, other):
    assert verification.Reference(program(one)).agrees(program(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("m", "m * 1.000001"),
        ("m / m", "1.0"),  # an entry without gradient
        ("sqrt(m * m)", "m"),
        ("m + where(step < 40, 0.0, 1e-3)", "m"),  # late
        ("m + g * (b - 0.9)", "m"),  # equal at the default of b only
        ("m * 0.0", "0.0 * sinh(1e4 * g)"),  # NaN on one side
        ("1.0 / (1e-14 + abs(m))", "1.0 / (1e-12 + abs(m))"),
    ],
)
def test_changes_are_seen(one, other):
    assert not verification.Reference(program(one)).agrees(program(other))


def test_folded_constants_count_at_their_defaults_only():
    one, other = program("m + g * (b - 0.9)"), program("m")
    assert verification.Reference(one, fold=True).agrees(other)


def test_traces_hold_every_step_and_the_state_before_it():
    flow = rule_sources.load_rule("momentum").lower()
    seen = verification.trace(flow, num_steps=7)
    for updates, slots in zip(seen.updates, seen.slots["m"], strict=True):
        assert updates.shape == slots.shape and len(updates) == 7
        np.testing.assert_array_equal(slots[0], 0.0)
        np.testing.assert_array_equal(slots[1:], updates[:-1])  # the update is the new slot
