"""The part of a tensor in its model, guessed from the names in the tree of parameters.

Exports of rules copy both functions unchanged, so they import nothing of veldt.
"""

import re

import jax
import optax


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
