"""Formulas of rules that work element by element, or by norms of tensors.

Written from the papers and, where these leave something open, from their authors' code; nothing
here comes from the programs.
"""

import math
from typing import Any

import numpy as np

from tests.search.rules.papers import Formula, State, Whole, adam_moments, adam_step


def adamod(
    s: State, w: Any, g: Any, t: int, _: str,
    *, b1: float = 0.9, b2: float = 0.999, b3: float = 0.999, eps: float = 1e-8, wd: float = 0.0,
) -> Any:  # fmt: skip
    adam_moments(s, g, t, b1, b2)
    # At a constant learning rate of 1; with another, every rate below has it as a factor.
    rate = math.sqrt(1 - b2**t) / (1 - b1**t) / (np.sqrt(s["v"]) + eps)
    s["rate"] = b3 * s.get("rate", 0.0) + (1 - b3) * rate
    return np.minimum(rate, s["rate"]) * s["m"] + wd * w


def core(
    s: State, w: Any, g: Any, t: int, _: str,
    *, b1_start: float = 0.7375, b1_end: float = 0.8125, b1_steps: float = 250.0, b2: float = 0.99,
    eps: float = 1e-8, down: float = 0.7375, up: float = 1.2, s_min: float = 1e-3,
    s_max: float = 10.0, wd: float = 0.1,
) -> Any:  # fmt: skip
    lr = 1e-3  # the released code's; its bounds are 1e-6 and 1e-2
    b1 = b1_end + (b1_start - b1_end) * math.exp(-(((t - 1) / b1_steps) ** 2))
    old = s.get("m", np.zeros_like(g))
    s["m"] = b1 * old + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
    factor = np.select([old * s["m"] > 0, old * s["m"] < 0], [up, down], 1.0)
    size = s.get("size", np.full_like(g, lr)) * factor
    s["size"] = np.clip(size, s_min * lr, s_max * lr)
    u = s["m"] / (1 - b1**t) / (np.sqrt(s["v"] / (1 - b2**t)) + eps) * s["size"]
    return (u + wd * np.abs(u) * w) / lr


def lion_k_norm(
    s: State, w: Any, g: Any, t: int, _: str,
    *, b1: float = 0.9, b2: float = 0.99, wd: float = 1e-3,
) -> Any:  # fmt: skip
    old = s.get("m", np.zeros_like(g))  # of gradients that point downhill in the paper
    c = b1 * old - (1 - b1) * g
    s["m"] = b2 * old - (1 - b2) * g
    return -(c / math.sqrt(np.sum(c**2)) - wd * w)


def lion_k_huber(
    s: State, w: Any, g: Any, t: int, _: str,
    *, b1: float = 0.9, b2: float = 0.99, delta: float = 1e-3, wd: float = 1e-3,
) -> Any:  # fmt: skip
    old = s.get("m", np.zeros_like(g))
    c = b1 * old - (1 - b1) * g
    s["m"] = b2 * old - (1 - b2) * g
    s["inner"] = s.get("inner", 0) + np.sum(np.abs(c) < delta)
    return -(np.clip(c, -delta, delta) / delta - wd * w)


def admeta(
    s: State, w: Any, g: Any, t: int, _: str,
    *, b1: float = 0.9, b2: float = 0.999, lam: float = 0.2, eps: float = 1e-8, wd: float = 0.0,
) -> Any:  # fmt: skip
    s["i"] = lam * s.get("i", 0.0) + g
    kappa, mu = 10 / lam - 9, 25 - 10 * (lam + 1 / lam)
    adam_moments(s, kappa * g + mu * s["i"], t, b1, b2)
    size = math.sqrt(1 - b2**t) / (1 - b1**t)
    return size * s["m"] / (np.sqrt(s["v"]) + eps) + wd * w


def innaprop(
    s: State, w: Any, g: Any, t: int, _: str,
    *, rate: float = 1e-3, alpha: float = 0.1, beta: float = 0.9, sigma: float = 0.999,
    eps: float = 1e-8, wd: float = 0.01,
) -> Any:  # fmt: skip
    psi = s.get("psi", (1 - alpha * beta) * w)
    x = (1 - rate * wd) * w
    s["v"] = sigma * s.get("v", 0.0) + (1 - sigma) * g**2
    scaled = g / (np.sqrt(s["v"]) / math.sqrt(1 - sigma**t) + eps)
    s["psi"] = (1 - rate / beta) * psi + rate * (1 / beta - alpha) * x
    factor = 1 + rate * (1 - alpha * beta) / (beta - rate)
    return w - (factor * x - rate / (beta - rate) * s["psi"] - rate * beta * scaled)


