"""What each augmentation does to gradients, against closed forms, and what it leaves alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from veldt.tasks.augment import estimated, low_precision, normalised, reparameterised, smaller_batch
from veldt.tasks.families import models
from veldt.tasks.inner_loop import unroll
from veldt.tasks.shipped import quadratic

BOWLS = quadratic.Quadratics(dim=3, condition_range=(1.0, 10.0), noise_range=(0.01, 0.1))
PERCEPTRONS = models.Structure("perceptron", (4,), "relu", 8, "patterns").family()
KEY = jax.random.key(0)


# Without LLVM's optimisation: what takes the time here is to compile.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
sample = jit(lambda family, key: family.sample(key))
init = jit(lambda task, key: task.init(key))
train_batch = jit(lambda task, key: task.train_batch(key))
eval_batch = jit(lambda task: task.eval_batch("valid"))
loss_of = jit(lambda task, params, key, batch: task.loss(params, key, batch)[0])
grad_of = jit(
    lambda task, params, batch, key=KEY: jax.grad(lambda params: task.loss(params, key, batch)[0])(
        params
    )
)


WRAPPERS = {
    "stretched": lambda family: reparameterised.Reparameterised(family, "tensor"),
    "estimated": lambda family: estimated.Estimated(family, 2),
    "fewer rows": lambda family: smaller_batch.SmallerBatch(family, 3),
    "bfloat16": low_precision.LowPrecision,
    "normalised": normalised.Normalised,
}


@pytest.mark.parametrize("name", sorted(WRAPPERS))
def test_the_reported_loss_is_that_of_the_task_as_it_was(name):
    family = WRAPPERS[name](PERCEPTRONS)
    cfg = sample(family, KEY)
    task = family.task(cfg)
    plain = PERCEPTRONS.task(getattr(cfg, "inner", cfg))
    params = init(task, KEY)
    weights = init(plain, KEY)
    batch = eval_batch(task)
    np.testing.assert_array_equal(batch.inputs, eval_batch(plain).inputs)
    loss, plain_loss = loss_of(task, params, KEY, batch), loss_of(plain, weights, KEY, batch)
    np.testing.assert_allclose(loss, plain_loss, rtol=0.01 if name == "bfloat16" else 1e-4)
    assert task.normalizer(loss) == plain.normalizer(loss)
    assert task.name.startswith(PERCEPTRONS.name + ", ")


def test_descent_on_stretched_parameters_is_descent_with_squared_scales():
    """p = w / s: the weights' step is s^2 times that of plain descent."""
    family = reparameterised.Reparameterised(BOWLS, "parameter", ((0.5, 2.0),))
    cfg = sample(family, jax.random.key(3))
    assert cfg.scales.shape == (3,)
    task, bowl = family.task(cfg), BOWLS.task(cfg.inner)
    tx, scales = optax.sgd(0.1), np.asarray(cfg.scales, np.float64)
    state = jit(lambda task: unroll.unroll(task, tx, unroll.init(task, tx, KEY), num_steps=5)[0])(
        task
    )
    plain = unroll.init(bowl, tx, KEY)
    weights = np.asarray(plain.params, np.float64)
    for step in range(5):
        key_batch, _ = unroll._step_keys(KEY, jnp.asarray(step))
        noise = np.asarray(bowl.train_batch(key_batch))
        weights -= 0.1 * scales**2 * (np.asarray(bowl.hessian) @ (weights - bowl.minimum) + noise)
    np.testing.assert_allclose(state.params * scales, weights, rtol=1e-4)


