"""The network that reads how training goes and steers the rule: VeLO's, which Celo has too.

Rows (tensors, for VeLO) are mixed by a maximum over all of them, pass through an LSTM, and come out
as controls and a step size (`HyperV2._rnn_forward`, google/learned_optimization, hyper_v2.py).

The original makes a linear layer whose output it throws away, because the layer after it reads the
wrong variable. Nothing depends on its weights. They are here, under `unused`, so that the meta-
parameters are as many as published and a published file has a place for each of its arrays.
"""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from veldt.learned_opt.blocks import recurrent
from veldt.tasks.common import types

Weights: TypeAlias = dict[str, Any]
"""`unused`, `mix`, `input`, `lstm`, `controls`, `step_size`: linear layers; `start`: LSTM state."""


def init(key: types.Key, num_inputs: int, hidden_size: int, num_controls: int) -> Weights:
    """Return untrained weights; the key is consumed."""
    names = ("unused", "mix", "input", "lstm", "controls", "step_size")
    keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))
    wide = {
        name: recurrent.init_linear(keys[name], num_inputs, hidden_size)
        for name in ("unused", "mix", "input")
    }
    return {
        **wide,
        "lstm": recurrent.init_lstm(keys["lstm"], hidden_size, hidden_size),
        "start": recurrent.init_state(hidden_size),
        "controls": recurrent.init_linear(keys["controls"], hidden_size, num_controls),
        "step_size": recurrent.init_linear(keys["step_size"], hidden_size, 1),
    }


def apply(
    weights: Weights, x: jax.Array, state: recurrent.LstmState
) -> tuple[jax.Array, jax.Array, recurrent.LstmState]:
    """Take one step.

    Args:
      weights: Weights from `init`.
      x: Inputs, [rows, inputs], at least one row.
      state: LSTM state, [rows, hidden].

    Returns:
      Controls [rows, num_controls], step sizes [rows], and the next state.
    """
    mixed = jnp.max(jax.nn.relu(recurrent.linear(weights["mix"], x)), axis=0, keepdims=True)
    state = recurrent.lstm(weights["lstm"], recurrent.linear(weights["input"], x) + mixed, state)
    controls = recurrent.linear(weights["controls"], state.hidden)
    return controls, recurrent.linear(weights["step_size"], state.hidden)[:, 0], state
