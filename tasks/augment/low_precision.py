"""Members whose models are run in bfloat16, as in mixed-precision training.

Parameters stay float32, and so does what the optimizer keeps. The loss is that of the parameters
rounded to bfloat16, in float32 again, and the gradient arrives rounded to bfloat16, in float32. In
between a model computes as its layers promote: the language models in bfloat16; the image models,
which turn pixels into float32 first, in float32 on rounded weights.
"""

from typing import final

import jax
import jax.numpy as jnp

from veldt.tasks import base, wrapper
from veldt.tasks.augment import family_wrapper as family_wrapper
from veldt.tasks.common import types


@final
class LowPrecisionTask(wrapper.TaskWrapper):
    """The same task in bfloat16, with float32 parameters.

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
        # The derivative of a cast is a cast: gradients leave the model in bfloat16.
        loss, aux = self.task.loss(jax.tree.map(_rounded, params), key, batch)
        return loss.astype(jnp.float32), aux


@final
class LowPrecision(family_wrapper.FamilyWrapper):
    """Members of a family in bfloat16.

    Attributes:
      name: Name in tables and errors.
      family: Wrapped family.
    """

    def __init__(self, family: base.TaskFamily) -> None:
        self.name = f"{family.name}, bfloat16"
        self.family = family

    def task(self, cfg: types.TaskConfig) -> LowPrecisionTask:
        return LowPrecisionTask(self.name, self.family.task(cfg))


def _rounded(array: jax.Array) -> jax.Array:
    """Return a float array in bfloat16, and others as they are."""
    return array.astype(jnp.bfloat16) if jnp.issubdtype(array.dtype, jnp.floating) else array
