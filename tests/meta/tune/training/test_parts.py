"""Hyperparameters of the parts of a model, against those of the whole and Optax's own."""

import importlib.util
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import veldt
from veldt.meta import errors
from veldt.meta.tune import config, problem, report, run_tuning, schedule_file
from veldt.meta.tune.training import hyperparameters, optimizers, parts
from veldt.meta.tune.training.hyperparameters import Hyperparameter

GROUPS = {"first": "Dense_0", "rest": "."}
KINDS = typing.get_args(hyperparameters.By)
NUM_PARTS = {"group": 2, "layer": 2, "tensor": 4}


def settings(by="all", *, knots=3, optimizer="adamw", **more):
    tune = {
        "learning_rate": Hyperparameter(0.01, knots=knots, by=by),
        "weight_decay": Hyperparameter(0.1, by=by),
    }
    if optimizer != "adamw":
        del tune["weight_decay"]
    fields = {"optimizer": optimizer, "groups": GROUPS, "seeds": 2, "verify": "none", **more}
    return config.TuneConfig("digits_mlp", 20, tune, **fields)


@pytest.fixture(scope="module")
def whole():
    subject = problem.Problem(settings())
    training = subject.training_of(0)
    found = veldt.metagradient(training, subject.meta_params, key=jax.random.key(0), check="none")
    return found.outcome, found.gradient


@pytest.mark.parametrize("by", KINDS)
def test_parts_that_are_alike_are_the_whole(whole, by):
    subject = problem.Problem(settings(by))
    shape = subject.meta_params["learning_rate"].shape
    assert shape == ((3,) if by == "all" else (NUM_PARTS[by], 3))
    training = subject.training_of(0)
    found = veldt.metagradient(training, subject.meta_params, key=jax.random.key(0), check="none")
    outcome, gradient = whole
    assert found.outcome == pytest.approx(outcome, rel=1e-5)
    # The derivative by what all parts share is the sum of theirs.
    for name, expected in gradient.items():
        summed = found.gradient[name] if by == "all" else found.gradient[name].sum(axis=0)
        np.testing.assert_allclose(summed, expected, rtol=2e-3, atol=1e-6)


def test_a_part_has_its_own_number():
    groups = {"tuned": "b/w", "rest": "."}
    model = parts.Parts(("a", "b/w"), (("learning_rate", "group"),), tuple(groups.items()))
    ours = optimizers.make(
        "sgd", {"momentum": 0.9}, groups, {}, {"learning_rate": [0.3, 0.1]}, model
    )
    params = {"a": jnp.array([1.0, -2.0]), "b": {"w": jnp.array([0.5])}}
    theirs = {"a": optax.sgd(0.1, 0.9), "b": optax.sgd(0.3, 0.9)}
    state, states = ours.init(params), {key: tx.init(params[key]) for key, tx in theirs.items()}
    for i in range(5):
        grads = jax.tree.map(lambda p, i=i: jnp.sin(3 * p + i), params)
        step, state = ours.update(grads, state, params)
        for key, tx in theirs.items():
            expected, states[key] = tx.update(grads[key], states[key], params[key])
            for mine, other in zip(
                jax.tree.leaves(step[key]), jax.tree.leaves(expected), strict=True
            ):
                np.testing.assert_allclose(mine, other, rtol=1e-6)
        params = optax.apply_updates(params, step)


def test_layers_hold_tensors_and_groups_hold_all():
    tensors = ("params/Dense_0/bias", "params/Dense_0/kernel", "scale")
    assert parts.names("layer", tensors, {}) == ("params/Dense_0", "scale")
    assert parts.names("tensor", tensors, {}) == tensors
    assert parts.names("group", tensors, {"k": "kernel", "rest": "."}) == ("k", "rest")
    with pytest.raises(errors.MetaTrainError, match="scale is in none"):
        parts.names("group", tensors, {"dense": "Dense"})
    with pytest.raises(errors.MetaTrainError, match=r"groups\.conv: no tensor"):
        parts.names("group", tensors, {"rest": ".", "conv": "Conv"})


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"tune": {"class_weights": Hyperparameter(1.0, by="layer")}}, "leave by out"),
        ({"tune": {"rate_of_first": Hyperparameter(1.0, by="layer")}}, "leave by out"),
        ({"groups": {}}, "group needs groups"),
    ],
)
def test_what_has_no_parts_is_refused(more, match):
    with pytest.raises(ValueError, match=match):
        config.TuneConfig(
            **{
                "task": "digits_mlp",
                "num_steps": 5,
                "tune": {"learning_rate": Hyperparameter(0.1, by="group")},
                "groups": GROUPS,
                **more,
            }
        )


def load(path):
    spec = importlib.util.spec_from_file_location("schedules", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("optimizer", "by"),
    [*((name, "layer") for name in optimizers.FACTORIES), *(("adamw", by) for by in KINDS)],
)
def test_the_file_makes_the_optimizer_that_was_learned(tmp_path, optimizer, by):
    # Lion is differentiated with a smooth sign; with no width to speak of it is Optax's.
    fixed = {"width": 1e-12} if optimizer == "lion" else {}
    chosen = settings(by, optimizer=optimizer, fixed=fixed)
    subject = problem.Problem(chosen)
    rng = np.random.default_rng(0)
    meta_params = {
        name: value + 0.5 * rng.standard_normal(value.shape).astype(np.float32)
        for name, value in subject.meta_params.items()
    }
    schedule_file.write(chosen, subject.numbers(meta_params), tmp_path, "", subject.model)
    theirs = load(tmp_path / schedule_file.FILE).optimizer()
    ours = subject._make(meta_params, subject.task)[1]
    params = subject.task.init(jax.random.key(0))
    states = [tx.init(params) for tx in (ours, theirs)]
    for i in range(4):
        grads = jax.tree.map(lambda p, i=i: jnp.sin(30 * p + i), params)
        step, states[0] = jax.jit(ours.update)(grads, states[0], params)
        expected, states[1] = jax.jit(theirs.update)(grads, states[1], params)
        for mine, other in zip(jax.tree.leaves(step), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-9)
        params = optax.apply_updates(params, step)


@pytest.mark.parametrize(("by", "knots"), [*((by, 3) for by in KINDS), ("layer", 0)])
def test_a_tuning_by_part_runs_resumes_and_is_reported(tmp_path, by, knots):
    chosen = settings(by, knots=knots, num_updates=2, check_every=1, check_seeds=2, compare=False)
    result = run_tuning.run_tuning(chosen, tmp_path)
    assert result.progress.update == 2
    assert result.progress.best_outcome < result.progress.first_outcome
    again = run_tuning.run_tuning(chosen, tmp_path, resume=True)
    np.testing.assert_array_equal(again.numbers["learning_rate"], result.numbers["learning_rate"])
    page = report.write_report(tmp_path).read_text()
    if by != "all" and knots:
        assert f"each {by}, after update 2" in page
        assert page.count("<tr") >= NUM_PARTS[by]
