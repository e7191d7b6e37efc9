"""Optax transforms whose derivatives are finite: what to train with when a metagradient is wanted.

Optax's own take square roots of second moments and of norms, whose derivative at zero is infinite:
one parameter that never gets a gradient makes the whole metagradient NaN. (Adam's cure is
`eps_root`, which changes the training.) Here the derivative at zero is zero, and the updates are
Optax's to the bit. Lion's sign has no derivative to speak of; a smooth one takes its place.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from veldt.tasks.common import safe_math, types

Number = float | jax.Array


class ScaleByAdamState(NamedTuple):
    """State of `scale_by_adam`, as Optax's."""

    count: Any  # shape=(), dtype=jnp.int32; steps taken
    mu: types.Params
    nu: types.Params


def scale_by_adam(
    b1: Number = 0.9, b2: Number = 0.999, eps: Number = 1e-8, eps_root: Number = 0.0
) -> optax.GradientTransformation:
    """`optax.scale_by_adam`, differentiable where a second moment is zero.

    Args:
      b1: Decay of the mean of gradients.
      b2: Decay of the mean of squares.
      eps: Number that is added to the root.
      eps_root: Number that is added under the root. It makes training smoother in the
        meta-parameters, and a little worse: 1e-8 to 1e-6 where gradients of single runs must be
        right.
    """

    def init_fn(params: types.Params) -> ScaleByAdamState:
        zeros = optax.tree.zeros_like(params)
        return ScaleByAdamState(jnp.zeros([], jnp.int32), zeros, zeros)

    def update_fn(
        updates: types.Grads, state: ScaleByAdamState, params: types.Params | None = None
    ) -> tuple[types.Grads, ScaleByAdamState]:
        del params
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, b2, 2)
        count = optax.safe_increment(state.count)
        mu_hat = optax.tree.bias_correction(mu, b1, count)
        nu_hat = optax.tree.bias_correction(nu, b2, count)
        updates = jax.tree.map(
            lambda m, v: m / (safe_math.safe_sqrt(jnp, v + eps_root) + eps), mu_hat, nu_hat
        )
        return updates, ScaleByAdamState(count, mu, optax.tree.cast_like(nu, state.nu))

    return optax.GradientTransformation(init_fn, update_fn)


def clip_by_global_norm(max_norm: Number) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm`, differentiable where all gradients are zero.

    Args:
      max_norm: The largest norm that stays.
    """

    def update_fn(
        updates: types.Grads, state: optax.EmptyState, params: types.Params | None = None
    ) -> tuple[types.Grads, optax.EmptyState]:
        del params
        norm = safe_math.safe_sqrt(jnp, optax.tree.norm(updates, squared=True))
        within = norm < max_norm
        divisor = jnp.where(within | (norm == 0), 1.0, norm)

        def clip(leaf: jax.Array) -> jax.Array:
            return jnp.where(within, leaf, (leaf / divisor.astype(leaf.dtype)) * max_norm)

        return jax.tree.map(clip, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update_fn)


class ScaleByLionState(NamedTuple):
    """State of `scale_by_lion`, as Optax's."""

    count: Any  # shape=(), dtype=jnp.int32; steps taken
    mu: types.Params


def scale_by_lion(
    b1: Number = 0.9, b2: Number = 0.99, *, width: Number | None = None
) -> optax.GradientTransformation:
    """`optax.scale_by_lion`, with a smooth sign.

    Args:
      b1: Decay of what the sign is taken of.
      b2: Decay of the momentum.
      width: Width of `smooth_sign`; None for the sign itself, which has a derivative of zero.
    """

    def init_fn(params: types.Params) -> ScaleByLionState:
        return ScaleByLionState(jnp.zeros([], jnp.int32), optax.tree.zeros_like(params))

    def update_fn(
        updates: types.Grads, state: ScaleByLionState, params: types.Params | None = None
    ) -> tuple[types.Grads, ScaleByLionState]:
        del params
        mixed = jax.tree.map(lambda g, m: (1.0 - b1) * g + b1 * m, updates, state.mu)
        mu = optax.tree.update_moment(updates, state.mu, b2, 1)
        sign = jax.tree.map(lambda x: smooth_sign(x, width), mixed)
        return sign, ScaleByLionState(optax.safe_increment(state.count), mu)

    return optax.GradientTransformation(init_fn, update_fn)


def smooth_sign(x: jax.Array, width: Number | None) -> jax.Array:
    """Return tanh(x / width): the sign of what is well above `width`, and linear below.

    Args:
      x: Float, of any shape.
      width: Width of the transition, in x's units; None for the sign itself.
    """
    return jnp.sign(x) if width is None else jnp.tanh(x / width)
