"""`as_optax` as a transform: its state, signature, dtypes, errors and step count."""

import inspect
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st

from tests.search import strategies
from veldt.search import rule_sources
from veldt.search.errors import ProgramError
from veldt.search.language.roles import Roles
from veldt.search.program import Program
from veldt.search.runtime import optax_transform
from veldt.search.runtime.execute import execute, slot_shapes
from veldt.tasks.inner_loop.flat import Layout

STEP = Program.parse("def count(w, g):\n    return step")


def updates_of(tx: Any, params: Any, grads: Any, num_steps: int) -> list[Any]:
    state, updates = tx.init(params), []
    for _ in range(num_steps):
        update, state = tx.update(grads, state, params)
        updates.append(update)
    return updates


def test_the_state_holds_live_slots_only() -> None:
    text = "def rule(w, g, dead, m):\n    dead = dead + g\n    m = m + g\n    return m, dead, m"
    params = {"a": jnp.ones((2, 3)), "b": (jnp.ones(()),)}
    state = optax_transform.scale_by_program(Program.parse(text)).init(params)
    assert list(state.slots) == ["m"]
    jax.tree.map(np.testing.assert_array_equal, state.slots["m"], optax.tree.zeros_like(params))
    assert (state.count.shape, state.count.dtype) == ((), jnp.int32)


def test_the_step_counts_from_one_and_past_256_in_bfloat16() -> None:
    tx = optax_transform.scale_by_program(STEP)
    params = jnp.ones(2)
    assert [float(u[0]) for u in updates_of(tx, params, params, 3)] == [1.0, 2.0, 3.0]
    halves = Program.parse("def halves(w, g):\n    return g * (step / 2 - 150)")
    narrow = jnp.ones(2, jnp.bfloat16)
    late = optax_transform.ScaleByProgramState(jnp.array(300, jnp.int32), {})
    update, _ = optax_transform.scale_by_program(halves).update(narrow, late, narrow)
    np.testing.assert_array_equal(np.float32(update), [0.5, 0.5])


def test_tensors_have_the_parameters_dtype_and_scalars_at_least_float32() -> None:
    late = optax_transform.ScaleByProgramState(jnp.array(256, jnp.int32), {})
    for text, expected in (("g * step - 256", 0.0), ("g * (step - 256)", 1.0)):
        # 257 is no bfloat16 number: it becomes 256 where it is a tensor's element.
        tx = optax_transform.scale_by_program(Program.parse(f"def rule(w, g):\n    return {text}"))
        update, _ = tx.update(jnp.ones(2, jnp.bfloat16), late, jnp.ones(2, jnp.bfloat16))
        np.testing.assert_array_equal(np.float32(update), [expected, expected])


def test_the_count_does_not_overflow() -> None:
    last = optax_transform.ScaleByProgramState(jnp.array(2**31 - 1, jnp.int32), {})
    update, state = optax_transform.scale_by_program(STEP).update(jnp.ones(1), last, jnp.ones(1))
    assert float(update[0]) == 2.0**31
    assert int(state.count) == 2**31 - 1


def test_the_learning_rate_is_applied_outside_with_the_sign() -> None:
    double = Program.parse("def double(w, g):\n    return 2 * g")
    params = jnp.array([1.0])
    (update,) = updates_of(double.as_optax(0.25), params, params, 1)
    np.testing.assert_array_equal(update, [-0.5])
    schedule = optax.piecewise_constant_schedule(1.0, {1: 0.5})
    values = [float(u[0]) for u in updates_of(double.as_optax(schedule), params, params, 3)]
    assert values == [-2.0, -1.0, -1.0]


def test_constants_by_name() -> None:
    rule = Program.parse("def rule(w, g, *, k=2.0):\n    return k * g")
    params = jnp.ones(1)
    assert float(updates_of(rule.as_optax(1.0), params, params, 1)[0][0]) == -2.0
    assert float(updates_of(rule.as_optax(1.0, k=3), params, params, 1)[0][0]) == -3.0
    assert float(updates_of(rule.as_optax(1.0, k=np.float32(4)), params, params, 1)[0][0]) == -4.0
    with pytest.raises(ProgramError, match="rule has no constant 'q'; it has: k"):
        rule.as_optax(1.0, q=1.0)


