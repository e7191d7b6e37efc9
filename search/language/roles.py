"""Roles: the part of a parameter tensor in its model, as numbers that a program can read.

`ndim` is the number of axes; `fan_in` and `fan_out` are the rows and columns of the tensor as a
matrix (`shapes.py`), so a vector has a fan_in of 1; `is_last` and `is_embedding` are 1.0 or 0.0.
The first three follow from the shape. The other two are guessed from the names in the tree
(`tasks.inner_loop.model_parts`); where the guess is wrong, give masks of your own:
`program.as_optax(rate, roles=veldt.Roles(is_last=...))`.
"""

import math
from dataclasses import dataclass
from typing import Any, Final, final

import jax
import optax

from veldt.tasks.inner_loop.model_parts import embedding_mask, last_mask

LAST: Final = "is_last"
EMBEDDING: Final = "is_embedding"


@final
@dataclass(frozen=True, slots=True)
class Roles:
    """Masks that replace the guesses; None keeps the guess.

    Attributes:
      is_last: Tree of numbers, shaped as the parameters: 1.0 for the last layer's kernel.
      is_embedding: Tree of numbers, shaped as the parameters: 1.0 for embeddings.
    """

    is_last: Any = None
    is_embedding: Any = None

    def of(self, params: optax.Params) -> list[dict[str, float]]:
        """Return the roles of each tensor of a tree, in the tree's order, by name.

        Args:
          params: Arrays, or anything else with `shape` and `ndim`.
        """
        flattened: tuple[list[Any], Any] = jax.tree.flatten(params)
        leaves, treedef = flattened
        last = last_mask(params) if self.is_last is None else self.is_last
        embedding = embedding_mask(params) if self.is_embedding is None else self.is_embedding
        masks = (treedef.flatten_up_to(_like(params, mask)) for mask in (last, embedding))
        return [
            {
                **of_shape(leaf.shape),
                LAST: float(is_last),
                EMBEDDING: float(is_embedding),
            }
            for leaf, is_last, is_embedding in zip(leaves, *masks, strict=True)
        ]


def _like(params: Any, mask: Any) -> Any:
    """Return a mask with None for the leaves that do not count as parameters here."""
    return jax.tree.map(
        lambda leaf, own: None if leaf is None else own, params, mask, is_leaf=lambda x: x is None
    )


def of_shape(shape: tuple[int, ...]) -> dict[str, float]:
    """Return the roles that follow from a tensor's shape."""
    columns = shape[-1] if shape else 1
    return {
        "ndim": float(len(shape)),
        "fan_in": float(math.prod(shape[:-1])),
        "fan_out": float(columns),
    }
