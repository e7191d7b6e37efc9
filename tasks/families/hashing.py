"""Many random numbers from few random bits: an integer hash in place of a generator.

Procedural data are made in the innermost loop of meta-training, and JAX's generator would take
longer over a batch's noise than the training step takes. So each example is named by two words, a
hash of the batch's key and the row, and every further number is a hash of those and its own index.
"""

import jax
import jax.numpy as jnp

from veldt.tasks.common import types

# Shapes: B examples, N numbers of each.

_GOLDEN = 0x9E3779B9  # 2^32 over the golden ratio: spreads whole numbers over all words.
_TRIANGULAR_SCALE = 6.0**0.5 / 2**16


def mix(words: jax.Array) -> jax.Array:
    """Hash each word, uint32 of any shape; a bijection ("lowbias32", C. Wellons, 2018)."""
    words = words ^ (words >> 16)
    words = words * jnp.uint32(0x7FEB352D)
    words = words ^ (words >> 15)
    words = words * jnp.uint32(0x846CA68B)
    return words ^ (words >> 16)


def names(key: types.Key, num_examples: int) -> jax.Array:
    """Return two words for each of B examples, uint32 [B, 2]; the key is consumed."""
    first, second = jax.random.key_data(key)[-2:]
    seeds = jnp.stack([first + mix(second), second + mix(first ^ jnp.uint32(_GOLDEN))])
    rows = jnp.arange(1, num_examples + 1, dtype=jnp.uint32) * jnp.uint32(_GOLDEN)
    return mix(mix(seeds) + rows[:, None])


def names_of_rows(rows: jax.Array) -> jax.Array:
    """Return the two words of the examples of a data set, uint32 [B] to uint32 [B, 2]."""
    first = mix(rows * jnp.uint32(_GOLDEN) + jnp.uint32(1))
    return jnp.stack([first, mix(first ^ jnp.uint32(_GOLDEN))], axis=-1)


def words(names: jax.Array, start: int, num_words: int) -> jax.Array:
    """Return words `start` to `start + num_words` of each example's stream.

    Args:
      names: Two random words for each example, uint32 [B, 2].
      start: First word, static; streams of different purposes take different stretches.
      num_words: Number of words N, static.

    Returns:
      Words, uint32 [B, N]. Each example has a stride of its own, so that all 63 bits count.
    """
    counter = jnp.arange(start, start + num_words, dtype=jnp.uint32)
    return mix(names[:, :1] + counter * (names[:, 1:] | 1))


def uniform(words: jax.Array) -> jax.Array:
    """Map words to numbers uniform in [0, 1), float32 of the same shape."""
    return (words >> 8).astype(jnp.int32).astype(jnp.float32) * 2.0**-24


def centred(words: jax.Array) -> jax.Array:
    """Map words to triangular noise of mean 0, standard deviation 1, within 2.45; float32.

    The sum of a word's halves: near enough to a normal number at a tenth of the cost.
    """
    total = (words & 0xFFFF).astype(jnp.int32) + (words >> 16).astype(jnp.int32)
    return (total - 65535).astype(jnp.float32) * _TRIANGULAR_SCALE
