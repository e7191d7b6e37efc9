import dataclasses

import jax
import jax.numpy as jnp
import pytest

from tests.meta import inner_problems
from veldt.meta import pytree
from veldt.meta.estimators import (
    antithetic,
    full_backprop,
    full_es,
    truncated_backprop,
    truncated_es,
)
from veldt.meta.problems import meta_loss

ESTIMATORS = (
    full_es.FullES,
    truncated_es.TruncatedES,
    truncated_es.PES,
    truncated_es.NRES,
    full_backprop.FullBackprop,
    truncated_backprop.TruncatedBackprop,
)
OBJECTIVES = (meta_loss.MeanLoss, meta_loss.FinalLoss, meta_loss.TelescopedLoss)


@dataclasses.dataclass(frozen=True)
class Point(pytree.Pytree):
    x: jax.Array
    name: str = dataclasses.field(metadata=pytree.STATIC)
    y: float | None = None


def test_fields_are_children_and_static_ones_structure():
    leaves, treedef = jax.tree.flatten(Point(jnp.ones(2), "p", 3.0))
    assert [jnp.shape(leaf) for leaf in leaves] == [(2,), ()]
    assert jax.tree.unflatten(treedef, ["a", "b"]) == Point("a", "p", "b")
    assert treedef != jax.tree.structure(Point(jnp.ones(2), "q", 3.0))
    assert len(jax.tree.leaves(Point(jnp.ones(2), "p"))) == 1


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_classes_alike_in_all_but_their_names_are_told_apart(objective):
    """What JAX 0.10.2 fails to do for Flax's structs: `jit` then mixes up their programs."""
    structures = [
        jax.tree.structure(cls(inner_problems.Leaky(), 3, 4, objective=each()))
        for cls in (truncated_es.TruncatedES, truncated_es.PES, truncated_es.NRES)
        for each in OBJECTIVES
    ]
    own = jax.tree.structure(truncated_es.PES(inner_problems.Leaky(), 3, 4, objective=objective()))
    assert sum(own == other for other in structures) == 1


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_estimators_that_differ_in_numbers_alone_have_one_structure(cls):
    exact = (full_backprop.FullBackprop, truncated_backprop.TruncatedBackprop)
    noisy = {} if cls in exact else {"noise": 0}
    one, other = (
        cls(inner_problems.descent(h), 3, 4, **{k: antithetic.Antithetic(sigma=h) for k in noisy})
        for h in (0.1, 0.2)
    )
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert hash(jax.tree.structure(one)) == hash(jax.tree.structure(other))
