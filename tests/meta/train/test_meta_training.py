"""The loop of a meta-training, against loops by hand, and interrupted anywhere."""

import dataclasses
import functools
import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies

from tests.meta import meta_trainer, toys
from veldt.meta import errors
from veldt.meta.estimators import antithetic, truncated_es
from veldt.meta.problems import meta_loss, task_problem
from veldt.meta.train import build, config, gradient_worker, meta_training, outer_step
from veldt.tasks.pool import config as pool_config
from veldt.tasks.pool import pools

pytestmark = pytest.mark.usefixtures("toy")


def estimators():
    """What `toys.phase()` asks for, one for each family."""
    return tuple(
        truncated_es.PES(
            task_problem.TaskProblem.of(family, build.MakeTx(toys.Rate()), lengths=(4, 6)),
            2,
            2,
            meta_loss.MeanLoss(),
            antithetic.Antithetic(0.1),
        )
        for family in toys.FAMILIES
    )


def key(*numbers):
    return functools.reduce(jax.random.fold_in, numbers, jax.random.key(0))


def test_without_staleness_it_is_a_meta_trainer_driven_by_hand():
    settings = toys.settings(toys.phase(num_updates=5))
    watcher = toys.Watcher()
    ended = toys.train(settings, watcher=watcher)
    trainer = meta_trainer.MetaTrainer(estimators(), optax.adam(0.1))
    start = toys.Rate().init(key(gradient_worker.INIT))
    state = trainer.init(start, key(gradient_worker.BEGIN, 0, 0))
    num_steps = 0
    for update, (after, figures) in enumerate(watcher.updates):
        state, metrics = trainer.step(state, key(gradient_worker.GRADIENT, update))
        assert after == update + 1
        np.testing.assert_allclose(figures["meta_loss"], metrics.estimates.meta_loss, rtol=1e-5)
        assert figures["meta_grad_norm"] == pytest.approx(float(metrics.meta_grad_norm), rel=1e-5)
        assert figures["num_completed"] == np.sum(metrics.estimates.num_completed)
        num_steps += int(np.sum(metrics.estimates.num_steps))
    assert ended.update == 5 and ended.num_inner_steps == num_steps
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5),
        dict(ended.meta_params),
        state.meta_params,
    )
    assert not np.allclose(ended.meta_params["rate"]["log"], start["rate"]["log"], atol=0.1)


@pytest.mark.parametrize("staleness", [1, 2])
def test_stale_gradients_are_those_of_so_many_updates_before(staleness):
    """A loop that keeps all meta-parameters there were, and a stream for each update under way."""
    num_updates = 6
    settings = toys.settings(toys.phase(num_updates=num_updates), staleness=staleness)
    ended = toys.train(settings)
    tx = optax.adam(0.1)
    versions = [toys.Rate().init(key(gradient_worker.INIT))]
    opt_state = tx.init(versions[0])
    streams = {}
    for update in range(num_updates):
        seen = versions[max(0, update - staleness)]
        stream = update % (staleness + 1)
        grads = []
        for family, each in enumerate(estimators()):
            if (stream, family) not in streams:
                began = key(gradient_worker.BEGIN, 0, stream, family)
                streams[stream, family] = outer_step.begin(each, seen, began)
            grad, streams[stream, family], _ = outer_step.estimate(
                each, seen, streams[stream, family], key(gradient_worker.GRADIENT, update, family)
            )
            grads.append(grad)
        mean = jax.tree.map(lambda a, b: (a + b) / 2, *grads)
        updates, opt_state = tx.update(mean, opt_state)
        versions.append(optax.apply_updates(versions[-1], updates))
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5),
        dict(ended.meta_params),
        versions[-1],
    )
    fresh = toys.train(toys.settings(toys.phase(num_updates=num_updates)))
    assert not toys.same(dict(ended.meta_params), dict(fresh.meta_params))


@pytest.mark.parametrize("staleness", [0, 2])
def test_the_number_of_workers_changes_no_bit(staleness):
    ends = [
        toys.train(
            toys.settings(staleness=staleness, pool=pool_config.PoolConfig("inline", workers))
        )
        for workers in (1, 3)
    ]
    assert same_progress(*ends)


@pytest.mark.slow
@pytest.mark.ray
def test_training_on_ray_is_training_inline():
    ends = []
    for backend in ("inline", "ray"):
        pool = pool_config.PoolConfig(backend, 2, straggler_factor=None)
        settings = toys.settings(staleness=1, pool=pool, meta_validation=(toys.CHECK,))
        factory = toys.ToyFactory(settings) if backend == "ray" else None
        ends.append(toys.train(settings, factory=factory))
    assert same_progress(*ends)
    assert ends[0].best is not None


THREE_PHASES = toys.settings(
    toys.phase("rate", 3, train=("rate",), outer=config.MetaOptimizerConfig("sgd", 0.1, clip=0.1)),
    toys.phase(
        "both", 2, outer=config.MetaOptimizerConfig("adamw", 0.1, weight_decay=0.1, warmup=0.5)
    ),
    toys.phase("scaled", 3, train=("rate",), fields={"scale": 1.0}),
    meta_validation=(toys.CHECK,),
    validate_every=2,
    staleness=1,
)


@pytest.fixture(scope="module")
def whole():
    """Finds what three phases end with, when nothing interrupts them."""

    @functools.cache
    def find():
        watcher = toys.Watcher()
        return toys.train(THREE_PHASES, watcher=watcher), watcher

    return find


def same_progress(one, other):
    """Whether all is equal, but for how long it took."""
    return all(
        toys.same(getattr(one, field.name), getattr(other, field.name))
        for field in dataclasses.fields(meta_training.MetaTrainProgress)
        if field.name not in ("worker_s", "wall_s")
    )


