"""Formulas of rules over whole matrices, with NumPy's own decompositions.

Written from the papers and, where these leave something open, from their authors' code; nothing
here comes from the programs, but for the random projections of `sketch`, whose rows are tested to
be orthonormal elsewhere.
"""

import functools
import math
from typing import Any

import numpy as np

from tests.search.rules.papers import EMBEDDING, LAST, Formula, State, Whole, adam_step
from veldt.search.language.ops import OPS


def matrix(x: Any) -> Any:
    """Return a tensor as a matrix by the language's convention; a vector is one row."""
    return x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)


def average(s: State, name: str, x: Any, b: float) -> Any:
    s[name] = b * s.get(name, 0.0) + (1 - b) * x
    return s[name]


def root(a: Any, p: float, eps: float) -> Any:
    """Return (a + eps)^(-1/p) of a symmetric matrix."""
    values, vectors = np.linalg.eigh(a)
    return (vectors * (values + eps) ** (-1 / p)) @ vectors.T


def power_step(a: Any, q: Any) -> Any:
    """Return the Q of QR(a q), with the signs that make R's diagonal positive."""
    basis, upper = np.linalg.qr(a @ q)
    return basis * np.where(np.diag(upper) < 0, -1.0, 1.0)


def correction(t: int, b1: float, b2: float) -> float:
    return math.sqrt(1 - b2**t) / (1 - b1**t)


def adamuon(
    s: State, w: Any, g: Any, t: int, _: str,
    *, b: float = 0.95, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, wd: float = 0.01,
) -> Any:  # fmt: skip
    if w.ndim < 2:
        return adam_step(s, g, t, b1, b2, eps) + wd * w
    s["m"] = b * s.get("m", 0.0) + matrix(g)
    x = np.sign(s["m"])
    x = x / (np.linalg.norm(x) + 1e-8)
    for _step in range(5):  # Muon's quintic
        gram = x @ x.T
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    u = x / (np.sqrt(average(s, "v", x**2, b)) + eps)
    u = 0.2 * math.sqrt(u.size) / np.linalg.norm(u) * u
    return u.reshape(w.shape) + wd * w


def conda(
    s: State, w: Any, g: Any, t: int, _: str,
    *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, interval: float = 10.0,
    wd: float = 0.0,
) -> Any:  # fmt: skip
    size = correction(t, b1, b2)
    if w.ndim < 2:
        m = average(s, "m", g, b1)
        return size * m / (np.sqrt(average(s, "v", g**2, b2)) + eps) + wd * w
    m = average(s, "m", matrix(g), b1)
    tall = m.shape[0] > m.shape[1]
    # A tall matrix is projected from the right: transposed, from the left.
    m, g = (m.T, matrix(g).T) if tall else (m, matrix(g))
    if (t - 1) % interval == 0:
        s["q"] = power_step(m @ m.T, s.get("q", np.eye(m.shape[0])))
    u = s["q"].T @ m / (np.sqrt(average(s, "v", (s["q"].T @ g) ** 2, b2)) + eps)
    u = s["q"] @ u
    return size * (u.T if tall else u).reshape(w.shape) + wd * w


def polargrad(
    s: State, w: Any, g: Any, t: int, _: str,
    *, b: float = 0.95, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, wd: float = 0.0,
) -> Any:  # fmt: skip
    if w.ndim < 2:
        return adam_step(s, g, t, b1, b2, eps)
    left, values, right = np.linalg.svd(average(s, "m", matrix(g), b), full_matrices=False)
    return (values.sum() * left @ right).reshape(w.shape) + wd * w


def psgd_kron(
    s: State, w: Any, g: Any, t: int, _: str,
    *, b: float = 0.9, mu: float = 0.1, b_top: float = 0.9, damping: float = 1e-9, b1: float = 0.9,
    b2: float = 0.999, eps: float = 1e-8, wd: float = 0.0,
) -> Any:  # fmt: skip
    if w.ndim < 2:
        return adam_step(s, g, t, b1, b2, eps) + wd * w
    x = matrix(g)
    if t == 1:
        size = np.mean(np.abs(x) ** 4) ** (-1 / 8)
        s["q"] = [math.sqrt(size) * np.eye(side) for side in x.shape]
        s["top"] = [0.0, 0.0]
        s["m"], s["count"] = np.zeros_like(x), 0
    momentum = min(s["count"] / (1 + s["count"]), b)
    s["m"], s["count"] = momentum * s["m"] + (1 - momentum) * x, s["count"] + 1
    left, right = (q @ q for q in s["q"])
    white = left @ x @ right
    # The mean of the products with damping * noise in place of the gradient.
    blurs = [damping**2 * np.trace(right @ right) * left @ left]
    blurs.append(damping**2 * np.trace(left @ left) * right @ right)
    for side, product in enumerate((white @ white.T, white.T @ white)):
        term, target = product + blurs[side], x.size / x.shape[side]
        bound = np.linalg.norm(term) + target
        s["top"][side] = max(b_top * s["top"][side] + (1 - b_top) * bound, bound)
        half, q = mu / 2 / s["top"][side], s["q"][side]
        p = q - half * (term @ q - target * q)
        p = p - half * (p @ term - p * target)
        s["q"][side] = (p + p.T) / 2
    left, right = (q.T @ q for q in s["q"])
    return (left @ s["m"] @ right).reshape(w.shape) + wd * w


def shampoo(s: State, w: Any, g: Any, t: int, _: str, *, eps: float = 1e-4) -> Any:
    x = matrix(g)
    if w.ndim < 2:
        s["mean"] = s.get("mean", eps) + np.mean(g**2)
        return g / np.sqrt(s["mean"])
    if t == 1:
        s["left"], s["right"] = (eps * np.eye(size) for size in x.shape)
    s["left"], s["right"] = s["left"] + x @ x.T, s["right"] + x.T @ x
    return (root(s["left"], 4, 0.0) @ x @ root(s["right"], 4, 0.0)).reshape(w.shape)


