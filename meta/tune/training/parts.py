"""The parts of a model that have hyperparameters of their own: groups, layers, tensors.

A tensor is known by its place in the tree of parameters, such as "params/Dense_0/kernel". A layer
is what holds tensors: "params/Dense_0". Tensors that have all hyperparameters in common share one
transform (`optax.partition`), so a part costs a transform and no more.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import jax
import optax

from veldt.meta import errors
from veldt.meta.tune.training.hyperparameters import By
from veldt.tasks.common import types

SEPARATOR = "/"


def places(params: types.Params) -> tuple[str, ...]:
    """Return the places of a tree's tensors, in its order."""
    found = jax.tree_util.tree_leaves_with_path(params)
    return tuple(_place(path) for path, _ in found)


def names(by: By, tensors: Sequence[str], groups: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the parts, in order.

    Args:
      by: Kind of part, not "all".
      tensors: Places of all tensors.
      groups: Regular expressions by name of the group; the first that fits a tensor counts.

    Raises:
      MetaTrainError: A tensor is in no group, or a group has no tensor.
    """
    of = [part_of(by, place, groups) for place in tensors]
    if by != "group":
        return tuple(dict.fromkeys(of))
    for place, group in zip(tensors, of, strict=True):
        if not group:
            raise errors.MetaTrainError(
                f"groups: {place} is in none, and a hyperparameter is by group; add one for the "
                "rest, such as rest: '.'"
            )
    for group in groups:
        if group not in of:
            raise errors.MetaTrainError(
                f"groups.{group}: no tensor is in it; there are {', '.join(tensors)}"
            )
    return tuple(groups)


def part_of(by: By, place: str, groups: Mapping[str, str]) -> str:
    """Return the name of the part that a tensor is in; empty where it is in no group."""
    match by:
        case "group":
            return next((name for name, regex in groups.items() if re.search(regex, place)), "")
        case "layer":
            return place.rpartition(SEPARATOR)[0] or place
        case "tensor":
            return place
        case "all":
            return ""


@final
@dataclasses.dataclass(frozen=True)
class Parts:
    """The parts of one model, by hyperparameter.

    Attributes:
      tensors: Places of all tensors.
      by: Name and kind of part of each hyperparameter that has a value for each.
      groups: Name and regular expression of each group.
    """

    tensors: tuple[str, ...]
    by: tuple[tuple[str, By], ...]
    groups: tuple[tuple[str, str], ...]

    def names(self, hyperparameter: str) -> tuple[str, ...]:
        """Return the parts of a hyperparameter, in the order of its rows."""
        return names(dict(self.by)[hyperparameter], self.tensors, dict(self.groups))

    def partition(
        self,
        values: Mapping[str, Sequence[Any]],
        make: Callable[[Mapping[str, Any]], optax.GradientTransformation],
    ) -> optax.GradientTransformation:
        """Return the transform in which each tensor has the values of its parts.

        Args:
          values: Values by hyperparameter, one for each part, in order.
          make: Function from one value for each hyperparameter to a transform.
        """
        groups = dict(self.groups)
        rows = {name: {part: i for i, part in enumerate(self.names(name))} for name in values}
        label_of = {
            place: tuple(rows[name][part_of(by, place, groups)] for name, by in self.by)
            for place in self.tensors
        }
        order = {label: i for i, label in enumerate(dict.fromkeys(label_of.values()))}
        transforms = {
            i: make(
                {name: values[name][row] for (name, _), row in zip(self.by, label, strict=True)}
            )
            for label, i in order.items()
        }

        def labels(params: types.Params) -> Any:
            return jax.tree_util.tree_map_with_path(
                lambda path, _: order[label_of[_place(path)]], params
            )

        return optax.partition(transforms, labels)


def _place(path: tuple[jax.tree_util.KeyEntry, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=SEPARATOR)
