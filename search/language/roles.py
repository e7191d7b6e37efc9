"""Roles: the part of a parameter tensor in its model, as numbers that a program can read.

`ndim` is the number of axes; `fan_in` and `fan_out` are the rows and columns of the tensor as a
matrix (`shapes.py`), so a vector has a fan_in of 1; `is_last` and `is_embedding` are 1.0 or 0.0.
The first three follow from the shape. The other two are guessed from the names in the tree by the
two functions below, which exports copy unchanged; where the guess is wrong, give masks of your own:
`program.as_optax(rate, roles=veldt.Roles(is_last=...))`.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, Final, final

import jax
import optax

# Functions that compute a mask from a tree of parameters.
LAST: Final = "is_last"
EMBEDDING: Final = "is_embedding"


def embedding_mask(params: optax.Params) -> optax.Params:
    """Return 1.0 for each tensor of two or more axes whose path names an embedding, else 0.0.

    That is: the path contains "embed" but not "unembed", or one of GPT-2's names, wte and wpe.
    """

    def mark(path: tuple, leaf: jax.Array) -> float:
        name = jax.tree_util.keystr(path).lower()
        found = re.search(r"(?<!un)embed|\bwte\b|\bwpe\b", name)
        return float(found is not None and leaf.ndim >= 2)

    return jax.tree_util.tree_map_with_path(mark, params)


def last_mask(params: optax.Params) -> optax.Params:
    """Return 1.0 for the kernel of the model's last layer, else 0.0.

    It is one of the tensors of two or more axes: one whose path names a head, logits, a classifier,
    an unembedding or a readout, else one that is no embedding; of several, the last by path, where
    numbers in paths compare as numbers.
    """
    paths_and_leaves, treedef = jax.tree_util.tree_flatten_with_path(params)

    def rank(index: int) -> tuple:
        path, leaf = paths_and_leaves[index]
        name = jax.tree_util.keystr(path).lower()
        head = re.search(r"\b(lm_?)?head|logits|classifier|unembed|readout", name)
        embedding = re.search(r"(?<!un)embed|\bwte\b|\bwpe\b", name)
        parts = re.split(r"(\d+)", name)
        order = [int(part) if part.isdigit() else part for part in parts]
        return leaf.ndim >= 2, head is not None, embedding is None, order

    last = max(range(len(paths_and_leaves)), key=rank, default=None)
    marks = [
        float(index == last and leaf.ndim >= 2) for index, (_, leaf) in enumerate(paths_and_leaves)
    ]
    return jax.tree.unflatten(treedef, marks)


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