def soap(
    s: State, w: Any, g: Any, t: int, _: str,
    *, b1: float = 0.95, b2: float = 0.95, b_gram: float = 0.95, eps: float = 1e-8,
    interval: float = 10.0, wd: float = 0.01,
) -> Any:  # fmt: skip
    size = correction(t, b1, b2)
    if w.ndim < 2:
        m = average(s, "m", g, b1)
        return size * m / (np.sqrt(average(s, "v", g**2, b2)) + eps) + wd * w
    x = matrix(g)
    if t == 1:
        s["q_left"], s["q_right"] = (np.eye(side) for side in x.shape)
    left, right = s["q_left"], s["q_right"]
    m = average(s, "m", x, b1)
    u = left.T @ m @ right
    u = u / (np.sqrt(average(s, "v", (left.T @ x @ right) ** 2, b2)) + eps)
    average(s, "left", x @ x.T, b_gram)
    average(s, "right", x.T @ x, b_gram)
    if t % interval == 0:
        s["q_left"], s["q_right"] = power_step(s["left"], left), power_step(s["right"], right)
    return size * (left @ u @ right.T).reshape(w.shape) + wd * w


def swan(
    s: State, w: Any, g: Any, t: int, name: str,
    *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, eps_white: float = 1e-6,
) -> Any:  # fmt: skip
    if w.ndim < 2 or name in (LAST, EMBEDDING):
        return adam_step(s, g, t, b1, b2, eps)
    x = matrix(g).T  # the paper's weights have the outputs first
    x = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    y = root(x @ x.T, 2, eps_white) @ x
    return (np.linalg.norm(x) / np.linalg.norm(y) * y).T.reshape(w.shape)


def sinkgd(
    s: State, w: Any, g: Any, t: int, name: str,
    *, scale: float = 0.05, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8,
) -> Any:  # fmt: skip
    if w.ndim < 2 or name in (LAST, EMBEDDING):
        return adam_step(s, g, t, b1, b2, eps)
    x = matrix(g)
    for _round in range(5):
        for axis in (0, 1):  # their weights have the outputs first, and they start with the rows
            x = math.sqrt(x.shape[axis]) * x / np.linalg.norm(x, axis=axis, keepdims=True)
    return scale * x.reshape(w.shape)


@functools.cache
def projection(seed: int, short: int) -> Any:
    """Return the rows of P for a shorter side of this length: what `sketch` makes of columns."""
    return OPS["sketch"].fn(np, np.eye(short), np.float64(seed))


def project(s: State, g: Any, t: int, interval: float) -> tuple[Any, Any, bool]:
    """Return P and the gradient with its shorter side first, and whether it was turned."""
    x = matrix(g)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    return projection(int((t - 1) // interval), x.shape[0]), x, tall


def galore(
    s: State, w: Any, g: Any, t: int, _: str,
    *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6, interval: float = 200.0,
    scale: float = 0.25, wd: float = 0.0,
) -> Any:  # fmt: skip
    size = correction(t, b1, b2)
    if w.ndim < 2:
        m = average(s, "m", g, b1)
        return size * m / (np.sqrt(average(s, "v", g**2, b2)) + eps) + wd * w
    p, x, tall = project(s, g, t, interval)
    m, v = average(s, "m", p @ x, b1), average(s, "v", (p @ x) ** 2, b2)
    u = scale * size * p.T @ (m / (np.sqrt(v) + eps))
    return (u.T if tall else u).reshape(w.shape) + wd * w


def apollo(
    s: State, w: Any, g: Any, t: int, _: str,
    *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6, interval: float = 200.0,
    scale: float = 1.0, growth: float = 1.01, wd: float = 0.0,
) -> Any:  # fmt: skip
    size = correction(t, b1, b2)
    if w.ndim < 2:
        m = average(s, "m", g, b1)
        return size * m / (np.sqrt(average(s, "v", g**2, b2)) + eps) + wd * w
    p, x, tall = project(s, g, t, interval)
    low = p @ x
    u = average(s, "m", low, b1) / (np.sqrt(average(s, "v", low**2, b2)) + eps)
    y = x * (np.linalg.norm(u, axis=0) / (np.linalg.norm(low, axis=0) + 1e-8))
    if "last" in s:
        y = y / (max(np.linalg.norm(y) / (s["last"] + 1e-8), growth) / growth)
    s["last"] = np.linalg.norm(y)
    y = size * math.sqrt(scale) * y
    return (y.T if tall else y).reshape(w.shape) + wd * w


def frugal(
    s: State, w: Any, g: Any, t: int, _: str,
    *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, interval: float = 200.0,
    scale: float = 1.0, wd: float = 0.01,
) -> Any:  # fmt: skip
    if w.ndim < 2:
        return adam_step(s, g, t, b1, b2, eps) + wd * w
    age = int((t - 1) % interval) + 1
    if age == 1:
        s.clear()
    p, x, tall = project(s, g, t, interval)
    low = p @ x
    u = p.T @ adam_step(s, low, age, b1, b2, eps) + scale * np.sign(x - p.T @ low)
    return (u.T if tall else u).reshape(w.shape) + wd * w


FORMULAS: dict[str, Formula | Whole] = {
    "adamuon": adamuon,
    "apollo": apollo,
    "conda": conda,
    "frugal": frugal,
    "galore": galore,
    "polargrad": polargrad,
    "psgd_kron": psgd_kron,
    "shampoo": shampoo,
    "sinkgd": sinkgd,
    "soap": soap,
    "swan": swan,
}
