"""The augmentations of a family: odds and draw."""

import dataclasses
from typing import Literal, cast, final, get_args

import numpy as np

from veldt.tasks import base
from veldt.tasks.augment import (
    delayed,
    estimated,
    low_precision,
    normalised,
    reparameterised,
    smaller_batch,
)
from veldt.tasks.families import odds

_SMALLEST_FRACTION = 0.01
_MOST_PAIRS = 16
_LONGEST_DELAY = 8


@final
@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
    """The odds of making families harder; the defaults are VeLO's (arXiv 2211.09760).

    Attributes:
      stretch: Relative odds that parameters are stretched at each level: none, global, tensor,
        parameter.
      stretch_ranges: Ranges of scales, least and greatest; each member draws one range.
      estimated: Probability of gradients by evolution strategies, of 1 to 16 pairs; such a family
        is not in bfloat16, which would drown the differences of losses.
      smaller_batch: Probability of a part of the batch, 1% to 100% of it.
      bfloat16: Probability of models in bfloat16.
      normalised: Probability of gradients of norm 1.
      delayed: Probability of gradients that come 1 to 8 steps late.
    """

    stretch: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"none": 2.0, "global": 2.0, "tensor": 2.0, "parameter": 1.0}
    )
    stretch_ranges: tuple[tuple[float, float], ...] = reparameterised.SCALE_RANGES
    estimated: float = 0.08
    smaller_batch: float = 0.2
    bfloat16: float = 0.2
    normalised: float = 0.05
    delayed: float = 0.05

    def __post_init__(self) -> None:
        odds.check_odds("stretch", self.stretch, ("none", *get_args(reparameterised.Level)))
        if not self.stretch_ranges:
            raise ValueError("stretch_ranges is empty; it must have at least one")
        for bounds in self.stretch_ranges:
            odds.check_range("stretch_ranges", bounds)
        for name in ("estimated", "smaller_batch", "bfloat16", "normalised", "delayed"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a probability, 0 to 1")


NO_AUGMENTATIONS = AugmentationConfig(
    stretch={"none": 1.0},
    estimated=0.0,
    smaller_batch=0.0,
    bfloat16=0.0,
    normalised=0.0,
    delayed=0.0,
)
"""Odds that leave families as they are."""


def augmented(
    family: base.TaskFamily,
    batch_size: int,
    config: AugmentationConfig,
    random: np.random.RandomState,
) -> base.TaskFamily:
    """Return a family with the augmentations that are drawn, from the inside out.

    Evolution strategies perturb the model's weights, not stretched parameters; normalisation and
    delay apply to the gradient that the optimizer gets.

    Args:
      family: Family without augmentations; the arrays of its batches have `batch_size` rows.
      batch_size: Number of rows of a batch, B.
      config: Odds of the augmentations.
      random: Generator, which the draws advance.
    """
    if random.uniform() < config.smaller_batch:
        num_rows = max(1, round(_SMALLEST_FRACTION ** random.uniform() * batch_size))
        if num_rows < batch_size:
            family = smaller_batch.SmallerBatch(family, num_rows)
    if random.uniform() < config.estimated:
        family = estimated.Estimated(family, round(_MOST_PAIRS ** random.uniform()))
    elif random.uniform() < config.bfloat16:
        family = low_precision.LowPrecision(family)
    drawn = odds.weighted(config.stretch, random)
    level = cast(reparameterised.Level | Literal["none"], drawn)  # Checked by the config.
    if level != "none":
        family = reparameterised.Reparameterised(family, level, config.stretch_ranges)
    if random.uniform() < config.normalised:
        family = normalised.Normalised(family)
    if random.uniform() < config.delayed:
        family = delayed.Delayed(family, random.randint(1, _LONGEST_DELAY + 1))
    return family
