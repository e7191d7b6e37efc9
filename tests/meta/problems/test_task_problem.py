import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.meta import inner_problems
from veldt.meta.estimators import truncated_backprop
from veldt.meta.problems import inner_problem, meta_loss, task_problem
from veldt.tasks.augment import delayed
from veldt.tasks.data import dataset
from veldt.tasks.families import sources, supervised_family
from veldt.tasks.inner_loop import unroll
from veldt.tasks.shipped import quadratic

FAMILY = quadratic.Quadratics(dim=3, condition_range=(1.0, 10.0), noise_range=(0.01, 0.1))


def make_tx(meta_params, num_steps):
    """SGD whose rate falls linearly to zero over the run."""
    return optax.sgd(lambda count: meta_params["rate"] * (1 - count / num_steps), momentum=0.5)


THETA = {"rate": jnp.asarray(0.3)}
FIXED = task_problem.TaskProblem.of(FAMILY, make_tx, lengths=(6, 6), normalize=False)


def one_task(name):
    return quadratic.QuadraticTask(FAMILY.sample(jax.random.key(0)), name=name)


def test_windows_are_the_training_that_unroll_does():
    @jax.jit
    def both(key):
        run = inner_problem.begin(FIXED, THETA, key)
        task = FAMILY.task(run.config)
        whole = unroll.unroll(task, make_tx(THETA, 6), run.state, num_steps=6)
        run, first = inner_problem.unroll(FIXED, THETA, run, num_steps=2)
        run, second = inner_problem.unroll(FIXED, THETA, run, num_steps=4)
        return whole, run, jnp.concatenate([first.losses, second.losses])

    (state, losses), run, windows = both(jax.random.key(3))
    np.testing.assert_allclose(windows, losses, rtol=1e-5)
    np.testing.assert_allclose(run.state.params, state.params, rtol=1e-5)
    assert run.step == run.limit == state.step == 6


def test_the_final_loss_is_the_mean_over_fresh_training_batches():
    problem = task_problem.TaskProblem.of(
        one_task("bowl"), make_tx, lengths=(6, 6), num_final_batches=3, normalize=True
    )
    task, key = one_task("bowl"), jax.random.key(9)
    run = inner_problem.begin(problem, THETA, jax.random.key(1))
    loss = problem.final_loss(THETA, problem.instance(run.config), run.state, key)
    batches = [task.train_batch(jax.random.split(k)[0]) for k in jax.random.split(key, 3)]
    expected = np.mean([float(task.loss(run.state.params, key, b)[0]) for b in batches])
    assert loss == pytest.approx(float(task.normalizer(jnp.asarray(expected))), rel=1e-5)


def test_the_final_loss_may_be_that_of_held_out_examples():
    problem = task_problem.TaskProblem.of(
        one_task("bowl"), make_tx, lengths=(6, 6), final_split="valid"
    )
    task = one_task("bowl")
    run = inner_problem.begin(problem, THETA, jax.random.key(1))
    keys = jax.random.split(jax.random.key(2))
    losses = [problem.final_loss(THETA, task, run.state, key) for key in keys]
    expected, _ = task.loss(run.state.params, keys[0], task.eval_batch("valid"))
    assert losses[0] == losses[1]  # The examples are fixed.
    assert losses[0] == pytest.approx(float(task.normalizer(expected)), rel=1e-5)
    train = task_problem.TaskProblem.of(one_task("bowl"), make_tx, lengths=(6, 6))
    assert losses[0] != train.final_loss(THETA, task, run.state, keys[0])


def test_lengths_are_log_uniform():
    problem = task_problem.TaskProblem.of(FAMILY, make_tx, lengths=(10, 1000))
    lengths = np.asarray(jax.vmap(problem.draw_length)(jax.random.split(jax.random.key(0), 4000)))
    assert lengths.min() >= 10 and lengths.max() <= 1000
    # Kolmogorov-Smirnov against the distribution that P(T < n) = log(n / 10) / log(1001 / 10) is.
    n = np.arange(10, 1002)
    empirical = np.searchsorted(np.sort(lengths), n) / lengths.size
    expected = np.log(n / 10) / np.log(1001 / 10)
    assert np.abs(empirical - expected).max() < 1.63 / np.sqrt(lengths.size)


def test_tasks_that_differ_in_arrays_and_name_have_one_structure():
    first, second = (
        task_problem.TaskProblem.of(one_task(name), make_tx, lengths=(6, 6)) for name in "ab"
    )
    assert jax.tree.structure(first) == jax.tree.structure(second)


def test_a_given_task_keeps_its_name():
    task = one_task("bowl")
    task_problem.TaskProblem.of(task, make_tx, lengths=(6, 6))
    assert task.name == "bowl"


def test_a_family_stands_between_gradients_and_the_transform():
    """Against the delay around the transform itself, on the plain family."""

    def make_late(meta_params, num_steps):
        return delayed.delayed(make_tx(meta_params, num_steps), 2)

    @jax.jit
    def params_after(problem, key):
        run = inner_problem.begin(problem, THETA, key)
        return inner_problem.unroll(problem, THETA, run, num_steps=6)[0].state.params

    late, expected, plain = (
        params_after(task_problem.TaskProblem.of(source, make, lengths=(6, 6)), jax.random.key(0))
        for source, make in (
            (delayed.Delayed(FAMILY, 2), make_tx),
            (FAMILY, make_late),
            (FAMILY, make_tx),
        )
    )
    np.testing.assert_allclose(late, expected, rtol=1e-6)
    assert not np.allclose(late, plain)


