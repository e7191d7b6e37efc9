"""What holds of slots at every step: guessed from a run, kept only where induction proves it."""

import pytest

from veldt.search.program import Program
from veldt.search.simplify import choices, recurrence, verification


def facts(body, slots):
    program = Program.parse(f"def f(w, g, {slots}):\n    {body}\n    return u, {slots}\n")
    flow = program.lower()

    def lower(algebra, inputs):
        return choices.values_of(algebra, flow, inputs, frozenset())

    return recurrence.find(flow, verification.trace(flow), lower)


@pytest.mark.parametrize(
    ("body", "multiples"),
    [
        ("m = g + 0.9 * m\n    v = interp(g, v, 0.9)\n    u = m + v", {"v": ("m", 0.1)}),
        ("m = g - m\n    v = v - g\n    u = m + v", {}),
        ("m = g - m\n    v = -g - v\n    u = m + v", {"v": ("m", -1.0)}),
        # each is zero because the other is
        (
            "x = v * g\n    v = m * w\n    m = x\n    u = m + v + g",
            {"m": ("m", 0.0), "v": ("v", 0.0)},
        ),
        # equal until far beyond the run
        ("m = interp(g, m, 0.9)\n    v = where(step < 1e4, m, g)\n    u = m + v", {}),
    ],
)
def test_multiples_of_other_slots(body, multiples):
    assert dict(facts(body, "m, v").multiples) == multiples


@pytest.mark.parametrize(
    ("new", "nonnegative"),
    [
        ("interp(square(g), m, 0.9)", True),
        ("max(m, abs(g))", True),
        ("m + exp(w) - 1e-30", False),  # true of the run, but it does not follow
        ("interp(square(g), m, 1.5)", False),
        ("m + g", False),
    ],
)
def test_slots_that_are_never_negative(new, nonnegative):
    found = facts(f"m = {new}\n    u = m", "m")
    assert (found.nonnegative == {"m"}) == nonnegative
