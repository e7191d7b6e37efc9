"""The probe gives, to the last bit, what running a program step by step on each tensor gives."""

import hypothesis
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.search import strategies
from veldt.search import rule_sources
from veldt.search.evaluation import probe
from veldt.search.language import dataflow
from veldt.search.language.ops import OPS
from veldt.search.program import Program
from veldt.search.simplify import prune


def check(program: Program) -> None:
    for flow in (program.lower(), prune(program).lower()):
        assert_array_equal(probe.run(flow), probe.run_step_by_step(flow))


@hypothesis.settings(max_examples=300)
@hypothesis.given(strategies.programs(max_statements=20))
def test_programs_step_by_step(program: Program) -> None:
    check(program)


@pytest.mark.parametrize("name", rule_sources.RULE_NAMES)
def test_rules_step_by_step(name: str) -> None:
    check(rule_sources.load_rule(name))


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_ops_step_by_step_through_a_slot(op) -> None:
    args = {"tensor": "m", "any": "m", "scalar": "0.1"}
    given = ", ".join(args[kind] for kind in op.kinds)
    products = {
        "transpose": "norm(transpose(m))",
        "matmul": "norm(matmul(m, transpose(g)))",
        "row_gram": "norm(row_gram(m))",
        "column_gram": "norm(column_gram(m))",
        "inverse_root": "mean(inverse_root(row_gram(m), 4.0, 0.1))",
        "eigenbasis": "mean(eigenbasis(row_gram(m), row_gram(g)))",
        "sketch": "mean(sketch(m, step))",
        "unsketch": "unsketch(sketch(m, 0.5), step)",
        "sketch_norm": "sketch_norm(sketch(m, 0.5))",
        "remember": "norm(m)",
        "percentile": "norm(m)",
    }
    x = products.get(op.name, f"{op.name}({given})")
    check(
        Program.parse(
            f"def rule(w, g, m):\n    x = {x}\n    m = m + x * g + w\n    return m - x, m"
        )
    )


@pytest.mark.parametrize(
    "lines",
    [
        "return m, v, g",  # two steps late
        "return m * v, v, m + 1",  # slots that change places
        "return m, step, v",  # a scalar in a slot
        "return m + v, norm(m + g) * 1e-3, norm(g)",
        "return clip_by_global_norm(m + g, 0.1), g, v",
        "return 2.0, m, v",  # a number
        "return m, exp(1000), v",  # a number that is not finite
        "return m * row_norm(v), is_last + ndim * g, v + column_mean(m - v) * is_embedding",
        "return clip_by_quantile(m, fan_in / 10), g, v",
        "return matmul(m, v) + w * fan_out, g * step, v + matmul(transpose(g), m)",
    ],
)
def test_slots_step_by_step(lines: str) -> None:
    check(Program.parse(f"def rule(w, g, m, v):\n    {lines}"))


def test_inputs_show_guards_and_small_constants() -> None:
    params, grads = probe.inputs()
    assert params.shape == grads.shape == (probe.NUM_STEPS, 17)
    assert np.all(params != 0.0)
    assert np.all(grads[:, 0] == 0.0)  # a parameter that never gets a gradient
    assert np.any((grads == 0.0) & (grads[::-1] != 0.0))  # and zeros that come and go
    assert np.abs(grads[:, 12:]).max() < np.abs(grads[:, :12]).max() / 10


@pytest.mark.parametrize(
    ("text", "ignores"),
    [
        ("def f(w, g):\n    return 1e8\n", True),
        ("def f(w, g):\n    return 0.1 * w\n", True),
        ("def f(w, g, m):\n    m = interp(step, m, 0.5)\n    return m, m\n", True),
        ("def f(w, g):\n    return g * 0.0 - 1e15\n", True),
        ("def f(w, g, m):\n    m = m + g\n    t = m - m\n    return t + w, m\n", True),
        ("def f(w, g):\n    return 1e9 + g\n", False),  # Training tells of this one.
        ("def f(w, g, m):\n    update = sign(m)\n    m = m + g\n    return update, m\n", False),
        # It may read the gradient later.
        ("def f(w, g):\n    return where(less(step, 10.0), w, g)\n", False),
    ],
)
def test_what_ignores_the_gradient_is_seen(text: str, ignores: bool) -> None:
    flow = dataflow.lower(Program.parse(text), fold=True)
    assert probe.ignores_gradient(flow, probe.run(flow)) is ignores


@pytest.mark.parametrize("name", rule_sources.RULE_NAMES)
def test_every_shipped_rule_reads_the_gradient(name: str) -> None:
    flow = dataflow.lower(rule_sources.load_rule(name), fold=True)
    assert not probe.ignores_gradient(flow, probe.run(flow))
