"""The shipped rules against Optax's own transforms and plain NumPy, and as citizens of Optax."""

import functools
import inspect
import json
import runpy
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.search.rules.oracles import (
    COSTLY,
    NUM_STEPS,
    OPTAX_NAMES,
    OPTAX_NAMES_OF,
    OPTAX_RULES,
    OWN_RATE,
    ROUNDING,
    assert_same,
    compared,
    make_noise,
    make_params,
    oracle,
    quick_jit,
    trajectories,
)
from veldt.search import rule_sources
from veldt.search.errors import ProgramSyntaxError, ProgramTypeError, UnknownRuleError
from veldt.search.program import Program


def with_costly_as_slow(names: Any) -> list[Any]:
    return [pytest.param(n, marks=pytest.mark.slow) if n in COSTLY else n for n in names]


@pytest.mark.parametrize(
    "name", with_costly_as_slow(name for name in OPTAX_RULES if name not in OWN_RATE)
)
def test_equals_optax_over_100_steps(name: str, x64: Any) -> None:
    with x64():
        warmup = optax.warmup_cosine_decay_schedule(0.0, 0.02, 10, NUM_STEPS)
        for rates in (np.full(NUM_STEPS, 0.01), warmup(jnp.arange(NUM_STEPS))):
            actual, expected = compared(name, rates)
            assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(actual))
            # Rounding alone: the two sides do the same arithmetic in other orders.
            assert_same(actual, expected, rtol=ROUNDING.get(name, 1e-11))


@pytest.mark.parametrize("name", OWN_RATE)
def test_equals_optax_where_the_rate_is_inside_the_state(name: str, x64: Any) -> None:
    with x64():
        actual, expected = compared(name, np.ones(NUM_STEPS))
        path = np.asarray(actual["conv"])
        assert np.abs(path[-1] - path[0]).max() > 1e-5  # it moves
        assert_same(actual, expected, rtol=ROUNDING.get(name, 1e-11))


@pytest.mark.parametrize("name", OPTAX_RULES)
def test_default_constants_are_those_of_optax(name: str) -> None:
    known = {n: p.default for n, p in inspect.signature(oracle(name)).parameters.items()}
    known |= {ours: known[theirs] for ours, theirs in OPTAX_NAMES_OF.get(name, {}).items()}
    if name == "adafactor":
        block = inspect.signature(optax.scale_by_param_block_rms).parameters
        known["scale"] = block["min_scale"].default
    if name == "dog":
        known["reps"] = known["init_step"][1]
    if name == "madgrad":
        known["rate"] = 1e-2  # Optax has no default
    if "betas" in known:
        known["b1"], known["b2"] = known["betas"]
    if name == "yogi":  # optax.yogi does not pass this one on
        initial = inspect.signature(optax.scale_by_yogi).parameters["initial_accumulator_value"]
        known[initial.name] = initial.default
    for constant, value in rule_sources.load_rule(name).constants:
        assert value == known.get(constant, known.get(OPTAX_NAMES.get(constant))), constant


@pytest.mark.parametrize("name", rule_sources.RULE_NAMES)
def test_has_no_slot_to_spare(name: str) -> None:
    rule = rule_sources.load_rule(name)
    assert rule.name == name
    assert rule.lower().live_slots == rule.slots
    assert Program.parse(str(rule)) == rule


def test_names_are_the_files() -> None:
    folder = Path(rule_sources.__file__).parent / "rules"
    assert {path.stem for path in folder.glob("[!_]*.py")} == set(rule_sources.PUBLISHED)
    for names in (rule_sources.PUBLISHED, rule_sources.DISCOVERED, rule_sources.RULE_NAMES):
        assert list(names) == sorted(set(names))


def test_rows() -> None:
    rows = {row.name: row for row in rule_sources.list_rules()}
    assert tuple(rows) == rule_sources.RULE_NAMES
    lion = rows["lion"]
    assert (lion.statements, lion.slots, dict(lion.constants)["wd"]) == (5, 1, 1e-3)
    assert rows["sgd"].statements == 0
    assert all(row.description.endswith(".") for row in rows.values())


GOLDEN = Path(__file__).parents[1] / "golden"


