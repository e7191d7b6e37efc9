"""Random graphs and ratings have the odds and the rank that they should."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from veldt.tasks.shipped.unseen import graphs

# Without LLVM's optimisation: half the time to compile, and nothing here runs long.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def test_links_are_symmetric_and_denser_inside_communities():
    part = graphs.random_communities()["train"]
    links, known = np.split(part.inputs, [30], axis=-1)
    np.testing.assert_array_equal(links, np.swapaxes(links, 1, 2))
    assert not np.diagonal(links, axis1=1, axis2=2).any()
    hidden = part.targets >= 0
    np.testing.assert_array_equal(known.sum(axis=-1), ~hidden)
    label = np.where(hidden, part.targets, known.argmax(axis=-1))
    together = label[:, :, None] == label[:, None, :]
    apart = ~together
    together &= ~np.eye(30, dtype=bool)
    assert links[together].mean() == pytest.approx(0.4, abs=0.01)
    assert links[apart].mean() == pytest.approx(0.1, abs=0.01)


def test_only_hidden_labels_are_scored():
    random = np.random.default_rng(0)
    logits = random.normal(size=(2, 4, 3))
    labels = np.array([[-1, 0, 2, -1], [1, -1, -1, -1]])
    odds = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    expected = -np.mean(np.log([odds[0, 1, 0], odds[0, 2, 2], odds[1, 0, 1]]))
    ours = graphs.hidden_cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_the_network_does_not_mind_the_order_of_nodes():
    module = graphs.GraphNetwork(width=8, num_rounds=2, num_outputs=3)
    graph = graphs.random_communities()["valid"].inputs[:1]
    params = jit(module.init)(jax.random.key(0), graph)
    order = np.random.default_rng(0).permutation(30)
    moved = graph[:, order][..., np.concatenate([order, [30, 31, 32]])]
    outputs, again = jit(lambda: [module.apply(params, g) for g in (graph, moved)])()
    np.testing.assert_allclose(again, outputs[:, order], atol=1e-5)


def test_ratings_are_low_rank_and_noise_and_few_items_get_most():
    part = graphs.random_ratings()["train"]
    assert part.targets.mean() == pytest.approx(0.0, abs=1e-5)
    assert part.targets.std() == pytest.approx(1.0, rel=1e-5)
    counts = np.sort(np.bincount(part.inputs[:, 1]))[::-1]
    assert counts[:100].sum() > 0.5 * counts.sum()


def test_a_rating_is_a_product_and_two_biases():
    module = graphs.Factorisation(3, 4, 2)
    pairs = jnp.array([[2, 3], [0, 1]])
    params = jit(module.init)(jax.random.key(0), pairs)
    params = jax.tree.map(lambda leaf: leaf + 0.5, params)
    users, items, user_bias, item_bias = (
        np.asarray(params["params"][f"Embed_{i}"]["embedding"]) for i in range(4)
    )
    expected = [users[u] @ items[i] + user_bias[u, 0] + item_bias[i, 0] for u, i in pairs]
    np.testing.assert_allclose(jit(module.apply)(params, pairs), expected, rtol=1e-5)
