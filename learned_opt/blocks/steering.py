"""A scale for each tensor that goes up and down while training runs, by a small recurrent net.

What it reads has no units: it is the same if the loss, the gradient or the parameters are
multiplied by a number. Its weights are the same for all tensors, and its only memory is the scale
itself and a few averages, so it costs almost nothing beside a step. Rates that adapt so have a long
history: delta-bar-delta (Jacobs 1988) and hypergradient descent (Baydin et al. 2018, arXiv
1703.04782) read the cosine of successive gradients, the first feature here.

Shapes: R tensors, F features, H hidden units.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp

from veldt.learned_opt.blocks import recurrent
from veldt.tasks.common import types

NUM_FEATURES: Final = 9
_LEAK: Final = 0.02  # Share of the logarithm of the scale that is forgotten in a step.
_LARGEST_CHANGE: Final = 0.1  # of the logarithm, in a step
_LARGEST_LOG: Final = 3.0
_OUTPUT_GAIN: Final = 10.0  # How fast the output moves with its weights.
_FAST: Final = 0.9  # Decays of the averages of the loss.
_SLOW: Final = 0.98
_ENERGY: Final = 0.95  # Decay of the average of the squared gradient.
_LEAST_SPREAD: Final = 1e-3  # relative to the loss
_TINY: Final = 1e-30


class SteeringState(NamedTuple):
    """State of the scales."""

    log_scale: jax.Array  # [R]
    energy: jax.Array  # [R], average of the gradient's mean square
    fast: Any  # shape=(), dtype=jnp.float32; averages of the loss, not bias-corrected
    slow: Any  # shape=(), dtype=jnp.float32
    spread: Any  # shape=(), dtype=jnp.float32; average distance of the loss from `slow`
    first: Any  # shape=(), dtype=jnp.float32; first loss
    count: Any  # shape=(), dtype=jnp.int32; losses taken in


class Seen(NamedTuple):
    """What is known of a tensor before its step.

    Attributes:
      cosine: Cosine of the gradient and the momentum before it, float [].
      energy: Mean square of the gradient, float [].
      momentum: Mean square of the bias-corrected momentum before the gradient, float [].
      ratio: Root mean square of the step planned over that of the parameters, float [].
    """

    cosine: jax.Array
    energy: jax.Array
    momentum: jax.Array
    ratio: jax.Array


def stack(seen: Sequence[Seen]) -> Seen:
    """Return what is known of all tensors, each field [R]."""
    return Seen(*(jnp.stack(part) for part in zip(*seen, strict=True)))


def init_weights(key: types.Key, hidden_size: int) -> dict[str, Any]:
    """Return weights that leave all scales at 1; the key is consumed."""
    return {
        "hidden": recurrent.init_linear(key, NUM_FEATURES, hidden_size),
        "output": {
            "w": jnp.zeros((hidden_size, 1), jnp.float32),
            "b": jnp.zeros((1,), jnp.float32),
        },
    }


def init(num_tensors: int) -> SteeringState:
    """Return the state before the first step: all scales are 1."""
    zero = jnp.zeros((), jnp.float32)
    rows = jnp.zeros((num_tensors,), jnp.float32)
    return SteeringState(rows, rows, zero, zero, zero, zero, jnp.zeros((), jnp.int32))


def update(
    weights: dict[str, Any],
    state: SteeringState,
    seen: Seen,
    loss: jax.Array,
    progress: jax.Array,
    length: jax.Array,
) -> SteeringState:
    """Take in a step's gradient and loss, and move the scales.

    Args:
      weights: Weights from `init_weights`, or trained.
      state: State before the step.
      seen: What is known of the tensors, each field [R].
      loss: Loss before the step, float []; one that is not finite is left out.
      progress: Share of the run that is done, float [].
      length: Number of steps of the run, float [].

    Returns:
      The state with the scales of this step.
    """
    state = _take_loss(state, loss)
    count = state.count.astype(jnp.float32)
    energy = _ENERGY * state.energy + (1 - _ENERGY) * seen.energy
    corrected = energy / (1 - _ENERGY ** jnp.maximum(count, 1.0))
    shared = jnp.stack(
        [
            jnp.mean(seen.cosine),
            _trend(state, count),
            _level(state, count),
            progress,
            jnp.log10(length) - 2.5,
        ]
    )
    rows = jnp.stack(
        [
            seen.cosine,
            jnp.clip(seen.momentum / (corrected + _TINY), 0.0, 1.0),
            0.2 * jnp.clip(jnp.log(seen.ratio + 1e-12) + state.log_scale, -10.0, 10.0),
            state.log_scale,
        ],
        axis=-1,
    )
    features = jnp.concatenate(
        [rows, jnp.broadcast_to(shared, (rows.shape[0], shared.shape[0]))], axis=-1
    )
    hidden = jnp.tanh(recurrent.linear(weights["hidden"], features))
    output = _OUTPUT_GAIN * recurrent.linear(weights["output"], hidden)[:, 0]
    moved = (1 - _LEAK) * state.log_scale + _LARGEST_CHANGE * jnp.tanh(output)
    log_scale = jnp.clip(moved, -_LARGEST_LOG, _LARGEST_LOG)
    return state._replace(log_scale=log_scale, energy=energy)


def _take_loss(state: SteeringState, loss: jax.Array) -> SteeringState:
    """Return the state with a loss in its averages."""
    loss = loss.astype(jnp.float32)
    usable = jnp.isfinite(loss)
    before = state.slow / (1 - _SLOW ** jnp.maximum(state.count, 1).astype(jnp.float32))
    distance = jnp.where(state.count == 0, 0.0, jnp.abs(loss - before))
    taken = state._replace(
        fast=_FAST * state.fast + (1 - _FAST) * loss,
        slow=_SLOW * state.slow + (1 - _SLOW) * loss,
        spread=_SLOW * state.spread + (1 - _SLOW) * distance,
        first=jnp.where(state.count == 0, loss, state.first),
        count=state.count + 1,
    )
    return jax.tree.map(lambda new, old: jnp.where(usable, new, old), taken, state)


def _means(state: SteeringState, count: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the bias-corrected averages: fast, slow and spread."""
    count = jnp.maximum(count, 1.0)
    slow = 1 - _SLOW**count
    return state.fast / (1 - _FAST**count), state.slow / slow, state.spread / slow


def _trend(state: SteeringState, count: jax.Array) -> jax.Array:
    """Return how far the loss has moved lately, in units of its spread, clipped to +-3."""
    fast, slow, spread = _means(state, count)
    # At first there is no spread but that of rounding.
    unit = jnp.maximum(spread, _LEAST_SPREAD * jnp.abs(slow)) + _TINY
    return jnp.clip((fast - slow) / unit, -3.0, 3.0)


def _level(state: SteeringState, count: jax.Array) -> jax.Array:
    """Return half the logarithm of the loss over the first one; 0 where one is not positive."""
    fast, _, _ = _means(state, count)
    positive = (fast > 0) & (state.first > 0)
    ratio = jnp.where(positive, fast, 1.0) / jnp.where(positive, state.first, 1.0)
    return jnp.clip(0.5 * jnp.log(jnp.maximum(ratio, 1e-8)), -2.5, 2.5)