def subset_norm(
    s: State, w: Any, g: Any, t: int, _: str,
    *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6, wd: float = 0.0,
) -> Any:  # fmt: skip
    matrix = g.reshape(-1, g.shape[-1]) if g.ndim > 1 else g
    size = np.abs(matrix)
    if g.ndim > 1:  # one number for each index of the longer side
        tall = matrix.shape[0] >= matrix.shape[1]
        size = np.linalg.norm(matrix, axis=1 if tall else 0, keepdims=True)
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * matrix
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * size**2
    step = s["m"] / (np.sqrt(s["v"]) + eps) * math.sqrt(1 - b2**t) / (1 - b1**t)
    return step.reshape(w.shape) + wd * w


def grokfast(
    s: State, w: Any, g: Any, t: int, _: str,
    *, alpha: float = 0.98, lam: float = 2.0, b1: float = 0.9, b2: float = 0.999,
    eps: float = 1e-8, wd: float = 1e-4,
) -> Any:  # fmt: skip
    s["slow"] = s.get("slow", g) * alpha + g * (1 - alpha)
    return adam_step(s, g + lam * s["slow"], t, b1, b2, eps) + wd * w


def adopt_unclipped(
    s: State, w: Any, g: Any, t: int, _: str,
    *, b1: float = 0.9, b2: float = 0.9999, eps: float = 1e-6,
) -> Any:  # fmt: skip
    if t == 1:
        s["v"] = g**2
        return np.zeros_like(g)
    scaled = g / np.maximum(np.sqrt(s["v"]), eps)
    s["m"] = scaled if t == 2 else b1 * s["m"] + (1 - b1) * scaled
    s["v"] = b2 * s["v"] + (1 - b2) * g**2
    return s["m"]


def adan_paper(
    s: State, w: Any, g: Any, t: int, _: str,
    *, rate: float = 1e-3, b1: float = 0.02, b2: float = 0.08, b3: float = 0.01,
    eps: float = 1e-8, wd: float = 0.02,
) -> Any:  # fmt: skip
    if t == 1:
        s["m"], s["d"], s["n"] = g, np.zeros_like(g), g**2
    else:
        change = g - s["last"]
        s["m"] = (1 - b1) * s["m"] + b1 * g
        s["d"] = (1 - b2) * s["d"] + b2 * change
        s["n"] = (1 - b3) * s["n"] + b3 * (g + (1 - b2) * change) ** 2
    s["last"] = g
    rates = rate / (np.sqrt(s["n"]) + eps)
    return w - (w - rates * (s["m"] + (1 - b2) * s["d"])) / (1 + wd * rate)


def sgd_sai(
    s: State, w: Any, g: Any, t: int, _: str,
    *, b: float = 0.9, eps: float = 1e-8, wd: float = 1e-2,
) -> Any:  # fmt: skip
    if t == 1:
        s["snr"] = np.linalg.norm(g) / (np.std(g, ddof=1) + eps) if g.size > 1 else 1.0
    s["m"] = g if t == 1 else b * s["m"] + (1 - b) * g
    return s["snr"] * s["m"] + wd * w


def spam(
    s: State, w: Any, g: Any, t: int, _: str,
    *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6, threshold: float = 5000.0,
    interval: float = 500.0, warmup: float = 50.0, wait: float = 20.0, wd: float = 0.0,
) -> Any:  # fmt: skip
    if t % interval == 0 or t == 1:
        s["m"] = s["v"] = np.zeros_like(g)
    if t >= wait and t % interval >= wait:
        spike = g**2 > threshold * s["v"]
        s["spikes"] = s.get("spikes", 0) + np.sum(spike)
        g = np.where(spike, np.sign(g) * np.sqrt(threshold * s["v"]), g)
    s["m"] = b1 * s["m"] + (1 - b1) * g
    s["v"] = b2 * s["v"] + (1 - b2) * g**2
    age = t % interval if t >= interval else math.inf
    # CosineAnnealingLR from 0.99 to 0 over warmup + 1 steps, cut off at warmup
    slow = 1 - 0.99 * (1 + math.cos(math.pi * age / (warmup + 1))) / 2 if age < warmup else 1.0
    size = slow * math.sqrt(1 - b2**t) / (1 - b1**t)
    return size * s["m"] / (np.sqrt(s["v"]) + eps) + wd * w


