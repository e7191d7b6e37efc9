"""Bilevel problems and the seam of the methods that solve them: the abstract `HyperOptimizer`.

A problem has two losses of the same parameters w and hyperparameters λ; wanted are

    λ* = argmin_λ L_V(w*(λ), λ),   where w*(λ) = argmin_w L_T(w, λ).

    problem = Ridge(x_train, y_train, x_valid, y_valid)
    method = hoag.Hoag()
    state = method.init(problem, params, hyper)
    state, metrics = bilevel.run(method, problem, state, key, num_steps=50)
    state.hyper, state.params

The problem is an argument of every step and a pytree, so a new batch is a new problem of the same
structure, `dataclasses.replace(problem, batch=batch)`, and compiles nothing anew.
"""

import abc
import functools
from typing import Any, TypeAlias

import flax.struct
import jax
import optax

from veldt.meta import pytree
from veldt.tasks.common import types

HyperParams: TypeAlias = Any
"""Pytree of float arrays, unconstrained: what enters the training loss and is tuned."""

HyperState: TypeAlias = Any
"""Pytree that a method carries from step to step; it has at least `params` and `hyper`."""


class BilevelProblem(pytree.Pytree, abc.ABC):
    """A training loss and a validation loss of the same parameters.

    Subclasses are final frozen dataclasses.
    """

    @abc.abstractmethod
    def train_loss(self, params: types.Params, hyper: HyperParams) -> types.Scalar:
        """Return L_T, float []: what training minimizes over the parameters."""

    @abc.abstractmethod
    def valid_loss(self, params: types.Params, hyper: HyperParams) -> types.Scalar:
        """Return L_V, float []: what the trained parameters are judged by.

        Most problems ignore `hyper` here; a regularizer does not belong into it.
        """


@flax.struct.dataclass
class BilevelLosses:
    """Losses after a step.

    Attributes:
      train_loss: L_T of the parameters and hyperparameters that the step reached, float [].
      valid_loss: L_V of the same, float [].
    """

    train_loss: types.Scalar
    valid_loss: types.Scalar


class HyperOptimizer(pytree.Pytree, abc.ABC):
    """A way to move parameters and hyperparameters together. Subclasses are final."""

    @abc.abstractmethod
    def init(self, problem: BilevelProblem, params: types.Params, hyper: HyperParams) -> HyperState:
        """Begin at given parameters and hyperparameters."""

    @abc.abstractmethod
    def step(
        self, problem: BilevelProblem, state: HyperState, key: types.Key
    ) -> tuple[HyperState, BilevelLosses]:
        """Move the hyperparameters once, the parameters as often as the method asks for.

        Args:
          problem: The losses, on this step's data.
          state: State from `init` or from an earlier step.
          key: Key of what is random in the method; it is consumed. Most methods ignore it.

        Returns:
          The state to go on from, and what was reached.
        """


@functools.partial(jax.jit, static_argnames="num_steps")
def run(
    method: HyperOptimizer,
    problem: BilevelProblem,
    state: HyperState,
    key: types.Key,
    *,
    num_steps: int,
) -> tuple[HyperState, BilevelLosses]:
    """Do `num_steps` steps on one problem, compiled as one loop.

    Args:
      method: The method.
      problem: The losses.
      state: State from the method's `init` or from an earlier run.
      key: It is consumed.
      num_steps: Number of steps, K, static.

    Returns:
      The last state, and the metrics of each step, leaves [K].
    """

    def body(state: HyperState, key: types.Key) -> tuple[HyperState, BilevelLosses]:
        return method.step(problem, state, key)

    return jax.lax.scan(body, state, jax.random.split(key, num_steps))


def measure(problem: BilevelProblem, params: types.Params, hyper: HyperParams) -> BilevelLosses:
    """Return both losses."""
    return BilevelLosses(
        train_loss=problem.train_loss(params, hyper), valid_loss=problem.valid_loss(params, hyper)
    )


def descend(
    problem: BilevelProblem,
    tx: optax.GradientTransformation,
    params: types.Params,
    opt_state: types.OptState,
    hyper: HyperParams,
    *,
    num_steps: int,
) -> tuple[types.Params, types.OptState]:
    """Train for `num_steps` steps under fixed hyperparameters; returns what moved."""

    def body(
        carry: tuple[types.Params, types.OptState], _: None
    ) -> tuple[tuple[types.Params, types.OptState], None]:
        params, opt_state = carry
        grads = jax.grad(problem.train_loss)(params, hyper)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    carry, _ = jax.lax.scan(body, (params, opt_state), None, length=num_steps)
    return carry
