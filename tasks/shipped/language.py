"""Byte-level language models: a GRU, an LSTM and transformers that predict the next symbol.

The `char_` tasks read the user's text (see `text.load_own`), the `prose_` tasks the embedded one,
which is the same on every machine.
"""

import math
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp

from veldt.tasks.data import text
from veldt.tasks.shipped import attention, image_models, supervised

# Shapes: B batch, T symbols in a window, V vocabulary, W model width.


class Gru(nn.Module):
    """A gated recurrent unit (Cho et al. 2014, arXiv 1406.1078) over embedded symbols.

    Departure: the reset gate acts after the recurrent product, as in cuDNN, so that one matrix
    product per symbol serves all gates.

    Attributes:
      num_symbols: Size of the vocabulary V.
      width: Size W of the hidden state.
    """

    num_symbols: int
    width: int

    @nn.compact
    def __call__(self, symbols: jax.Array) -> jax.Array:
        """Map symbols [B, T] to logits for the next ones [B, T, V]."""
        # A product with one-hot symbols selects rows of a table: the embedding holds W_in directly.
        from_input = nn.Embed(self.num_symbols, 3 * self.width)(symbols)  # [B, T, 3W]
        kernel = self.param("kernel", nn.initializers.orthogonal(), (self.width, 3 * self.width))
        bias = self.param("bias", nn.initializers.zeros, (3 * self.width,))

        def step(state: jax.Array, from_input: jax.Array) -> tuple[jax.Array, jax.Array]:
            from_state = state @ kernel + bias
            reset_in, update_in, new_in = jnp.split(from_input, 3, axis=-1)
            reset_state, update_state, new_state = jnp.split(from_state, 3, axis=-1)
            reset = nn.sigmoid(reset_in + reset_state)
            update = nn.sigmoid(update_in + update_state)
            new = jnp.tanh(new_in + reset * new_state)
            state = (1 - update) * new + update * state
            return state, state

        start = jnp.zeros((symbols.shape[0], self.width), from_input.dtype)
        _, states = jax.lax.scan(step, start, jnp.swapaxes(from_input, 0, 1))  # [T, B, W]
        return nn.Dense(self.num_symbols)(jnp.swapaxes(states, 0, 1))


