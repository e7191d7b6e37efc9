"""The learned optimizer's task: its inner training, and what is held out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from veldt.tasks import registry
from veldt.tasks.data import dataset
from veldt.tasks.shipped import optimizer_training, supervised

# Without LLVM's optimisation: half the time to compile, and nothing here runs long.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="module")
def task():
    return registry.load_task("learned_optimizer")


def test_the_inner_model_is_a_perceptron():
    rng = np.random.default_rng(0)
    first, first_bias = rng.normal(size=(16, 8)), rng.normal(size=8)
    second, second_bias = rng.normal(size=(8, 10)), rng.normal(size=10)
    inputs, targets = rng.normal(size=(5, 16)), rng.integers(0, 10, 5)
    vector = np.concatenate([part.ravel() for part in (first, first_bias, second, second_bias)])
    logits = np.tanh(inputs @ first + first_bias) @ second + second_bias
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    ours = optimizer_training.inner_loss(
        jnp.asarray(vector, jnp.float32), dataset.Examples(inputs.astype(np.float32), targets)
    )
    np.testing.assert_allclose(ours, -log_probabilities[np.arange(5), targets].mean(), rtol=1e-5)


def test_weights_of_zero_leave_the_inner_parameters_where_they_are(task):
    params = jax.tree.map(jnp.zeros_like, jit(task.init)(jax.random.key(0)))
    batch = jit(task.train_batch)(jax.random.key(1))
    over_steps = jax.vmap(optimizer_training.inner_loss, (None, 0))
    expected = jit(jax.vmap(over_steps))(batch.start, batch.data).mean()
    loss, _ = jit(task.loss)(params, jax.random.key(0), batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_a_linear_optimizer_that_reads_the_gradient_is_normalised_descent():
    """Weights that pass the gradient's feature on, against a loop written out in NumPy terms."""
    task = optimizer_training.OptimizerTask("linear", (), num_inner_steps=5, num_runs=2)
    params = jax.tree.map(jnp.zeros_like, jit(task.init)(jax.random.key(0)))
    params["params"]["Dense_0"]["kernel"] = params["params"]["Dense_0"]["kernel"].at[1].set(0.5)
    batch = jit(task.train_batch)(jax.random.key(1))
    value_and_grad = jit(jax.value_and_grad(optimizer_training.inner_loss))
    losses = []
    for run in range(2):
        vector = batch.start[run]
        for step in range(5):
            examples = jax.tree.map(lambda x, run=run, step=step: x[run, step], batch.data)
            loss, grad = value_and_grad(vector, examples)
            losses.append(loss)
            vector = vector - 0.1 * 0.5 * grad / np.sqrt(np.mean(grad**2) + 1e-8)
    loss, _ = jit(task.loss)(params, jax.random.key(0), batch)
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-4)


def test_the_gradient_is_that_of_finite_differences(task, x64):
    with x64():
        wide = jax.tree.map(
            lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf, task
        )
        params = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, jnp.float64), jit(task.init)(jax.random.key(0))
        )
        batch = jit(wide.train_batch)(jax.random.key(1))
        batch = batch._replace(
            start=batch.start[:1], data=jax.tree.map(lambda x: x[:1, :4], batch.data)
        )

        def height(params):
            return wide.loss(params, None, batch)[0]

        loss = jit(height)
        kernel = np.zeros((8, 1))
        kernel[3] = 1e-6

        def moved(sign):
            copy = jax.tree.map(lambda leaf: leaf, params)
            copy["params"]["Dense_1"]["kernel"] = (
                params["params"]["Dense_1"]["kernel"] + sign * kernel
            )
            return copy

        expected = (loss(moved(1)) - loss(moved(-1))) / 2e-6
        ours = jit(jax.grad(height))(params)["params"]["Dense_1"]["kernel"][3, 0]
        np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_an_inner_training_that_diverges_has_a_bounded_loss(task):
    params = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e20), jit(task.init)(jax.random.key(0)))
    loss, _ = jit(task.loss)(params, jax.random.key(0), task.eval_batch("valid"))
    assert 2.0 < loss <= 10.0
    assert task.normalizer(loss) == 1.5


def test_held_out_trainings_see_their_own_digits_and_starts(task):
    seen = {}
    for split in ("train", "valid", "test"):
        batch = task.eval_batch(split)
        assert batch.data.inputs.shape == (16, 16, 16, 16)
        seen[split] = {row.tobytes() for row in np.asarray(batch.data.inputs).reshape(-1, 16)}
        pool = {row.tobytes() for row in np.asarray(task.splits[split].inputs)}
        assert seen[split] <= pool
    # Averaging to 4x4 makes a few digits of different parts equal.
    assert len(seen["train"] & seen["valid"]) < 0.01 * len(seen["valid"])
    batch = task.train_batch(jax.random.key(0))
    pool = {row.tobytes() for row in np.asarray(task.splits["train"].inputs)}
    assert {row.tobytes() for row in np.asarray(batch.data.inputs).reshape(-1, 16)} <= pool
    starts = np.concatenate([task.eval_batch(s).start for s in ("train", "valid", "test")])
    assert len(np.unique(starts, axis=0)) == 3 * 16


def test_guessing_is_the_reference(task):
    guess = supervised.cross_entropy(jnp.zeros((1, 10)), jnp.zeros(1, int))
    np.testing.assert_allclose(task.normalizer(guess), 1.0, rtol=1e-6)
