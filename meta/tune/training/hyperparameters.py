"""Numbers that are learned: where they start, the scale they move on, their schedules.

A hyperparameter is a number, a vector, or a schedule of one over the run. Its meta-parameter lives
on an unbounded scale, on which a step of 0.1 means the same everywhere: the logarithm of what is
positive, the log-odds of what lies between 0 and 1. A schedule is linear on that scale between
evenly spaced knots (so a learning rate is geometric between them, as in MGD, arXiv 2503.13751,
section 4.4, and FDS, arXiv 2007.07869). With `smooth`, meta-parameters are what a Gaussian kernel
over knots makes the schedule of: a step that moves one of them moves the knots around it, and the
same step of all moves all alike.

An argument of the optimizer may have a value for each part of the model (`parts.py`): its
meta-parameter has a row for each.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias, final

import jax
import jax.numpy as jnp
import numpy as np

from veldt.tasks.common import types

# Shapes: K knots, E elements of a vector or parts of a model.

Value: TypeAlias = jax.Array | Callable[[types.Scalar], jax.Array]
"""A number or a vector, or what gives one from the number of steps done."""

GROUP_PREFIX = "rate_of_"
TASK_NAMES = ("label_smoothing", "input_noise", "class_weights", "example_weights")
"""What enters the task; all else is the optimizer's, or a group's rate."""

By: TypeAlias = Literal["all", "group", "layer", "tensor"]
"""What has a value of its own: see `Hyperparameter.by`."""


@final
@dataclasses.dataclass(frozen=True)
class Hyperparameter:
    """A number that training depends on.

    Attributes:
      start: value before the first update.
      scale: what it moves on: "log" (above 0), "logit" (between 0 and 1) or "linear".
      knots: number of knots of a schedule over the run; 0 for one number.
      by: what has a value, or a schedule, of its own, where it is an argument of the optimizer:
        "all" parameters together, each "group" of `groups`, each "layer" (the tensors of one
        module), or each "tensor".
      smooth: width of the kernel that makes a schedule smooth, in knots; 0 for none.
    """

    start: float
    scale: Literal["log", "logit", "linear"] = "log"
    knots: int = 0
    by: By = "all"
    smooth: float = 0.0

    def __post_init__(self) -> None:
        if self.scale == "log" and not 0 < self.start < math.inf:
            raise ValueError(f"start is {self.start}; on a log scale it must be above 0")
        if self.scale == "logit" and not 0 < self.start < 1:
            raise ValueError(f"start is {self.start}; on a logit scale it is between 0 and 1")
        if not math.isfinite(self.start):
            raise ValueError(f"start is {self.start}; it must be finite")
        if self.knots < 0 or self.knots == 1:
            raise ValueError(f"knots is {self.knots}; it must be 0, or 2 or more")
        if not 0 <= self.smooth < math.inf:
            raise ValueError(f"smooth is {self.smooth}; it must be 0 or more")
        if self.smooth and not self.knots:
            raise ValueError(f"smooth is {self.smooth}, of a schedule without knots: give knots")

    def init(self, num_elements: int | None = None) -> np.ndarray:
        """Return the meta-parameter at the start, float32 [], [K], [E] or [E, K].

        Args:
          num_elements: Number of elements, E, of a vector, or of parts; None for a single value.
        """
        rows = () if num_elements is None else (num_elements,)
        shape = (*rows, self.knots) if self.knots else rows
        return np.full(shape, self._inverse(self.start), np.float32)

    def value(self, meta_param: jax.Array, num_steps: int) -> Value:
        """Return the hyperparameter.

        Args:
          meta_param: Meta-parameter on the scale, float [], [K] or [E]; of one part, where each has
            its own.
          num_steps: Length of the run.
        """
        if not self.knots:
            return self._forward(meta_param)
        knots = self._smoothed(meta_param)

        def schedule(count: types.Scalar) -> jax.Array:
            place = count / jnp.maximum(num_steps - 1, 1) * (self.knots - 1)
            return self._forward(jnp.interp(place, jnp.arange(self.knots), knots))

        return schedule

    def numbers(self, meta_param: np.ndarray) -> np.ndarray:
        """Return the number, or those at the knots, float32 of the same shape."""
        return np.asarray(self._forward(self._smoothed(jnp.asarray(meta_param))))

    def _smoothed(self, meta_param: jax.Array) -> jax.Array:
        """Return a schedule's knots on the scale, [..., K], from its meta-parameters."""
        if not self.smooth:
            return meta_param
        distance = np.subtract.outer(np.arange(self.knots), np.arange(self.knots))
        kernel = np.exp(-0.5 * (distance / self.smooth) ** 2)
        kernel /= kernel.sum(axis=1, keepdims=True)
        return meta_param @ kernel.astype(np.float32).T

    def _forward(self, x: jax.Array) -> jax.Array:
        match self.scale:
            case "log":
                return jnp.exp(x)
            case "logit":
                return jax.nn.sigmoid(x)
            case "linear":
                return x

    def _inverse(self, value: float) -> float:
        match self.scale:
            case "log":
                return math.log(value)
            case "logit":
                return math.log(value / (1 - value))
            case "linear":
                return value


def check_groups(groups: Mapping[str, str], tuned: Mapping[str, Hyperparameter]) -> None:
    """See that groups and their rates fit together.

    Raises:
      ValueError: A pattern is no regular expression, or a rate is of no group.
    """
    for name, pattern in groups.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"groups.{name}: {pattern!r} is no regular expression: {error}") from (
                None
            )
    for name in tuned:
        group = name.removeprefix(GROUP_PREFIX)
        if name.startswith(GROUP_PREFIX) and group not in groups:
            raise ValueError(f"tune.{name}: there is no group {group!r} in groups")
    for name, spec in tuned.items():
        if spec.by != "all" and (name in TASK_NAMES or name.startswith(GROUP_PREFIX)):
            raise ValueError(
                f"tune.{name}.by: {name} is no argument of the optimizer: leave by out"
            )
        if spec.by == "group" and not groups:
            raise ValueError(f"tune.{name}.by: group needs groups, by name: a regular expression")
