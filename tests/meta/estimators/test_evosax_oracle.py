"""PES and NRES in lock-step against evosax's PersistentES and NoiseReuseES, given the same noise.

evosax's have one step counter for all particles and leave inner states to the caller. Here they are
told the losses that a plain loop finds at the perturbed meta-parameters; with gradient descent at
rate 1 as their optimizer, the mean moves by the gradient.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from evosax import algorithms

from tests.meta import inner_problems
from veldt.meta.estimators import antithetic, truncated_es

LENGTH, WINDOW, NUM_PARTICLES, SIGMA = 12, 4, 3, 0.1
THETA = jnp.linspace(0.2, 0.8, inner_problems.DIM)


def window_losses(system, population, states):
    """Advance the states [2 P, D] by one window; returns them and the mean losses [2 P]."""
    losses = []
    for _ in range(WINDOW):
        losses.append(0.5 * (states[:, 0] - system.target) ** 2)
        pushed = states @ system.b.T + system.v
        states = states @ system.a.T + population * pushed
    return states, jnp.mean(jnp.stack(losses), axis=0)


@pytest.mark.parametrize(
    ("cls", "oracle", "field"),
    [
        (truncated_es.PES, algorithms.PersistentES, "pert_accum"),
        (truncated_es.NRES, algorithms.NoiseReuseES, "pert"),
    ],
)
def test_lock_step_estimates_equal_evosaxs(cls, oracle, field):
    system = inner_problems.influence_balancing(length=LENGTH)
    system = dataclasses.replace(system, b=0.01 * jnp.ones_like(system.b))
    noise = antithetic.Antithetic(sigma=SIGMA)
    estimator = cls(system, NUM_PARTICLES, WINDOW, noise=noise, unlocked=False)
    key_init, *keys = jax.random.split(jax.random.key(7), 8)
    state = inner_problems.init(estimator, THETA, key_init)
    theirs = oracle(2 * NUM_PARTICLES, THETA, optax.sgd(1.0), optax.constant_schedule(SIGMA))
    params = theirs.default_params.replace(T=LENGTH, K=WINDOW)
    their_state = theirs.init(key_init, THETA, params)
    first = state.noise  # NRES draws the noise of first runs when it begins.
    for index, key in enumerate(keys):
        drawn = noise.sample(jax.random.split(key)[0], THETA, NUM_PARTICLES)
        begins = index % (LENGTH // WINDOW) == 0
        if begins:
            states = jnp.tile(system.start, (2 * NUM_PARTICLES, 1))
        if cls is truncated_es.PES:
            used = drawn
            held = getattr(their_state, field) + jnp.concatenate([used, -used])
        else:
            if begins:
                reused = first if index == 0 else drawn
            used = reused
            held = jnp.concatenate([used, -used])
        population = THETA + jnp.concatenate([used, -used])
        states, losses = window_losses(system, population, states)
        told, _ = theirs.tell(key, population, losses, their_state.replace(**{field: held}), params)
        their_state = told.replace(mean=THETA)
        estimate, state, _ = inner_problems.estimate(estimator, THETA, state, key)
        np.testing.assert_allclose(estimate, THETA - told.mean, rtol=1e-3, atol=1e-4)
        assert np.abs(estimate).max() > 0.01