def test_the_factory_has_the_rules_signature() -> None:
    factory = rule_sources.load_rule("adamw").as_optax
    assert str(inspect.signature(factory)) == (
        "(learning_rate, *, b1=0.9, b2=0.999, eps=1e-08, wd=0.0001, state_dtype=None)"
    )
    assert factory.__name__ == "adamw"
    assert "decoupled weight decay" in factory.__doc__
    assert "the_rule" in Program.parse("def the_rule(w, g):\n    return g").as_optax.__doc__


@pytest.mark.parametrize("name", ["self", "program", "params", "state", "values", "constants"])
def test_constants_may_have_any_name(name: str) -> None:
    rule = Program.parse(f"def rule(w, g, *, {name}=2.0):\n    return {name} * g")
    params = jnp.ones(1)
    assert float(updates_of(rule.as_optax(1.0, **{name: 3.0}), params, params, 1)[0][0]) == -3.0
    assert dict(rule.with_constants(**{name: 5.0}).constants) == {name: 5.0}


@pytest.mark.parametrize("name", ["learning_rate", "roles", "num_steps", "state_dtype"])
def test_a_constant_has_no_name_of_the_factorys_arguments(name: str) -> None:
    with pytest.raises(ProgramError, match=f"'{name}' is taken"):
        Program.parse(f"def rule(w, g, *, {name}=2.0):\n    return {name} * g")


def test_outputs_are_shaped_and_typed_as_the_parameters() -> None:
    text = "def rule(w, g, a, b):\n    return norm(g) + 0 * mean(a + b), 3.0, step"
    params = {"x": jnp.ones((2, 3), jnp.bfloat16), "y": jnp.ones((), jnp.float32)}
    tx = Program.parse(text).as_optax(1.0)
    update, (state, _) = tx.update(params, tx.init(params), params)
    for tree, shape in ((update, (2, 3)), (state.slots["a"], (1, 1)), (state.slots["b"], (1, 1))):
        assert jax.tree.map(lambda x: (x.shape, x.dtype.name), tree) == {
            "x": (shape, "bfloat16"),
            "y": ((), "float32"),
        }


def test_slots_are_as_thin_as_what_they_hold() -> None:
    """And stay so over a step; what mixes rows with columns, or reads the gradient, is full."""
    rule = Program.parse(
        "def rule(w, g, rows, columns, both, count, late, pairs):\n"
        "    rows = interp(row_mean(square(g)), rows, 0.9)\n"
        "    columns = max(columns, column_norm(rows * g))\n"
        "    pairs = pairs + matmul(g, transpose(g))\n"
        "    both = both + rows * columns\n"
        "    u = matmul(pairs, g) * both + count + late\n"
        "    return u, rows, columns, both, count + norm(late), rows, pairs"
    )
    params = {"a": jnp.ones((2, 3, 4)), "b": jnp.ones(5), "c": jnp.ones(())}
    thin = {
        "rows": {"a": (2, 3, 1), "b": (1,), "c": ()},
        "columns": {"a": (1, 1, 4), "b": (5,), "c": ()},
        "both": {"a": (2, 3, 4), "b": (5,), "c": ()},
        "count": {"a": (1, 1, 1), "b": (1,), "c": ()},
        "late": {"a": (2, 3, 1), "b": (1,), "c": ()},
        "pairs": {"a": (6, 6), "b": (1, 1), "c": (1, 1)},
    }
    tx = optax_transform.scale_by_program(rule)
    state = tx.init(params)
    update, after = jax.eval_shape(tx.update, params, state, params)
    for found in (state, after):
        assert jax.tree.map(jnp.shape, found.slots, is_leaf=lambda x: hasattr(x, "shape")) == thin
    assert jax.tree.map(lambda x: x.shape, update) == jax.tree.map(jnp.shape, params)


def test_roles_are_given_or_guessed() -> None:
    rule = Program.parse("def rule(w, g):\n    return 10 * is_embedding + is_last + ndim / 100")
    params = {"embed": jnp.ones((4, 2)), "dense_10": jnp.ones((2, 2)), "dense_9": jnp.ones((2, 3))}
    update = updates_of(rule.as_optax(-1.0), params, params, 1)[0]
    found = jax.tree.map(lambda x: round(float(x.ravel()[0]), 2), update)
    assert found == {"embed": 10.02, "dense_10": 1.02, "dense_9": 0.02}
    given = Roles(is_last={"embed": 0, "dense_10": 0, "dense_9": 1})
    update = updates_of(rule.as_optax(-1.0, roles=given), params, params, 1)[0]
    found = jax.tree.map(lambda x: round(float(x.ravel()[0]), 2), update)
    assert found == {"embed": 10.02, "dense_10": 0.02, "dense_9": 1.02}
    assert "roles" in inspect.signature(rule.as_optax).parameters
    assert "roles" not in inspect.signature(rule_sources.load_rule("muon").as_optax).parameters


