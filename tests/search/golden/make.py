"""Writes `trajectories.json`: 20 steps of adam, adamw and lion, in plain NumPy and from the papers.

Nothing here imports veldt, JAX or Optax, so that the file is an independent witness. Run it with
`python tests/search/golden/make.py`; the result does not depend on the machine.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NUM_STEPS = 20
LEARNING_RATE = 0.01
Array = np.ndarray[Any, Any]


def gradient(step: int, w: Array) -> Array:
    """A smooth gradient with an element that is exactly zero at every third step; `step` from 1."""
    g = 0.5 * w + np.cos(step + np.arange(w.size))
    if step % 3 == 0:
        g[step % w.size] = 0.0
    return g


def adam(step: int, w: Array, g: Array, state: dict[str, Array], wd: float) -> Array:
    """Kingma and Ba 2015, algorithm 1, with Loshchilov and Hutter's decay."""
    b1, b2, eps = 0.9, 0.999, 1e-8
    state["m"] = b1 * state.get("m", 0.0) + (1.0 - b1) * g
    state["v"] = b2 * state.get("v", 0.0) + (1.0 - b2) * g * g
    m_hat = state["m"] / (1.0 - math.pow(b1, step))
    v_hat = state["v"] / (1.0 - math.pow(b2, step))
    return m_hat / (np.sqrt(v_hat) + eps) + wd * w


def lion(step: int, w: Array, g: Array, state: dict[str, Array], wd: float) -> Array:
    """Chen et al. 2023, algorithm 2."""
    del step
    m = state.get("m", np.zeros_like(w))
    state["m"] = 0.99 * m + (1.0 - 0.99) * g
    return np.sign(0.9 * m + (1.0 - 0.9) * g) + wd * w


RULES: dict[str, tuple[Callable[..., Array], float]] = {
    "adam": (adam, 0.0),
    "adamw": (adam, 1e-4),
    "lion": (lion, 1e-3),
}


def trajectory(name: str) -> list[list[float]]:
    """The parameters before the first step and after each: [NUM_STEPS + 1][5]."""
    rule, wd = RULES[name]
    w = np.linspace(-1.0, 1.0, 5)
    state: dict[str, Array] = {}
    points = [w.tolist()]
    for step in range(1, NUM_STEPS + 1):
        w = w - LEARNING_RATE * rule(step, w, gradient(step, w), state, wd)
        points.append(w.tolist())
    return points


if __name__ == "__main__":
    text = json.dumps({name: trajectory(name) for name in RULES}, indent=1)
    Path(__file__).with_name("trajectories.json").write_text(text + "\n", encoding="utf-8")
