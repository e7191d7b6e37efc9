"""Every registered task goes through one battery.

Compiling is what takes the time, so each task is examined by one jitted function, three times, and
the tests look at what came out.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from veldt.tasks import base, dataset, registry, unroll

NUM_STEPS = 60
SPLITS = ("train", "valid", "test")
CLASSES = {"digits_mlp": 10, "digits_conv": 10, "fashion_mlp": 10, "fashion_conv": 10}
PROCEDURAL = {"quadratic"}


# Without LLVM's optimisation: half the time to compile, and the runs are short.
@functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def examine(task, key):
    """All that the battery looks at, from one compile."""
    tx = optax.adam(0.01)
    state = unroll.init(task, tx, key)
    params, batch = state.params, task.train_batch(key)
    (loss, _), grads = jax.value_and_grad(task.loss, has_aux=True)(params, key, batch)
    start_loss = unroll.evaluate(task, params, key, "valid")
    state, losses = unroll.unroll(task, tx, state, num_steps=NUM_STEPS)
    return {
        "params": params,
        "batch": batch,
        "gathered": task.gather(task.sample(key)),
        "loss": loss,
        "grads": grads,
        "eval_batches": {split: task.eval_batch(split) for split in SPLITS},
        "start": task.normalizer(start_loss),
        "end": {
            split: task.normalizer(unroll.evaluate(task, state.params, key, split))
            for split in ("valid", "test")
        },
        "train_losses": losses,
    }


@pytest.fixture(scope="module", params=sorted(registry.TASKS))
def exam(request, fashion_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(dataset.DATA_VARIABLE, str(fashion_folder))
        task = registry.load_task(request.param)
    runs = [jax.device_get(examine(task, jax.random.key(seed))) for seed in (0, 0, 1)]
    return task, *runs


def test_name_is_the_registered_one_and_contract_holds(exam):
    task = exam[0]
    assert base.check_task(task) is task
    assert task.name in registry.TASKS


def test_the_same_key_gives_the_same_run_and_another_key_another(exam):
    _, first, again, other = exam
    jax.tree.map(np.testing.assert_array_equal, first, again)
    for what in ("params", "batch", "train_losses"):
        pairs = zip(jax.tree.leaves(first[what]), jax.tree.leaves(other[what]), strict=True)
        assert any(not np.array_equal(a, b) for a, b in pairs), what


def test_evaluation_batches_are_the_same_for_everyone(exam):
    _, first, _, other = exam
    jax.tree.map(np.testing.assert_array_equal, first["eval_batches"], other["eval_batches"])


def test_selection_and_gathering_make_the_training_batch(exam):
    _, first, _, _ = exam
    jax.tree.map(np.testing.assert_array_equal, first["batch"], first["gathered"])


def test_loss_and_gradients_are_finite_and_of_the_params_shape(exam):
    _, first, _, _ = exam
    assert first["loss"].shape == ()
    assert first["loss"].dtype == np.float32
    assert np.isfinite(first["loss"])
    assert jax.tree.structure(first["grads"]) == jax.tree.structure(first["params"])
    for param, grad in zip(
        jax.tree.leaves(first["params"]), jax.tree.leaves(first["grads"]), strict=True
    ):
        assert grad.shape == param.shape
        assert grad.dtype == param.dtype == np.float32
        assert np.isfinite(grad).all()
        assert np.any(grad != 0)


def test_the_normalizer_is_near_one_before_training(exam):
    task, *runs = exam
    starts = [float(run["start"]) for run in runs]
    # The table's features have standard deviation 1: a random linear model is worse than none.
    tolerance = 0.5 if task.name in {"breast_cancer_logistic", "quadratic"} else 0.25
    np.testing.assert_allclose(starts, 1.0, atol=tolerance)


def test_reference_loss_of_a_classifier_is_that_of_guessing(exam):
    task = exam[0]
    if task.name in CLASSES:
        guessing = math.log(CLASSES[task.name])
        np.testing.assert_allclose(task.normalizer(jnp.asarray(guessing)), 1.0, rtol=1e-6)


def test_the_normalizer_is_monotone_and_total(exam):
    task = exam[0]
    losses = jnp.concatenate([jnp.linspace(0.0, 100.0, 200), jnp.array([jnp.inf, jnp.nan])])
    scale = np.asarray(jax.vmap(task.normalizer)(losses))
    assert scale[0] == 0.0
    assert (np.diff(scale) >= 0).all()
    np.testing.assert_array_equal(scale[-3:], base.MAX_NORMALIZED_LOSS)


def test_training_lowers_the_loss_on_all_splits(exam):
    _, first, _, other = exam
    for run in (first, other):
        for split, end in run["end"].items():
            assert end < 0.9 * run["start"], split
        assert run["train_losses"].shape == (NUM_STEPS,)
        assert run["train_losses"][-10:].mean() < run["train_losses"][:10].mean()


def test_splits_share_no_rows(exam):
    task, first, _, _ = exam
    if task.name in PROCEDURAL:
        return
    rows = {
        split: {
            row.tobytes() + target.tobytes()
            for row, target in zip(np.asarray(part.inputs), np.asarray(part.targets), strict=True)
        }
        for split, part in task.splits.items()
    }
    if task.name.startswith("char_"):
        # Short stretches of code do repeat; what is read is checked in test_language.
        assert len(rows["train"] & rows["test"]) < 0.2 * len(rows["test"])
    else:
        assert not rows["train"] & rows["valid"]
        assert not rows["train"] & rows["test"]
        assert not rows["valid"] & rows["test"]
    for split in SPLITS:
        batch = first["eval_batches"][split]
        evaluated = zip(batch.inputs, batch.targets, strict=True)
        assert {row.tobytes() + target.tobytes() for row, target in evaluated} <= rows[split]


def test_training_batches_come_from_the_training_part(exam):
    task, first, _, _ = exam
    if task.name in PROCEDURAL:
        return
    train = {row.tobytes() for row in np.asarray(task.splits["train"].inputs)}
    assert {row.tobytes() for row in first["batch"].inputs} <= train
    assert len(first["batch"].inputs) == task.batch_size
