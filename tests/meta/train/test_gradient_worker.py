"""Jobs: what their results depend on, and what is compiled for them."""

import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.meta import toys
from veldt.learned_opt import errors as learned_errors
from veldt.meta import errors
from veldt.meta.problems import task_problem
from veldt.meta.train import build, config, gradient_worker, meta_training, outer_step
from veldt.tasks import base, registry
from veldt.tasks.common import errors as task_errors

pytestmark = pytest.mark.usefixtures("toy")


def first_job(settings, **changes):
    progress = meta_training.begin(settings, None)
    job = gradient_worker.GradientJob(0, 0, 0, 0, progress.meta_params, {}, None)
    return dataclasses.replace(job, **changes)


def test_a_job_gives_the_same_gradient_wherever_and_however_often_it_runs():
    """In a worker of its own, after other jobs, and after it has travelled."""
    settings = toys.settings()
    factory = pickle.loads(pickle.dumps(gradient_worker.GradientWorkerFactory(settings)))  # noqa: S301
    first, other = factory(), factory()
    begun = first(first_job(settings))
    job = first_job(settings, update=1, state=begun.state)
    found = first(job)
    other(first_job(settings, family=1, stream=3))
    again = other(pickle.loads(pickle.dumps(job)))  # noqa: S301
    assert toys.same(found.meta_grad, again.meta_grad)
    assert toys.same(found.state, again.state)
    assert dataclasses.replace(found, meta_grad=0, state=()) == dataclasses.replace(
        again, meta_grad=0, state=()
    )
    assert all(
        type(leaf) is np.ndarray for leaf in (*found.state, *jax.tree.leaves(found.meta_grad))
    )


def test_updates_streams_and_families_have_randomness_of_their_own():
    settings = toys.settings()
    worker = gradient_worker.GradientWorker(settings)
    begun = worker(first_job(settings))
    others = [worker(first_job(settings, **{name: 1})) for name in ("update", "stream", "family")]
    for other in others:
        assert not toys.same(other.meta_grad, begun.meta_grad)
    reseeded = gradient_worker.GradientWorker(dataclasses.replace(settings, seed=1))
    assert not toys.same(reseeded(first_job(settings)).meta_grad, begun.meta_grad)


def test_what_is_compiled_for_a_job_serves_all_that_are_alike():
    """Workers make the architecture and the estimator anew for each job."""
    settings = toys.settings()
    worker = gradient_worker.GradientWorker(settings)
    begun = worker(first_job(settings))
    worker(first_job(settings, update=1, state=begun.state))
    compiled = [
        function.compiled()._cache_size() for function in (outer_step.begin, outer_step.estimate)
    ]
    again = gradient_worker.GradientWorker(toys.settings())
    for family in (0, 1):
        begun = again(first_job(settings, family=family))
        again(first_job(settings, family=family, update=1, state=begun.state))
    assert compiled == [
        function.compiled()._cache_size() for function in (outer_step.begin, outer_step.estimate)
    ]


def test_a_part_that_is_frozen_has_no_gradient():
    settings = toys.settings(toys.phase(train=("rate",)))
    moving, frozen = build.split(meta_training.begin(settings, None).meta_params, ("rate",))
    job = first_job(settings, meta_params=moving, frozen=frozen)
    found = gradient_worker.GradientWorker(settings)(job)
    assert jax.tree.structure(found.meta_grad) == jax.tree.structure(moving)
    # What is frozen counts all the same.
    grads = []
    for share in (0.1, 0.9):
        worker, state = gradient_worker.GradientWorker(settings), None
        other = {"momentum": {"share": np.float32(share)}}
        for update in range(4):
            job = dataclasses.replace(job, update=update, frozen=other, state=state)
            found = worker(job)
            state = found.state
        grads.append(found.meta_grad)
    assert not toys.same(*grads)


def test_a_look_is_one_loss_for_each_seed():
    settings = toys.settings(meta_validation=(toys.CHECK,), validation_seeds=3)
    worker = gradient_worker.GradientWorker(settings)
    meta_params = meta_training.begin(settings, None).meta_params
    losses = worker(gradient_worker.CheckJob(0, 0, meta_params)).losses
    assert len(losses) == 3 == len(set(losses)) and all(type(loss) is float for loss in losses)
    assert worker(gradient_worker.CheckJob(0, 0, meta_params)).losses == losses


def test_another_payload_is_refused():
    with pytest.raises(TypeError, match="no job int"):
        gradient_worker.GradientWorker(toys.settings())(3)


def test_a_task_that_there_is_not_is_found_at_once():
    settings = toys.settings(meta_validation=(config.CheckConfig("digits_mpl", 5),))
    with pytest.raises(task_errors.TaskError, match=r"digits_mpl.*digits_mlp"):
        gradient_worker.GradientWorker(settings)


