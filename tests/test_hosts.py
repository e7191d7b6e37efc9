"""Everything that leaves veldt as an Optax transform, inside Optax's own combinators.

As in Optax's common tests, every rule, export, learned optimizer and wrapper goes through all
hosts. That the state keeps its form is traced for all; the numbers are those without the host.
"""

import functools
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import test_states
from tests.test_states import LOSS, MAKERS, RUN, length_for, same_form
from veldt.search import rule_sources

PARAMS: Any = {"net": {"kernel": jnp.linspace(-1.0, 1.0, 6).reshape(3, 2), "bias": jnp.ones(2)}}

make = test_states.make  # The fixture.


def everywhere(_: Any) -> Any:
    return jax.tree.map(lambda _: True, PARAMS)


# Each leaves the numbers as they are without it.
HOSTS: dict[str, Callable[[Any], Any]] = {
    "chain": lambda tx: optax.chain(optax.identity(), tx),
    "named_chain": lambda tx: optax.named_chain(("rule", tx)),
    "masked": lambda tx: optax.masked(tx, everywhere),
    "partition": lambda tx: optax.partition(
        {"moved": tx, "frozen": optax.set_to_zero()}, jax.tree.map(lambda _: "moved", PARAMS)
    ),
    "multi_transform": lambda tx: optax.multi_transform(
        {"moved": tx}, jax.tree.map(lambda _: "moved", PARAMS)
    ),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, every_k_schedule=1),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, max_consecutive_errors=3),
    "conditionally_mask": lambda tx: optax.conditionally_mask(tx, lambda step, **_: step >= 0),
}


def run(tx: Any, params: Any, num_steps: int = 3) -> Any:
    """Parameters and state after some steps of `lax.scan`."""

    def step(carry: Any, _: None) -> tuple[Any, None]:
        params, state = carry
        grads = jax.tree.map(jnp.sin, params)
        updates, state = tx.update(grads, state, params, value=LOSS)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, tx.init(params)), length=num_steps)[0]


# What is traced in fast tests: rules whose states are unlike others', and one of each kind.
SOME = {"rule": ["muon", "apollo", "momo"], "export": ["adafactor", "sgd"]}


def kinds() -> list[Any]:
    """Each kind with some names, and in a slow test with all."""
    found = [pytest.param(kind, SOME.get(kind, MAKERS[kind][1][:1]), id=kind) for kind in MAKERS]
    for kind, (_, names) in MAKERS.items():
        found.append(pytest.param(kind, names, id=f"all of {kind}", marks=pytest.mark.slow))
    return found


@pytest.mark.parametrize(("kind", "names"), kinds())
def test_states_keep_their_form_in_hosts(kind: str, names: Any, make: Any) -> None:
    for name in names:
        for host in HOSTS.values():
            tx = host(make(kind, name))
            params, _ = jax.eval_shape(functools.partial(run, tx), PARAMS)  # A scan checks states.
            same_form(params, PARAMS)


@pytest.mark.parametrize(("kind", "names"), kinds())
def test_vmap_over_runs(kind: str, names: Any, make: Any) -> None:
    runs = jax.tree.map(lambda x: jnp.stack([x, 2.0 * x]), PARAMS)
    for name in names:
        params, _ = jax.eval_shape(jax.vmap(functools.partial(run, make(kind, name))), runs)
        same_form(params, runs)


@pytest.mark.parametrize(("kind", "names"), kinds())
def test_trees_without_leaves(kind: str, names: Any, make: Any) -> None:
    if kind in ("tuned", "wrapper"):
        pytest.skip("groups are for the parameters' names, and wrappers ask for a loss of them")
    for name in names:
        tx = make(kind, name)
        updates, state = jax.eval_shape(lambda tx=tx: tx.update({}, tx.init({}), {}, value=LOSS))
        assert updates == {}
        same_form(state, jax.eval_shape(tx.init, {}))


def check_numbers(tx: Any) -> None:
    plain, _ = jax.jit(functools.partial(run, tx))(PARAMS)
    for host in HOSTS.values():
        hosted, _ = jax.jit(functools.partial(run, host(tx)))(PARAMS)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4), hosted, plain)


@pytest.mark.parametrize(("kind", "name"), RUN[:1])
def test_numbers_are_those_without_the_host(kind: str, name: str, make: Any) -> None:
    check_numbers(make(kind, name))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in ("rule", "export") for name in MAKERS[kind][1]]
)
def test_numbers_are_those_without_the_host_for_all_rules(kind: str, name: str, make: Any) -> None:
    check_numbers(make(kind, name))


@pytest.mark.parametrize("name", ["lion", "muon", "momo"])
def test_the_current_learning_rate_is_readable(name: str) -> None:
    schedule = optax.linear_schedule(0.1, 0.0, 10)
    inject = optax.inject_hyperparams(rule_sources.load_rule(name).as_optax)
    tx = inject(learning_rate=schedule, **length_for(name))
    _, state = run(tx, PARAMS, 3)
    np.testing.assert_allclose(state.hyperparams["learning_rate"], schedule(2), rtol=1e-6)
    _, state = run(optax.chain(optax.identity(), tx), PARAMS, 3)
    found = optax.tree.get(state, "hyperparams")["learning_rate"]
    np.testing.assert_allclose(found, schedule(2), rtol=1e-6)


