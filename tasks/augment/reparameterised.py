"""Members whose parameters are stretched: what training moves is the weights over a scale.

The model's weights are `scale * params`, so that a parameter's gradient is `scale` times the
weight's, and a step of a given size moves the weight `scale` times as far. VeLO's meta-training
(arXiv 2211.09760, appendix) has this so that a learned optimizer finds its own step size; Celo's
has it alone.
"""

from typing import Literal, TypeAlias, final

import flax.struct
import jax
import jax.numpy as jnp

from veldt.tasks import base, wrapper
from veldt.tasks.augment import family_wrapper as family_wrapper
from veldt.tasks.common import types

Level: TypeAlias = Literal["global", "tensor", "parameter"]
"""Parts that have a scale of their own: all parameters together, each array, or each number."""

SCALE_RANGES = ((1e-3, 1e3), (1e-2, 1e2), (1e-1, 1e1))
"""Ranges of VeLO: a member takes one of them, and its scales are log-uniform within."""


@flax.struct.dataclass
class ReparameterisedConfig:
    """One member and how it is stretched.

    Attributes:
      inner: Configuration of the wrapped family.
      scales: Scales in the shapes of the parameters; scalars for the levels "global" and "tensor".
    """

    inner: types.TaskConfig
    scales: types.Params


@final
class ReparameterisedTask(wrapper.TaskWrapper):
    """The same task, where the model's weights are `scales * params`.

    Attributes:
      task: Wrapped task.
      scales: Scales, a pytree with the structure of the parameters; each broadcasts.
    """

    def __init__(self, name: str, task: base.Task, scales: types.Params) -> None:
        self.name = name
        self.task = task
        self.scales = scales

    def init(self, key: types.Key) -> types.Params:
        """Draw the weights, divided by their scales. The key is consumed."""
        return jax.tree.map(jnp.divide, self.task.init(key), self.scales)

    def loss(
        self, params: types.Params, key: types.Key, batch: types.Batch
    ) -> tuple[types.Scalar, types.Aux]:
        return self.task.loss(jax.tree.map(jnp.multiply, params, self.scales), key, batch)


@final
class Reparameterised(family_wrapper.FamilyWrapper):
    """Members of a family, stretched by random scales.

    Attributes:
      name: Name in tables and errors.
      family: Wrapped family.
      level: Parts that have a scale of their own.
      ranges: Ranges of scales; each member draws one, and its scales log-uniformly within.
    """

    def __init__(
        self,
        family: base.TaskFamily,
        level: Level,
        ranges: tuple[tuple[float, float], ...] = SCALE_RANGES,
    ) -> None:
        self.name = f"{family.name}, stretched by {level}"
        self.family = family
        self.level = level
        self.ranges = ranges

    def sample(self, key: types.Key) -> ReparameterisedConfig:
        key_inner, key_range, key_scales = jax.random.split(key, 3)
        inner = self.family.sample(key_inner)
        index = jax.random.randint(key_range, (), 0, len(self.ranges))
        low, high = jnp.log(jnp.asarray(self.ranges))[index]
        params = jax.eval_shape(lambda key: self.family.task(inner).init(key), key_inner)
        leaves, treedef = jax.tree.flatten(params)

        def draw(index: int, shape: tuple[int, ...]) -> jax.Array:
            share = jax.random.uniform(jax.random.fold_in(key_scales, index), shape)
            return jnp.exp(low + (high - low) * share)

        if self.level == "global":
            scales = [draw(0, ())] * len(leaves)
        elif self.level == "tensor":
            scales = [draw(i, ()) for i in range(len(leaves))]
        else:
            scales = [draw(i, leaf.shape) for i, leaf in enumerate(leaves)]
        return ReparameterisedConfig(inner, jax.tree.unflatten(treedef, scales))

    def task(self, cfg: ReparameterisedConfig) -> ReparameterisedTask:
        return ReparameterisedTask(self.name, self.family.task(cfg.inner), cfg.scales)
