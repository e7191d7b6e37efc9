"""Forward over reverse gives the derivatives that reverse over reverse gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.meta.replay import trainings
from veldt.meta.replay import mixed_mode
from veldt.tasks import base
from veldt.tasks.inner_loop import unroll


class Ridge(base.Task):
    """A curve whose loss has a penalty, which is a leaf: a meta-parameter may enter there."""

    name = "ridge"

    def __init__(self, penalty):
        self.curve = trainings.Curve(penalty.dtype)
        self.penalty = penalty

    def init(self, key):
        return self.curve.init(key)

    def loss(self, params, key, batch):
        loss, aux = self.curve.loss(params, key, batch)
        return loss + self.penalty**2 * jnp.sum(params["in"] ** 2), {"loss": loss, **aux}

    def train_batch(self, key):
        return self.curve.train_batch(key)

    def eval_batch(self, split):
        return self.curve.eval_batch(split)

    def normalizer(self, loss):
        return loss


def outcome(z, keys, *, mixed):
    task = Ridge(z["penalty"])
    task = mixed_mode.MixedModeTask(task) if mixed else task
    tx = trainings.TRANSFORMS["momentum"](z)

    def one(key):
        state, losses = unroll.unroll(task, tx, unroll.init(task, tx, key), num_steps=5)
        return unroll.evaluate(task, state.params, key, "valid") + losses[-1]

    return jnp.mean(jax.vmap(one)(keys))


@pytest.mark.slow
def test_metagradients_through_it_are_the_same_in_64_bits(x64):
    with x64():
        z = {**trainings.meta_params("momentum", jnp.float64), "penalty": jnp.asarray(0.3)}
        keys = jax.random.split(jax.random.key(0), 2)
        grads = [
            jax.jit(jax.value_and_grad(lambda z, mixed=mixed: outcome(z, keys, mixed=mixed)))(z)
            for mixed in (False, True)
        ]
    for ours, theirs in zip(
        *(map(np.asarray, jax.tree.leaves(each)) for each in grads), strict=True
    ):
        assert theirs != 0
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_it_is_the_same_task():
    task = Ridge(jnp.asarray(0.3))
    mixed = base.check_task(mixed_mode.MixedModeTask(task))
    key = jax.random.key(1)
    params, batch = task.init(key), task.train_batch(key)
    assert mixed.loss(params, key, batch)[0] == task.loss(params, key, batch)[0]
    assert set(mixed.loss(params, key, batch)[1]) == {"loss"}
