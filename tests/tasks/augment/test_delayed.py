"""Late gradients against a loop by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from veldt.tasks.augment import delayed


def gradient(x):
    return 2.0 * x


@pytest.mark.parametrize("num_steps", [0, 1, 3])
def test_the_gradient_is_that_of_so_many_steps_ago(num_steps):
    tx = delayed.delayed(optax.sgd(0.1, momentum=0.5), num_steps)
    params = jnp.array([1.0, -3.0])
    state = tx.init(params)
    update = jax.jit(tx.update)
    seen = [np.asarray(params, np.float64)]
    velocity = np.zeros(2)
    for step in range(9):
        updates, state = update(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
        velocity = 0.5 * velocity + gradient(seen[max(step - num_steps, 0)])
        seen.append(seen[-1] - 0.1 * velocity)
        np.testing.assert_allclose(params, seen[-1], rtol=1e-5, atol=1e-6)


def test_the_loss_is_not_late():
    losses = []

    def update_fn(updates, state, params=None, *, value, **extra_args):
        losses.append(float(value))
        return updates, state

    reader = optax.GradientTransformationExtraArgs(lambda params: (), update_fn)
    tx = delayed.delayed(reader, 2)
    state = tx.init(jnp.zeros(2))
    for value in (5.0, 4.0, 3.0):
        _, state = tx.update(jnp.ones(2), state, jnp.zeros(2), value=jnp.asarray(value))
    assert losses == [5.0, 4.0, 3.0]


def test_a_negative_delay_is_an_error():
    with pytest.raises(ValueError, match="num_steps=-1"):
        delayed.delayed(optax.sgd(0.1), -1)
