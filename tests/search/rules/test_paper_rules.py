"""The shipped rules that Optax lacks against their papers' formulas, in plain NumPy, float64.

The formulas are written from the papers and, where these leave something open, from their authors'
code, tensor by tensor and with their signs (w <- w - rate * step); nothing here comes from the
programs.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from veldt.search import rule_sources
from veldt.search.language.roles import Roles
from veldt.search.runtime.execute import execute, slot_shapes

RATE = 0.01
NUM_STEPS = 12
# The kernel of the last layer has the greatest number in its path.
SHAPES = {"layer_2": (3, 4), "layer_10": (5, 3), "bias": (4,), "gain": ()}
LAST = "layer_10"

State = dict[str, Any]
Formula = Callable[[State, np.ndarray, np.ndarray, int, str], np.ndarray]


def adam_moments(s: State, g: Any, t: int, b1: float = 0.9, b2: float = 0.999) -> tuple[Any, Any]:
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
    return s["m"] / (1 - b1**t), s["v"] / (1 - b2**t)


def adabound(s: State, w: Any, g: Any, t: int, _: str) -> Any:
    adam_moments(s, g, t)
    rate, final_rate = RATE, 0.1 * RATE / 1e-3  # the authors' final_lr follows the rate's schedule
    size = rate * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    lower = final_rate * (1 - 1 / (1e-3 * t + 1))
    upper = final_rate * (1 + 1 / (1e-3 * t))
    return np.clip(size / (np.sqrt(s["v"]) + 1e-8), lower, upper) * s["m"] / RATE


def adamp(s: State, w: Any, g: Any, t: int, _: str) -> Any:
    m, v = adam_moments(s, g, t)
    step = m / (np.sqrt(v) + 1e-8)
    if w.ndim < 2:
        return step + 0.1 * w
    # The authors' channels are PyTorch's first axis; here they are the last.
    for view in (w.T, w.reshape(1, -1)):
        grads = (g.T if view.shape[0] > 1 else g).reshape(view.shape)
        cosine = np.abs((view * grads).sum(1)) / (
            (np.linalg.norm(view, axis=1) + 1e-8) * (np.linalg.norm(grads, axis=1) + 1e-8)
        )
        if cosine.max() < 0.1 / math.sqrt(view.shape[1]):
            unit = view / (np.linalg.norm(view, axis=1, keepdims=True) + 1e-8)
            inner = (step.T if view.shape[0] > 1 else step).reshape(view.shape)
            inner = inner - unit * (unit * inner).sum(1, keepdims=True)
            s["projections"] = s.get("projections", 0) + 1
            step = inner.T if view.shape[0] > 1 else inner.reshape(w.shape)
            return step + 0.1 * 0.1 * w
    return step + 0.1 * w


def came(s: State, w: Any, g: Any, t: int, _: str) -> Any:
    def average(name: str, x: Any, b: float) -> Any:
        s[name] = b * s.get(name, 0.0) + (1 - b) * x
        return s[name]

    def scaled(x: Any, name: str, squares: Any, b: float) -> Any:
        if x.ndim < 2:
            return x / np.sqrt(average(name, squares, b))
        rows = average(f"{name} rows", squares.mean(1), b)
        columns = average(f"{name} columns", squares.mean(0), b)
        return x / np.sqrt(np.outer(rows, columns) / rows.mean())

    u = scaled(g, "v", g**2 + 1e-30, 0.999)
    u = u / max(1.0, math.sqrt(np.mean(u**2)))
    m = average("m", u, 0.9)
    if w.ndim < 2:
        return m + 0.1 * w
    return scaled(m, "residual", (u - m) ** 2 + 1e-16, 0.9999) + 0.1 * w


def caution(u: Any, g: Any) -> Any:
    mask = (u * g > 0).astype(float)
    return u * mask / max(mask.mean(), 1e-3)


def cautious_adamw(s: State, w: Any, g: Any, t: int, _: str) -> Any:
    m, v = adam_moments(s, g, t)
    return caution(m / (np.sqrt(v) + 1e-8), g) + 0.1 * w


def cautious_lion(s: State, w: Any, g: Any, t: int, _: str) -> Any:
    old = s.get("m", np.zeros_like(g))
    s["m"] = 0.99 * old + 0.01 * g
    return caution(np.sign(0.9 * old + 0.1 * g), g) + 0.1 * w


def diffgrad(s: State, w: Any, g: Any, t: int, _: str) -> Any:
    m, v = adam_moments(s, g, t)
    change = np.abs(s.get("last", 0.0) - g)
    s["last"] = g
    return m / (1 + np.exp(-change)) / (np.sqrt(v) + 1e-8)


def exadam(s: State, w: Any, g: Any, t: int, _: str) -> Any:
    m, v = adam_moments(s, g, t)
    by_v = 1 + s["v"] / (s["v"] + 1e-8) * 0.999**t
    by_m = 1 + s["m"] ** 2 / (s["m"] ** 2 + 1e-8) * 0.9**t
    m_tilde, v_tilde, g_tilde = m * by_v, v * by_m, g / (1 - 0.9**t) * by_v
    return (m_tilde + g_tilde) / (np.sqrt(v_tilde) + 1e-8) + 0.1 * w


def grams(s: State, w: Any, g: Any, t: int, _: str) -> Any:
    m, v = adam_moments(s, g, t)
    return np.sign(g) * np.abs(m / (np.sqrt(v) + 1e-8)) + 0.1 * w


def gravity(s: State, w: Any, g: Any, t: int, _: str) -> Any:
    beta = (0.9 * t + 1) / (t + 2)
    largest = np.abs(g).max()
    zeta = g / (1 + (g * largest) ** 2)
    s["v"] = beta * s.get("v", 0.0) + (1 - beta) * zeta
    return s["v"]


def mars(s: State, w: Any, g: Any, t: int, _: str) -> Any:
    c = g + 0.025 * 0.95 / (1 - 0.95) * (g - s.get("last", g))
    s["last"] = g
    length = np.linalg.norm(c)
    m, v = adam_moments(s, c / length if length > 1 else c, t, 0.95, 0.99)
    return m / (np.sqrt(v) + 1e-8) + 0.1 * w


def scale(s: State, w: Any, g: Any, t: int, name: str) -> Any:
    s["m"] = 0.9 * s.get("m", 0.0) + 0.1 * g if name == LAST else g
    length = np.linalg.norm(s["m"], axis=0) if w.ndim > 1 else np.linalg.norm(s["m"])
    return s["m"] / length


FORMULAS: dict[str, Formula] = {
    "adabound": adabound,
    "adamp": adamp,
    "came": came,
    "cautious_adamw": cautious_adamw,
    "cautious_lion": cautious_lion,
    "diffgrad": diffgrad,
    "exadam": exadam,
    "grams": grams,
    "gravity": gravity,
    "mars": mars,
    "scale": scale,
}


def trajectory(step: Callable[..., dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The parameters after all steps; the gradients depend on them."""
    rng = np.random.default_rng(0)
    w = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    for t in range(1, NUM_STEPS + 1):
        g = {name: np.sin(x) + rng.normal(size=x.shape) for name, x in w.items()}
        if t == 5:  # a gradient at right angles to the parameters, column by column
            x, y = w[LAST], g[LAST]
            g[LAST] = y - x * (x * y).sum(0) / (x * x).sum(0)
        update = step(w, g, t)
        w = {name: w[name] - RATE * update[name] for name in w}
    return w


