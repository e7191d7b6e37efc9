"""Inner problems small enough for closed forms, and compiled ways to run estimators on them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from veldt.meta import pytree
from veldt.meta.problems import inner_problem

# Shapes: D dimension of a state, R replicates, W windows.


@dataclasses.dataclass(frozen=True)
class System(inner_problem.InnerProblem):
    """s <- (A + theta B) s + theta v from a given start, loss (s_0 - target)^2 / 2 before a step.

    All runs have one length; nothing is random.
    """

    a: jax.Array
    b: jax.Array
    v: jax.Array
    start: jax.Array
    target: jax.Array
    length: int = dataclasses.field(metadata=pytree.STATIC)

    @property
    def lengths(self):
        return self.length, self.length

    def draw_config(self, key):
        return ()

    def instance(self, config):
        return ()

    def init(self, meta_params, instance, key, length):
        return self.start

    def step(self, meta_params, instance, state, length):
        loss = self.final_loss(meta_params, instance, state, None)
        state = self.a @ state + meta_params * (self.b @ state + self.v)
        return state, loss

    def final_loss(self, meta_params, instance, state, key):
        return 0.5 * (state[0] - self.target) ** 2

    def true_gradient(self, theta, window=None):
        """Of the mean loss of a run, by forward sensitivities in float64.

        With a window, of what truncation leaves of it: sensitivities start at zero in each.
        """
        a, b, v, state = (np.asarray(x, np.float64) for x in (self.a, self.b, self.v, self.start))
        slope, total = np.zeros_like(state), 0.0
        for t in range(self.length):
            if window is not None and t % window == 0:
                slope = np.zeros_like(state)
            total += (state[0] - float(self.target)) * slope[0]
            slope = (a + theta * b) @ slope + b @ state + v
            state = (a + theta * b) @ state + theta * v
        return total / self.length


DIM = 23


def descent(h=0.02, length=100):
    """x <- (1 - theta h) x from sqrt(h), loss x^2 / 2: gradient descent on h x^2 / 2 at rate theta.

    In the other dimensions nothing happens.
    """
    one = jnp.zeros(DIM).at[0].set(1.0)
    return System(
        a=jnp.diag(one),
        b=-h * jnp.diag(one),
        v=jnp.zeros(DIM),
        start=np.float32(np.sqrt(h)) * one,
        target=jnp.zeros(()),
        length=length,
    )


def influence_balancing(length=100):
    """Influence balancing (Tallec and Ollivier 2017, arXiv 1702.05043; PES paper, section 5).

    A chain of 23 states, A 0.5 on the diagonal and above it, v 10 times +1 then 13 times -1. In the
    short run theta raises s_0, in the long run it lowers it, towards 2 theta (10 - 13).
    """
    return System(
        a=0.5 * jnp.eye(DIM) + 0.5 * jnp.eye(DIM, k=1),
        b=jnp.zeros((DIM, DIM)),
        v=jnp.where(jnp.arange(DIM) < 10, jnp.ones(DIM), -1.0),
        start=jnp.ones(DIM),
        target=jnp.ones(()),
        length=length,
    )


@dataclasses.dataclass(frozen=True)
class Leaky(inner_problem.InnerProblem):
    """x <- x / 2 + a . gain + noise, loss (x - b)^2; meta-parameters are a [3] and b.

    Everything is random: lengths 4 to 9, the gain of each run, its start, the noise of each step.
    The loss at step `nan_at` of every run is not a number.
    """

    nan_at: int = -1

    @property
    def lengths(self):
        return 4, 9

    def draw_length(self, key):
        return 4 + jnp.floor(6 * jax.random.uniform(key)).astype(jnp.int32)

    def draw_config(self, key):
        return jax.random.normal(key, (3,))

    def instance(self, config):
        return {"gain": 2.0 * config}

    def init(self, meta_params, instance, key, length):
        noise = jax.random.normal(key, (10,))
        return {"x": noise[9] + meta_params["b"], "t": jnp.zeros((), jnp.int32), "noise": noise}

    def step(self, meta_params, instance, state, length):
        x, t, noise = state["x"], state["t"], state["noise"]
        loss = (x - meta_params["b"]) ** 2 + 0.1 * t / length
        x = 0.5 * x + jnp.sum(meta_params["a"] * instance["gain"]) + noise[t]
        return {"x": x, "t": t + 1, "noise": noise}, jnp.where(t == self.nan_at, jnp.nan, loss)

    def final_loss(self, meta_params, instance, state, key):
        return jnp.abs(state["x"] - meta_params["b"]) + 0.01 * state["t"]


LEAKY_META_PARAMS = {"a": np.array([0.3, -0.2, 0.1], np.float32), "b": np.float32(0.4)}


# These programs run for milliseconds and take seconds to compile; without LLVM's optimization it is
# a third of that.
QUICK = {"xla_backend_optimization_level": 0}


@functools.partial(jax.jit, compiler_options=QUICK)
def init(estimator, meta_params, key):
    return estimator.init(meta_params, key)


@functools.partial(jax.jit, compiler_options=QUICK)
def estimate(estimator, meta_params, state, key):
    return estimator.estimate(meta_params, state, key)


@functools.partial(jax.jit, static_argnames="num_windows", compiler_options=QUICK)
def replicates(estimator, meta_params, keys, num_windows):
    """Start R times and estimate W times in a row each: estimates, leaves [R, W, ...]."""

    def one(key):
        key_init, key_estimates = jax.random.split(key)

        def body(state, key):
            meta_grad, state, _ = estimator.estimate(meta_params, state, key)
            return state, meta_grad

        state = estimator.init(meta_params, key_init)
        return jax.lax.scan(body, state, jax.random.split(key_estimates, num_windows))[1]

    return jax.vmap(one)(keys)
