"""Training rows that are learned, against a training written out and finite differences."""

import math
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import veldt
from veldt.meta import errors
from veldt.meta.tune import config, problem, run_tuning
from veldt.meta.tune.training import synthetic
from veldt.meta.tune.training.hyperparameters import Hyperparameter
from veldt.meta.tune.training.synthetic import SyntheticConfig

CLASSES = 26
ONE = SyntheticConfig()
STARTS = typing.get_args(typing.get_type_hints(SyntheticConfig)["start"])


def settings(rows=ONE, **more):
    fields = {"optimizer": "sgd", "seeds": 2, "verify": "none", "compare": False, **more}
    tune = {"learning_rate": Hyperparameter(0.1)}
    return config.TuneConfig("letters_logistic", 5, tune, synthetic=rows, **fields)


@pytest.fixture(scope="module")
def task():
    return veldt.load_task("letters_logistic")


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("per_class", [1, 2])
def test_rows_start_as_their_classes(task, start, labels, per_class):
    rows = SyntheticConfig(per_class, start, labels)
    meta_params = synthetic.init(rows, task, seed=3)
    assert set(meta_params) == (
        {synthetic.INPUTS, synthetic.LABELS} if labels else {synthetic.INPUTS}
    )
    found = synthetic.numbers(rows, task, meta_params)
    train = task.splits["train"]
    assert found[synthetic.INPUTS].shape == (CLASSES * per_class, *train.inputs.shape[1:])
    shares = found[synthetic.LABELS]
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-5)
    assert np.argmax(shares, axis=1).tolist() == sorted([*range(CLASSES)] * per_class)
    assert shares.max() == (pytest.approx(1 / (1 + 25 * math.exp(-4))) if labels else 1.0)
    if start == "rows":
        targets, inputs = np.asarray(train.targets), np.asarray(train.inputs)
        expected = np.concatenate(
            [inputs[targets == label][:per_class] for label in range(CLASSES)]
        )
        np.testing.assert_allclose(found[synthetic.INPUTS], expected, atol=1e-5)
    else:
        assert found[synthetic.INPUTS].std() == pytest.approx(float(train.inputs.std()), rel=0.1)


def test_training_on_them_is_what_it_is_written_out(task):
    subject = problem.Problem(settings())
    rng = np.random.default_rng(0)
    meta_params = {
        name: x + 0.3 * rng.standard_normal(x.shape).astype(np.float32)
        for name, x in subject.meta_params.items()
    }
    numbers = subject.numbers(meta_params)
    training = subject.training([0])
    found = training.init(meta_params)
    params = jax.tree.map(lambda leaf: leaf[0], found.params)
    tx = optax.sgd(float(numbers["learning_rate"]), momentum=0.9)
    state = tx.init(params)

    def loss(params):
        logits = task.module.apply(params, numbers[synthetic.INPUTS])
        return optax.softmax_cross_entropy(logits, numbers[synthetic.LABELS]).mean()

    for _ in range(5):
        step, state = tx.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, step)
    expected = float(task.loss(params, jax.random.key(0), task.eval_batch("valid"))[0])
    assert problem.outcome(training, meta_params) == pytest.approx(expected, rel=1e-4)


def test_their_metagradient_is_that_of_differences():
    subject = problem.Problem(settings())
    training, meta_params = subject.training([0, 1]), subject.meta_params
    found = veldt.metagradient(training, meta_params, key=jax.random.key(0), check="full")
    assert found.verdict.passed, found.verdict.message
    assert max(found.verdict.relative_errors) < 0.02


@pytest.mark.parametrize("per_class", [1, 20])
def test_a_batch_is_all_rows_or_a_draw(task, per_class):
    rows = SyntheticConfig(per_class)
    made = synthetic.make(rows, task, synthetic.init(rows, task, 0))
    batch = made.train_batch(jax.random.key(0))
    assert len(batch.shares) == min(CLASSES * per_class, task.batch_size)
    other = made.train_batch(jax.random.key(1))
    assert np.array_equal(batch.inputs, other.inputs) == (CLASSES * per_class <= task.batch_size)
    plain = task.eval_batch("test")
    assert jax.tree.all(jax.tree.map(jnp.array_equal, made.eval_batch("test"), plain))


def test_what_has_no_classes_is_refused():
    with pytest.raises(errors.MetaTrainError, match="one of its classes"):
        problem.Problem(
            config.TuneConfig("digits_autoencoder", 5, {"learning_rate": Hyperparameter(0.1)},
                              synthetic=ONE)
        )  # fmt: skip
    with pytest.raises(errors.MetaTrainError, match="give less, or start: noise"):
        problem.Problem(settings(SyntheticConfig(1000)))
    with pytest.raises(ValueError, match="takes their place"):
        config.TuneConfig("letters_logistic", 5, {"label_smoothing": Hyperparameter(0.1, "logit")},
                          synthetic=ONE)  # fmt: skip


def test_a_run_learns_them_keeps_them_and_goes_on(tmp_path):
    chosen = settings(num_updates=4, check_every=2, check_seeds=2, on_failure="keep")
    result = run_tuning.run_tuning(chosen, tmp_path)
    assert result.progress.best_outcome < result.progress.first_outcome
    again = run_tuning.run_tuning(chosen, tmp_path, resume=True)
    with np.load(tmp_path / "tuned.npz") as arrays:
        for name in (synthetic.INPUTS, synthetic.LABELS):
            np.testing.assert_array_equal(arrays[name], result.numbers[name])
            np.testing.assert_array_equal(again.numbers[name], result.numbers[name])
