"""Optimizers against Optax's, and tasks against what they are shaped to."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import veldt
from veldt.meta import errors
from veldt.meta.replay import task_training
from veldt.meta.tune import config, problem
from veldt.meta.tune.training import optimizers, shaped_task
from veldt.meta.tune.training.hyperparameters import Hyperparameter
from veldt.tasks import registry

ARGUMENTS = {
    "sgd": {"learning_rate": 0.1, "momentum": 0.8},
    "adam": {"learning_rate": 0.1, "b1": 0.8},
    "adamw": {"learning_rate": 0.1, "b2": 0.99, "weight_decay": 0.01},
}


def updates(tx, num_steps=6):
    params = {"a": jnp.array([1.0, -2.0]), "b": {"w": jnp.array([0.5])}}
    state, found = tx.init(params), []
    for i in range(num_steps):
        grads = jax.tree.map(lambda p, i=i: jnp.sin(3 * p + i), params)
        step, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, step)
        found.append(step)
    return found


def assert_same(ours, theirs):
    for mine, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6)


@pytest.mark.parametrize("name", list(ARGUMENTS))
def test_optimizers_are_optaxs(name):
    arguments = {key: jnp.float32(value) for key, value in ARGUMENTS[name].items()}
    ours = optimizers.make(name, arguments, {}, {})
    # Injected there too: numbers of float32, as traced ones are.
    theirs = optax.inject_hyperparams(getattr(optax, name))(**ARGUMENTS[name])
    assert_same(updates(ours), updates(theirs))


def test_any_argument_may_have_a_schedule():
    decay = optax.linear_schedule(0.9, 0.1, 6)
    ours = optimizers.make("sgd", {"learning_rate": 0.1, "momentum": decay}, {}, {})
    theirs = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1, momentum=decay)
    assert_same(updates(ours), updates(theirs))
    constant = optimizers.make("sgd", {"learning_rate": 0.1, "momentum": 0.9}, {}, {})
    assert not np.allclose(updates(ours)[-1]["a"], updates(constant)[-1]["a"])


def test_a_factory_of_ones_own_is_taken_by_its_place():
    ours = optimizers.make("optax:adabelief", {"learning_rate": 0.1}, {}, {})
    assert_same(updates(ours), updates(optax.inject_hyperparams(optax.adabelief)(0.1)))


def test_groups_have_rates_of_their_own():
    plain = updates(optimizers.make("sgd", {"learning_rate": 0.1}, {}, {}), 1)[0]
    groups = {"inner": "b/w", "rest": "."}
    ours = optimizers.make("sgd", {"learning_rate": 0.1}, groups, {"inner": jnp.float32(3.0)})
    step = updates(ours, 1)[0]
    np.testing.assert_allclose(step["b"]["w"], 3 * plain["b"]["w"], rtol=1e-6)
    np.testing.assert_allclose(step["a"], plain["a"], rtol=1e-6)


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"optimizer": "adm"}, "did you mean 'adam'"),
        ({"fixed": {"weigth_decay": 0.1}, "optimizer": "adamw"}, "did you mean 'weight_decay'"),
        ({"tune": {"b1": Hyperparameter(0.9, "logit")}}, "adam needs learning_rate"),
        ({"tune": {"label_smoothing": Hyperparameter(0.1, "logit")}}, "that classify"),
        ({"tune": {"class_weights": Hyperparameter(1.0, "log", 3)}}, "has no schedule"),
    ],
)
def test_what_neither_optimizer_nor_task_has_is_named(more, match):
    fields = {"task": "quadratic", "num_steps": 5, "tune": {"learning_rate": Hyperparameter(0.1)}}
    with pytest.raises(errors.MetaTrainError, match=match):
        problem.Problem(config.TuneConfig(**{**fields, **more}))


@pytest.fixture(scope="module")
def digits():
    return veldt.load_task("digits_mlp")


def shaped_loss(task, shape, key):
    params = task.init(jax.random.key(0))
    shaped = shaped_task.ShapedTask(task, shape)
    return shaped.loss(params, key, shaped.train_batch(jax.random.key(1)))[0]


def test_an_unshaped_task_is_the_plain_one(digits):
    params = digits.init(jax.random.key(0))
    plain = digits.loss(params, jax.random.key(2), digits.train_batch(jax.random.key(1)))[0]
    assert shaped_loss(digits, shaped_task.Shape(), jax.random.key(2)) == pytest.approx(plain)


def test_label_smoothing_is_optaxs(digits):
    batch = digits.train_batch(jax.random.key(1))
    logits = digits.module.apply(digits.init(jax.random.key(0)), batch.inputs)
    labels = optax.smooth_labels(jax.nn.one_hot(batch.targets, 10), 0.2)
    right = float(optax.softmax_cross_entropy(logits, labels).mean())
    shape = shaped_task.Shape(label_smoothing=jnp.float32(0.2))
    assert shaped_loss(digits, shape, jax.random.key(2)) == pytest.approx(right, rel=1e-5)


def test_weights_multiply_the_losses_of_their_examples_and_classes(digits):
    rows = digits.sample(jax.random.key(1))
    batch = digits.gather(rows)
    logits = digits.module.apply(digits.init(jax.random.key(0)), batch.inputs)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
    by_row = jnp.linspace(0, 2, len(digits.splits["train"].inputs))
    by_class = jnp.linspace(0.5, 1.5, 10)
    right = float(jnp.mean(losses * by_row[rows] * by_class[batch.targets]))
    shape = shaped_task.Shape(example_weights=by_row, class_weights=by_class)
    assert shaped_loss(digits, shape, jax.random.key(2)) == pytest.approx(right, rel=1e-5)


def test_noise_is_on_the_inputs_of_training_alone(digits):
    shape = shaped_task.Shape(input_noise=jnp.float32(0.5))
    one, other = (shaped_loss(digits, shape, jax.random.key(i)) for i in (1, 2))
    assert one != other
    shaped, params = shaped_task.ShapedTask(digits, shape), digits.init(jax.random.key(0))
    batch = shaped.eval_batch("valid")
    seen = shaped.loss(params, jax.random.key(3), batch)[0]
    assert seen == digits.loss(params, jax.random.key(3), digits.eval_batch("valid"))[0]


def test_a_tuned_task_is_a_task(digits):
    shape = shaped_task.Shape(label_smoothing=jnp.float32(0.1))
    veldt.tasks.base.check_task(shaped_task.ShapedTask(digits, shape))


def test_updates_have_seeds_of_their_own_and_looks_have_others():
    fields = {"task": "quadratic", "num_steps": 5, "tune": {"learning_rate": Hyperparameter(0.1)}}
    subject = problem.Problem(config.TuneConfig(**fields, seeds=3, check_seeds=4))
    keys = [subject.training_of(update).keys for update in (0, 1, 50)] + [subject.check().keys]
    words = np.concatenate([np.asarray(jax.random.key_data(key)) for key in keys])
    assert len(np.unique(words, axis=0)) == len(words) == 13


def test_tunings_that_differ_in_their_seeds_share_programs():
    fields = {"task": "digits_mlp", "num_steps": 5, "tune": {"learning_rate": Hyperparameter(0.1)}}
    runs = [
        problem.Problem(config.TuneConfig(**{**fields, **more})).training_of(0)
        for more in ({}, {"seed": 7, "num_updates": 3}, {"fixed": {"b1": 0.8}})
    ]
    one, alike, other = (jax.tree.structure(run) for run in runs)
    assert one == alike and hash(one) == hash(alike)
    assert one != other


def test_a_hollow_run_is_no_outcome():
    def make(meta_params, task):
        push = optax.GradientTransformation(
            lambda params: (), lambda g, s, p=None: (jax.tree.map(lambda x: 0 * x + 1e9, g), s)
        )
        return task, optax.chain(push, optax.scale(meta_params))

    task = registry.load_task("digits_mlp")
    run = task_training.TaskTraining.of(make, 2, seeds=(0, 1), data=task)
    outcome, why = problem.run_once(run, jnp.float32(1.0))
    assert math.isnan(outcome) and "float32" in why
    assert math.isnan(problem.outcome(run, jnp.float32(1.0)))
    outcome, why = problem.run_once(run, jnp.float32(1e-12))
    assert math.isfinite(outcome) and why == ""
