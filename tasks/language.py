"""Byte-level language models on a text or code file: a GRU and a one-layer transformer.

The text is the file that `VELDT_TEXT` (or the factory's argument) names. The default needs no file
of the user's: source modules of the running Python's standard library, a fixed list whose text
differs a little between Python versions (compare losses within one version). The first 80% of the
bytes are for training, then 10% for validation and 10% for test. The vocabulary is the bytes of the
training part and one symbol for all others.
"""

import dataclasses
import functools
import math
import os
import sysconfig
from pathlib import Path
from typing import final

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from veldt.tasks import dataset, errors, supervised

# Shapes: B batch, T symbols in a window, V vocabulary, W model width.

TEXT_VARIABLE = "VELDT_TEXT"
"""Environment variable that names the text file of the language tasks."""

# In every Python from 3.11 to 3.14, as one file each; 0.7 MB together.
STANDARD_LIBRARY_MODULES = (
    "argparse",
    "calendar",
    "configparser",
    "dataclasses",
    "difflib",
    "fractions",
    "inspect",
    "ipaddress",
    "random",
    "shutil",
    "statistics",
    "subprocess",
    "tarfile",
    "typing",
)

_WINDOW = 16  # T; with 8 windows to a batch, a step of either model costs under 1 ms on a core
_MIN_WINDOWS = 16  # in the smallest part; less is no measurement


@final
@dataclasses.dataclass(frozen=True)
class Corpus:
    """A text cut into windows of symbols.

    Attributes:
      splits: inputs uint8 [N, T] and targets uint8 [N, T], each target the symbol that follows.
      num_symbols: V, the symbols that occur in training and one for the rest.
    """

    splits: dataset.Splits
    num_symbols: int


class Gru(nn.Module):
    """A gated recurrent unit (Cho et al. 2014, arXiv 1406.1078) over embedded symbols.

    Departure: the reset gate acts after the recurrent product, as in cuDNN, so that one matrix
    product per symbol serves all gates.

    Attributes:
      num_symbols: V.
      width: W, size of the hidden state.
    """

    num_symbols: int
    width: int

    @nn.compact
    def __call__(self, symbols: jax.Array) -> jax.Array:
        """Map symbols [B, T] to logits for the next ones [B, T, V]."""
        # An input product with one-hot symbols is a look-up: the embedding holds W_in directly.
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