def test_families_that_differ_in_arrays_and_name_compile_once():
    traces = []

    @jax.jit
    def begin(problem, key):
        traces.append(key)
        return inner_problem.begin(problem, THETA, key)

    rows = dataset.Examples(jnp.ones((9, 4)), jnp.zeros(9, jnp.int32))
    for name, splits in (
        ("a", dict.fromkeys(("train", "valid", "test"), rows)),
        ("b", dict.fromkeys(("train", "valid", "test"), rows._replace(inputs=2 * rows.inputs))),
    ):
        source = sources.StoredSource("ones", splits, num_outputs=3)
        family = supervised_family.SupervisedFamily(name, source, nn.Dense(3), "classify", 2)
        begin(task_problem.TaskProblem.of(family, make_tx, lengths=(6, 6)), jax.random.key(0))
    assert len(traces) == 1


@pytest.mark.parametrize("lengths", [(0, 3), (5, 4)])
def test_lengths_out_of_order_are_an_error(lengths):
    with pytest.raises(ValueError, match="1 <= least <= greatest"):
        task_problem.TaskProblem.of(FAMILY, make_tx, lengths=lengths)


def explicit_loss(theta, run, *, final):
    """The meta-loss of one whole run by the inner loop alone."""
    task = FAMILY.task(run.config)
    state, losses = unroll.unroll(task, make_tx(theta, 6), run.state, num_steps=6)
    if final:
        return FIXED.final_loss(theta, task, state, jax.random.key(0))
    return jnp.mean(losses)


def backprop_of_one_run(objective):
    estimator = truncated_backprop.TruncatedBackprop(FIXED, 1, 6, objective, unlocked=False)
    state = inner_problems.init(estimator, THETA, jax.random.key(4))
    run = jax.tree.map(lambda x: x[0], state)
    return inner_problems.estimate(estimator, THETA, state, jax.random.key(5))[0]["rate"], run


def test_backprop_through_a_whole_run_is_jax_grad_of_the_explicit_loop():
    estimate, run = backprop_of_one_run(meta_loss.MeanLoss())
    grad = jax.jit(jax.grad(lambda theta: explicit_loss(theta, run, final=False)))(THETA)
    assert estimate == pytest.approx(float(grad["rate"]), rel=1e-4)


@pytest.mark.slow
def test_the_telescoped_gradient_is_the_final_one():
    """The start of a run does not depend on the rate, so what is taken off has no gradient."""
    telescoped, _ = backprop_of_one_run(meta_loss.TelescopedLoss())
    final, _ = backprop_of_one_run(meta_loss.FinalLoss())
    assert telescoped == pytest.approx(float(final), rel=1e-4)
    assert abs(final) > 1e-3


@pytest.mark.slow
def test_the_logarithms_gradient_is_relative_to_the_loss():
    grads, losses = [], []
    for objective in (meta_loss.FinalLoss(), meta_loss.FinalLoss(floor=0.05)):
        estimator = truncated_backprop.TruncatedBackprop(FIXED, 1, 6, objective, unlocked=False)
        state = inner_problems.init(estimator, THETA, jax.random.key(4))
        grad, _, metrics = inner_problems.estimate(estimator, THETA, state, jax.random.key(5))
        grads.append(float(grad["rate"]))
        losses.append(float(metrics.meta_loss))
    assert losses[1] == pytest.approx(np.log(losses[0] + 0.05), rel=1e-4)
    assert grads[1] == pytest.approx(grads[0] / (losses[0] + 0.05), rel=1e-3)


@pytest.mark.slow
def test_backprop_agrees_with_finite_differences_in_64_bits(x64):
    with x64():
        key, rate = jax.random.key(4), jnp.asarray(0.3, jnp.float64)
        run = inner_problem.begin(FIXED, {"rate": rate}, key)
        loss = jax.jit(lambda rate: inner_mean(run, rate))
        grad = float(jax.jit(jax.grad(loss))(rate))
        errors = [
            abs(float(loss(rate + h) - loss(rate - h)) / (2 * h) - grad) for h in (1e-2, 1e-3)
        ]
    # Central differences err by h^2: a hundredth at a tenth of the step.
    assert errors[1] < 1e-5 * abs(grad)
    assert errors[1] == pytest.approx(errors[0] / 100, rel=0.1)


def inner_mean(run, rate):
    return jnp.mean(inner_problem.unroll(FIXED, {"rate": rate}, run, num_steps=6)[1].losses)


def test_particles_whose_gradient_is_not_finite_are_dropped():
    estimator = truncated_backprop.TruncatedBackprop(inner_problems.Leaky(nan_at=3), 8, 4)
    theta = inner_problems.LEAKY_META_PARAMS
    state = inner_problems.init(estimator, theta, jax.random.key(4))
    whole = truncated_backprop.TruncatedBackprop(inner_problems.Leaky(), 8, 4)
    one, _, metrics = inner_problems.estimate(estimator, theta, state, jax.random.key(5))
    other, _, _ = inner_problems.estimate(whole, theta, state, jax.random.key(5))
    assert 0 < metrics.num_nonfinite < 8
    assert np.isfinite(metrics.meta_loss)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.all(np.isfinite(a)) and not np.allclose(a, b)
