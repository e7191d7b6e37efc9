"""Two small control problems as pure functions: a cart with a pole, and a pendulum to swing up.

The dynamics are those of Gymnasium's CartPole-v1 and Pendulum-v1. Written here in a few lines, so
that nothing needs to be installed: each environment draws start states and steps a batch of them.
"""

import abc
import dataclasses
import math
from typing import final

import jax
import jax.numpy as jnp

from veldt.tasks.common import types

# Shapes: B states at once, S numbers in a state, O numbers in an observation.

_LARGEST_POSITION = 2.4  # Metres; an episode of the cart ends there.
_LARGEST_ANGLE = 12 * math.pi / 180


class Environment(abc.ABC):
    """A control problem without memory outside its state. Subclasses are final and hashable.

    Attributes:
      num_steps: Length of an episode.
      num_actions: Number of discrete actions, or of continuous controls, that a policy names.
    """

    num_steps: int
    num_actions: int

    @abc.abstractmethod
    def start(self, key: types.Key, num_states: int) -> jax.Array:
        """Draw start states, float [B, S]. The key is consumed."""

    @abc.abstractmethod
    def observe(self, state: jax.Array) -> jax.Array:
        """Return the observations of a policy in states [B, S], float [B, O]."""

    @abc.abstractmethod
    def is_over(self, state: jax.Array) -> jax.Array:
        """Return whether an episode has ended in states [B, S], bool [B]."""

    @abc.abstractmethod
    def step(self, state: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the next states [B, S] and the rewards [B], each in 0..1 (1 is best)."""


@final
@dataclasses.dataclass(frozen=True)
class CartPole(Environment):
    """Push a cart left (0) or right (1) so that the pole on it stays up.

    Barto, Sutton and Anderson 1983, with the Euler steps and numbers of Gymnasium's CartPole-v1.
    The state is position (m), velocity, angle (rad, 0 is up), angular velocity. An episode that is
    over stands still and earns nothing.

    Departure: CartPole-v1's reward is 1 while the pole is up, and learners soon earn all of it.
    Here it is 1 less the mean square of position and angle, each relative to its limit, so that
    there is always something to gain.
    """

    num_steps: int = 200
    num_actions: int = 2

    def start(self, key: types.Key, num_states: int) -> jax.Array:
        return jax.random.uniform(key, (num_states, 4), minval=-0.05, maxval=0.05)

    def observe(self, state: jax.Array) -> jax.Array:
        """Return the state, each number divided by about its largest value."""
        return state / jnp.array([_LARGEST_POSITION, 2.0, _LARGEST_ANGLE, 2.0])

    def is_over(self, state: jax.Array) -> jax.Array:
        """Return whether the cart is over 2.4 m or the pole over 12 degrees off."""
        position, angle = state[..., 0], state[..., 2]
        return (jnp.abs(position) > _LARGEST_POSITION) | (jnp.abs(angle) > _LARGEST_ANGLE)

    def step(self, state: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Step states [B, 4] by 0.02 s with actions int [B]."""
        gravity, mass_cart, mass_pole, half_length, time_step = 9.8, 1.0, 0.1, 0.5, 0.02
        position, velocity, angle, spin = jnp.moveaxis(state, -1, 0)
        force = jnp.where(action == 1, 10.0, -10.0)
        mass = mass_cart + mass_pole
        sine, cosine = jnp.sin(angle), jnp.cos(angle)
        push = (force + mass_pole * half_length * spin**2 * sine) / mass
        spin_rate = (gravity * sine - cosine * push) / (
            half_length * (4.0 / 3.0 - mass_pole * cosine**2 / mass)
        )
        acceleration = push - mass_pole * half_length * spin_rate * cosine / mass
        rates = jnp.stack([velocity, acceleration, spin, spin_rate], axis=-1)
        is_over = self.is_over(state)
        distance = (position / _LARGEST_POSITION) ** 2 + (angle / _LARGEST_ANGLE) ** 2
        moved = jnp.where(is_over[..., None], state, state + time_step * rates)
        return moved, jnp.where(is_over, 0.0, 1.0 - 0.5 * distance)


@final
@dataclasses.dataclass(frozen=True)
class Pendulum(Environment):
    """Swing a pendulum up and hold it, with a motor too weak to lift it at once.

    The numbers are those of Gymnasium's Pendulum-v1; the speed is bounded smoothly (by 8 rad/s),
    not clipped, so that gradients pass. The state is angle (rad, 0 is up) and angular velocity.
    The reward is 1 less Pendulum-v1's cost over its largest value.
    """

    num_steps: int = 100
    num_actions: int = 1

    def start(self, key: types.Key, num_states: int) -> jax.Array:
        key_angle, key_spin = jax.random.split(key)
        angle = jax.random.uniform(key_angle, (num_states,), minval=-jnp.pi, maxval=jnp.pi)
        spin = jax.random.uniform(key_spin, (num_states,), minval=-1.0, maxval=1.0)
        return jnp.stack([angle, spin], axis=-1)

    def observe(self, state: jax.Array) -> jax.Array:
        """Return cosine and sine of the angle, and the speed relative to its bound."""
        angle, spin = jnp.moveaxis(state, -1, 0)
        return jnp.stack([jnp.cos(angle), jnp.sin(angle), spin / 8.0], axis=-1)

    def is_over(self, state: jax.Array) -> jax.Array:
        """Return False for every state, bool [B]: an episode never ends early."""
        return jnp.zeros(state.shape[:-1], bool)

    def step(self, state: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Step states [B, 2] by 0.05 s with controls float [B, 1]; the torque is 2 tanh of them."""
        angle, spin = jnp.moveaxis(state, -1, 0)
        torque = 2.0 * jnp.tanh(action[..., 0])
        wrapped = jnp.arctan2(jnp.sin(angle), jnp.cos(angle))
        cost = wrapped**2 + 0.1 * spin**2 + 0.001 * torque**2
        largest_cost = jnp.pi**2 + 0.1 * 8.0**2 + 0.001 * 2.0**2
        spin = spin + 0.05 * (15.0 * jnp.sin(angle) + 3.0 * torque)
        spin = 8.0 * jnp.tanh(spin / 8.0)
        return jnp.stack([angle + 0.05 * spin, spin], axis=-1), 1.0 - cost / largest_cost