def test_the_golden_file_is_what_its_script_writes() -> None:
    script = runpy.run_path(str(GOLDEN / "make.py"))
    points = json.loads((GOLDEN / "trajectories.json").read_text("utf-8"))
    assert list(points) == list(script["RULES"])
    for name in points:
        np.testing.assert_allclose(points[name], script["trajectory"](name), rtol=1e-13)


@pytest.mark.parametrize("name", ["adam", "adamw", "lion"])
def test_equals_the_papers_in_plain_numpy(name: str, x64: Any) -> None:
    text = (GOLDEN / "trajectories.json").read_text("utf-8")
    points = np.array(json.loads(text)[name])
    with x64():
        tx = rule_sources.load_rule(name).as_optax(0.01)
        update = jax.jit(tx.update)
        params = points[0]
        state = tx.init(jnp.asarray(params))
        for step, expected in enumerate(points[1:], 1):
            grads = 0.5 * params + np.cos(step + np.arange(5.0))
            if step % 3 == 0:
                grads[step % 5] = 0.0
            updates, state = update(grads, state, params)
            params = params + np.asarray(updates)
            np.testing.assert_allclose(params, expected, rtol=1e-11, atol=1e-14)


# --- as citizens of Optax: what a user's training loop does with a transform. AdamW has everything
# that can go wrong: two slots, the step, a weight decay that reads the parameters.

ADAMW = rule_sources.load_rule("adamw")


def small_params(dtype: Any) -> Any:
    params = make_params(dtype)
    return {"net": params["net"], "idle": params["idle"]}


def test_in_a_chain_with_clipping_masking_and_multi_transform(x64: Any) -> None:
    labels = {"net": "slow", "idle": "fast"}
    mask = {"net": (True, {"w": True, "b": False}), "idle": True}

    def dress(tx: Any) -> list[Any]:
        return [
            optax.chain(optax.clip_by_global_norm(0.5), tx, optax.scale(0.5)),
            optax.masked(tx, mask),
            optax.multi_transform({"slow": tx, "fast": optax.sgd(0.1)}, labels),
        ]

    with x64():
        params = small_params(jnp.float64)
        txs = dress(ADAMW.as_optax(0.01, wd=0.1)) + dress(optax.adamw(0.01, weight_decay=0.1))
        runs = quick_jit(lambda p, n: trajectories(txs, p, n))(params, make_noise(params, 10))
        for actual, expected in zip(runs[:3], runs[3:], strict=True):
            assert_same(actual, expected, rtol=1e-11)


def test_inject_hyperparams(x64: Any) -> None:
    with x64():
        fall = lambda count: jnp.float64(0.99) - 0.05 * count  # noqa: E731
        ours = optax.inject_hyperparams(ADAMW.as_optax)(learning_rate=0.01, b2=fall, wd=0.1)
        theirs = optax.inject_hyperparams(optax.adamw)(0.01, b2=fall, weight_decay=0.1)
        params = small_params(jnp.float64)
        assert set(ours.init(params).hyperparams) == {"learning_rate", "b1", "b2", "eps", "wd"}
        noise = make_noise(params, 10)
        run = quick_jit(lambda p, n: trajectories([ours, theirs], p, n))
        actual, expected = run(params, noise)
        assert_same(actual, expected, rtol=1e-11)


def test_vmap_over_a_constant(x64: Any) -> None:
    with x64():
        params = small_params(jnp.float64)
        noise = make_noise(params, 5)
        decays = jnp.array([0.0, 0.1, 0.2])

        def run(decay: jax.Array) -> list[Any]:
            txs = [ADAMW.as_optax(0.01, wd=decay), optax.adamw(0.01, weight_decay=decay)]
            return trajectories(txs, params, noise)

        actual, _ = quick_jit(jax.vmap(run))(decays)
        jitted = quick_jit(run)
        expected = [jitted(decay)[1] for decay in decays]
        assert_same(actual, jax.tree.map(lambda *xs: jnp.stack(xs), *expected), rtol=1e-11)


