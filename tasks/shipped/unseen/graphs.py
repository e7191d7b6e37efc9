"""Tasks on graphs: who belongs together, and who likes what."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from veldt.tasks.common import types
from veldt.tasks.data import dataset
from veldt.tasks.shipped import supervised

# Shapes: B batch, N graphs or ratings, M nodes, C communities, W width, D dimensions.

_NUM_COMMUNITIES = 3
_UNKNOWN = -1
_NUM_USERS, _NUM_ITEMS = 500, 400


class GraphNetwork(nn.Module):
    """Rounds in which each node hears its neighbours' sum and mean (after Hamilton et al. 2017).

    Attributes:
      width: Width W of a node's state.
      num_rounds: Number of rounds.
      num_outputs: Number of outputs of each node.
    """

    width: int
    num_rounds: int
    num_outputs: int

    @nn.compact
    def __call__(self, graphs: jax.Array) -> jax.Array:
        """Map graphs [B, M, M + C] to outputs [B, M, num_outputs].

        A node's row holds its links, 0 or 1, and what is known of it.
        """
        num_nodes = graphs.shape[1]
        links, known = jnp.split(graphs.astype(jnp.float32), [num_nodes], axis=-1)
        degree = jnp.sum(links, axis=-1, keepdims=True)
        x = nn.Dense(self.width)(jnp.concatenate([known, degree / num_nodes], axis=-1))
        for _ in range(self.num_rounds):
            heard = links @ nn.relu(x) / jnp.maximum(degree, 1.0)
            x = x + nn.Dense(self.width)(nn.relu(jnp.concatenate([x, heard], axis=-1)))
        start = nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")
        return nn.Dense(self.num_outputs, kernel_init=start)(nn.relu(x))


class Factorisation(nn.Module):
    """Ratings as products of a user's vector and an item's (Koren et al. 2009, IEEE Computer 42).

    Attributes:
      num_users: Number of users.
      num_items: Number of items.
      num_dims: Number of dimensions D.
    """

    num_users: int
    num_items: int
    num_dims: int

    @nn.compact
    def __call__(self, pairs: jax.Array) -> jax.Array:
        """Map pairs of a user's and an item's number, int [B, 2], to ratings [B]."""
        start = nn.initializers.normal(0.3 * self.num_dims**-0.25)
        user = nn.Embed(self.num_users, self.num_dims, embedding_init=start)(pairs[:, 0])
        item = nn.Embed(self.num_items, self.num_dims, embedding_init=start)(pairs[:, 1])
        zeros = nn.initializers.zeros
        user_bias = nn.Embed(self.num_users, 1, embedding_init=zeros)(pairs[:, 0])
        item_bias = nn.Embed(self.num_items, 1, embedding_init=zeros)(pairs[:, 1])
        return jnp.sum(user * item, axis=-1) + user_bias[:, 0] + item_bias[:, 0]


def hidden_cross_entropy(logits: jax.Array, labels: jax.Array) -> types.Scalar:
    """Return the mean cross-entropy in nats of logits [..., C] over labels int [...] from 0 on."""
    scored = labels[..., None] == jnp.arange(logits.shape[-1])
    log_odds = nn.log_softmax(logits)
    return -jnp.sum(jnp.where(scored, log_odds, 0.0)) / jnp.sum(scored)


def communities_graph() -> supervised.SupervisedTask:
    """Tell which of three communities a graph's nodes are in, a few being known, batch 8."""
    return supervised.SupervisedTask(
        name="communities_graph",
        module=GraphNetwork(width=32, num_rounds=4, num_outputs=_NUM_COMMUNITIES),
        criterion=hidden_cross_entropy,
        splits=supervised.on_device(random_communities()),
        batch_size=8,
        eval_size=128,
        reference_loss=jnp.asarray(math.log(_NUM_COMMUNITIES), jnp.float32),
    )


def ratings_factorisation() -> supervised.SupervisedTask:
    """Complete ratings of 400 items by 500 users with vectors of 12 dimensions, batch 256."""
    return supervised.SupervisedTask(
        name="ratings_factorisation",
        module=Factorisation(_NUM_USERS, _NUM_ITEMS, num_dims=12),
        criterion=supervised.squared_error,
        splits=supervised.on_device(random_ratings()),
        batch_size=256,
        eval_size=2048,
        reference_loss=jnp.ones((), jnp.float32),
    )


@functools.cache
def random_communities(num_graphs: int = 2048, num_nodes: int = 30) -> dataset.Splits:
    """Draw graphs of a stochastic block model (Holland et al. 1983).

    Members of one community are linked with odds 0.4, others with odds 0.1. Of every five nodes the
    community of one is known.

    Returns:
      Inputs uint8 [N, M, M + C], links and known communities; targets int32 [N, M], the community,
      -1 where it is known.
    """
    random = np.random.RandomState(0)
    labels = random.randint(_NUM_COMMUNITIES, size=(num_graphs, num_nodes))
    together = labels[:, :, None] == labels[:, None, :]
    drawn = random.uniform(size=together.shape) < np.where(together, 0.4, 0.1)
    above = np.triu(drawn, 1)
    links = above | np.swapaxes(above, 1, 2)
    is_known = np.arange(num_nodes) % 5 == 0
    known = (labels[..., None] == np.arange(_NUM_COMMUNITIES)) & is_known[:, None]
    inputs = np.concatenate([links, known], axis=-1).astype(np.uint8)
    targets = np.where(is_known, _UNKNOWN, labels).astype(np.int32)
    return dataset.split_rows(dataset.Examples(inputs, targets))


@functools.cache
def random_ratings(num_ratings: int = 60000, num_dims: int = 4) -> dataset.Splits:
    """Draw noisy ratings of low rank; few items get most of them, by Zipf's law.

    Returns:
      Inputs int32 [N, 2], a user's and an item's number, each pair once; targets float32 [N], of
      mean 0 and variance 1 on the training part, of which a tenth is noise.
    """
    random = np.random.RandomState(0)
    share = 1.0 / np.arange(1, _NUM_ITEMS + 1)
    users = random.randint(_NUM_USERS, size=num_ratings)
    items = random.choice(_NUM_ITEMS, size=num_ratings, p=share / share.sum())
    pairs = np.unique(np.stack([users, items], axis=-1), axis=0)
    user_vectors = random.normal(size=(_NUM_USERS, num_dims))
    item_vectors = random.normal(size=(_NUM_ITEMS, num_dims))
    users, items = pairs.T
    taste = np.sum(user_vectors[users] * item_vectors[items], axis=-1) / math.sqrt(num_dims)
    fame = 0.5 * random.normal(size=_NUM_ITEMS)[items]
    ratings = taste + fame + 0.35 * random.normal(size=len(pairs))
    splits = dataset.split_rows(dataset.Examples(pairs.astype(np.int32), ratings))
    mean, scale = splits["train"].targets.mean(), splits["train"].targets.std()
    return {
        split: part._replace(targets=((part.targets - mean) / scale).astype(np.float32))
        for split, part in splits.items()
    }
