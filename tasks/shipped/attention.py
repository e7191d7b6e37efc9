"""The transformer block that language models and image models are built of."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

# Shapes: B batch, T positions, W model width.


class Block(nn.Module):
    """Pre-norm self-attention, then a perceptron of one hidden layer; both are added to the input.

    GPT-2's form, but with a hidden layer of twice the width, not four times.

    Attributes:
      num_heads: Number of attention heads; divides W.
      causal: Whether a position sees only itself and those before it.
      activation: Activation of the hidden layer.
    """

    num_heads: int
    causal: bool
    activation: Callable[[jax.Array], jax.Array] = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [B, T, W] to [B, T, W]."""
        width = x.shape[-1]
        x = x + self._attend(nn.LayerNorm()(x))
        hidden = self.activation(nn.Dense(2 * width)(nn.LayerNorm()(x)))
        return x + nn.Dense(width)(hidden)

    def _attend(self, x: jax.Array) -> jax.Array:
        num_rows, num_positions, width = x.shape
        by_head = (num_rows, num_positions, 3 * self.num_heads, width // self.num_heads)
        joint = jnp.swapaxes(nn.Dense(3 * width)(x).reshape(by_head), 1, 2)
        query, key, value = jnp.split(joint, 3, axis=1)  # each [B, heads, T, W / heads]
        scores = jnp.einsum("bhtd,bhsd->bhts", query, key) / math.sqrt(query.shape[-1])
        if self.causal:
            seen = jnp.tril(jnp.ones((num_positions, num_positions), bool))
            scores = jnp.where(seen, scores, -jnp.inf)
        mixed = jnp.einsum("bhts,bhsd->bhtd", nn.softmax(scores), value)
        return nn.Dense(width)(jnp.swapaxes(mixed, 1, 2).reshape(x.shape))
