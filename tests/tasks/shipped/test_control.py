"""Control tasks: policy gradients against closed forms, and start states that are apart."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from veldt.tasks import registry
from veldt.tasks.shipped import control, environments

# Without LLVM's optimisation: half the time to compile, and nothing here runs long.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@dataclasses.dataclass(frozen=True)
class Bandit(environments.Environment):
    """Two arms: arm 1 earns 1, arm 0 nothing. The state counts the steps."""

    num_steps: int = 1
    num_actions: int = 2

    def start(self, key, num_states):
        return jnp.zeros((num_states, 1))

    def observe(self, state):
        return jnp.ones_like(state)

    def is_over(self, state):
        return state[..., 0] >= self.num_steps

    def step(self, state, action):
        return state + 1, action.astype(float)


class Tilt(nn.Module):
    """Logits (0, theta): arm 1 with probability sigmoid(theta)."""

    @nn.compact
    def __call__(self, observations):
        theta = self.param("theta", nn.initializers.zeros, ())
        return jnp.stack([jnp.zeros_like(observations[..., 0]), theta * observations[..., 0]], -1)


@pytest.mark.parametrize("num_steps", [1, 3])
@pytest.mark.parametrize("theta", [-1.0, 0.5])
def test_the_score_function_estimates_a_bandits_gradient(num_steps, theta):
    """The expected loss is 1 - p with p = sigmoid(theta), its derivative -p (1 - p)."""
    task = control.ControlTask(
        "bandit",
        Bandit(num_steps),
        Tilt(),
        control.score_function,
        batch_size=4,
        reference_loss=0.5,
    )
    params = {"params": {"theta": jnp.float32(theta)}}
    batch = task.train_batch(jax.random.key(0))

    def loss(params, key):
        return task.loss(params, key, batch)[0]

    keys = jax.random.split(jax.random.key(1), 4000)
    losses, grads = jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))(params, keys)
    grads = np.asarray(grads["params"]["theta"])
    p = 1 / (1 + np.exp(-theta))
    for samples, expected in ((np.asarray(losses), 1 - p), (grads, -p * (1 - p))):
        error = samples.std() / np.sqrt(len(samples))
        assert abs(samples.mean() - expected) < 4 * error
        assert error < 0.02


def test_actions_after_the_end_do_not_matter():
    """Every step but the first is over: the gradient is that of one step, over the length."""

    @dataclasses.dataclass(frozen=True)
    class OneShot(Bandit.__mro__[1]):
        num_steps: int = 4
        num_actions: int = 2
        start = Bandit.start
        observe = Bandit.observe

        def is_over(self, state):
            return state[..., 0] >= 1

        def step(self, state, action):
            return state + 1, jnp.where(self.is_over(state), 0.0, action.astype(float))

    params = {"params": {"theta": jnp.float32(0.0)}}

    def grad(environment, key):
        def loss(params):
            start = environment.start(key, 4)
            return control.score_function(environment, Tilt(), params, key, start)

        return jax.grad(loss)(params)["params"]["theta"]

    keys = jax.random.split(jax.random.key(0), 4000)
    grads = np.asarray(jit(jax.vmap(lambda key: grad(OneShot(), key)))(keys))
    assert abs(grads.mean() + 0.25 / 4) < 4 * grads.std() / np.sqrt(len(grads))


@pytest.mark.slow
def test_the_pathwise_gradient_is_that_of_finite_differences(x64):
    with x64():
        task = registry.TASKS["pendulum_pathwise"]()
        params = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, jnp.float64), jit(task.init)(jax.random.key(0))
        )
        batch = jnp.asarray([[0.5, 0.1]], jnp.float64)
        loss = jit(lambda params: task.loss(params, None, batch)[0])
        slope = jit(jax.grad(lambda params: task.loss(params, None, batch)[0]))(params)
        direction = jax.tree.map(
            lambda leaf: jnp.sin(jnp.arange(leaf.size)).reshape(leaf.shape), params
        )

        def moved(size):
            return jax.tree.map(lambda a, b: a + size * b, params, direction)

        expected = (loss(moved(1e-6)) - loss(moved(-1e-6))) / 2e-6
        ours = sum(
            jnp.sum(a * b)
            for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(direction), strict=True)
        )
        np.testing.assert_allclose(ours, expected, rtol=1e-3)


def test_doing_nothing_is_the_pendulums_reference():
    task = registry.load_task("pendulum_pathwise")
    params = jax.tree.map(jnp.zeros_like, jit(task.init)(jax.random.key(0)))
    starts = task.environment.start(jax.random.key(1), 2000)
    loss = jit(lambda: task.loss(params, None, starts)[0])()
    np.testing.assert_allclose(task.normalizer(loss), 1.0, atol=0.04)


def test_acting_at_random_is_the_carts_reference():
    task = registry.load_task("cartpole_policy")
    params = jax.tree.map(jnp.zeros_like, jit(task.init)(jax.random.key(0)))
    starts = task.environment.start(jax.random.key(1), 1000)
    loss = jit(lambda: task.loss(params, jax.random.key(2), starts)[0])()
    np.testing.assert_allclose(task.normalizer(loss), 1.0, atol=0.01)


def test_evaluation_starts_are_fixed_and_apart():
    task, again = (registry.load_task("cartpole_policy") for _ in range(2))
    parts = {split: np.asarray(task.eval_batch(split)) for split in ("train", "valid", "test")}
    for split, part in parts.items():
        np.testing.assert_array_equal(part, again.eval_batch(split))
    everything = np.concatenate([*parts.values(), task.train_batch(jax.random.key(0))])
    assert len(np.unique(everything, axis=0)) == len(everything) == 3 * 64 + task.batch_size