def test_parts_are_told_apart_and_misspelt_ones_named():
    whole = {"rate": 1, "momentum": 2}
    assert build.split(whole, ()) == (whole, {})
    assert build.split(whole, ("rate",)) == ({"rate": 1}, {"momentum": 2})
    with pytest.raises(errors.MetaTrainError, match=r"no part 'rat' to train.*: momentum, rate"):
        build.split(whole, ("rat",))
    with pytest.raises(learned_errors.LearnedOptError, match="scale"):
        build.architecture(toys.settings(fields={"scal": 1.0}))


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"warmup": 0.5}, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0]),
        ({"decay": "cosine"}, [0.1 + 0.45 * (1 + np.cos(np.pi * i / 10)) for i in range(11)]),
        ({}, [1.0] * 5),
    ],
)
def test_the_outer_learning_rate_rises_and_falls_over_the_phase(settings, rates):
    """By plain descent: with a gradient of 1 and momentum the steps are sums of 0.9^k."""
    tx = build.make_outer(config.MetaOptimizerConfig("sgd", 1.0, **settings), 10)
    state = tx.init(np.float32(0.0))
    for step, rate in enumerate(rates):
        move, state = tx.update(np.float32(1.0), state, np.float32(0.0))
        momentum = (1 - 0.9 ** (step + 1)) / 0.1
        assert float(move) == pytest.approx(-rate * momentum, rel=1e-4, abs=1e-6)


def test_gradients_are_clipped_before_the_outer_optimizer():
    tx = build.make_outer(config.MetaOptimizerConfig("sgd", 1.0, clip=2.0, clip_norm=2.5), 10)
    grads = np.array([3.0, -1.5], np.float32)
    move, _ = tx.update(grads, tx.init(grads), grads)
    np.testing.assert_allclose(move, [-2.0, 1.5], rtol=1e-5)
    tx = build.make_outer(config.MetaOptimizerConfig("sgd", 1.0, clip_norm=1.0), 10)
    move, _ = tx.update(np.array([3.0, -4.0], np.float32), tx.init(grads), grads)
    np.testing.assert_allclose(move, [-0.6, 0.8], rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: toys.phase(num_updates=0), "num_updates is 0"),
        (lambda: toys.phase(lengths=(5, 4)), "lengths are 5 and 4"),
        (lambda: toys.phase(window=8, lengths=(7, 9)), "the window is 8 steps.*shortest run, 7"),
        (lambda: toys.phase(particles=0), "num_particles is 0"),
        (lambda: toys.settings(toys.phase(), toys.phase()), "two phases are named first"),
        (lambda: toys.settings(shards=4), "2 particles cannot be split into 4 equal shards"),
        (lambda: config.MetaTrainConfig("mlp", ()), "phases is empty"),
        (lambda: toys.settings(staleness=-1), "staleness is -1"),
        (lambda: toys.settings(checkpoint_every_s=0.0), "checkpoint_every_s must be above 0"),
        (lambda: config.MetaOptimizerConfig(warmup=1.0), "warmup is 1.0"),
        (lambda: config.MetaOptimizerConfig(clip=-1.0), "clip is -1.0"),
        (lambda: config.CheckConfig("quadratic", 0), "num_steps is 0"),
        (lambda: config.EstimatorConfig(sigma=0.0), "sigma is 0.0"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_reason(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_updates_are_counted_over_phases():
    settings = toys.settings(toys.phase("a", 3), toys.phase("b", 2))
    assert [settings.phase_at(update) for update in range(5)] == [(0, 0)] * 3 + [(1, 3)] * 2
    with pytest.raises(ValueError, match="there is no update 5; the run has 5"):
        settings.phase_at(5)


def push_away(meta_params, num_steps):
    """A transform that makes all logits of a classifier equal and huge."""
    del meta_params, num_steps
    return optax.GradientTransformation(
        lambda params: (), lambda g, s, p=None: (jax.tree.map(lambda x: 0 * x + 1e9, g), s)
    )


def test_a_hollow_run_of_a_look_counts_as_the_worst(monkeypatch):
    settings = toys.settings(
        meta_validation=(config.CheckConfig("digits_mlp", 2),), validation_seeds=2
    )
    worker = gradient_worker.GradientWorker(settings)
    meta_params = meta_training.begin(settings, None).meta_params
    monkeypatch.setattr(build, "MakeTx", lambda rule: push_away)
    found = worker(gradient_worker.CheckJob(0, 0, meta_params))
    assert found.num_hollow == 2 and found.losses == (base.MAX_NORMALIZED_LOSS,) * 2


def test_a_hollow_end_is_no_final_loss_to_move_towards():
    task = registry.load_task("digits_mlp")
    problem = task_problem.TaskProblem.of(task, push_away, lengths=(2, 2))
    length = jnp.int32(2)
    state = problem.init({}, task, jax.random.key(0), length)
    for _ in range(2):
        state, loss = problem.step({}, task, state, length)
    assert float(loss) == 0.0  # The arithmetic's.
    final = problem.final_loss({}, task, state, jax.random.key(1))
    assert float(final) == base.MAX_NORMALIZED_LOSS
