"""Tasks of control: a policy is trained on episodes of an environment of `environments`.

The loss is the share of the possible reward that episodes miss, 0..1, averaged over them. A batch
is the states in which its episodes start; what the policy draws comes from the loss's key. The
three splits are start states drawn once, from keys of their own.

What differs between the tasks is where the gradient comes from, an `Objective`: estimated from the
probability of the actions taken, or passed back through the dynamics.
"""

from typing import Any, Protocol, final

import flax.linen as nn
import jax
import jax.numpy as jnp

from veldt.tasks import base
from veldt.tasks.common import types
from veldt.tasks.shipped import environments, estimated_gradient, image_models

# Shapes: T steps, B episodes, S numbers in a state, O in an observation, A actions.

_NUM_EVAL_EPISODES = 64
_SPLITS: tuple[types.Split, ...] = ("train", "valid", "test")


class Objective(Protocol):
    """A loss over episodes, with its gradient."""

    def __call__(
        self,
        environment: environments.Environment,
        policy: nn.Module,
        params: types.Params,
        key: types.Key,
        start: jax.Array,
    ) -> types.Scalar:
        """Return the loss over episodes from states [B, S], float []. The key is consumed."""
        ...


@final
class ControlTask(base.Task):
    """Train a policy on episodes of one environment.

    Attributes:
      environment: Environment that the policy acts in.
      policy: Module that maps observations [B, O] to logits or controls [B, A].
      objective: Loss and gradient.
      batch_size: Number of episodes of a training batch.
      reference_loss: Loss of a policy that knows nothing, float32, shape [].
    """

    def __init__(
        self,
        name: str,
        environment: environments.Environment,
        policy: nn.Module,
        objective: Objective,
        *,
        batch_size: int,
        reference_loss: float,
    ) -> None:
        self.name = name
        self.environment = environment
        self.policy = policy
        self.objective = objective
        self.batch_size = batch_size
        self.reference_loss = jnp.asarray(reference_loss, jnp.float32)
        keys = jax.random.split(jax.random.key(0), len(_SPLITS))
        self.eval_starts = {
            split: environment.start(key, _NUM_EVAL_EPISODES)
            for split, key in zip(_SPLITS, keys, strict=True)
        }

    def init(self, key: types.Key) -> types.Params:
        """Draw the policy's parameters. The key is consumed."""
        return self.policy.init(key, self.environment.observe(self.eval_starts["train"][:1]))

    def loss(
        self, params: types.Params, key: types.Key, batch: types.Batch
    ) -> tuple[types.Scalar, types.Aux]:
        """Return the objective over episodes from start states [B, S]."""
        return self.objective(self.environment, self.policy, params, key, batch), {}

    def train_batch(self, key: types.Key) -> types.Batch:
        """Draw start states [batch_size, S]. The key is consumed."""
        return self.environment.start(key, self.batch_size)

    def sample(self, key: types.Key) -> types.Selection:
        """Draw the start states themselves, which are few enough to draw for all steps at once."""
        return self.train_batch(key)

    def gather(self, selection: types.Selection) -> types.Batch:
        return selection

    def eval_batch(self, split: types.Split) -> types.Batch:
        """Return the split's start states [64, S]."""
        return self.eval_starts[split]

    def normalizer(self, loss: types.Scalar) -> types.Scalar:
        """Return the loss relative to that of knowing nothing."""
        return base.clip_normalized(loss / self.reference_loss)


def score_function(
    environment: environments.Environment,
    policy: nn.Module,
    params: types.Params,
    key: types.Key,
    start: jax.Array,
) -> types.Scalar:
    """Return the loss of discrete actions; its gradient is REINFORCE's (Williams 1992).

    That is the gradient of the expected loss, estimated without bias: the log-probability of an
    action is weighed by the reward from its step on, less what the batch's other episodes earn on
    average from that step on (so B must be at least 2). It does not pass through the dynamics.
    """
    states, rewards, actions = _play(environment, policy, jax.lax.stop_gradient(params), key, start)
    following = jnp.cumsum(rewards[::-1], axis=0)[::-1]  # [T, B]
    num_others = start.shape[0] - 1
    others = (jnp.sum(following, axis=1, keepdims=True) - following) / num_others
    weight = jnp.where(environment.is_over(states), 0.0, following - others)
    logits: Any = policy.apply(params, _flat(environment.observe(states)))
    is_action = _flat(actions)[:, None] == jnp.arange(environment.num_actions)
    log_probability = jnp.sum(jnp.where(is_action, nn.log_softmax(logits), 0.0), axis=-1)
    expected = -jnp.mean(_flat(weight) * log_probability)
    return estimated_gradient.with_gradient_of(1.0 - jnp.mean(rewards), expected)


def pathwise(
    environment: environments.Environment,
    policy: nn.Module,
    params: types.Params,
    key: types.Key,
    start: jax.Array,
) -> types.Scalar:
    """Return the loss of continuous controls; its gradient passes back through the dynamics.

    Nothing is random, the key is not used.
    """
    del key

    def step(state: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        controls: Any = policy.apply(params, environment.observe(state))
        return environment.step(state, controls)

    _, rewards = jax.lax.scan(step, start, length=environment.num_steps)
    return 1.0 - jnp.mean(rewards)


def cartpole_policy() -> ControlTask:
    """Balance a pole on a cart for 200 steps: policy gradient, 4-32-2 tanh, 8 episodes."""
    return _cartpole("cartpole_policy", environments.CartPole(num_steps=200), (32,), 8)


def cartpole_policy_long() -> ControlTask:
    """Balance a pole on a cart for 500 steps: policy gradient, 4-64-64-2 tanh, 32 episodes."""
    return _cartpole("cartpole_policy_long", environments.CartPole(num_steps=500), (64, 64), 32)


def pendulum_pathwise() -> ControlTask:
    """Swing up a pendulum in 100 steps: gradients through the dynamics, 3-32-1 tanh."""
    return ControlTask(
        "pendulum_pathwise",
        environments.Pendulum(num_steps=100),
        image_models.Mlp((32, 1), nn.tanh),
        pathwise,
        batch_size=16,
        reference_loss=0.481,  # The average over a million starts.
    )


def _cartpole(
    name: str, environment: environments.CartPole, hidden: tuple[int, ...], batch_size: int
) -> ControlTask:
    # Random actions earn 20.1 on average over a million episodes, of 22.3 steps on average.
    return ControlTask(
        name,
        environment,
        image_models.Mlp((*hidden, environment.num_actions), nn.tanh),
        score_function,
        batch_size=batch_size,
        reference_loss=1.0 - 20.1 / environment.num_steps,
    )


def _play(
    environment: environments.Environment,
    policy: nn.Module,
    params: types.Params,
    key: types.Key,
    start: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draw actions from a policy; return states [T, B, S], rewards [T, B], actions int [T, B]."""
    shape = (environment.num_steps, start.shape[0], environment.num_actions)
    noise = jax.random.gumbel(key, shape)  # The largest of logits + noise is a draw.

    def step(
        state: jax.Array, noise: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
        logits: Any = policy.apply(params, environment.observe(state))
        action = jnp.argmax(logits + noise, axis=-1)
        following, reward = environment.step(state, action)
        return following, (state, reward, action)

    _, (states, rewards, actions) = jax.lax.scan(step, start, noise)
    return states, rewards, actions


def _flat(array: jax.Array) -> jax.Array:
    """Join steps and episodes: [T, B, ...] to [T B, ...]."""
    return array.reshape(-1, *array.shape[2:])
