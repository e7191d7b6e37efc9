"""Programs as people read them: what stands there is what is meant, and parses back to it."""

import hypothesis
import numpy as np
import pytest

from tests.search import strategies
from veldt.search import simplify
from veldt.search.language.ops import OPS
from veldt.search.program import Program


def rule(body, constants=""):
    return Program.parse(f"def rule(w, g, m{constants}):\n    m = g * m\n    {body}\n")


@pytest.mark.parametrize(
    ("body", "constants", "shown"),
    [
        ("return g * (-0.75) ** step, m", "", "abs(-0.75) ** step"),
        ("return g * 0.75 ** step, m", "", " 0.75 ** step"),
        ("return g ** 0.5, m", "", "abs(g) ** 0.5"),
        ("return (g + m) ** 2.0, m", "", "abs(g + m) ** 2.0"),
        ("return sign(g) * square(g) ** 0.3, m", "", " square(g) ** 0.3"),
        ("return g * b ** step, m", ", *, b=0.9", " b ** step"),
        ("return g * b ** step, m", ", *, b=-0.9", "abs(b) ** step"),
        ("return g * (step + fan_in) ** -0.5, m", "", "(step + fan_in) ** (-0.5)"),
        ("return g * where(g < m, 0.5, abs(m)) ** 3.0, m", "", "where(g < m, 0.5, abs(m)) ** 3.0"),
    ],
)
def test_a_power_works_on_the_size_of_its_base_and_shows_it(body, constants, shown):
    program = rule(body, constants)
    text = program.pretty()
    assert shown in text.replace("update = ", "return ")
    again = Program.parse(text)
    live = simplify.prune(program)
    assert len(again.statements) == len(live.statements)
    assert again.lower().structural_hash == live.lower().structural_hash


def test_abs_of_a_base_is_the_same_power():
    assert rule("return abs(g) ** 0.5, m") == rule("return g ** 0.5, m")
    assert OPS["power"].fn(np, np.float32(-0.75), np.float32(3.0)) == np.float32(0.75) ** 3


@hypothesis.given(strategies.programs())
def test_what_is_printed_means_the_same(program):
    again = Program.parse(program.pretty())
    assert again.lower().structural_hash == simplify.prune(program).lower().structural_hash