@pytest.mark.parametrize("name", FORMULAS)
def test_equals_the_papers_formula(name: str) -> None:
    rule = rule_sources.load_rule(name)
    flow = rule.lower()
    states: dict[str, State] = {key: {} for key in SHAPES}

    def formula(w: Any, g: Any, t: int) -> Any:
        return {key: FORMULAS[name](states[key], w[key], g[key], t, key) for key in w}

    keys = sorted(SHAPES)  # as a tree of a dict has its leaves
    roles = Roles().of({key: np.zeros(SHAPES[key]) for key in SHAPES})
    shapes = slot_shapes(flow, [SHAPES[key] for key in keys])
    state = {slot: [np.zeros(shape) for shape in found] for slot, found in shapes.items()}
    constants = {"wd": 0.1} if "wd" in dict(rule.constants) else {}

    def program(w: Any, g: Any, t: int) -> Any:
        inputs = {"w": [w[key] for key in keys], "g": [g[key] for key in keys], **state}
        inputs |= {role: [of[role] for of in roles] for role in flow.live_roles}
        update, slots = execute(flow, np, inputs, [np.float64(t)] * len(keys), constants)
        state.update(zip(flow.live_slots, slots, strict=True))
        return dict(zip(keys, update, strict=True))

    expected, actual = trajectory(formula), trajectory(program)
    for key in SHAPES:
        np.testing.assert_allclose(actual[key], expected[key], rtol=1e-11, atol=1e-14, err_msg=key)
    if name == "adamp":
        assert states[LAST]["projections"] >= 1


def test_every_rule_has_a_formula_or_is_in_optax() -> None:
    from tests.search.rules.test_rule_sources import OPTAX_RULES

    assert sorted([*FORMULAS, *OPTAX_RULES]) == list(rule_sources.PUBLISHED)