class Transformer(nn.Module):
    """A decoder of pre-norm blocks with learned positions.

    GPT-2's form, but with ReLU and a hidden layer of twice the width, not GELU and four times.

    Attributes:
      num_symbols: V.
      width: W.
      num_heads: Attention heads; divides W.
      num_layers: Blocks.
    """

    num_symbols: int
    width: int
    num_heads: int
    num_layers: int

    @nn.compact
    def __call__(self, symbols: jax.Array) -> jax.Array:
        """Map symbols [B, T] to logits for the next ones [B, T, V]."""
        num_positions = symbols.shape[1]
        positions = self.param("positions", nn.initializers.normal(0.02), (_WINDOW, self.width))
        x = nn.Embed(self.num_symbols, self.width)(symbols) + positions[:num_positions]
        for _ in range(self.num_layers):
            x = x + self._attend(nn.LayerNorm()(x))
            hidden = nn.relu(nn.Dense(2 * self.width)(nn.LayerNorm()(x)))
            x = x + nn.Dense(self.width)(hidden)
        return nn.Dense(self.num_symbols)(nn.LayerNorm()(x))

    def _attend(self, x: jax.Array) -> jax.Array:
        """Causal self-attention, [B, T, W] to [B, T, W]."""
        num_rows, num_positions, _ = x.shape
        by_head = (num_rows, num_positions, 3 * self.num_heads, self.width // self.num_heads)
        joint = jnp.swapaxes(nn.Dense(3 * self.width)(x).reshape(by_head), 1, 2)
        query, key, value = jnp.split(joint, 3, axis=1)  # each [B, heads, T, W / heads]
        scores = jnp.einsum("bhtd,bhsd->bhts", query, key) / math.sqrt(query.shape[-1])
        causal = jnp.tril(jnp.ones((num_positions, num_positions), bool))
        weights = nn.softmax(jnp.where(causal, scores, -jnp.inf))
        mixed = jnp.einsum("bhts,bhsd->bhtd", weights, value)
        return nn.Dense(self.width)(jnp.swapaxes(mixed, 1, 2).reshape(x.shape))


def char_gru(text_file: Path | None = None) -> supervised.SupervisedTask:
    """Predict the next byte of a text with a GRU of width 32."""
    corpus = load_corpus(text_file)
    return _language_model("char_gru", Gru(corpus.num_symbols, width=32), corpus)


def char_transformer(text_file: Path | None = None) -> supervised.SupervisedTask:
    """Predict the next byte of a text with a one-layer transformer of width 32."""
    corpus = load_corpus(text_file)
    module = Transformer(corpus.num_symbols, width=32, num_heads=2, num_layers=1)
    return _language_model("char_transformer", module, corpus)


def load_corpus(text_file: Path | None = None) -> Corpus:
    """Load the text that the argument, else `VELDT_TEXT`, else nothing names (see the module).

    Raises:
      MissingDataError: The file, or Python's own source, is not there.
      TaskError: The text is too short.
    """
    user_file = os.environ.get(TEXT_VARIABLE)
    if text_file is None and user_file:
        text_file = Path(user_file)
    if text_file is not None:
        return _read_corpus((text_file.resolve(),))
    folder = Path(sysconfig.get_path("stdlib"))
    return _read_corpus(tuple(folder / f"{module}.py" for module in STANDARD_LIBRARY_MODULES))


@functools.cache
def _read_corpus(files: tuple[Path, ...]) -> Corpus:
    try:
        text = np.frombuffer(b"".join(file.read_bytes() for file in files), np.uint8)
    except OSError as error:
        cure = f"Set {TEXT_VARIABLE} to any text or code file of 100 kB or more."
        raise errors.MissingDataError.of(f"text ({error})", files[:1], cure) from error
    train, valid, test = np.split(text, [len(text) * 8 // 10, len(text) * 9 // 10])
    if len(test) <= _MIN_WINDOWS * _WINDOW:
        raise errors.TaskError(
            f"the text {files[0]} has {len(text)} bytes; a language task needs at least "
            f"{10 * (_MIN_WINDOWS * _WINDOW + 1)}."
        )
    known = np.unique(train)
    symbol_of = np.full(256, len(known), np.uint8)  # the last symbol stands for all other bytes
    symbol_of[known] = np.arange(len(known))
    splits: dataset.Splits = {
        "train": _windows(symbol_of[train]),
        "valid": _windows(symbol_of[valid]),
        "test": _windows(symbol_of[test]),
    }
    return Corpus(splits, num_symbols=len(known) + 1)


def _windows(symbols: np.ndarray) -> dataset.Examples:
    """Cut symbols into windows of T with the T that follow one later, in a fixed random order."""
    num_windows = (len(symbols) - 1) // _WINDOW
    num_used = num_windows * _WINDOW
    rows = dataset.shuffled(num_windows)
    return dataset.Examples(
        symbols[:num_used].reshape(num_windows, _WINDOW)[rows],
        symbols[1 : num_used + 1].reshape(num_windows, _WINDOW)[rows],
    )


def _language_model(name: str, module: nn.Module, corpus: Corpus) -> supervised.SupervisedTask:
    return supervised.SupervisedTask(
        name=name,
        module=module,
        criterion=supervised.cross_entropy,
        splits=supervised.on_device(corpus.splits),
        batch_size=8,
        eval_size=128,
        reference_loss=jnp.asarray(math.log(corpus.num_symbols), jnp.float32),
    )
