"""Members whose gradients are estimated by evolution strategies: see `es_gradient`."""

from typing import final

import flax.struct
import jax

from veldt.tasks import base
from veldt.tasks.augment import family_wrapper
from veldt.tasks.common import types
from veldt.tasks.shipped import es_gradient


@flax.struct.dataclass
class EstimatedConfig:
    """One member and how its gradient is estimated.

    Attributes:
      inner: Configuration of the wrapped family.
      scale: Standard deviation of the perturbations of parameters, float [].
    """

    inner: types.TaskConfig
    scale: types.Scalar


@final
class Estimated(family_wrapper.FamilyWrapper):
    """Members of a family with noisy, nearly unbiased gradients.

    Attributes:
      name: Name in tables and errors.
      family: Wrapped family.
      num_pairs: Number of antithetic pairs per estimate; a step costs twice as many losses.
      scales: Least and greatest `scale`, log-uniform in between; the default is VeLO's.
    """

    def __init__(
        self,
        family: base.TaskFamily,
        num_pairs: int,
        scales: tuple[float, float] = (1e-3, 1e-1),
    ) -> None:
        self.name = f"{family.name}, gradients of {num_pairs} pairs"
        self.family = family
        self.num_pairs = num_pairs
        self.scales = scales

    def sample(self, key: types.Key) -> EstimatedConfig:
        key_inner, key_scale = jax.random.split(key)
        low, high = self.scales
        scale = low * (high / low) ** jax.random.uniform(key_scale)
        return EstimatedConfig(self.family.sample(key_inner), scale)

    def task(self, cfg: EstimatedConfig) -> es_gradient.EsGradientTask:
        task = self.family.task(cfg.inner)
        # The scale may be traced, so it is an array of the task.
        return es_gradient.EsGradientTask(
            self.name, task, num_pairs=self.num_pairs, scale=cfg.scale
        )
