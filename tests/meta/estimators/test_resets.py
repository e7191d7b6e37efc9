"""Runs that begin and end inside windows, each particle at its own step, against a slow loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.meta import inner_problems
from veldt.meta.estimators import antithetic, truncated_es
from veldt.meta.problems import meta_loss

NUM_PARTICLES, NUM_STEPS, NUM_WINDOWS, SIGMA = 3, 4, 6, 0.3
OBJECTIVES = {
    "mean": meta_loss.MeanLoss(),
    "final": meta_loss.FinalLoss(),
    "telescoped": meta_loss.TelescopedLoss(),
}


class SlowRun:
    """A run in plain Python, one step at a time."""

    step_fn = staticmethod(jax.jit(inner_problems.Leaky.step))
    init_fn = staticmethod(jax.jit(inner_problems.Leaky.init))

    def __init__(self, problem, meta_params, key, key_limit=None):
        self.problem = problem
        self.key_next, key_length, key_config, key_state = jax.random.split(key, 4)
        self.length = self.limit = int(problem.draw_length(key_length))
        if key_limit is not None:
            self.limit -= min(int(jax.random.uniform(key_limit) * self.length), self.length - 1)
        self.instance = problem.instance(problem.draw_config(key_config))
        self.state = self.init_fn(problem, meta_params, self.instance, key_state, self.length)
        self.step = 0

    def advance(self, meta_params):
        args = (self.problem, meta_params, self.instance, self.state, self.length)
        self.state, loss = self.step_fn(*args)
        self.step += 1
        return float(loss)

    def final_loss(self, meta_params):
        return float(self.problem.final_loss(meta_params, self.instance, self.state, None))

    def copy(self):
        twin = object.__new__(SlowRun)
        vars(twin).update(vars(self))
        return twin


def slow_window(run, meta_params, next_meta_params, name):
    """Return the run K steps later and what counts, per step, before and after a run began."""
    counts, segment = [0.0, 0.0], 0
    start = run.final_loss(meta_params)
    for _ in range(NUM_STEPS):
        if run.step == run.limit:
            if name == "telescoped" and segment == 0:
                counts[0] = run.limit * (run.final_loss(meta_params) - start)
            meta_params, segment = next_meta_params, segment + 1
            run = SlowRun(run.problem, meta_params, run.key_next)
            start = run.final_loss(meta_params)
        loss = run.advance(meta_params)
        if name == "mean":
            counts[segment] += loss
        if name == "final" and run.step == run.limit:
            counts[segment] += run.limit * run.final_loss(meta_params)
    if name == "telescoped":
        counts[segment] = run.limit * (run.final_loss(meta_params) - start)
    return run, np.array(counts) / NUM_STEPS, segment > 0


def tree(function, *trees):
    return jax.tree.map(function, *trees)


def slow_estimates(cls, problem, name, key_init, keys):
    """Yield what an estimator should: the algorithm boxes of the papers, particle by particle."""
    theta, noise_of = inner_problems.LEAKY_META_PARAMS, antithetic.Antithetic(sigma=SIGMA)
    zero = tree(np.zeros_like, theta)
    noise = [zero] * NUM_PARTICLES
    if cls is truncated_es.NRES:
        key_init, key_noise = jax.random.split(key_init)
        drawn = noise_of.sample(key_noise, theta, NUM_PARTICLES)
        noise = [tree(lambda e, p=p: np.asarray(e[p]), drawn) for p in range(NUM_PARTICLES)]
    starts = jax.random.split(key_init, (NUM_PARTICLES, 2))
    pairs = [
        [SlowRun(problem, tree(lambda t, e, s=s: t + s * e, theta, e), k[0], k[1]) for s in (1, -1)]
        for k, e in zip(starts, noise, strict=True)
    ]
    for key in keys:
        drawn = noise_of.sample(jax.random.split(key)[0], theta, NUM_PARTICLES)
        total, num_bad = zero, 0
        for p in range(NUM_PARTICLES):
            new = tree(lambda e, p=p: np.asarray(e[p]), drawn)
            # What the old run is under, and what its losses and the new run's are credited to.
            under = noise[p] if cls is truncated_es.NRES else new
            credit = {
                truncated_es.TruncatedES: new,
                truncated_es.PES: tree(np.add, noise[p], new),
                truncated_es.NRES: noise[p],
            }[cls]
            counts = []
            for side, sign in enumerate((1, -1)):
                now = tree(lambda t, e, sign=sign: t + sign * e, theta, under)
                following = tree(lambda t, e, sign=sign: t + sign * e, theta, new)
                run, count, began = slow_window(pairs[p][side], now, following, name)
                pairs[p][side] = run
                counts.append(count)
            difference = counts[0] - counts[1]
            num_bad += int(np.sum(~np.isfinite(difference)))
            difference = np.where(np.isfinite(difference), difference, 0) / (2 * SIGMA**2)
            for weight, e in zip(difference / NUM_PARTICLES, (credit, new), strict=True):
                total = tree(lambda t, e, w=weight: t + w * e, total, e)
            noise[p] = new if began else credit
            if cls is truncated_es.TruncatedES:
                pairs[p][1] = pairs[p][0].copy()
        yield total, num_bad


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("cls", [truncated_es.TruncatedES, truncated_es.PES, truncated_es.NRES])
@pytest.mark.slow
def test_estimates_equal_a_slow_loops(cls, name):
    check(cls, name, nan_at=-1)


@pytest.mark.parametrize("cls", [truncated_es.PES, truncated_es.NRES])
def test_a_loss_that_is_not_a_number_counts_as_zero_and_spoils_nothing_else(cls):
    num_bad = check(cls, "mean", nan_at=2)
    assert 0 < num_bad < 2 * NUM_PARTICLES * NUM_WINDOWS


def check(cls, name, nan_at):
    problem, theta = inner_problems.Leaky(nan_at=nan_at), inner_problems.LEAKY_META_PARAMS
    estimator = cls(
        problem,
        NUM_PARTICLES,
        NUM_STEPS,
        objective=OBJECTIVES[name],
        noise=antithetic.Antithetic(sigma=SIGMA),
    )
    key_init, *keys = jax.random.split(jax.random.key(5), 1 + NUM_WINDOWS)
    state = inner_problems.init(estimator, theta, key_init)
    expected = slow_estimates(cls, problem, name, key_init, keys)
    all_bad, num_completed = 0, 0
    for key, (grad, num_bad) in zip(keys, expected, strict=True):
        estimate, state, metrics = inner_problems.estimate(estimator, theta, state, key)
        for leaf, slow in zip(jax.tree.leaves(estimate), jax.tree.leaves(grad), strict=True):
            np.testing.assert_allclose(leaf, slow, rtol=1e-3, atol=1e-4)
        assert metrics.num_nonfinite == num_bad
        all_bad, num_completed = all_bad + num_bad, num_completed + int(metrics.num_completed)
    assert num_completed > NUM_PARTICLES  # Runs did end, more than the first.
    return all_bad


def test_particles_are_spread_over_the_steps_of_their_runs():
    system = inner_problems.descent(length=20)
    estimator = truncated_es.TruncatedES(system, 2000, 1)
    run = inner_problems.init(estimator, jnp.ones(()), jax.random.key(2))
    share = np.bincount(run.limit, minlength=21)[1:] / 2000
    assert run.limit.min() == 1 and run.limit.max() == 20
    assert np.abs(share - 1 / 20).max() < 4 * np.sqrt(1 / 20 / 2000)


def test_locked_particles_all_begin_together():
    estimator = truncated_es.TruncatedES(inner_problems.descent(length=20), 50, 1, unlocked=False)
    run = inner_problems.init(estimator, jnp.ones(()), jax.random.key(2))
    assert np.all(run.limit == 20)


def test_a_window_longer_than_the_shortest_run_is_an_error():
    estimator = truncated_es.PES(inner_problems.Leaky(), 2, 5)
    state = inner_problems.init(estimator, inner_problems.LEAKY_META_PARAMS, jax.random.key(0))
    with pytest.raises(ValueError, match="at most as many as the shortest run, 4"):
        estimator.estimate(inner_problems.LEAKY_META_PARAMS, state, jax.random.key(0))
