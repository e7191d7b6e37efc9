"""Frozen dataclasses that are pytrees, and that a jitted function tells apart.

What `flax.struct.dataclass` makes would do, but for a defect of JAX 0.10.2: the structures of two
dataclasses registered by `jax.tree_util.register_dataclass`, as Flax's are, compare equal if their
fields do, whatever their classes. Only their hashes differ, so that about once in a hundred pairs
of classes `jax.jit`, given one class, runs the program that it has compiled for the other. Structs
that never stand in one another's place may be Flax's; estimators, objectives and inner problems
are of many classes by design, and inherit from `Pytree` instead.
"""

import dataclasses
import types
from collections.abc import Iterable
from typing import Any

import jax

STATIC = types.MappingProxyType({"static": True})
"""Metadata of a field that is structure: `dataclasses.field(metadata=pytree.STATIC)`."""


class Pytree:
    """Base of frozen dataclasses whose fields are children, or static where their metadata say so.

    Static fields must be hashable. Nothing else is asked of a subclass but
    `@dataclasses.dataclass(frozen=True)`.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        jax.tree_util.register_pytree_node(
            cls, _flatten, lambda static, children: _unflatten(cls, static, children)
        )


def _names(cls: type, *, is_static: bool) -> list[str]:
    fields: Any = dataclasses.fields(cls)
    return [each.name for each in fields if bool(each.metadata.get("static")) == is_static]


def _flatten(tree: Any) -> tuple[list[Any], tuple[Any, ...]]:
    children = [getattr(tree, name) for name in _names(type(tree), is_static=False)]
    return children, tuple(getattr(tree, name) for name in _names(type(tree), is_static=True))


def _unflatten(cls: type, static_values: Iterable[Any], children: Iterable[Any]) -> Any:
    """Inverse of `_flatten`; runs no `__init__`, for JAX's placeholders are no valid values."""
    tree: Any = object.__new__(cls)
    for is_static, values in ((False, children), (True, static_values)):
        # Straight into the dictionary: a frozen dataclass refuses attribute assignment.
        vars(tree).update(zip(_names(cls, is_static=is_static), values, strict=True))
    return tree
