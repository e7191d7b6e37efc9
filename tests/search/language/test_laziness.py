"""Lazy choices: which they are, that they change no number, and that they do skip the work."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from veldt.search.language import laziness
from veldt.search.language.ops import OPS
from veldt.search.program import Program

HEAD = "def rule(w, g, q, m):\n    a = row_gram(g)\n"


def lazies(body: str) -> dict[str, set[str]]:
    """The lazy choices of a program: for each, by number, the ops of its own branch."""
    flow = Program.parse(HEAD + body).lower()
    found = laziness.lazy_branches(flow)
    return {str(i): {flow.node(j).op for j in own} for i, own in enumerate(found.values())}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "    q = where(every(step, 10), inverse_root(a, 4, 0.1), q)\n"
            "    return matmul(q, g), q, m",
            {"0": {"row_gram", "inverse_root"}},
        ),
        (  # The progress decides, and the gram matrix is needed elsewhere too.
            "    q = where(progress < 0.5, inverse_root(a, 4, 0.1), q)\n"
            "    return matmul(q + a, g), q, m",
            {"0": {"inverse_root"}},
        ),
        (  # Not dear.
            "    q = where(every(step, 10), a, q)\n    return matmul(q, g), q, m",
            {},
        ),
        (  # The condition differs from tensor to tensor.
            "    q = where(ndim == 2, inverse_root(a, 4, 0.1), q)\n    return matmul(q, g), q, m",
            {},
        ),
        (  # Used outside.
            "    r = inverse_root(a, 4, 0.1)\n    q = where(every(step, 10), r, q)\n"
            "    return matmul(q + r, g), q, m",
            {},
        ),
        (  # One in another.
            "    r = where(every(step, 20), inverse_root(a, 2, 0.1), a)\n"
            "    q = where(every(step, 10), eigenbasis(r, q), q)\n    return matmul(q, g), q, m",
            {"0": {"inverse_root"}, "1": {"where", "inverse_root", "eigenbasis"}},
        ),
    ],
)
def test_which_choices_are_lazy(body: str, expected: dict[str, set[str]]) -> None:
    found = lazies(body)
    assert found.keys() == expected.keys()
    for index, ops in expected.items():
        assert ops <= found[index]


NESTED = """\
def rule(w, g, l, q, m, *, period=3.0):
    l = l + row_gram(g)
    r = where(every(step, 6), inverse_root(l, 2, 0.1), l)
    q = where(every(step - 1, period), eigenbasis(r, q), q)
    m = where(step < 3, polar(g) * norm(g), interp(g, m, 0.5))
    return matmul(q, m) + 0.1 * w, l, q, m
"""


def eager(program: Program, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same program's transform with every branch computed at every step."""
    monkeypatch.setattr(laziness, "lazy_branches", lambda flow: {})
    return program.as_optax(0.1)


@pytest.mark.parametrize("jitted", [True, False])
def test_lazy_choices_change_no_number(jitted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program.parse(NESTED)
    assert len(laziness.lazy_branches(program.lower())) == 3
    rng = np.random.default_rng(0)
    params = {"a": jnp.asarray(rng.normal(size=(3, 4))), "b": jnp.asarray(rng.normal(size=5))}
    grads = [jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), params) for _ in "1" * 8]

    def run(tx: Any) -> list[Any]:
        state = tx.init(params)
        update = jax.jit(tx.update) if jitted else tx.update
        found = []
        for grad in grads:
            out, state = update(grad, state, params)
            found.append((out, state))
        return found

    lazy = run(program.as_optax(0.1))
    with monkeypatch.context() as patch:
        plain = run(eager(program, patch))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6), lazy, plain)


def test_a_lazy_choice_is_a_condition_and_not_a_selection() -> None:
    """What is dear stands inside a branch of the compiled program, and nowhere else."""
    text = HEAD + "    q = where(every(step, 10), inverse_root(a, 4, 0.1), q)\n"
    program = Program.parse(text + "    return matmul(q, g), q, m")
    params = jnp.ones((3, 4))
    tx = program.as_optax(0.1)
    jaxpr = jax.make_jaxpr(tx.update)(params, tx.init(params), params)
    outer = [str(eqn.primitive) for eqn in jaxpr.jaxpr.eqns]
    assert outer.count("cond") == 1 and "eigh" not in outer
    (cond,) = [eqn for eqn in jaxpr.jaxpr.eqns if str(eqn.primitive) == "cond"]
    branches = [str(branch) for branch in cond.params["branches"]]
    assert sum("eigh" in branch for branch in branches) == 1


def test_dear_ops_are_those_of_whole_matrices() -> None:
    dear = {name for name, op in OPS.items() if op.is_dear}
    assert dear == {"inverse_root", "eigenbasis", "polar", "nuclear_norm"}
