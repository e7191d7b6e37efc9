"""Learning to do what another optimizer does: a warm start for meta-training.

An evolution strategy spends thousands of updates on finding that a step should go downhill. Any
Optax transform knows that: a learned optimizer first imitates one (Adam, a rule that a search
found, a tuned schedule) along its training runs, by exact gradients, and meta-training goes on
from there. Li and Malik 2017 (arXiv 1606.01885) use guided policy search to the same end.

Here it is an inner problem like any other: the runs are the expert's, the learned optimizer is
shown the same gradients and parameters, and the loss of a step is how far its update is from the
expert's. Runs do not depend on the meta-parameters, so there is no chaos to fear, and truncated
backpropagation is exact but for what a recurrent part remembers from before the window.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, final

import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt.base import MetaParams
from veldt.meta import pytree
from veldt.meta.problems import inner_problem, task_problem
from veldt.tasks import base
from veldt.tasks.common import types
from veldt.tasks.inner_loop import unroll

MakeExpert: TypeAlias = Callable[[types.Scalar], optax.GradientTransformation]
"""`num_steps -> transform`; `num_steps` is int32 [] and traced."""


class ShadowState(NamedTuple):
    """State of `shadow`."""

    expert: types.OptState
    student: types.OptState
    distance: jax.Array  # float []; of the last updates


def shadow(
    expert: optax.GradientTransformation, student: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """Train with `expert` and let `student` follow; the state says how far its update was off."""
    expert = optax.with_extra_args_support(expert)
    student = optax.with_extra_args_support(student)

    def init_fn(params: types.Params) -> ShadowState:
        return ShadowState(expert.init(params), student.init(params), jnp.zeros(()))

    def update_fn(
        updates: types.Grads,
        state: ShadowState,
        params: types.Params | None = None,
        **extra_args: Any,
    ) -> tuple[types.Grads, ShadowState]:
        right, state_expert = expert.update(updates, state.expert, params, **extra_args)
        # Computed again on the way back: storing all values of an update for every step of a window
        # takes a fifth longer to compile.
        follow = jax.checkpoint(lambda *args: student.update(*args, **extra_args))
        tried, state_student = follow(updates, state.student, params)
        return right, ShadowState(state_expert, state_student, distance(tried, right))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def distance(tried: types.Grads, right: types.Grads) -> types.Scalar:
    """Return the mean over tensors of log(1 + |tried - right|^2 / |right|^2), float [].

    The logarithm, for an untrained optimizer's step may be off by orders of magnitude. A tensor
    that the expert leaves alone counts as 0.
    """

    def of_tensor(tried: jax.Array, right: jax.Array) -> jax.Array:
        size = jnp.sum(jnp.square(right))
        error = jnp.sum(jnp.square(tried - right)) / jnp.where(size > 0, size, 1.0)
        return jnp.where(size > 0, jnp.log1p(error), 0.0)

    tensors = jax.tree.leaves(jax.tree.map(of_tensor, tried, right))
    return jnp.mean(jnp.stack(tensors))


@final
@dataclasses.dataclass(frozen=True)
class ImitationProblem(inner_problem.InnerProblem):
    """Follow an expert's training runs.

    Where a family's gradients come late (`veldt.tasks.augment.delayed`), they do for both.

    Attributes:
      problem: The tasks, and the transform of the meta-parameters that is to learn.
      make_expert: Function that makes the transform that is imitated.
    """

    problem: task_problem.TaskProblem
    make_expert: MakeExpert = dataclasses.field(metadata=pytree.STATIC)

    @property
    def lengths(self) -> tuple[int, int]:  # type: ignore[override]
        return self.problem.lengths

    def draw_config(self, key: types.Key) -> inner_problem.Config:
        return self.problem.draw_config(key)

    def instance(self, config: inner_problem.Config) -> base.Task:
        return self.problem.instance(config)

    def init(
        self, meta_params: MetaParams, instance: base.Task, key: types.Key, length: types.Scalar
    ) -> unroll.UnrollState:
        return unroll.init(instance, self._shadow(meta_params, length), key)

    def step(
        self,
        meta_params: MetaParams,
        instance: base.Task,
        state: unroll.UnrollState,
        length: types.Scalar,
    ) -> tuple[unroll.UnrollState, types.Scalar]:
        state, _ = unroll.step_fn(instance, self._shadow(meta_params, length), state)
        return state, state.opt_state.distance

    def final_loss(
        self,
        meta_params: MetaParams,
        instance: base.Task,
        state: unroll.UnrollState,
        key: types.Key,
    ) -> types.Scalar:
        """Return how far off the last update was; there is no fresh data to judge it on."""
        del meta_params, instance, key
        return state.opt_state.distance

    def _shadow(
        self, meta_params: MetaParams, length: types.Scalar
    ) -> optax.GradientTransformationExtraArgs:
        expert = self.problem.tasks.wrap(self.make_expert(length))
        return shadow(expert, self.problem.transform(meta_params, length))