STATE = ("lion", "adafactor", "muon", "soap", "autoclip", "apollo")


@pytest.mark.parametrize("kind", ["rule", "export"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in STATE[:2] else [pytest.mark.slow])
        for name in rule_sources.RULE_NAMES
    ],
)
def test_the_state_has_a_dtype_of_its_own(kind: str, name: str, tmp_path: Path) -> None:
    """Also where the parameters are narrower, whose averages then move."""
    rule = rule_sources.load_rule(name)
    factory = rule.as_optax
    if kind == "export":
        factory = test_states.exported_factory(name, tmp_path)
    has_state = bool(rule.lower().live_slots)
    assert ("state_dtype" in inspect.signature(factory).parameters) == has_state
    if not has_state:
        return
    length = length_for(name)
    exact, _ = jax.jit(functools.partial(run, factory(0.01, **length)))(PARAMS)
    for params_dtype, state_dtype in ((jnp.float32, jnp.bfloat16), (jnp.bfloat16, jnp.float32)):
        tx = factory(0.01, **length, state_dtype=state_dtype)
        start = jax.tree.map(lambda x, dtype=params_dtype: x.astype(dtype), PARAMS)
        params, state = jax.jit(functools.partial(run, tx))(start)
        same_form(state, jax.eval_shape(tx.init, start))
        kept = {x.dtype for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.inexact)}
        assert kept == {jnp.dtype(state_dtype)}
        for x, y, like in zip(*map(jax.tree.leaves, (params, exact, start)), strict=True):
            assert x.dtype == like.dtype
            np.testing.assert_allclose(x.astype(jnp.float32), y, rtol=0.05, atol=0.05)


SHARDED = """
import sys
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import AxisType, PartitionSpec as P
from tests import test_states
from veldt.search import rule_sources
from pathlib import Path

mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Explicit,) * 2)
specs = {"w": P("x", "y"), "k": P("x", None, "y"), "b": P("x"), "s": P()}
shapes = {"w": (8, 4), "k": (4, 2, 8), "b": (8,), "s": ()}
rng = np.random.default_rng(0)
params = {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}


def run(tx, params, num_steps=2):
    state = tx.init(params)
    first = jax.tree.map(lambda x: jax.typeof(x).sharding, state)
    update = jax.jit(tx.update)
    for _ in range(num_steps):
        grads = jax.tree.map(jnp.sin, params)
        updates, state = update(grads, state, params, value=jnp.float32(1.5))
        params = optax.apply_updates(params, updates)
    return params, state, first


for kind, name in (word.split(":") for word in sys.argv[2:]):
    def make():
        if kind != "injected":
            return test_states.MAKERS[kind][0](name, Path(sys.argv[1]))
        factory = rule_sources.load_rule(name).as_optax
        return optax.inject_hyperparams(factory)(0.1, **test_states.length_for(name))

    expected, plain, _ = run(make(), params)
    with jax.set_mesh(mesh):
        placed = {k: jax.device_put(x, specs[k]) for k, x in params.items()}
        found, state, first = run(make(), placed)
        for k in specs:
            assert jax.typeof(found[k]).sharding.spec == specs[k], (name, k)
        last = jax.tree.map(lambda x: jax.typeof(x).sharding, state)
        assert jax.tree.leaves(first) == jax.tree.leaves(last), name
        full = [x for x in jax.tree.leaves(state) if x.shape == shapes["w"]]
        assert all(jax.typeof(x).sharding.spec == specs["w"] for x in full), name
        values = {k: np.asarray(x) for k, x in found.items()}
    for k in specs:
        # Swan's Newton-Schulz steps amplify the other order of sums: 3e-4 of numbers around 1.
        atol = 1e-3 if name == "swan" else 2e-4
        np.testing.assert_allclose(values[k], expected[k], rtol=2e-3, atol=atol, err_msg=name)
    print("same", kind, name)
"""


def check_sharded(names: list[str], folder: Path) -> None:
    """In a process of its own, which has eight devices."""
    flags = "--xla_force_host_platform_device_count=8 --xla_cpu_multi_thread_eigen=false"
    done = subprocess.run(
        [sys.executable, "-c", SHARDED, str(folder), *names],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("same") == len(names)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rule", "export"])
@pytest.mark.parametrize("part", range(4))
def test_explicit_meshes_keep_shardings(kind: str, part: int, tmp_path: Path) -> None:
    """Updates and states are sharded as the parameters, and their numbers are the same."""
    check_sharded([f"{kind}:{name}" for name in rule_sources.RULE_NAMES[part::4]], tmp_path)


@pytest.mark.slow
def test_explicit_meshes_take_injected_constants(tmp_path: Path) -> None:
    check_sharded([f"injected:{name}" for name in ("lion", "adafactor", "muon")], tmp_path)