def test_each_phase_moves_its_parts_alone(whole):
    saved = []
    toys.train(THREE_PHASES, save=saved.append)
    start = meta_training.begin(THREE_PHASES, None)
    assert [one.update for one in saved] == [3, 5, 8]
    rates = [one.meta_params["rate"]["log"] for one in (start, *saved)]
    shares = [one.meta_params["momentum"]["share"] for one in (start, *saved)]
    assert len({float(rate) for rate in rates}) == 4
    assert shares[0] == shares[1] != shares[2] == shares[3]
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(saved[-1].meta_params))


def test_meta_validation_comes_in_time_and_its_best_is_kept(whole):
    ended, watcher = whole()
    # Every second update, and at the end of each phase.
    assert [update for update, _ in watcher.checks] == [0, 2, 3, 4, 5, 6, 8]
    scores = [figures["score"] for _, figures in watcher.checks]
    assert ended.best_score == min(scores)
    assert ended.checked_at == 8
    task = toys.Bowl()
    keys = jax.random.split(key(gradient_worker.CHECK, 0), 2)
    losses = [by_hand(task, ended.best, each) for each in keys]
    assert ended.best_score == pytest.approx(np.mean(np.log(losses)), rel=1e-4)


def by_hand(task, meta_params, key):
    """Train a bowl; its loss without noise."""
    from veldt.tasks.inner_loop import unroll

    tx = toys.Rate().as_optax(meta_params)
    state = unroll.init(task, tx, key)
    for _ in range(toys.CHECK.num_steps):
        state, _ = unroll.step_fn(task, tx, state)
    return 0.5 * float(state.params) ** 2


def test_looks_change_nothing_of_the_training(whole):
    blind = toys.train(dataclasses.replace(THREE_PHASES, meta_validation=()))
    ended, _ = whole()
    assert toys.same(dict(blind.meta_params), dict(ended.meta_params))
    assert blind.best is None and blind.best_score == math.inf


@hypothesis.given(strategies.sets(strategies.integers(1, 8), max_size=4))
@hypothesis.settings(
    max_examples=15, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_interrupted_anywhere_it_goes_on_to_the_same_end(whole, moments):
    """Through what a checkpoint keeps, each time."""
    progress, checks = None, {}
    for moment in [*sorted(moments), None]:
        watcher = toys.Watcher(interrupt_after=moment)
        progress = toys.train(THREE_PHASES, progress, watcher=watcher)
        # What the watcher has not taken in is not done.
        assert progress.update == (8 if moment is None else moment - 1)
        checks.update(watcher.checks)
        if moment is not None:
            stored = meta_training.store(progress)
            progress = meta_training.restore(THREE_PHASES, stored) if progress.update else None
    ended, undisturbed = whole()
    assert same_progress(progress, ended)
    assert checks == dict(undisturbed.checks)


@pytest.mark.parametrize("moment", [3, 5, 8])
def test_a_kill_between_an_update_and_its_meta_validation_loses_none(whole, moment):
    """A checkpoint was taken just before the meta-validation at the end of a phase."""
    kept = []
    settings = dataclasses.replace(THREE_PHASES, checkpoint_every_s=1e-9)
    toys.train(settings, save=lambda progress: kept.append(meta_training.store(progress)))
    (stored,) = [
        one for one in kept if one.facts["update"] == moment and one.facts["looked_at"] < moment
    ]
    progress = toys.train(settings, meta_training.restore(settings, stored))
    ended, _ = whole()
    assert (progress.checked_at, progress.best_score) == (ended.checked_at, ended.best_score)
    for name in ("meta_params", "best"):
        assert toys.same(dict(getattr(progress, name)), dict(getattr(ended, name)))


def test_an_interrupt_while_saving_leaves_what_was_reached(whole):
    def save(progress):
        raise KeyboardInterrupt

    watcher = toys.Watcher(interrupt_after=99)
    progress = toys.train(THREE_PHASES, watcher=watcher, save=save)
    assert progress.update == 3 == progress.checked_at
    assert same_progress(toys.train(THREE_PHASES, progress), whole()[0])


def test_more_phases_go_on_where_the_others_ended(whole):
    first = dataclasses.replace(THREE_PHASES, phases=THREE_PHASES.phases[:2])
    progress = meta_training.restore(first, meta_training.store(toys.train(first)))
    assert progress.update == 5
    assert same_progress(toys.train(THREE_PHASES, progress), whole()[0])


def test_a_gradient_that_cannot_be_computed_stops_it_with_the_reason():
    class Broken(toys.Bowls):
        def task(self, cfg):
            raise ZeroDivisionError("no such bowl")

    settings = toys.settings()
    factory = gradient_worker.GradientWorkerFactory(settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("veldt.tasks.families.distribution.draw", lambda *_: (Broken(),))
        with pools.make_pool(settings.pool, factory) as workers:
            progress = meta_training.begin(settings, None)
            loop = meta_training.MetaTraining(settings, progress, workers, 1, toys.Watcher())
            with pytest.raises(errors.MetaTrainError, match=r"update 0, family 0.*no such bowl"):
                loop.run(lambda progress: None)
    assert loop.progress.update == 0


def test_what_is_given_to_start_from_is_where_it_starts():
    start = {"rate": {"log": jnp.asarray(-1.0)}, "momentum": {"share": jnp.asarray(0.0)}}
    progress = meta_training.begin(toys.settings(), start)
    assert toys.same(dict(progress.meta_params), jax.tree.map(np.asarray, start))
    assert progress.update == 0
