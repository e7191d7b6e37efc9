"""Environments against steps written by hand in NumPy, and physics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from veldt.tasks.shipped import environments


def cart_pole_rates(state, force):
    """Accelerations of cart and pole, from the two linear equations of motion (Florian 2007).

    (M + m) x'' + m l a'' cos a = F + m l a'^2 sin a
    x'' cos a + (4/3) l a'' = g sin a
    """
    _, _, angle, spin = state
    sine, cosine = np.sin(angle), np.cos(angle)
    matrix = np.array([[1.1, 0.1 * 0.5 * cosine], [cosine, 4 / 3 * 0.5]])
    return np.linalg.solve(matrix, [force + 0.1 * 0.5 * spin**2 * sine, 9.8 * sine])


def test_the_cart_follows_its_equations_of_motion():
    environment = environments.CartPole()
    rng = np.random.default_rng(0)
    states = rng.uniform(-1, 1, (20, 4)) * [2.4, 2.0, 0.2, 2.0]
    actions = rng.integers(0, 2, 20)
    following, rewards = environment.step(jnp.asarray(states), jnp.asarray(actions))
    for state, action, after, reward in zip(states, actions, following, rewards, strict=True):
        acceleration, spin_rate = cart_pole_rates(state, 10.0 if action else -10.0)
        rates = np.array([state[1], acceleration, state[3], spin_rate])
        np.testing.assert_allclose(after, state + 0.02 * rates, rtol=1e-4, atol=1e-5)
        limits = (state[0] / 2.4) ** 2 + (state[2] / np.radians(12)) ** 2
        np.testing.assert_allclose(reward, 1 - limits / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "state", [[2.5, 0, 0, 1], [-2.5, 0, 0, 1], [0, 1, 0.22, 1], [0, 1, -0.22, 1]]
)
def test_an_episode_that_is_over_stands_still_and_earns_nothing(state):
    environment = environments.CartPole()
    state = jnp.asarray([state], jnp.float32)
    assert environment.is_over(state)[0]
    following, reward = environment.step(state, jnp.array([1]))
    np.testing.assert_array_equal(following, state)
    assert reward[0] == 0.0
    assert not environment.is_over(0.9 * state)[0]


def test_random_pushes_last_as_long_as_they_are_known_to():
    """About 22 steps, as reported for Gymnasium's CartPole-v1; and the reference loss's 20.1."""
    environment = environments.CartPole()

    def step(carry, key):
        state, length, earned = carry
        action = jax.random.bernoulli(key, shape=state.shape[:1]).astype(int)
        following, reward = environment.step(state, action)
        return (following, length + ~environment.is_over(state), earned + reward), None

    start = environment.start(jax.random.key(0), 4000)
    carry = (start, jnp.zeros(4000), jnp.zeros(4000))
    keys = jax.random.split(jax.random.key(1), environment.num_steps)
    _, length, earned = jax.jit(lambda: jax.lax.scan(step, carry, keys)[0])()
    np.testing.assert_allclose(length.mean(), 22.3, atol=0.6)
    np.testing.assert_allclose(earned.mean(), 20.1, atol=0.6)


def test_the_pendulum_steps_as_published_while_slow():
    """Pendulum-v1: w' = w + (3g/2l sin a + 3/(m l^2) u) dt, then a' = a + w' dt."""
    environment = environments.Pendulum()
    rng = np.random.default_rng(0)
    states = rng.uniform(-1, 1, (20, 2)) * [6.0, 0.5]
    controls = rng.uniform(-2, 2, (20, 1))
    following, rewards = environment.step(jnp.asarray(states), jnp.asarray(controls))
    angle, spin, torque = states[:, 0], states[:, 1], 2 * np.tanh(controls[:, 0])
    spin_after = spin + (3 * 10 / 2 * np.sin(angle) + 3 * torque) * 0.05
    np.testing.assert_allclose(following[:, 1], spin_after, rtol=0.01)  # the bound of 8 is smooth
    np.testing.assert_allclose(following[:, 0], angle + 0.05 * following[:, 1], rtol=1e-5)
    wrapped = (angle + np.pi) % (2 * np.pi) - np.pi
    cost = wrapped**2 + 0.1 * spin**2 + 0.001 * torque**2
    np.testing.assert_allclose(rewards, 1 - cost / 16.2736044, rtol=1e-4)


def test_an_undriven_pendulum_that_stands_still_stays():
    environment = environments.Pendulum()
    for angle in (0.0, np.pi):
        state = jnp.array([[angle, 0.0]])
        following, reward = environment.step(state, jnp.zeros((1, 1)))
        np.testing.assert_allclose(following, state, atol=1e-6)
        np.testing.assert_allclose(reward, 1 - angle**2 / 16.2736, rtol=1e-3)
    assert not environment.is_over(state).any()


@pytest.mark.parametrize("environment", [environments.CartPole(), environments.Pendulum()])
def test_starts_are_drawn_anew_and_observed(environment):
    first, again, other = (environment.start(jax.random.key(i), 500) for i in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(np.concatenate([first, other]), axis=0)) == 1000
    assert not environment.is_over(first).any()
    observed = environment.observe(first)
    assert observed.shape[0] == 500
    assert (np.abs(observed) <= 1).all()