class Lstm(nn.Module):
    """Layers of long short-term memory (Hochreiter and Schmidhuber 1997) over embedded symbols.

    The forget gate starts at sigmoid(1) (Jozefowicz et al. 2015).

    Attributes:
      num_symbols: Size of the vocabulary V.
      width: Size W of each layer's hidden state.
      num_layers: Number of layers, each reading the one below.
    """

    num_symbols: int
    width: int
    num_layers: int = 1

    @nn.compact
    def __call__(self, symbols: jax.Array) -> jax.Array:
        """Map symbols [B, T] to logits for the next ones [B, T, V]."""
        from_below = nn.Embed(self.num_symbols, 4 * self.width)(symbols)  # [B, T, 4W]
        states = self._layer(from_below, 0)
        for layer in range(1, self.num_layers):
            states = self._layer(nn.Dense(4 * self.width)(states), layer)
        return nn.Dense(self.num_symbols)(states)

    def _layer(self, from_below: jax.Array, layer: int) -> jax.Array:
        """Run one layer over gate products of inputs [B, T, 4W]; return states [B, T, W]."""
        shape = (self.width, 4 * self.width)
        kernel = self.param(f"kernel_{layer}", nn.initializers.orthogonal(), shape)
        bias = self.param(f"bias_{layer}", nn.initializers.zeros, (4 * self.width,))

        def step(
            carry: tuple[jax.Array, jax.Array], from_below: jax.Array
        ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            state, cell = carry
            gates = from_below + state @ kernel + bias
            enter, forget, leave, new = jnp.split(gates, 4, axis=-1)
            cell = nn.sigmoid(forget + 1.0) * cell + nn.sigmoid(enter) * jnp.tanh(new)
            state = nn.sigmoid(leave) * jnp.tanh(cell)
            return (state, cell), state

        start = jnp.zeros((from_below.shape[0], self.width), from_below.dtype)
        _, states = jax.lax.scan(step, (start, start), jnp.swapaxes(from_below, 0, 1))
        return jnp.swapaxes(states, 0, 1)


class Transformer(nn.Module):
    """A decoder of `attention.Block`s with learned positions.

    Attributes:
      num_symbols: Size of the vocabulary V.
      width: Model width W.
      num_heads: Number of attention heads; divides W.
      num_layers: Number of blocks.
      activation: Activation of the blocks' hidden layers.
    """

    num_symbols: int
    width: int
    num_heads: int
    num_layers: int
    activation: image_models.Activation = nn.relu

    @nn.compact
    def __call__(self, symbols: jax.Array) -> jax.Array:
        """Map symbols [B, T] to logits for the next ones [B, T, V]."""
        shape = (symbols.shape[1], self.width)
        positions = self.param("positions", nn.initializers.normal(0.02), shape)
        x = nn.Embed(self.num_symbols, self.width)(symbols) + positions
        for _ in range(self.num_layers):
            x = attention.Block(self.num_heads, causal=True, activation=self.activation)(x)
        return nn.Dense(self.num_symbols)(nn.LayerNorm()(x))


def char_gru(text_file: Path | None = None) -> supervised.SupervisedTask:
    """Predict the next byte of a text with a GRU of width 32."""
    corpus = text.load_own(16, text_file)
    return _language_model("char_gru", Gru(corpus.num_symbols, width=32), corpus, batch_size=8)


def char_transformer(text_file: Path | None = None) -> supervised.SupervisedTask:
    """Predict the next byte of a text with a one-layer transformer of width 32."""
    corpus = text.load_own(16, text_file)
    module = Transformer(corpus.num_symbols, width=32, num_heads=2, num_layers=1)
    return _language_model("char_transformer", module, corpus, batch_size=8)


def prose_gru() -> supervised.SupervisedTask:
    """Predict the next byte of English prose with a GRU of width 64, 24 bytes, batch 16."""
    corpus = text.load_jargon(24)
    return _language_model("prose_gru", Gru(corpus.num_symbols, width=64), corpus, batch_size=16)


def prose_gru_wide() -> supervised.SupervisedTask:
    """Predict the next byte of English prose with a GRU of width 256, 64 bytes, batch 64."""
    corpus = text.load_jargon(64)
    module = Gru(corpus.num_symbols, width=256)
    return _language_model("prose_gru_wide", module, corpus, batch_size=64)


def prose_lstm() -> supervised.SupervisedTask:
    """Predict the next byte of English prose with two LSTM layers of width 64, 32 bytes."""
    corpus = text.load_jargon(32)
    module = Lstm(corpus.num_symbols, width=64, num_layers=2)
    return _language_model("prose_lstm", module, corpus, batch_size=16)


def prose_transformer() -> supervised.SupervisedTask:
    """Predict the next byte of English prose with two transformer blocks of width 32, 24 bytes."""
    corpus = text.load_jargon(24)
    module = Transformer(corpus.num_symbols, 32, num_heads=2, num_layers=2)
    return _language_model("prose_transformer", module, corpus, batch_size=8)


def prose_transformer_deep() -> supervised.SupervisedTask:
    """Predict the next byte of English prose with six GELU blocks of width 64, 64 bytes."""
    corpus = text.load_jargon(64)
    module = Transformer(corpus.num_symbols, 64, num_heads=4, num_layers=6, activation=nn.gelu)
    return _language_model("prose_transformer_deep", module, corpus, batch_size=16)


def prose_transformer_wide() -> supervised.SupervisedTask:
    """Predict the next byte of English prose with four GELU blocks of width 256, 128 bytes."""
    corpus = text.load_jargon(128)
    module = Transformer(corpus.num_symbols, 256, num_heads=8, num_layers=4, activation=nn.gelu)
    return _language_model("prose_transformer_wide", module, corpus, batch_size=32)


def _language_model(
    name: str, module: nn.Module, corpus: text.Corpus, batch_size: int
) -> supervised.SupervisedTask:
    return supervised.SupervisedTask(
        name=name,
        module=module,
        criterion=supervised.cross_entropy,
        splits=supervised.on_device(corpus.splits),
        batch_size=batch_size,
        eval_size=128,
        reference_loss=jnp.asarray(math.log(corpus.num_symbols), jnp.float32),
    )
