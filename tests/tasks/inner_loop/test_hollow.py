"""Runs with a loss from the limits of the arithmetic are distinguished from honest ones."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from veldt.tasks import base, registry
from veldt.tasks.common import formatting
from veldt.tasks.inner_loop import hollow, unroll


def end(task, params, *, seed=0):
    """What a run that ends at these parameters comes to: loss, jittered loss, end size, code."""
    key = jax.random.key(seed)
    loss = float(task.normalizer(unroll.evaluate(task, params, key, "valid")))
    again = hollow.recheck(task, params, key, jnp.int32(60))
    start = hollow.size(unroll.init(task, optax.sgd(0.1), key).params)
    code = int(hollow.judge(loss, again.before, again.after, start, again.size))
    return loss, float(again.after), float(again.size), code


def moved(task, by):
    params = task.init(jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf + by, params)


@pytest.mark.parametrize("size", [1e8, 1e9, -1e12, 3e15])
def test_a_cross_entropy_of_exactly_nothing_is_hollow(size):
    # Adding one number to all weights makes all logits of a row equal, where their gaps round away.
    task = registry.load_task("digits_mlp")
    loss, _, _, code = end(task, moved(task, size))
    assert code > 0 and (loss < 1e-6 or loss == base.MAX_NORMALIZED_LOSS)


def test_large_products_of_parameters_of_modest_size_are_found_by_their_last_bits():
    task = registry.load_task("digits_mlp")
    start = task.init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.full_like(leaf, 3e4), start)  # The logits are 1e11.
    loss, jittered, size, code = end(task, params)
    assert loss < 1e-6 and size < hollow.MAX_GROWTH
    assert jittered > 0.1 and code == 3


@pytest.mark.parametrize(
    "name",
    ["quadratic", "digits_mlp"]
    + [pytest.param(name, marks=pytest.mark.slow) for name in ("letters_logistic", "char_gru")],
)
@pytest.mark.parametrize("rate", [1e-3, 3e-2])
def test_honest_training_is_honest(name, rate):
    task = registry.load_task(name)
    tx = optax.adam(rate)

    @jax.jit
    def run(task):
        state = unroll.init(task, tx, jax.random.key(1))
        return unroll.unroll(task, tx, state, num_steps=60)[0].params

    params = run(task)
    *_, code = end(task, params, seed=1)
    assert code == 0
    again = hollow.recheck(task, params, jax.random.key(1), jnp.int32(60))
    assert abs(math.log(again.after / again.before)) < hollow.TOLERANCE / 10


def test_jitter_moves_every_parameter_by_its_last_bits_and_both_ways():
    params = {"a": jnp.linspace(1.0, 2.0, 64).reshape(8, 8), "b": jnp.float32(3.0)}
    ratio = np.concatenate(
        [
            np.ravel(x)
            for x in jax.tree.leaves(jax.tree.map(jnp.divide, hollow.jitter(params), params))
        ]
    )
    np.testing.assert_allclose(np.abs(ratio - 1.0), hollow.JITTER, rtol=1e-2)
    assert 0.3 < np.mean(ratio > 1.0) < 0.7


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_jitter_is_no_less_than_the_type_can_tell(dtype, x64):
    with x64():
        leaf = jnp.linspace(1.0, 2.0, 33).astype(dtype)
        moved = hollow.jitter(leaf)
        assert moved.dtype == leaf.dtype and bool((moved != leaf).all())


def test_size_of_nothing_of_nan_and_of_empty_leaves():
    assert float(hollow.size({"a": jnp.zeros((0, 3)), "b": jnp.array([-3.0, 4.0])})) == 5.0
    assert float(hollow.size({"a": jnp.array([1.0, jnp.nan])})) == math.inf


GOOD = {"loss": 0.1, "before": 0.1, "after": 0.1, "start_size": 1.0, "end_size": 3.0}


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        (0, {}),
        (0, {"loss": 1e-9, "before": 1e-9, "after": 1e-8}),  # A perfect run of usual size.
        (0, {"after": 0.1 * math.exp(0.9 * hollow.TOLERANCE)}),
        (0, {"after": 0.01}),  # Better by jitter: nothing was taken.
        (0, {"start_size": 1e9, "end_size": 1e12}),  # Relative to the start.
        (1, {"end_size": 2.0**25}),
        (1, {"end_size": math.inf}),
        (1, {"end_size": math.nan}),
        (1, {"peak_size": 2.0**40}),
        (2, {"loss": 1e-7, "before": 1e-7, "after": 0.0, "end_size": 2000.0}),
        (2, {"loss": -5.0, "before": -5.0, "after": -5.0, "end_size": 2000.0}),
        (3, {"after": 0.1 * math.exp(1.1 * hollow.TOLERANCE)}),
        (3, {"after": math.nan}),
        (3, {"after": math.inf}),
        (4, {"train": (1.0, 1.5)}),
        (0, {"train": (1.5, 1.2)}),  # It came down.
        (0, {"train": (0.2, 0.3)}),  # It never was bad.
        (5, {"loss": 0.0, "before": 0.0, "after": 0.0, "lowest": 0.5}),
        (5, {"loss": 0.0, "before": 0.0, "after": 0.0, "lowest": math.inf}),
        (
            0,
            {"loss": 0.0, "before": 0.0, "after": 0.0, "lowest": 1e-3},
        ),  # It came by on its way down.
        (0, {"lowest": 0.5}),
        (
            0,
            {"loss": -0.5, "before": -0.5, "after": -0.5, "lowest": 0.5},
        ),  # A likelihood goes through 0.
        (6, {"peak_size": 5000.0}),
        (0, {"peak_size": 2500.0}),
    ],
)
def test_each_test_and_its_edge(code, changes):
    assert int(hollow.judge(**{**GOOD, **changes})) == code
    assert bool(hollow.REASONS[code]) == (code > 0)


def test_an_infinity_that_a_task_masks_is_met_with_and_not_reached():
    class Masked(base.Task):
        name = "masked"

        def init(self, key):
            return jnp.ones(2)

        def loss(self, params, key, batch):
            wide = jnp.sum(params**2).astype(jnp.float16) - 1.0
            return jnp.nan_to_num(wide, posinf=0.0).astype(jnp.float32), {}

        def train_batch(self, key):
            return ()

        def eval_batch(self, split):
            return ()

        def normalizer(self, loss):
            return base.clip_normalized(loss)

    loss, jittered, size, code = end(Masked(), jnp.full(2, 300.0))
    assert loss == jittered == 0.0 and size < hollow.MAX_GROWTH_AT_FLOOR and code == 0
    lowest = hollow.lowest_above_floor(Masked(), jnp.array([1.0, 40.0, 9e3, 0.0]))
    assert float(lowest) == 1.0
    assert int(hollow.judge(loss, loss, jittered, 1.0, size, lowest=lowest)) == 5


def test_many_runs_are_judged_at_once():
    codes = hollow.judge(
        0.1, np.full((2, 3), 0.1), np.array([0.1, 1.0, np.nan]), 1.0, np.ones((2, 1))
    )
    assert codes.tolist() == [[0, 3, 3]] * 2


def test_the_peak_is_remembered_and_nothing_changed():
    tx = optax.chain(optax.sgd(0.5), hollow.track_peak())
    params = {"w": jnp.array([4.0, -3.0])}
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update({"w": params["w"]}, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["w"], [0.5, -0.375])
    assert float(hollow.peak_of(state)) == 5.0 and float(hollow.peak_of(optax.EmptyState())) == 0.0


@pytest.mark.parametrize(
    ("error", "shown"),
    [(None, ""), (0.25, " ± 0.250"), (2e-5, " ± 2e-05"), (0.0, " (no spread)"), (4e-4, " ± 4e-04")],
)
def test_a_spread_never_reads_as_certainty(error, shown):
    assert formatting.plus_minus(error) == shown
