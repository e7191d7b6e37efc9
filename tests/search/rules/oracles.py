"""The shipped rules that Optax has, and both sides over the same trajectory in one scan."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from veldt.search import rule_sources

NUM_STEPS = 100

# Most of the time here goes into compiling; optimizing the code for 100 tiny steps does not pay.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

# What each rule says it equals; the others are `optax.<name>`.
ORACLES: dict[str, Callable[..., Any]] = {
    "momentum": functools.partial(optax.sgd, momentum=0.9),
    "nesterov": functools.partial(optax.sgd, momentum=0.9, nesterov=True),
    "signsgd": optax.sign_sgd,
    "adopt": optax.contrib.adopt,
    "ademamix": optax.contrib.ademamix,
    "adafactor": functools.partial(optax.adafactor, min_dim_size_to_factor=1),
    "muon": optax.contrib.muon,
    "sophia": functools.partial(
        optax.contrib.sophia, hessian_diagonal_fn=optax.stateless_with_tree_map(lambda g, _: g * g)
    ),
    "dog": optax.contrib.dog,
    "madgrad": optax.contrib.madgrad,
    "polyak": optax.polyak_sgd,
    "momo": optax.contrib.momo,
    "momo_adam": optax.contrib.momo_adam,
    "prodigy": optax.contrib.prodigy,
    "dadapt_adamw": optax.contrib.dadapt_adamw,
    "muon_linear": optax.contrib.muon,
}
# The rules that Optax has; the others are in test_paper_rules.py.
NOT_RULES = ("scale",)  # a building block's name in Optax
OPTAX_RULES = [
    name
    for name in rule_sources.PUBLISHED
    if name in ORACLES or (hasattr(optax, name) and name not in NOT_RULES)
]
# Of those, the ones whose learning rate Optax keeps inside the state.
OWN_RATE = ("dadapt_adamw", "dog", "lars", "madgrad", "momo", "momo_adam", "polyak", "prodigy")
# Optax computes their schedules in float32 whatever the parameters are.
ROUNDING = {"adafactor": 1e-5, "madgrad": 1e-4}
COSTLY = ("adafactor", "muon", "muon_linear")
# Veldt's names of constants that Optax calls otherwise.
OPTAX_NAMES = {"wd": "weight_decay", "decay": "momentum"}
OPTAX_NAMES_OF = {
    "muon": {"b": "beta", "b1": "adam_b1", "b2": "adam_b2"},
    "muon_linear": {"b": "beta", "b1": "adam_b1", "b2": "adam_b2"},
    "lars": {"b": "momentum"},
    "madgrad": {"b": "momentum"},
    "polyak": {"max_rate": "max_learning_rate"},
    "momo": {"rate": "learning_rate", "b": "beta"},
    "momo_adam": {"rate": "learning_rate"},
    "prodigy": {"d0": "estim_lr0", "coef": "estim_lr_coef"},
    "dadapt_adamw": {"d0": "estim_lr0"},
}


def oracle(name: str) -> Callable[..., Any]:
    return ORACLES.get(name) or getattr(optax, name)


def make_params(dtype: Any) -> Any:
    """A pytree of dicts and tuples; `idle` never gets a gradient."""
    rng = np.random.default_rng(0)
    tree = {
        "net": (rng.normal(size=()), {"w": rng.normal(size=(4, 5)), "b": rng.normal(size=3)}),
        "conv": rng.normal(size=(2, 3, 4)),
        "idle": rng.normal(size=2),
    }
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def make_noise(params: Any, num_steps: int) -> Any:
    """Noise for each step, leaves [T, ...]; a fifth of it is exactly zero, and all of `idle`."""
    rng = np.random.default_rng(1)

    def draw(p: Any) -> Any:
        shape = (num_steps, *p.shape)
        return jnp.asarray(rng.normal(size=shape) * (rng.random(shape) > 0.2), p.dtype)

    noise = jax.tree.map(draw, params)
    return noise | {"idle": jnp.zeros_like(noise["idle"])}


def trajectories(txs: list[Any], params: Any, noise: Any) -> list[Any]:
    """The parameters of every transform after every step, in one scan; leaves [T, ...].

    Gradients and losses depend on the parameters, so that a wrong step changes all that follow.
    """
    txs = [optax.with_extra_args_support(tx) for tx in txs]

    def step(carry: list[Any], noise: Any) -> tuple[list[Any], list[Any]]:
        moved = []
        for tx, (params, state) in zip(txs, carry, strict=True):
            grads = jax.tree.map(lambda n, p: n * (1.0 + jnp.sin(p)), noise, params)
            loss = jax.tree.map(lambda n, p: jnp.sum(n * n * (1.0 - jnp.cos(p))), noise, params)
            value = sum(jax.tree.leaves(loss))
            updates, state = tx.update(grads, state, params, value=value)
            moved.append((optax.apply_updates(params, updates), state))
        return moved, [params for params, _ in moved]

    return jax.lax.scan(step, [(params, tx.init(params)) for tx in txs], noise)[1]


def pair(name: str, rates: Any) -> list[Any]:
    """Return a rule and what it equals, with a weight decay where it has one.

    Args:
      name: Rule.
      rates: Learning rate of each step; unused where Optax keeps the rate inside the state.
    """
    rule = rule_sources.load_rule(name)
    if name in OWN_RATE:
        inside = {"lars": {"wd": 0.1}, "madgrad": {"rate": 0.02}, "momo": {"rate": 0.3, "wd": 0.1}}
        inside |= {"momo_adam": {"rate": 0.3, "wd": 0.1}, "polyak": {"max_rate": 0.25}}
        inside |= {own: {"wd": 0.1, "d0": 1e-3} for own in ("dadapt_adamw", "prodigy")}
        ours = inside.get(name, {})
        names = OPTAX_NAMES | {"rate": "learning_rate"} | OPTAX_NAMES_OF.get(name, {})
        theirs = {names.get(key, key): value for key, value in ours.items()}
        if name == "lars":
            return [rule.as_optax(0.5, **ours), optax.lars(0.5, **theirs)]
        return [rule.as_optax(1.0, **ours), oracle(name)(**theirs)]
    schedule = rates.__getitem__
    has_decay = "wd" in dict(rule.constants)
    ours, decay = ({"wd": 0.1}, {"weight_decay": 0.1}) if has_decay else ({}, {})
    if name != "muon_linear":
        return [rule.as_optax(schedule, **ours), oracle(name)(schedule, **decay)]
    falling = rates * (1 - jnp.arange(1.0, NUM_STEPS + 1) / NUM_STEPS)
    return [
        rule.as_optax(schedule, num_steps=NUM_STEPS, **ours),
        optax.contrib.muon(falling.__getitem__, **decay),
    ]


def compared(name: str, rates: Any) -> tuple[Any, Any]:
    """Return the parameters of a rule and of what it equals after each step, in float64."""
    params = make_params(jnp.float64)
    if name == "adafactor":  # of more than two axes, Optax factors the two longest
        del params["conv"]
    noise = make_noise(params, NUM_STEPS)
    run = quick_jit(lambda params, noise, rates: trajectories(pair(name, rates), params, noise))
    actual, expected = run(params, noise, jnp.asarray(rates, jnp.float64))
    return actual, expected


def deviation(actual: Any, expected: Any) -> float:
    """Return the largest deviation of any parameter at any step; see `papers.deviation`."""
    gaps = jax.tree.map(
        lambda x, y: np.max(np.abs(np.subtract(x, y)) / (np.abs(y) + 1e-3)), actual, expected
    )
    return float(max(jax.tree.leaves(gaps)))


def assert_same(actual: Any, expected: Any, rtol: float) -> None:
    def check(x: Any, y: Any) -> None:
        np.testing.assert_allclose(np.float64(x), np.float64(y), rtol=rtol, atol=rtol * 1e-3)

    jax.tree.map(check, actual, expected)