def stable_spam(
    s: State, w: Any, g: Any, t: int, _: str,
    *, b1: float = 0.9, b2: float = 0.999, g1: float = 0.7, g2: float = 0.9, g3: float = 0.999,
    eps: float = 1e-8, interval: float = 1000.0, wd: float = 0.0,
) -> Any:  # fmt: skip
    largest = np.max(np.abs(g))
    s["top"] = g3 * s.get("top", 0.0) + (1 - g3) * largest
    limit = s["top"] / (1 - g3**t)
    over = np.abs(g) > limit
    s["over"] = s.get("over", 0) + np.sum(over)
    g = np.where(over, g / largest * limit, g)
    length = np.linalg.norm(g)
    s["mean"] = g1 * s.get("mean", 0.0) + (1 - g1) * length
    s["square"] = g2 * s.get("square", 0.0) + (1 - g2) * length**2
    root = math.sqrt(s["square"] / (1 - g2**t))
    g = g / length * (s["mean"] / (1 - g1**t) / (root + eps))
    s["age"] = s.get("age", 0) + 1
    if t % interval == 0:
        s["m"], s["v"], s["age"] = 0.0, 0.0, 1
    return adam_step(s, g, s["age"], b1, b2, eps) + wd * w


def adam_cm(
    states: dict[str, State], w: Any, g: Any, t: int, loss: float,
    *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, decay: float = 0.7, wd: float = 0.0,
) -> Any:  # fmt: skip
    size = sum(np.linalg.norm(x) for x in g.values())
    update = {}
    for key, s in states.items():
        if t == 1:
            s["m"] = s["v"] = aggregate = np.zeros_like(g[key])
            s["buffer"], s["priority"] = g[key], size
        else:
            s["m"] = b1 * s["m"] + (1 - b1) * g[key]
            aggregate = s["m"] + s["buffer"]
            if size > s["priority"]:
                s["buffer"], s["priority"] = s["m"], size
                s["kept"] = s.get("kept", 0) + 1
        s["v"] = b2 * s["v"] + (1 - b2) * aggregate**2
        s["priority"] = decay * s["priority"]
        bottom = np.sqrt(s["v"]) / math.sqrt(1 - b2**t) + eps
        update[key] = aggregate / (1 - b1**t) / bottom + wd * w[key]
    return update


def autoclip(
    states: dict[str, State], w: Any, g: Any, t: int, loss: float,
    *, share: float = 0.1, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8,
) -> Any:  # fmt: skip
    norm = math.sqrt(sum(np.sum(x**2) for x in g.values()))
    norms = next(iter(states.values())).setdefault("norms", [])
    norms.append(norm)
    clip = min(1.0, np.percentile(norms, 100 * share) / norm)
    return {key: adam_step(s, clip * g[key], t, b1, b2, eps) for key, s in states.items()}


def sania(
    states: dict[str, State], w: Any, g: Any, t: int, loss: float,
    *, b2: float = 0.999, eps: float = 0.1, f_min: float = 0.0,
) -> Any:  # fmt: skip
    u = {}
    for key, s in states.items():
        s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g[key] ** 2
        u[key] = g[key] / np.maximum(s["v"] / (1 - b2**t), eps)
    size = sum(np.sum(u[key] * g[key]) for key in u)
    inside = 2 * (loss - f_min) <= size
    rate = 1 - math.sqrt(1 - 2 * (loss - f_min) / size) if inside else 1.0
    for s in states.values():
        s.setdefault("branches", set()).add(inside)
    return {key: rate * u[key] for key in u}


FORMULAS: dict[str, Formula | Whole] = {
    "adam_cm": Whole(adam_cm),
    "adamod": adamod,
    "adan_paper": adan_paper,
    "admeta": admeta,
    "adopt_unclipped": adopt_unclipped,
    "autoclip": Whole(autoclip),
    "core": core,
    "grokfast": grokfast,
    "innaprop": innaprop,
    "lion_k_huber": lion_k_huber,
    "lion_k_norm": lion_k_norm,
    "sania": Whole(sania),
    "sgd_sai": sgd_sai,
    "spam": spam,
    "stable_spam": stable_spam,
    "subset_norm": subset_norm,
}