def test_on_a_vector_it_does_what_it_does_on_the_tree() -> None:
    rule = Program.parse("def rule(w, g, m):\n    m = m + row_mean(g)\n    return m * w, m")
    rng = np.random.default_rng(0)
    params, grads = ({"a": jnp.asarray(rng.normal(size=(2, 3))), "b": jnp.ones(4)} for _ in "pg")
    layout = Layout.of(params)
    flat = optax_transform.on_vector(rule.as_optax(0.1), layout)
    vectors = layout.ravel(params), layout.ravel(grads)
    expected = updates_of(rule.as_optax(0.1), params, grads, 2)
    for actual, tree in zip(updates_of(flat, *vectors, 2), expected, strict=True):
        np.testing.assert_array_equal(actual, layout.ravel(tree))


def test_global_ops_see_all_tensors_and_tensor_ops_one() -> None:
    params = {"x": jnp.array([3.0, 0.0]), "y": jnp.array(4.0)}
    whole = Program.parse("def rule(w, g):\n    return global_norm(g)").as_optax(-1.0)
    each = Program.parse("def rule(w, g):\n    return norm(g)").as_optax(-1.0)
    clip = Program.parse("def rule(w, g):\n    return clip_by_global_norm(g, 1)").as_optax(-1.0)
    found = [updates_of(tx, params, params, 1)[0] for tx in (whole, each, clip)]
    assert jax.tree.map(lambda x: x.tolist(), found[:2]) == [
        {"x": [5.0, 5.0], "y": 5.0},
        {"x": [3.0, 3.0], "y": 4.0},
    ]
    expected, _ = optax.clip_by_global_norm(1.0).update(params, optax.EmptyState())
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), found[2], expected)


def test_extra_arguments_are_accepted() -> None:
    tx = rule_sources.load_rule("sgd").as_optax(0.5)
    params = jnp.ones(2)
    update, _ = tx.update(params, tx.init(params), params, value=3.0)
    np.testing.assert_array_equal(update, [-0.5, -0.5])


def test_numpy_and_jax_mean_the_same() -> None:
    """`execute` is the one meaning: in NumPy for probes, in JAX for training."""
    rule = rule_sources.load_rule("adan")
    flow = rule.lower()
    rng = np.random.default_rng(0)
    tensors = {
        name: [np.float32(rng.normal(size=s)) for s in ((), (3,), (2, 4))]
        for name in ("w", "g", *flow.live_slots)
    }
    step = [np.float32(3.0)] * 3
    ours = execute(flow, np, tensors, step, {"wd": 0.5})
    theirs = execute(flow, jnp, jax.tree.map(jnp.asarray, tensors), step, {"wd": 0.5})
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), ours, theirs)


# --- what the run knows

DECAY = Program.parse("def decay(w, g):\n    return g * (1 - progress)")
POLYAK = Program.parse("def polyak(w, g, *, eps=0.0):\n    return loss / (norm(g) ** 2 + eps) * g")


def test_progress_is_the_step_over_the_length_and_stays_at_one() -> None:
    program = Program.parse("def rule(w, g):\n    return progress")
    for dtype in (jnp.float32, jnp.bfloat16):
        params = jnp.ones(2, dtype)
        tx = optax_transform.scale_by_program(program, num_steps=4)
        values = [float(u[0]) for u in updates_of(tx, params, params, 6)]
        assert values == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    # It is kept in float32 next to narrow parameters, as the step is.
    product = Program.parse("def rule(w, g):\n    return g * ((progress - 0.5) * 1000)")
    late = optax_transform.ScaleByProgramState(jnp.array(500, jnp.int32), {})
    narrow = jnp.ones(1, jnp.bfloat16)
    update, _ = optax_transform.scale_by_program(product, num_steps=1000).update(
        narrow, late, narrow
    )
    np.testing.assert_allclose(np.float32(update), [1.0], rtol=1e-3)


