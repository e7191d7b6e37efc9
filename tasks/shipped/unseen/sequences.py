"""Tasks on short sequences that a procedure makes: sorting numbers, adding two marked ones."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from veldt.tasks.data import dataset
from veldt.tasks.shipped import attention, supervised

# Shapes: B batch, N sequences, T places, V numbers that occur, W width.

_NUM_SEQUENCES = 16384


class Encoder(nn.Module):
    """A transformer in which every place sees all others, with one output for each place.

    Attributes:
      num_symbols: Number of symbols V.
      width: Model width W.
      num_heads: Number of attention heads; divides W.
      num_layers: Number of blocks.
    """

    num_symbols: int
    width: int
    num_heads: int
    num_layers: int

    @nn.compact
    def __call__(self, symbols: jax.Array) -> jax.Array:
        """Map symbols [B, T] to logits [B, T, V]."""
        positions = self.param(
            "positions", nn.initializers.normal(0.1), (symbols.shape[1], self.width)
        )
        x = nn.Embed(self.num_symbols, self.width)(symbols) + positions
        for _ in range(self.num_layers):
            x = attention.Block(self.num_heads, causal=False, activation=nn.silu)(x)
        start = nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")
        return nn.Dense(self.num_symbols, kernel_init=start)(nn.LayerNorm()(x))


class MinimalGatedUnit(nn.Module):
    """A recurrent network with one gate (Zhou et al. 2016, arXiv 1603.09420).

    Departure: the forget gate starts at sigmoid(-1), so that the state is kept for longer.

    Attributes:
      width: Size W of the hidden state.
    """

    width: int

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map inputs [B, T, 2] to one output each, [B]."""
        from_input = nn.Dense(2 * self.width)(inputs)  # [B, T, 2W]
        shape = (self.width, self.width)
        forget_kernel = self.param("forget_kernel", nn.initializers.orthogonal(), shape)
        new_kernel = self.param("new_kernel", nn.initializers.orthogonal(), shape)

        def step(state: jax.Array, from_input: jax.Array) -> tuple[jax.Array, None]:
            forget_in, new_in = jnp.split(from_input, 2, axis=-1)
            forget = nn.sigmoid(forget_in + state @ forget_kernel - 1.0)
            new = jnp.tanh(new_in + (forget * state) @ new_kernel)
            return (1 - forget) * state + forget * new, None

        start = jnp.zeros((inputs.shape[0], self.width), from_input.dtype)
        state, _ = jax.lax.scan(step, start, jnp.swapaxes(from_input, 0, 1))
        small = nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")
        return nn.Dense(1, kernel_init=small)(state)[:, 0]


def sorting_transformer() -> supervised.SupervisedTask:
    """Sort ten numbers below 32 with a transformer of two blocks of width 64, batch 16."""
    module = Encoder(num_symbols=32, width=64, num_heads=4, num_layers=2)
    return supervised.SupervisedTask(
        name="sorting_transformer",
        module=module,
        criterion=supervised.cross_entropy,
        splits=supervised.on_device(sorting_problems(10, module.num_symbols)),
        batch_size=16,
        eval_size=512,
        reference_loss=jnp.asarray(math.log(module.num_symbols), jnp.float32),
    )


def adding_mgu() -> supervised.SupervisedTask:
    """Add the two marked numbers of 24 with a minimal gated unit of width 64, batch 32."""
    # Hochreiter and Schmidhuber 1997, section 5.4, with shorter sequences.
    splits = adding_problems(24)
    return supervised.SupervisedTask(
        name="adding_mgu",
        module=MinimalGatedUnit(64),
        criterion=supervised.squared_error,
        splits=supervised.on_device(splits),
        batch_size=32,
        eval_size=1024,
        reference_loss=jnp.asarray(np.mean(np.square(splits["train"].targets)), jnp.float32),
    )


@functools.cache
def sorting_problems(length: int, num_symbols: int) -> dataset.Splits:
    """Draw sequences uint8 [N, T] of numbers below `num_symbols`; targets are the sorted ones."""
    drawn = np.random.RandomState(0).randint(num_symbols, size=(_NUM_SEQUENCES, length))
    problems = np.unique(drawn, axis=0).astype(np.uint8)
    return dataset.split_rows(dataset.Examples(problems, np.sort(problems, axis=1)))


@functools.cache
def adding_problems(length: int) -> dataset.Splits:
    """Draw sequences float32 [N, T, 2] of a number in -1..1 and a mark, 1.0 in two places.

    One of them is in the first half. The target, float32 [N], is the sum of the marked numbers.
    """
    random = np.random.RandomState(0)
    numbers = random.uniform(-1.0, 1.0, size=(_NUM_SEQUENCES, length))
    rows, half = np.arange(_NUM_SEQUENCES), length // 2
    marks = np.zeros_like(numbers)
    marks[rows, random.randint(half, size=_NUM_SEQUENCES)] = 1.0
    marks[rows, half + random.randint(length - half, size=_NUM_SEQUENCES)] = 1.0
    inputs = np.stack([numbers, marks], axis=-1).astype(np.float32)
    targets = np.sum(numbers * marks, axis=1).astype(np.float32)
    return dataset.split_rows(dataset.Examples(inputs, targets))
