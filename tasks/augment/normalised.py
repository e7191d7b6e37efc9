"""Members whose gradients all have norm 1, so that they do not show how steep the loss is.

A second derivative through the gradient, as of metagradients, sees it as a constant.
"""

from typing import final

import jax
import optax

from veldt.tasks import base, wrapper
from veldt.tasks.augment import family_wrapper as family_wrapper
from veldt.tasks.common import types
from veldt.tasks.shipped import estimated_gradient

_TINY = 1e-12
"""Gradients of a smaller norm than this stay smaller than 1, and one of zero is zero."""


@final
class NormalisedTask(wrapper.TaskWrapper):
    """The same task; its gradient is divided by its global norm.

    Attributes:
      task: Wrapped task.
    """

    def __init__(self, name: str, task: base.Task) -> None:
        self.name = name
        self.task = task

    def init(self, key: types.Key) -> types.Params:
        return self.task.init(key)

    def loss(
        self, params: types.Params, key: types.Key, batch: types.Batch
    ) -> tuple[types.Scalar, types.Aux]:
        grad_fn = jax.value_and_grad(self.task.loss, has_aux=True)
        (loss, aux), grads = grad_fn(jax.lax.stop_gradient(params), key, batch)
        norm = optax.tree.norm(grads) + _TINY
        slope = optax.tree.vdot(grads, params) / norm
        return estimated_gradient.with_gradient_of(loss, slope), aux


@final
class Normalised(family_wrapper.FamilyWrapper):
    """Members of a family with gradients of norm 1.

    Attributes:
      name: Name in tables and errors.
      family: Wrapped family.
    """

    def __init__(self, family: base.TaskFamily) -> None:
        self.name = f"{family.name}, normalised"
        self.family = family

    def task(self, cfg: types.TaskConfig) -> NormalisedTask:
        return NormalisedTask(self.name, self.family.task(cfg))
