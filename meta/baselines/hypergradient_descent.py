"""Hypergradient descent: a learning rate that follows the hypergradient of the last step.

Baydin, Cornish, Martinez Rubio, Schmidt and Wood 2018 (arXiv 1703.04782;
github.com/gbaydin/hypergradient-descent). Of a step w_t = w_{t-1} - α u_{t-1}, the loss has the
derivative -g_t · u_{t-1} by α, g_t being the next gradient. With h = g_t · u_{t-1}, before step t

    α <- α + β h                           additive
    α <- α (1 + β h / (‖g_t‖ ‖u_{t-1}‖))   multiplicative

SGD-HD and Adam-HD are the method over plain or momentum gradient descent and over Adam. Nothing
keeps α from growing without bound or below zero, in the paper as here.

Departures: Adam's ε is added after the bias correction of the second moment, as Optax does and the
authors' code does not. As there, weight decay is left to another transform of the chain; one that
comes before is part of g.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

RateRule: TypeAlias = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""`(rate, alignment, size) -> rate`: alignment is h, size is ‖g_t‖ ‖u_{t-1}‖; all float []."""


def additive(hypergradient_rate: float | jax.Array) -> RateRule:
    """Return α <- α + β h; β is 1e-6 for SGD-HD and 1e-8 for Adam-HD by the authors' default."""

    def rule(rate: jax.Array, alignment: jax.Array, size: jax.Array) -> jax.Array:
        del size
        return rate + hypergradient_rate * alignment

    return rule


def multiplicative(hypergradient_rate: float | jax.Array) -> RateRule:
    """Return α <- α (1 + β cos), cos the cosine between g_t and u_{t-1}; β is a few percent."""

    def rule(rate: jax.Array, alignment: jax.Array, size: jax.Array) -> jax.Array:
        # Before the first step u is zero: no change, and no division by zero.
        cosine = alignment / jnp.where(size > 0, size, 1.0)
        return rate * (1.0 + hypergradient_rate * cosine)

    return rule


class HypergradientState(NamedTuple):
    """State of `scale_by_hypergradient`."""

    learning_rate: jax.Array  # shape=(), α of the last step.
    direction: optax.Updates  # u of the last step, shaped as the parameters.
    inner_state: optax.OptState


def scale_by_hypergradient(
    direction: optax.GradientTransformation, learning_rate: float | jax.Array, rule: RateRule
) -> optax.GradientTransformation:
    """Step along `direction` at a rate that moves by `rule`.

    Args:
      direction: What turns gradients into u, such as `optax.scale_by_adam()`: an ascent direction.
      learning_rate: α of the first step; for Adam-HD it may be 0.
      rule: `additive(β)` or `multiplicative(β)`.

    Returns:
      A transform whose updates are -α u.
    """

    def init_fn(params: optax.Params) -> HypergradientState:
        return HypergradientState(
            learning_rate=jnp.asarray(learning_rate, jnp.result_type(float)),
            direction=jax.tree.map(jnp.zeros_like, params),
            inner_state=direction.init(params),
        )

    def update_fn(
        updates: optax.Updates, state: HypergradientState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, HypergradientState]:
        rate = rule(
            state.learning_rate,
            optax.tree.vdot(updates, state.direction),
            optax.tree.norm(updates) * optax.tree.norm(state.direction),
        ).astype(state.learning_rate.dtype)
        step, inner_state = direction.update(updates, state.inner_state, params)
        updates = jax.tree.map(lambda u: (-rate * u).astype(u.dtype), step)
        return updates, HypergradientState(rate, step, inner_state)

    return optax.GradientTransformation(init_fn, update_fn)


def sgd_hd(
    learning_rate: float | jax.Array,
    rule: RateRule,
    *,
    momentum: float | jax.Array = 0.0,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """Gradient descent, with momentum or not, under hypergradient descent.

    Args:
      learning_rate: α of the first step.
      rule: How it moves, for instance `additive(1e-3)`.
      momentum: Decay of the trace of gradients; at 0 this is the paper's SGD-HD.
      nesterov: Whether the momentum is Nesterov's: the paper's SGDN-HD.

    Returns:
      The transform.
    """
    return scale_by_hypergradient(optax.trace(momentum, nesterov), learning_rate, rule)


def adam_hd(
    learning_rate: float | jax.Array,
    rule: RateRule,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Adam under hypergradient descent.

    Args:
      learning_rate: α of the first step.
      rule: How it moves, for instance `additive(1e-7)`.
      b1: Decay of the first moment.
      b2: Decay of the second moment.
      eps: Number that is added to the root of the second moment.

    Returns:
      The transform.
    """
    return scale_by_hypergradient(optax.scale_by_adam(b1, b2, eps), learning_rate, rule)
