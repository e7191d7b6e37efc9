"""Imitation: what is measured, whose runs they are, and that it finds what it imitates."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.meta import meta_trainer, toys
from veldt.meta.estimators import truncated_backprop
from veldt.meta.problems import experts, imitation, inner_problem, task_problem
from veldt.tasks.augment import delayed
from veldt.tasks.inner_loop import unroll

FAMILY = toys.Bowls()
THETA = {"log_rate": jnp.asarray(-4.0)}


def make_student(meta_params, num_steps):
    return optax.sgd(jnp.exp(meta_params["log_rate"]))


def make_expert(num_steps):
    return optax.sgd(0.3)


def make_problem(family=FAMILY, expert=make_expert, lengths=(6, 6)):
    followed = task_problem.TaskProblem.of(family, make_student, lengths=lengths)
    return imitation.ImitationProblem(followed, expert)


def test_the_distance_is_its_closed_form():
    right = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([[2.0]]), "still": jnp.zeros(3)}
    tried = {"a": jnp.array([3.0, 1.0]), "b": jnp.array([[-2.0]]), "still": jnp.ones(3)}
    expected = (math.log(1 + 9 / 25) + math.log(1 + 16 / 4) + 0.0) / 3
    assert imitation.distance(tried, right) == pytest.approx(expected, rel=1e-5)
    assert imitation.distance(right, right) == 0.0
    # The scale of both together does not count.
    tenth = [jax.tree.map(lambda x: 0.1 * x, tree) for tree in (tried, right)]
    assert imitation.distance(*tenth) == pytest.approx(expected, rel=1e-4)


def test_the_slope_is_finite_where_the_expert_does_nothing():
    slope = jax.grad(lambda x: imitation.distance([x], [jnp.zeros(2)]))(jnp.ones(2))
    assert np.array_equal(slope, np.zeros(2))


def test_the_runs_are_the_experts():
    problem = make_problem()
    run = inner_problem.begin(problem, THETA, jax.random.key(0))
    ended, _ = inner_problem.unroll(problem, THETA, run, num_steps=6)
    task = problem.instance(run.config)
    expert = make_expert(6)
    state = dataclasses.replace(run.state, opt_state=expert.init(run.state.params))
    state, _ = unroll.unroll(task, expert, state, num_steps=6)
    np.testing.assert_allclose(ended.state.params, state.params, rtol=1e-5)


def test_the_loss_of_each_step_is_how_far_the_updates_are_apart():
    """Of one gradient both make a multiple, so it is log(1 + (1 - ratio)^2) at every step."""
    problem = make_problem()
    run = inner_problem.begin(problem, THETA, jax.random.key(0))
    ended, segment = inner_problem.unroll(problem, THETA, run, num_steps=6)
    ratio = math.exp(-4.0) / 0.3
    np.testing.assert_allclose(segment.losses, math.log1p((1 - ratio) ** 2), rtol=1e-4)
    task = problem.instance(run.config)
    final = problem.final_loss(THETA, task, ended.state, jax.random.key(1))
    assert final == pytest.approx(math.log1p((1 - ratio) ** 2), rel=1e-4)


def test_late_gradients_are_late_for_both():
    """Else an expert of fresh gradients would be asked of a student that sees old ones."""
    problem = make_problem(delayed.Delayed(FAMILY, 2))
    theta = {"log_rate": jnp.log(0.3)}
    run = inner_problem.begin(problem, theta, jax.random.key(0))
    _, segment = inner_problem.unroll(problem, theta, run, num_steps=6)
    np.testing.assert_allclose(segment.losses, 0.0, atol=1e-6)


def test_imitating_descent_finds_its_rate():
    each = truncated_backprop.TruncatedBackprop(make_problem(lengths=(4, 8)), 2, 4)
    trainer = meta_trainer.MetaTrainer((each,), optax.adam(0.1))

    @jax.jit
    def train(trainer, state, keys):
        return jax.lax.scan(trainer.step, state, keys)

    state = trainer.init(THETA, jax.random.key(0))
    state, _ = train(trainer, state, jax.random.split(jax.random.key(1), 200))
    assert jnp.exp(state.meta_params["log_rate"]) == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize("name", ["adam", "adamw", "muon", "relative_adam", "relative_adam_cosine"])
def test_experts_descend_for_any_length_that_may_be_traced(name):
    expert = getattr(experts, name)

    @jax.jit
    def run(num_steps):
        tx = expert(num_steps)
        params = {"w": jnp.array([3.0, -2.0])}

        def step(_, carry):
            params, state = carry
            updates, state = tx.update(params, state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, num_steps, step, (params, tx.init(params)))[0]["w"]

    ends = [run(jnp.int32(n)) for n in (20, 100)]
    start = np.array([3.0, -2.0])
    assert np.all(np.abs(ends[0]) < np.abs(start)) and np.all(np.abs(ends[1]) < np.abs(ends[0]))
    assert np.all(np.isfinite(ends))


def test_warmup_and_cosine_have_their_ends():
    shares = [float(experts.warmup_cosine(step, 100)) for step in range(100)]
    assert shares[0] == pytest.approx(1 / 5)
    assert max(shares) == pytest.approx(1.0) and shares.index(max(shares)) == 4
    assert shares[-1] == pytest.approx(0.0, abs=1e-6)
    assert sorted(shares[4:], reverse=True) == shares[4:]


def test_warmup_and_linear_decay_have_their_ends():
    shares = [float(experts.warmup_linear(step, 100)) for step in range(100)]
    assert shares[0] == pytest.approx(1 / 5)
    assert shares[4] == pytest.approx(1.0)
    np.testing.assert_allclose(np.diff(shares[4:]), -1 / 95, rtol=1e-3)
    assert shares[-1] == pytest.approx(0.0, abs=1e-6)


def test_the_muon_to_imitate_has_nearly_the_directions_of_optaxs():
    params = {"a": jnp.ones((12, 6)), "b": jnp.zeros((6, 6))}
    ours, theirs = experts.muon(jnp.int32(50)), optax.contrib.muon(1.0)
    states = [tx.init(params) for tx in (ours, theirs)]
    for i in range(3):
        key_a, key_b = jax.random.split(jax.random.key(i))
        grads = {"a": jax.random.normal(key_a, (12, 6)), "b": jax.random.normal(key_b, (6, 6))}
        steps = []
        for j, tx in enumerate((ours, theirs)):
            step, states[j] = tx.update(grads, states[j], params)
            steps.append(step)
        rate = 0.02 * experts.warmup_linear(i, 50)
        for name, (rows, columns) in (("a", (12, 6)), ("b", (6, 6))):
            mine, other = (np.asarray(step[name]).ravel() for step in steps)
            assert mine @ other == pytest.approx(
                np.linalg.norm(mine) * np.linalg.norm(other), rel=2e-2
            )
            size = np.sqrt(np.mean(np.square(mine)))
            assert size == pytest.approx(float(rate) / np.sqrt(max(rows, columns)), rel=1e-3)
