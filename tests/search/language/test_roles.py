"""Roles guessed from names and shapes, on the names that libraries and people give."""

from typing import Any

import jax
import numpy as np
import pytest

from veldt.search.language.constant_axes import FULL, NUMBER, Extent
from veldt.search.language.roles import Roles, of_shape
from veldt.tasks.inner_loop.model_parts import embedding_mask, last_mask


def tree(**shapes: tuple[int, ...]) -> dict[str, Any]:
    return {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}


def marked(mask: Any) -> list[str]:
    paths = jax.tree_util.tree_leaves_with_path(mask)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, x in paths if x]


@pytest.mark.parametrize(
    ("params", "last"),
    [
        (tree(Dense_0=(3, 4), Dense_9=(4, 4), Dense_10=(4, 2), z=(2,)), "Dense_10"),
        (tree(Embed_0=(9, 4), Dense_0=(4, 4)), "Dense_0"),
        (tree(Embed_0=(9, 4), bias=(4,)), "Embed_0"),  # tied: nothing else could be last
        (tree(wte=(9, 4), h_0=(4, 4), lm_head=(4, 9), mlp=(4, 4)), "lm_head"),
        (tree(a=(4, 4), unembed=(4, 9), z=(4, 4)), "unembed"),
        (tree(classifier=(4, 3), layer_1=(4, 4), num_heads=(4, 4)), "classifier"),
    ],
)
def test_the_last_kernel(params: Any, last: str) -> None:
    assert marked(last_mask(params)) == [last]


def test_nothing_is_last_where_there_are_no_kernels() -> None:
    assert marked(last_mask(tree(a=(3,), b=()))) == []
    assert last_mask({}) == {}


def test_layers_of_a_list_are_in_its_order() -> None:
    params = [tree(kernel=(3, 3), bias=(3,)) for _ in range(12)]
    assert marked(last_mask(params)) == ["11/kernel"]


def test_embeddings() -> None:
    params = {
        "Embed_0": tree(embedding=(9, 4)),
        "pos_embed": tree(w=(1, 9, 4))["w"],
        "wpe": tree(w=(9, 4))["w"],
        "unembed": tree(w=(4, 9))["w"],
        "embed_norm": tree(scale=(4,)),
        "dense": tree(kernel=(4, 4)),
    }
    assert marked(embedding_mask(params)) == ["Embed_0/embedding", "pos_embed", "wpe"]


def test_roles_of_shapes() -> None:
    assert of_shape(()) == {"ndim": 0.0, "fan_in": 1.0, "fan_out": 1.0}
    assert of_shape((5,)) == {"ndim": 1.0, "fan_in": 1.0, "fan_out": 5.0}
    assert of_shape((3, 3, 8, 16)) == {"ndim": 4.0, "fan_in": 72.0, "fan_out": 16.0}


def test_masks_of_ones_own_replace_the_guesses() -> None:
    params = tree(a=(2, 2), b=(2, 2))
    guessed, given = Roles().of(params), Roles(is_last={"a": True, "b": False}).of(params)
    assert [of["is_last"] for of in guessed] == [0.0, 1.0]
    assert [of["is_last"] for of in given] == [1.0, 0.0]
    assert [of["is_embedding"] for of in given] == [0.0, 0.0]


def test_thin_shapes_broadcast_to_the_full_one() -> None:
    for full in ((), (4,), (3, 4), (2, 3, 4)):
        assert FULL.shape(full) == full
        assert NUMBER.shape(full) == (1,) * len(full)
        rows, columns = Extent(True, False).shape(full), Extent(False, True).shape(full)
        assert np.broadcast_shapes(rows, columns) == full
    assert Extent(True, False).shape((2, 3, 4)) == (2, 3, 1)
    assert Extent(False, True).shape((2, 3, 4)) == (1, 1, 4)
