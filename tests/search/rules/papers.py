"""A shipped rule and its paper's formula side by side, in plain NumPy, float64.

A formula takes one tensor or all of them (`Whole`), keeps its state in a dictionary and returns the
step in descent direction: training does w <- w - rate * step. Its keyword arguments are the rule's
constants, with the paper's values as defaults. `deviation` runs both and compares.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from veldt.search import rule_sources
from veldt.search.language.roles import Roles
from veldt.search.runtime.execute import execute, slot_shapes

RATE = 0.01
NUM_STEPS = 100
# The kernel of the last layer has the greatest number in its path.
SHAPES: dict[str, tuple[int, ...]] = {
    "embed": (7, 4),
    "layer_2": (9, 6),
    "layer_10": (5, 8),
    "conv": (2, 3, 4),
    "bias": (4,),
    "gain": (),
}
LAST = "layer_10"
EMBEDDING = "embed"

State = dict[str, Any]
Tensors = dict[str, np.ndarray]
Formula = Callable[..., Any]


@dataclass(frozen=True)
class Whole:
    """A formula over all tensors, `fn(state, w, g, t, loss, **constants)`; w, g by name."""

    fn: Formula


def adam_moments(s: State, g: Any, t: int, b1: float = 0.9, b2: float = 0.999) -> tuple[Any, Any]:
    """Return Adam's two averages of g, corrected; `s` keeps them."""
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
    return s["m"] / (1 - b1**t), s["v"] / (1 - b2**t)


def adam_step(s: State, g: Any, t: int, b1: float, b2: float, eps: float) -> Any:
    """Return Adam's step."""
    m, v = adam_moments(s, g, t, b1, b2)
    return m / (np.sqrt(v) + eps)


def defaults_of(formula: Formula | Whole) -> dict[str, float]:
    """Return the formula's constants and their defaults."""
    fn = formula.fn if isinstance(formula, Whole) else formula
    parameters = inspect.signature(fn).parameters.values()
    return {p.name: p.default for p in parameters if p.kind == p.KEYWORD_ONLY}


def deviation(
    name: str,
    formula: Formula | Whole,
    constants: Mapping[str, float],
    shapes: Mapping[str, tuple[int, ...]],
    num_steps: int,
    rate: float = RATE,
) -> tuple[float, dict[str, State]]:
    """Return the largest deviation of any parameter at any step, and the formula's states.

    A deviation is relative, for parameters below 0.001 to that.
    """
    rule = rule_sources.load_rule(name)
    known = {key: constants[key] for key in constants if key in dict(rule.constants)}
    theirs, states = _formula_steps(formula, known, shapes)
    expected = _trajectory(theirs, shapes, num_steps, rate)
    actual = _trajectory(_program_steps(rule, known, shapes), shapes, num_steps, rate)
    worst = 0.0
    for ours, paper in zip(actual, expected, strict=True):
        for key in shapes:
            gap = np.abs(ours[key] - paper[key]) / (np.abs(paper[key]) + 1e-3)
            assert np.all(np.isfinite(gap)), key
            worst = max(worst, float(gap.max()))
    return worst, states


def _formula_steps(
    formula: Formula | Whole, constants: Mapping[str, float], shapes: Mapping[str, Any]
) -> tuple[Callable[..., Tensors], dict[str, State]]:
    states: dict[str, State] = {key: {} for key in shapes}
    if isinstance(formula, Whole):
        whole = formula.fn
        return lambda w, g, t, loss: whole(states, w, g, t, loss, **constants), states
    takes = defaults_of(formula)
    given = {key: value for key, value in constants.items() if key in takes}

    def step(w: Tensors, g: Tensors, t: int, loss: float) -> Tensors:
        return {key: formula(states[key], w[key], g[key], t, key, **given) for key in w}

    return step, states


def _program_steps(
    rule: Any, constants: Mapping[str, float], shapes: Mapping[str, tuple[int, ...]]
) -> Callable[..., Tensors]:
    flow = rule.lower()
    keys = sorted(shapes)  # as a tree of a dict has its leaves
    roles = Roles().of({key: np.zeros(shapes[key]) for key in keys})
    found = slot_shapes(flow, [shapes[key] for key in keys])
    state = {slot: [np.zeros(shape) for shape in of] for slot, of in found.items()}

    def step(w: Tensors, g: Tensors, t: int, loss: float) -> Tensors:
        inputs: dict[str, Any] = dict(state)
        inputs |= {"w": [w[key] for key in keys], "g": [g[key] for key in keys]}
        inputs |= {role: [of[role] for of in roles] for role in flow.live_roles}
        inputs["loss"] = [np.float64(loss)] * len(keys)
        update, slots = execute(flow, np, inputs, [np.float64(t)] * len(keys), constants)
        state.update(zip(flow.live_slots, slots, strict=True))
        return dict(zip(keys, update, strict=True))

    return step


def _trajectory(
    step: Callable[..., Tensors], shapes: Mapping[str, Any], num_steps: int, rate: float
) -> list[Tensors]:
    """Return the parameters after each step; gradients and losses depend on them."""
    rng = np.random.default_rng(0)
    w = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    path = []
    for t in range(1, num_steps + 1):
        g = {name: np.sin(x) + rng.normal(size=x.shape) for name, x in w.items()}
        if t == 5:  # a gradient at right angles to the parameters, column by column
            x, y = w[LAST], g[LAST]
            g[LAST] = y - x * (x * y).sum(0) / (x * x).sum(0)
        if t % 17 == 0:  # a spike
            g[LAST].flat[t % 5] += 30.0
        loss = 10.0 ** rng.uniform(-1.5, 1.0) * sum(
            float(np.sum(1 - np.cos(x))) for x in w.values()
        )
        update = step(w, g, t, loss)
        w = {name: w[name] - rate * update[name] for name in w}
        path.append(w)
    return path
