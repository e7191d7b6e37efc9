"""A linear layer and an LSTM cell as functions of plain dicts, with Haiku's layout and start.

Published weights are Haiku's: one linear map of input and hidden state to the four gates in the
order input, candidate, forget, output; one is added to the forget gate.
"""

import math
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from veldt.tasks.common import types

Linear: TypeAlias = dict[str, jax.Array]
"""`w` [inputs, outputs] and `b` [outputs], float32."""


class LstmState(NamedTuple):
    """The state of an LSTM, each [..., hidden]."""

    hidden: jax.Array
    cell: jax.Array


def init_linear(key: types.Key, num_inputs: int, num_outputs: int) -> Linear:
    """Return weights of deviation 1 / sqrt(inputs), cut at two; the key is consumed."""
    normal = jax.random.truncated_normal(key, -2.0, 2.0, (num_inputs, num_outputs), jnp.float32)
    return {"w": normal / math.sqrt(num_inputs), "b": jnp.zeros((num_outputs,), jnp.float32)}


def linear(weights: Linear, x: jax.Array) -> jax.Array:
    """Return x [..., inputs] times the weights, plus the bias."""
    return jnp.dot(x, weights["w"], precision=jax.lax.Precision.HIGHEST) + weights["b"]


def init_lstm(key: types.Key, num_inputs: int, hidden_size: int) -> Linear:
    """Return the gates' linear map; the key is consumed."""
    return init_linear(key, num_inputs + hidden_size, 4 * hidden_size)


def init_state(hidden_size: int) -> dict[str, jax.Array]:
    """Return a start of zeros; a meta-parameter, so a plain dict."""
    zeros = jnp.zeros((hidden_size,), jnp.float32)
    return {"hidden": zeros, "cell": zeros}


def tile_state(start: dict[str, jax.Array], count: int) -> LstmState:
    """Return the start, once for each of `count` rows."""
    hidden, cell = (jnp.tile(start[name], (count, 1)) for name in ("hidden", "cell"))
    return LstmState(hidden, cell)


def lstm(weights: Linear, x: jax.Array, state: LstmState) -> LstmState:
    """Take one step.

    Args:
      weights: Weights from `init_lstm`.
      x: Inputs, [rows, inputs].
      state: [rows, hidden].

    Returns:
      The next state, whose `hidden` is the output.
    """
    gates = linear(weights, jnp.concatenate([x, state.hidden], axis=-1))
    write, candidate, forget, output = jnp.split(gates, 4, axis=-1)
    cell = jax.nn.sigmoid(forget + 1.0) * state.cell + jax.nn.sigmoid(write) * jnp.tanh(candidate)
    return LstmState(jax.nn.sigmoid(output) * jnp.tanh(cell), cell)
