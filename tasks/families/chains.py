"""Synthetic texts: random Markov chains whose tables are a hash.

A member is a chain over a small alphabet. The next symbol depends on the last one, on the last two,
or on none; which, is drawn anew for each symbol. The context has four likely successors,
with odds 4:2:1:1, that a hash of the context and the member's seed names. So what is to be learned
comes in layers: how frequent symbols are, then pairs, then triples.
"""

import dataclasses
from typing import final

import flax.struct
import jax
import jax.numpy as jnp

from veldt.tasks.common import types
from veldt.tasks.data.dataset import Examples
from veldt.tasks.families import hashing, sources

# Shapes: B windows, T symbols in a window, V symbols of the alphabet.

_WORDS_PER_SYMBOL = 2


@flax.struct.dataclass
class ChainConfig:
    """One language.

    Attributes:
      seed: Seed that names the successors of each context, uint32 [].
      free: Probability that a symbol depends on nothing, float [].
      pairs: Probability that a symbol depends on the last one alone, float []; else on two.
    """

    seed: types.Scalar
    free: types.Scalar
    pairs: types.Scalar


@final
@dataclasses.dataclass(frozen=True)
class Chains(sources.ProceduralSource):
    """Random languages of one alphabet.

    Attributes:
      window: Length of a window T.
      num_outputs: Number of symbols V.
      frees: Least and greatest `free`, uniform in between: the difficulty of a member.
      name: Name within the names of families.
    """

    window: int = 16
    num_outputs: int = 16
    frees: tuple[float, float] = (0.02, 0.4)
    name: str = "chains"

    def sample(self, key: types.Key) -> ChainConfig:
        key_seed, key_chances = jax.random.split(key)
        draws = jax.random.uniform(key_chances, (2,))
        low, high = self.frees
        free = low + (high - low) * draws[0]
        return ChainConfig(
            seed=jax.random.bits(key_seed, (), jnp.uint32),
            free=free,
            pairs=(1 - free) * (0.3 + 0.6 * draws[1]),
        )

    def examples(self, cfg: ChainConfig, selection: types.Selection) -> Examples:
        """Make the windows int32 [B, T] of names uint32 [B, 2], and the symbols that follow."""
        num_windows = selection.shape[0]
        numbers = hashing.words(selection, 0, _WORDS_PER_SYMBOL * (self.window + 3))
        numbers = numbers.reshape(num_windows, self.window + 3, _WORDS_PER_SYMBOL)
        start = numbers[:, :2, 0] % self.num_outputs  # Two symbols before the window.

        def step(
            last: tuple[jax.Array, jax.Array], words: jax.Array
        ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            following = self._next(cfg, *last, words)
            return (last[1], following), following

        first = (start[:, 0], start[:, 1])
        _, symbols = jax.lax.scan(step, first, jnp.swapaxes(numbers[:, 2:], 0, 1))  # [T + 1, B]
        symbols = symbols.T.astype(jnp.int32)
        return Examples(symbols[:, :-1], symbols[:, 1:])

    def _next(
        self, cfg: ChainConfig, before: jax.Array, last: jax.Array, words: jax.Array
    ) -> jax.Array:
        """Draw the symbol that follows two others, uint32 [B], from words [B, 2]."""
        chance = hashing.uniform(words[:, 0])
        # No symbol but these: V for the place of one that does not count.
        earlier = jnp.where(chance < cfg.pairs, self.num_outputs, before)
        context = hashing.mix(cfg.seed ^ (earlier * (self.num_outputs + 1) + last))
        # The number of leading zeros is geometric: odds 4:2:1:1.
        rank = jnp.minimum(jax.lax.clz(words[:, 1]), 3)
        likely = hashing.mix(context + rank) % self.num_outputs
        # The square of a uniform number: the first symbols are the frequent ones.
        share = jnp.square(hashing.uniform(hashing.mix(words[:, 1])))
        anything = (share * self.num_outputs).astype(jnp.uint32)
        return jnp.where(chance < 1 - cfg.free, likely, anything)
