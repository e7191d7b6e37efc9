"""Every registered task goes through one battery.

Compiling is what takes the time, so each task is examined by one jitted function, three times, and
the tests check the results.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from veldt.tasks import base, registry
from veldt.tasks.data import dataset
from veldt.tasks.inner_loop import unroll
from veldt.tasks.shipped import supervised

NUM_STEPS = 60
MORE_STEPS = {"photo_distortion_resnet": 250, "ratings_factorisation": 250}
SPLITS = ("train", "valid", "test")
CLASSES = {"digits": 10, "fashion": 10, "letters": 26, "photo": 5}
# Adam's, where it is not 0.01.
LEARNING_RATES = {
    "quadratic_large": 0.03,
    "quadratic_stiff": 0.1,
    "digits_mlp_wide": 0.001,
    "digits_vit": 0.003,
    "fashion_vit": 0.001,
    "fashion_autoencoder": 0.003,
    "fashion_diffusion": 0.001,
    "learned_optimizer_long": 0.003,
    "prose_gru_wide": 0.003,
    "fashion_mlp_wide": 0.001,
    "prose_transformer_deep": 0.003,
    "prose_transformer_wide": 0.001,
    "arm_regression": 0.001,
    "photo_distortion_resnet": 0.002,
    "photo_masked_transformer": 0.003,
    "photo_denoise_unet": 0.003,
}
# Starts that are not near the loss of knowing nothing, and why.
FAR_STARTS = {
    "breast_cancer_logistic": "a random linear model of standardised features is worse than none",
    "letters_logistic": "the same",
    "quadratic": "one start is not the average of starts",
    "quadratic_stiff": "the same",
    "photo_masked_transformer": "other windows differ more from the mean colour of training's",
    "fashion_vit": "four random blocks give logits of some size",
}
# One of each mechanism, of those that compile fast; all others are slow.
QUICK = (
    "quadratic",
    "quadratic_stiff",
    "breast_cancer_logistic",
    "letters_mlp",
    "digits_mlp",
    "digits_conv",
    "digits_autoencoder",
    "digits_vae",
    "prose_gru",
    "cartpole_policy",
    "digits_mlp_es",
    "learned_optimizer",
)
EACH_TASK = [
    pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
    for name in sorted(registry.TASKS)
]


def first_gradient():
    """A transform that changes nothing and remembers the first gradient it sees."""

    def init_fn(params):
        return jnp.zeros((), bool), jax.tree.map(jnp.zeros_like, params)

    def update_fn(updates, state, params=None):
        seen, kept = state
        kept = jax.tree.map(lambda old, new: jnp.where(seen, old, new), kept, updates)
        return updates, (jnp.ones((), bool), kept)

    return optax.GradientTransformation(init_fn, update_fn)


# Without LLVM's optimisation: half the time to compile, and the runs are short.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.partial(jit, static_argnames="num_steps")
def examine(task, key, learning_rate, num_steps):
    """Everything that the battery checks, from one compile."""
    tx = optax.chain(first_gradient(), optax.adam(learning_rate))
    start = unroll.init(task, tx, key)
    end, losses = unroll.unroll(task, tx, start, num_steps=num_steps)
    return {
        "params": start.params,
        "batch": task.train_batch(key),
        "gathered": task.gather(task.sample(key)),
        "grads": end.opt_state[0][1],
        "eval_batches": {split: task.eval_batch(split) for split in SPLITS},
        # Row 0 before training, row 1 after it.
        "scores": jax.lax.map(
            lambda params: jnp.stack(
                [task.normalizer(unroll.evaluate(task, params, key, split)) for split in SPLITS]
            ),
            jax.tree.map(lambda *ends: jnp.stack(ends), start.params, end.params),
        ),
        "train_losses": losses,
    }


@pytest.fixture(scope="module", params=EACH_TASK)
def exam(request, fashion_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(dataset.DATA_VARIABLE, str(fashion_folder))
        task = registry.load_task(request.param)
    learning_rate = LEARNING_RATES.get(request.param, 0.01)
    num_steps = MORE_STEPS.get(request.param, NUM_STEPS)
    keys = [jax.random.key(i) for i in (0, 0, 1)]
    runs = [jax.device_get(examine(task, key, learning_rate, num_steps=num_steps)) for key in keys]
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


def test_losses_and_gradients_are_finite_and_of_the_params_shape(exam):
    _, first, _, _ = exam
    assert first["train_losses"].dtype == np.float32
    assert np.isfinite(first["train_losses"]).all()
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
    starts = np.array([run["scores"][0] for run in runs])
    tolerance = 0.5 if task.name in FAR_STARTS else 0.25
    np.testing.assert_allclose(starts, 1.0, atol=tolerance)


def test_reference_loss_of_a_classifier_is_that_of_guessing(exam):
    task = exam[0]
    if getattr(task, "criterion", None) is supervised.cross_entropy:
        num_classes = CLASSES.get(task.name.partition("_")[0])
        guessing = math.log(num_classes or task.module.num_symbols)
        np.testing.assert_allclose(task.normalizer(jnp.asarray(guessing)), 1.0, rtol=1e-6)


def test_the_normalizer_is_monotone_and_total(exam):
    task = exam[0]
    losses = jnp.concatenate([jnp.geomspace(1e-3, 1e6, 200), jnp.array([jnp.inf, jnp.nan])])
    scale = np.asarray(jax.vmap(task.normalizer)(losses))
    assert task.normalizer(jnp.zeros(())) == 0.0
    assert (np.diff(scale) >= 0).all()
    np.testing.assert_array_equal(scale[-3:], base.MAX_NORMALIZED_LOSS)


def test_training_lowers_the_loss_on_all_splits(exam):
    task, first, _, other = exam
    for run in (first, other):
        before, after = run["scores"]
        assert (after < 0.9 * before).all()
        assert run["train_losses"].shape == (MORE_STEPS.get(task.name, NUM_STEPS),)
        assert run["train_losses"][-10:].mean() < run["train_losses"][:10].mean()


def with_splits(task):
    """The supervised task that `task` is or wraps; None for those that make their data."""
    inner = getattr(task, "task", task)
    return inner if isinstance(inner, supervised.SupervisedTask) else None


def test_splits_share_no_rows(exam):
    task, first, _, _ = exam
    inner = with_splits(task)
    if inner is None:
        return
    rows = {
        split: {
            row.tobytes() + target.tobytes()
            for row, target in zip(np.asarray(part.inputs), np.asarray(part.targets), strict=True)
        }
        for split, part in inner.splits.items()
    }
    if task.name.startswith(("char_", "prose_")):
        # Short stretches of text do repeat; what is read is checked in test_text.
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
    inner = with_splits(task)
    if inner is None:
        return
    train = {row.tobytes() for row in np.asarray(inner.splits["train"].inputs)}
    assert {row.tobytes() for row in first["batch"].inputs} <= train
    assert len(first["batch"].inputs) == inner.batch_size


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_runs_side_by_side_are_runs_alone(name):
    """Many learning rates and seeds in one program, as the benchmark runs them."""
    task = registry.load_task(name)

    def train(learning_rate, key):
        tx = optax.adam(learning_rate)
        state, losses = unroll.unroll(task, tx, unroll.init(task, tx, key), num_steps=5)
        return losses, unroll.evaluate(task, state.params, key, "valid")

    rates, keys = jnp.array([1e-4, 1e-3]), jax.random.split(jax.random.key(0), 2)
    over_keys = jax.vmap(train, (None, 0))
    together = jit(jax.vmap(over_keys, (0, None)))(rates, keys)
    alone = jit(train)
    for i in range(2):
        for j in range(2):
            picked = jax.tree.map(lambda leaf, i=i, j=j: leaf[i, j], together)
            for a, b in zip(picked, alone(rates[i], keys[j]), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
