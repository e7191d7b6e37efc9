"""Whole runs, backwards: the exact gradient, of any length, with no run able to spoil the mean."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.meta import inner_problems
from veldt.meta.estimators import full_backprop
from veldt.meta.problems import inner_problem, meta_loss

META_PARAMS = {"a": jnp.asarray([0.3, -0.2, 0.5]), "b": jnp.asarray(0.7)}


@jax.jit
def _estimate(each, meta_params, key):
    return each.estimate(meta_params, (), key)


def estimate(each, meta_params=META_PARAMS, seed=0):
    state = each.init(meta_params, jax.random.key(1))
    assert state == ()
    grad, _, metrics = _estimate(each, meta_params, jax.random.key(seed))
    return grad, metrics


@pytest.mark.parametrize(
    ("system", "theta"), [(inner_problems.descent, 1.0), (inner_problems.influence_balancing, 0.5)]
)
@pytest.mark.parametrize("window", [10, 50])
def test_the_mean_loss_has_its_gradient_in_closed_form(system, theta, window):
    system = system(length=50)
    each = full_backprop.FullBackprop(system, 2, window)
    grad, metrics = estimate(each, np.float32(theta))
    np.testing.assert_allclose(grad, system.true_gradient(theta), rtol=1e-4)
    assert metrics.num_steps == 100
    assert metrics.num_completed == 2
    assert metrics.num_nonfinite == 0


@functools.partial(jax.jit, static_argnames=("objective", "num_steps"))
def one_by_one(objective, meta_params, key_run, key_final, num_steps):
    """The meta-loss of a run by a plain Python loop, and its gradient."""

    def run_loss(meta_params):
        problem, length = inner_problems.Leaky(), jnp.asarray(num_steps, jnp.int32)
        run = inner_problem.begin(problem, meta_params, key_run, length=length)
        instance, state, total = problem.instance(run.config), run.state, 0.0
        for _ in range(num_steps):
            state, loss = problem.step(meta_params, instance, state, length)
            total += loss
        if objective == "mean":
            return total / num_steps
        return problem.final_loss(meta_params, instance, state, key_final)

    return jax.value_and_grad(run_loss)(meta_params)


@pytest.mark.parametrize("objective", ["mean", "final"])
def test_runs_of_any_length_have_the_gradient_of_a_plain_loop(objective):
    chosen = {"mean": meta_loss.MeanLoss(), "final": meta_loss.FinalLoss()}[objective]
    each = full_backprop.FullBackprop(inner_problems.Leaky(), 2, 2, chosen)
    lengths = set()
    for seed in range(4):
        grad, metrics = estimate(each, seed=seed)
        num_steps = int(metrics.num_steps) // 2
        lengths.add(num_steps)
        _, key_runs, key_final = jax.random.split(jax.random.key(seed), 3)
        keys = zip(jax.random.split(key_runs, 2), jax.random.split(key_final, 2), strict=True)
        right = [one_by_one(objective, META_PARAMS, *pair, num_steps) for pair in keys]
        for name, value in grad.items():
            mean = np.mean([g[name] for _, g in right], axis=0)
            np.testing.assert_allclose(value, mean, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(
            metrics.meta_loss, np.mean([loss for loss, _ in right]), rtol=1e-5
        )
    assert len(lengths) > 1
    assert lengths <= {4, 6, 8}


def test_a_run_counts_for_no_more_than_the_norm_allowed():
    free, _ = estimate(full_backprop.FullBackprop(inner_problems.Leaky(), 1, 2))
    norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(free)))
    clipped, _ = estimate(
        full_backprop.FullBackprop(inner_problems.Leaky(), 1, 2, clip_norm=norm / 4)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b / 4, rtol=1e-5), clipped, free)
    loose, _ = estimate(
        full_backprop.FullBackprop(inner_problems.Leaky(), 1, 2, clip_norm=norm * 4)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), loose, free)


def test_what_is_not_finite_counts_as_zero_and_is_counted():
    grad, metrics = estimate(full_backprop.FullBackprop(inner_problems.Leaky(nan_at=3), 3, 2))
    assert metrics.num_nonfinite == 3
    assert all(np.all(np.asarray(g) == 0) for g in jax.tree.leaves(grad))
