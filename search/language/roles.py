"""Roles: what a parameter tensor is in its model, as numbers that a program can read.

`ndim` is the number of axes; `fan_in` and `fan_out` are the rows and columns of the tensor as a
matrix (`kinds.py`), so a vector has a fan_in of 1; `is_last` and `is_embedding` are 1.0 or 0.0.
The first three follow from the shape. The other two are guessed from the names in the tree by the
two functions below, which exports copy as they are; where the guess is wrong, give masks of your
own: `program.as_optax(rate, roles=veldt.Roles(is_last=...))`.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, Final, final

import jax
import optax

# What reads a mask off a tree of parameters.
LAST: Final = "is_last"
EMBEDDING: Final = "is_embedding"


def embedding_mask(params: optax.Params) -> optax.Params:
    """Return 1.0 for each tensor of two or more axes whose path speaks of an embedding, else 0.0.

    That is: the path contains "embed" but not "unembed", or one of GPT-2's names, wte and wpe.
    """

    def mark(path: tuple, leaf: jax.Array) -> float:
        name = jax.tree_util.keystr(path).lower()
        found = re.search(r"(?<!un)embed|\bwte\b|\bwpe\b", name)
        return float(found is not None and leaf.ndim >= 2)

    return jax.tree_util.tree_map_with_path(mark, params)


def last_mask(params: optax.Params) -> optax.Params:
    """Return 1.0 for the kernel of the model's last layer, else 0.0.

    It is sought among the tensors of two or more axes: one whose path speaks of a head, logits, a
    classifier, an unembedding or a readout, else one that is no embedding; of several, the last by
    path, numbers in paths being compared as numbers.
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
      is_last: a tree shaped as the parameters, of numbers: 1.0 for the last layer's kernel.
      is_embedding: likewise, 1.0 for embeddings.
    """

    is_last: Any = None
    is_embedding: Any = None

    def of(self, params: optax.Params) -> list[dict[str, float]]:
        """The roles of each tensor of a tree, in the tree's order, by name.

        Args:
          params: arrays, or anything else with `shape` and `ndim`.
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
    """A mask without the entries of what counts as no parameter here, which are None."""
    return jax.tree.map(
        lambda leaf, own: None if leaf is None else own, params, mask, is_leaf=lambda x: x is None
    )


def of_shape(shape: tuple[int, ...]) -> dict[str, float]:
    """The roles that follow from a tensor's shape."""
    columns = shape[-1] if shape else 1
    return {
        "ndim": float(len(shape)),
        "fan_in": float(math.prod(shape[:-1])),
        "fan_out": float(columns),
    }