def test_differentiable_in_its_constants(x64: Any) -> None:
    with x64():
        params = jnp.array([0.3, -0.2])
        noise = jnp.array([[1.0, 0.5], [-0.5, 2.0], [0.3, 0.4]])

        @jax.jit
        def loss(b1: jax.Array) -> jax.Array:
            points = trajectories([ADAMW.as_optax(0.1, b1=b1, wd=0.1)], params, noise)[0]
            return jnp.sum(points[-1] ** 2)

        slope = jax.jit(jax.grad(loss))(jnp.array(0.8))
        difference = (loss(jnp.array(0.8 + 1e-5)) - loss(jnp.array(0.8 - 1e-5))) / 2e-5
        np.testing.assert_allclose(slope, difference, rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "lion", "yogi", "lamb"])
def test_bfloat16_stays_bfloat16_and_is_as_close_to_float32_as_optax(name: str) -> None:
    params = {"net": jnp.linspace(-1.0, 1.0, 12, dtype=jnp.bfloat16).reshape(3, 4)}
    grads = make_noise(params | {"idle": jnp.zeros(1)}, 3)
    del grads["idle"]

    @functools.partial(jax.jit, static_argnums=0)
    def updates(factory: Any, params: Any, grads: Any) -> Any:
        tx = factory(0.01)
        state = tx.init(params)
        for index in range(3):
            update, new_state = tx.update({"net": grads["net"][index]}, state, params)
            dtypes = [[x.dtype for x in jax.tree.leaves(tree)] for tree in (state, new_state)]
            assert dtypes[0] == dtypes[1]
            assert update["net"].dtype == params["net"].dtype
            state = new_state
        return update["net"]

    wide = jax.tree.map(lambda x: x.astype(jnp.float32), (params, grads))
    expected = np.float32(updates(oracle(name), *wide))
    np.testing.assert_allclose(
        np.float32(updates(rule_sources.load_rule(name).as_optax, *wide)), expected, rtol=2e-5
    )
    narrow = np.float32(updates(rule_sources.load_rule(name).as_optax, params, grads))
    np.testing.assert_allclose(narrow, expected, rtol=0.05, atol=1e-5)


def test_parameters_are_asked_for() -> None:
    tx = rule_sources.load_rule("lion").as_optax(0.1)
    with pytest.raises(ValueError, match="reads the parameters"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))


# --- loading


def test_loads_a_file_and_a_run_directory(tmp_path: Path) -> None:
    text = "def mine(w, g):\n    return sign(g)\n"
    (tmp_path / "best.py").write_text(text, encoding="utf-8")
    expected = Program.parse(text)
    assert rule_sources.load_rule(tmp_path / "best.py") == expected
    assert rule_sources.load_rule(str(tmp_path)) == expected


def test_a_shipped_name_wins_over_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lion").mkdir()
    monkeypatch.chdir(tmp_path)
    assert rule_sources.load_rule("lion").name == "lion"
    with pytest.raises(UnknownRuleError, match=r"directory without best\.py"):
        rule_sources.load_rule("./lion/")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("admw", "did you mean adamw"),
        ("zzz", "shipped: adabelief, "),
        ("missing.py", "no rule file or run directory 'missing.py'"),
        ("runs/missing", "no rule file or run directory"),
        ("", "directory without best.py"),
        ("nul\0", "unknown rule"),
        ("x" * 5000, "unknown rule"),
    ],
)
def test_unknown_rules(source: str, message: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownRuleError, match=message):
        rule_sources.load_rule(source)


def test_parse_errors_name_the_file_and_the_place(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("def bad(w, g):\n    x = sine(g)\n    return x\n", encoding="utf-8")
    with pytest.raises(ProgramSyntaxError, match=r"bad\.py: line 2, column 9: unknown") as info:
        rule_sources.load_rule(path)
    assert (info.value.line, info.value.column) == (2, 9)
    path.write_text("def bad(w, g):\n    return norm(norm(g))\n", encoding="utf-8")
    with pytest.raises(ProgramTypeError, match=r"bad\.py: line 2, column 12: .*must be a tensor"):
        rule_sources.load_rule(path)
    path.write_bytes(b"def bad(w, g):\n    return g  # \xff\n")
    with pytest.raises(ProgramSyntaxError, match=r"bad\.py: not UTF-8 text"):
        rule_sources.load_rule(path)
    path.write_bytes(b"#" * 2_000_000)
    with pytest.raises(ProgramSyntaxError, match="longer than"):
        rule_sources.load_rule(path)
