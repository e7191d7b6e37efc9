"""Forward mode against the plans, in 64 bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.meta.replay import trainings
from veldt.meta.hypergradient import forward_mode
from veldt.meta.replay import backward, plans, storage


def both(run, z, num_steps):
    walked = backward.backward(run, z, plans.square_root(num_steps), storage.DeviceStorage())
    outcome, grad = forward_mode.forward_metagradient(run, z)
    assert outcome == pytest.approx(float(walked.outcome), rel=1e-12)
    assert jax.tree.structure(grad) == jax.tree.structure(z)
    for ours, theirs in zip(jax.tree.leaves(grad), jax.tree.leaves(walked.meta_grad), strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_it_is_the_gradient_by_replay(x64):
    with x64():
        z = jax.tree.map(lambda x: x.astype(jnp.float64), trainings.Map.point())
        both(trainings.Map(15), z, 15)


@pytest.mark.slow
def test_it_is_the_gradient_by_replay_through_adam(x64):
    with x64():
        run = trainings.curve("adam", 12, dtype=jnp.float64, seeds=(0, 3))
        both(run, trainings.meta_params("adam", jnp.float64), 12)
