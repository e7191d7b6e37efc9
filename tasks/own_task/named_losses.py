"""Losses of a user's task: those that have names, and functions of the user.

A named loss checks that outputs and targets belong together: shapes that merely broadcast give a
number, and no error, and the search would optimise it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, final

import jax
import jax.numpy as jnp
import numpy as np

from veldt.tasks.common import errors, spelling, types
from veldt.tasks.shipped import supervised

Loss: TypeAlias = Callable[[Any, jax.Array], types.Scalar]
"""A loss `(outputs, targets)`, float, shape []."""


@final
@dataclasses.dataclass(frozen=True)
class NamedLoss:
    """A loss that has a name.

    Attributes:
      function: The loss.
      check: Function of the outputs' shape and the targets, both of a few examples; it raises
        `TaskError` where they do not belong together.
      reference: Function of the training targets that returns the loss of a predictor that knows
        nothing of the inputs.
    """

    function: Loss
    check: Callable[[jax.ShapeDtypeStruct, np.ndarray], None]
    reference: Callable[[np.ndarray], float]


@final
@dataclasses.dataclass(frozen=True)
class MeanLoss:
    """The mean of a user's loss, which may be a number or one for each example.

    Attributes:
      function: Loss `(outputs, targets)`.
    """

    function: Callable[[Any, jax.Array], jax.Array]

    def __call__(self, outputs: Any, targets: jax.Array) -> types.Scalar:
        return jnp.mean(self.function(outputs, targets))


def _check_cross_entropy(outputs: jax.ShapeDtypeStruct, targets: np.ndarray) -> None:
    if not np.issubdtype(targets.dtype, np.integer):
        raise errors.TaskError(
            f"cross_entropy takes class numbers, which are integers, and y is {targets.dtype}"
            + (
                ": give y.argmax(-1)"
                if targets.ndim > 1
                else ": give y.astype(int), or take another loss"
            )
        )
    if outputs.shape[:-1] != targets.shape or len(outputs.shape) < 2:
        hint = ". Give y.argmax(-1)" if outputs.shape == targets.shape else ""
        raise errors.TaskError(
            "cross_entropy takes an output for each class, [N, C], and a class number for each "
            f"example, [N]; for {len(targets)} examples the model returns {list(outputs.shape)} "
            f"and y is {list(targets.shape)}{hint}"
        )
    if targets.size and (targets.min() < 0 or targets.max() >= outputs.shape[-1]):
        raise errors.TaskError(
            f"y has class numbers from {targets.min()} to {targets.max()}, and the model has "
            f"{outputs.shape[-1]} outputs, for the classes 0 to {outputs.shape[-1] - 1}"
        )


def _check_mse(outputs: jax.ShapeDtypeStruct, targets: np.ndarray) -> None:
    if outputs.shape != targets.shape:
        squeezed = outputs.shape == (*targets.shape, 1)
        hint = ". Give y[:, None]" if squeezed and targets.ndim == 1 else ""
        raise errors.TaskError(
            f"mse takes outputs and targets of one shape; for {len(targets)} examples the model "
            f"returns {list(outputs.shape)} and y is {list(targets.shape)}{hint}"
        )


def _class_entropy(targets: np.ndarray) -> float:
    shares = np.unique(targets, return_counts=True)[1] / targets.size
    return float(-(shares * np.log(shares)).sum())


def _variance(targets: np.ndarray) -> float:
    return float(np.mean(np.square(targets - targets.mean(axis=0))))


LOSSES: Final[Mapping[str, NamedLoss]] = {
    "cross_entropy": NamedLoss(supervised.cross_entropy, _check_cross_entropy, _class_entropy),
    "mse": NamedLoss(supervised.squared_error, _check_mse, _variance),
}


def find(name: str) -> NamedLoss:
    """Return the loss of a name.

    Raises:
      TaskError: There is none.
    """
    if name not in LOSSES:
        raise errors.TaskError(
            f"there is no loss named {name!r}.{spelling.question(name, LOSSES)} Named losses: "
            f"{', '.join(LOSSES)}; or give a function of outputs and targets"
        )
    return LOSSES[name]
