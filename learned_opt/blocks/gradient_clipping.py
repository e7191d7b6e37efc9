"""Clipping of gradients to ten times their running root mean square.

From `_DynamicGradientClipper` (google/learned_optimization, rnn_mlp_lopt.py). A NaN counts as 0;
the original lets it through, and no bound is ever a number again.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from veldt.learned_opt.blocks import reductions, tensors

_DECAY = 0.99
_FACTOR = 10.0


class ClippingState(NamedTuple):
    """The running root mean square, not yet bias-corrected; as if a step of 1 was seen."""

    count: Any  # shape=(), dtype=jnp.int32
    size: jax.Array  # shape=(), dtype=jnp.float32


def init() -> ClippingState:
    """Return the state before the first gradient; the first bound is 10."""
    return ClippingState(jnp.ones([], jnp.int32), jnp.asarray(1 - _DECAY, jnp.float32))


def clip(state: ClippingState, grads: Sequence[jax.Array]) -> tuple[ClippingState, list[jax.Array]]:
    """Clip every gradient to the bound, then take their size in.

    Args:
      state: State from `init` or from the step before.
      grads: One tensor or more; each counts alike in the mean square.

    Returns:
      The next state and the clipped gradients.
    """
    bound = _FACTOR * state.size / (1 - _DECAY ** state.count.astype(jnp.float32))
    clipped = [tensors.clip(grad, bound) for grad in grads]
    squares = [reductions.mean_squares([grad])[0].reshape(()) for grad in clipped]
    size = jnp.sqrt(1e-8 + sum(squares, start=jnp.zeros(())) / len(squares)).astype(jnp.float32)
    return ClippingState(state.count + 1, _DECAY * state.size + (1 - _DECAY) * size), clipped