@pytest.mark.parametrize("level", ["global", "tensor", "parameter"])
def test_scales_are_shared_at_their_level_and_log_uniform_in_their_range(level):
    family = reparameterised.Reparameterised(PERCEPTRONS, level)
    cfgs = jax.jit(jax.vmap(family.sample))(jax.random.split(KEY, 60))
    leaves = jax.tree.leaves(cfgs.scales)
    params = jax.tree.leaves(jax.eval_shape(PERCEPTRONS.task(sample(PERCEPTRONS, KEY)).init, KEY))
    shapes = [leaf.shape[1:] for leaf in leaves]
    assert shapes == [leaf.shape if level == "parameter" else () for leaf in params]
    same = np.allclose(leaves[0].reshape(60, -1)[:, 0], leaves[1].reshape(60, -1)[:, 0])
    assert same == (level == "global")
    logs = np.log10(np.stack([leaf.reshape(60, -1)[:, 0] for leaf in leaves]))
    assert np.abs(logs).max() <= 3.001
    assert np.abs(logs).max() > 1
    # Ranges of 1, 2 and 3 decades each way: variance (1 + 4 + 9) / 9.
    spread = np.sqrt(np.mean(logs**2))
    assert spread == pytest.approx(np.sqrt(14 / 9), rel=0.25)


def test_estimated_gradients_average_to_the_gradient():
    family = estimated.Estimated(BOWLS, 4, scales=(0.01, 0.1))
    cfg = sample(family, KEY)
    assert 0.01 <= cfg.scale <= 0.1
    task, bowl = family.task(cfg), BOWLS.task(cfg.inner)
    params, batch = init(task, KEY), train_batch(task, KEY)
    keys = jax.random.split(jax.random.key(1), 2000)

    def estimate(key):
        return jax.grad(lambda params: task.loss(params, key, batch)[0])(params)

    estimates = jit(jax.vmap(estimate))(keys)
    error = np.std(estimates, axis=0) / np.sqrt(2000)
    assert np.all(np.abs(np.mean(estimates, axis=0) - grad_of(bowl, params, batch)) < 5 * error)
    assert np.all(error > 0)


def test_normalised_gradients_have_norm_one_and_the_direction_of_the_gradient():
    family = normalised.Normalised(PERCEPTRONS)
    cfg = sample(family, KEY)
    task, plain = family.task(cfg), PERCEPTRONS.task(cfg)
    params, batch = init(task, KEY), train_batch(task, KEY)
    grads, expected = grad_of(task, params, batch), grad_of(plain, params, batch)
    assert float(optax.tree.norm(grads)) == pytest.approx(1.0, rel=1e-5)
    scaled = optax.tree.scale(1 / optax.tree.norm(expected), expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), grads, scaled)


def test_a_gradient_of_zero_stays_zero():
    family = normalised.Normalised(BOWLS)
    task = family.task(sample(family, KEY))
    grads = grad_of(task, task.task.minimum, jnp.zeros(3))
    np.testing.assert_array_equal(grads, 0.0)


def test_fewer_rows_are_the_first_of_the_batch():
    family = smaller_batch.SmallerBatch(PERCEPTRONS, 3)
    cfg = sample(family, KEY)
    task, plain = family.task(cfg), PERCEPTRONS.task(cfg)
    few, all_rows = train_batch(task, KEY), train_batch(plain, KEY)
    assert few.inputs.shape == (3, 64)
    np.testing.assert_allclose(few.inputs, all_rows.inputs[:3], rtol=1e-6)
    gathered = jit(lambda task: task.gather(task.sample(KEY)))(task)
    np.testing.assert_array_equal(gathered.targets, few.targets)
    assert len(eval_batch(task).inputs) == PERCEPTRONS.eval_size


@pytest.mark.parametrize(
    "family",
    [
        PERCEPTRONS,
        pytest.param(
            models.Structure("language", (8,), "gelu", 4, "chains", 4).family(),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["images", "text"],
)
def test_bfloat16_is_close_and_leaves_parameters_in_float32(family):
    low = low_precision.LowPrecision(family)
    cfg = sample(low, KEY)
    task, plain = low.task(cfg), family.task(cfg)
    params, batch = init(task, KEY), train_batch(task, KEY)
    grads, expected = (grad_of(each, params, batch) for each in (task, plain))
    for leaf in jax.tree.leaves((params, grads)):
        assert leaf.dtype == jnp.float32
    difference = optax.tree.norm(optax.tree.sub(grads, expected)) / optax.tree.norm(expected)
    assert 1e-4 < difference < 0.05
    # Numbers of 8 bits: rounding again changes nothing.
    for leaf in jax.tree.leaves(grads):
        np.testing.assert_array_equal(leaf, leaf.astype(jnp.bfloat16).astype(jnp.float32))