@pytest.mark.parametrize("given", [{}, {"num_steps": None}, {"num_steps": 0}, {"num_steps": -3}])
def test_the_length_of_the_run_is_asked_for(given: dict[str, Any]) -> None:
    with pytest.raises(ProgramError, match=r"decay reads progress.*num_steps=1000"):
        DECAY.as_optax(0.1, **given)
    # Where nothing reads it, it is welcome, so that a caller need not ask.
    rule_sources.load_rule("lion").as_optax(0.1, num_steps=100)


def test_the_length_of_the_run_may_be_traced_and_injected() -> None:
    params = jnp.ones(1)

    @jax.jit
    def first(num_steps: Any) -> Any:
        tx = DECAY.as_optax(1.0, num_steps=num_steps)
        return tx.update(params, tx.init(params), params)[0]

    np.testing.assert_allclose(first(4), [-0.75])
    tx = optax.inject_hyperparams(DECAY.as_optax)(learning_rate=1.0, num_steps=4)
    state = tx.init(params)
    np.testing.assert_allclose(tx.update(params, state, params)[0], [-0.75])
    state.hyperparams["num_steps"] = jnp.asarray(8.0)
    np.testing.assert_allclose(tx.update(params, state, params)[0], [-0.875])


def test_the_loss_comes_by_optaxs_keyword_and_is_asked_for() -> None:
    params, grads = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])
    tx = POLYAK.as_optax(1.0)
    with pytest.raises(ValueError, match=r"polyak reads the loss: call update\(.*value=loss\)"):
        tx.update(grads, tx.init(params), params)
    update, _ = tx.update(grads, tx.init(params), params, value=5.0)
    np.testing.assert_allclose(update, -5.0 / 25.0 * grads, rtol=1e-6)
    expected, _ = optax.polyak_sgd(max_learning_rate=1e9).update(
        grads, optax.polyak_sgd().init(params), params, value=5.0
    )
    np.testing.assert_allclose(update, expected, rtol=1e-6)


def test_the_loss_reaches_through_optaxs_wrappers() -> None:
    params, grads = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])
    for wrapped in (
        optax.chain(optax.clip_by_global_norm(100.0), POLYAK.as_optax(1.0)),
        optax.masked(POLYAK.as_optax(1.0), True),
        optax.inject_hyperparams(POLYAK.as_optax)(learning_rate=1.0),
    ):
        update, _ = wrapped.update(grads, wrapped.init(params), params, value=5.0)
        np.testing.assert_allclose(update, -0.2 * grads, rtol=1e-6)


@pytest.mark.parametrize("name", ["progress", "loss", "num_steps"])
def test_names_of_what_the_run_knows_are_taken(name: str) -> None:
    with pytest.raises(ProgramError, match=f"the name '{name}' is taken by the language"):
        Program.parse(f"def rule(w, g, *, {name}=1.0):\n    return g")


@hypothesis.settings(max_examples=15)
@hypothesis.given(program=strategies.programs_of_all_shapes(), seed=st.integers(0, 100))
def test_programs_of_all_shapes_mean_the_same_in_numpy_and_jax(program: Program, seed: int) -> None:
    """The transform in float64 against `execute` in NumPy: values and slots of all kinds."""
    flow = program.lower()
    rng = np.random.default_rng(seed)
    params = [rng.normal(size=shape) for shape in ((3, 5), (2, 2, 3), (4,))]
    grads = [rng.normal(size=x.shape) for x in params]
    shapes = slot_shapes(flow, [x.shape for x in params])
    leaves = {name: [np.zeros(shape) for shape in own] for name, own in shapes.items()}
    roles = Roles().of(params)
    leaves |= {name: [leaf[name] for leaf in roles] for name in flow.live_roles}
    tx = optax_transform.scale_by_program(program, num_steps=7)
    with jax.enable_x64(True), np.errstate(all="ignore"):
        state = tx.init(list(map(jnp.asarray, params)))
        for step in (1, 2):
            of_run = {"progress": [step / 7] * 3, "loss": [1.5] * 3}
            of_run = {name: list(map(np.float64, value)) for name, value in of_run.items()}
            inputs = {"w": params, "g": grads, **leaves, **of_run}
            expected, new = execute(flow, np, inputs, [np.float64(step)] * 3, {})
            leaves |= dict(zip(flow.live_slots, new, strict=True))
            update, state = jax.jit(tx.update)(grads, state, params, value=1.5)
            for ours, theirs in zip(update, expected, strict=True):
                if np.isfinite(theirs).all() and np.abs(theirs).max() < 1e6:
                    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-8)
        assert {name: [x.shape for x in tree] for name, tree in state.slots.items()} == shapes
