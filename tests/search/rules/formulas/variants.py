"""Formulas of variants of Adam and Lion, tensor by tensor, on matrices and vectors.

Written from the papers and, where these leave something open, from their authors' code, with their
signs (w <- w - rate * step) and a weight decay of 0.1; nothing here comes from the programs.
"""

import math
from typing import Any

import numpy as np

from tests.search.rules.papers import LAST, RATE, Formula, State, adam_moments


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
