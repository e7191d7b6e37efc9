import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from veldt.meta.baselines import forward_sharing
from veldt.tasks import base
from veldt.tasks.inner_loop import unroll

STEPS = 12


class Curve(base.Task):
    """Fit a smooth curve with a small tanh network, on random batches."""

    name = "curve"

    def __init__(self):
        self.x = jnp.linspace(-1.0, 1.0, 32)

    def init(self, key):
        key_in, key_out = jax.random.split(key)
        return {
            "in": jax.random.normal(key_in, (5,)),
            "out": jax.random.normal(key_out, (5,)) / 5,
            "bias": jnp.zeros(5),
        }

    def loss(self, params, key, batch):
        hidden = jnp.tanh(batch[:, None] * params["in"] + params["bias"])
        return jnp.mean((hidden @ params["out"] - jnp.sin(3 * batch)) ** 2), {}

    def train_batch(self, key):
        return jax.random.uniform(key, (8,), minval=-1.0, maxval=1.0)

    def eval_batch(self, split):
        return self.x

    def normalizer(self, loss):
        return base.clip_normalized(loss)


def momentum(hyper):
    return optax.sgd(hyper["rate"], hyper["momentum"])


def adam(hyper):
    return optax.chain(
        optax.scale_by_adam(b1=hyper["momentum"], eps_root=1e-8),
        optax.scale_by_learning_rate(hyper["rate"]),
    )


VALUES = {"rate": jnp.asarray([0.1, 0.05, 0.02]), "momentum": jnp.asarray([0.5, 0.8])}


@pytest.mark.parametrize("make_tx", [momentum, adam])
def test_the_gradient_is_that_of_reverse_mode(make_tx, x64):
    with x64():
        task, key = Curve(), jax.random.key(0)
        values = jax.tree.map(lambda x: x.astype(jnp.float64), VALUES)

        def trained(values):
            def hyper_at(step):
                # Written out: 12 steps are 3 times 4, and 2 times 6.
                return {
                    "rate": values["rate"][step // 4],
                    "momentum": values["momentum"][step // 6],
                }

            def body(state, step):
                return unroll.step_fn(task, make_tx(hyper_at(step)), state)

            first = unroll.init(task, make_tx(hyper_at(0)), key)
            state, _ = jax.lax.scan(body, first, jnp.arange(STEPS))
            return unroll.evaluate(task, state.params, key, "valid")

        loss, found = jax.jit(
            lambda values: forward_sharing.forward_gradient(
                task, make_tx, values, key, num_steps=STEPS
            )
        )(values)
        expected_loss, expected = jax.jit(jax.value_and_grad(trained))(values)
        np.testing.assert_allclose(loss, expected_loss, rtol=1e-10)
        for name in values:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-8)


@pytest.mark.slow
def test_a_shared_value_has_the_sum_of_its_steps_gradients():
    task, key = Curve(), jax.random.key(1)

    def gradient(rates):
        return forward_sharing.forward_gradient(task, optax.sgd, rates, key, num_steps=STEPS)[1]

    shared = jax.jit(gradient)(jnp.full(3, 0.05))
    single = jax.jit(gradient)(jnp.full(12, 0.05))
    np.testing.assert_allclose(shared, single.reshape(3, 4).sum(axis=1), rtol=1e-3)


def test_tangents_are_clipped():
    task, key = Curve(), jax.random.key(1)
    rates = jnp.full(1, 0.05)
    _, free = forward_sharing.forward_gradient(task, optax.sgd, rates, key, num_steps=4)
    _, clipped = forward_sharing.forward_gradient(
        task, optax.sgd, rates, key, num_steps=4, max_tangent=1e-3
    )
    size = sum(x.size for x in jax.tree.leaves(task.init(key)))
    assert abs(float(clipped[0])) < 1e-3 * size * 10
    assert abs(float(clipped[0])) < 0.1 * abs(float(free[0]))


@pytest.mark.parametrize(
    ("value", "grad", "change"),
    [
        (1.0, 50.0, -0.1),
        (1.0, -50.0, 0.1),
        (-2.0, 50.0, -0.2),
        (0.0, -50.0, 0.01),
        (1.0, 0.3, -0.03),
    ],
)
def test_a_step_changes_a_value_by_a_tenth_at_most(value, grad, change):
    tx = forward_sharing.bounded_descent(min_change=0.01)
    values = jnp.asarray([value])
    updates, _ = tx.update(jnp.asarray([grad]), tx.init(values), values)
    assert float(updates[0]) == pytest.approx(change, rel=1e-5)


def test_nan_counts_as_zero_and_momentum_is_kept():
    tx = forward_sharing.bounded_descent(min_change=0.01)
    values = jnp.ones(2)
    updates, state = tx.update(jnp.asarray([jnp.nan, 0.5]), tx.init(values), values)
    np.testing.assert_allclose(updates, [0.0, -0.05], rtol=1e-5)
    updates, _ = tx.update(jnp.zeros(2), state, values)
    np.testing.assert_allclose(updates, [0.0, -0.005], rtol=1e-5)


@pytest.mark.slow
def test_from_zero_it_learns_a_schedule_that_trains():
    task, key = Curve(), jax.random.key(2)
    tx = forward_sharing.bounded_descent(min_change=0.02)
    step = jax.jit(
        lambda rates: forward_sharing.forward_gradient(task, optax.sgd, rates, key, num_steps=40)
    )
    rates = jnp.zeros(4)
    state = tx.init(rates)
    losses = []
    for _ in range(25):
        loss, grads = step(rates)
        updates, state = tx.update(grads, state, rates)
        rates = optax.apply_updates(rates, updates)
        losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0]
    assert np.all(rates > 0)
