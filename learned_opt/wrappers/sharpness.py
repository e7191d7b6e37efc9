"""Sharpness-aware minimisation around any transform: the gradient is taken uphill.

Foret, Kleiner, Mobahi & Neyshabur 2021, "Sharpness-Aware Minimization for Efficiently Improving
Generalization" (arXiv 2010.01412), Algorithm 1: the gradient at w + rho * g / |g|, where |g| is the
norm over all parameters, goes to the optimizer at w. Two forms, which are those of
`optax.contrib.sam` with `sync_period=2`: `sam` takes the second gradient itself, `sam_alternating`
gets it by the loop's next step. It departs from Optax's where a gradient is zero, which moves
nothing and is not divided by, and in that extra arguments (`value=`) reach the wrapped transform.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt import errors
from veldt.learned_opt.wrappers import whole_trees
from veldt.tasks.common import types


def sam(
    tx: optax.GradientTransformation, rho: float = 0.05
) -> optax.GradientTransformationExtraArgs:
    """Return the transform that is given the gradient at the parameters moved uphill by `rho`.

    The second gradient comes by Optax's extra argument, once in each update:

        grad_fn = jax.grad(lambda params, _: loss_fn(params, batch))
        updates, state = tx.update(grads, state, params, grad_fn=grad_fn)

    As in `optax.contrib.sam`, `grad_fn` takes the parameters and a number, here always 0. The state
    is the wrapped transform's own. Where gradients are averaged over devices, `grad_fn` must do so.

    Args:
      tx: Transform.
      rho: Distance of the move uphill, Euclidean over all parameters.
    """
    inner = optax.with_extra_args_support(tx)

    def update_fn(
        updates: types.Grads,
        state: types.OptState,
        params: types.Params | None = None,
        *,
        grad_fn: Callable[[types.Params, int], types.Grads] | None = None,
        **extra_args: Any,
    ) -> tuple[types.Grads, types.OptState]:
        if params is None:
            raise errors.MissingInputError.params("sam")
        if grad_fn is None:
            raise errors.MissingInputError.grad_fn("sam")
        uphill = jax.tree.map(jnp.add, params, _ascent(updates, params, rho))
        return inner.update(grad_fn(uphill, 0), state, params, grad_fn=grad_fn, **extra_args)

    return whole_trees.on_trained(optax.GradientTransformationExtraArgs(inner.init, update_fn))


class SamState(NamedTuple):
    """State of `sam_alternating`."""

    is_uphill: Any  # shape=(), dtype=bool; whether the loop holds the parameters moved uphill
    anchor: types.Params  # as the parameters; the true ones while `is_uphill`
    inner: types.OptState

    def eval_params(self, params: types.Params) -> types.Params:
        """Return the true parameters."""
        choose = lambda w, anchor: jnp.where(self.is_uphill, anchor, w)  # noqa: E731
        return whole_trees.with_held(choose, params, self.anchor)


def sam_alternating(
    tx: optax.GradientTransformation, rho: float = 0.05
) -> optax.GradientTransformationExtraArgs:
    """Return `sam` for loops that give a gradient a step and no function.

    Two of the loop's steps are one of the wrapped transform's: the first goes uphill, the second
    goes back and makes the step. Give each batch twice for what the paper does. After a first step
    `veldt.wrappers.eval_params(state, params)` gives the true parameters. A loss in `value=` is the
    second step's, so that at the parameters moved uphill.

    Args:
      tx: Transform.
      rho: Distance of the move uphill, Euclidean over all parameters.
    """
    inner = optax.with_extra_args_support(tx)

    def init_fn(params: types.Params) -> SamState:
        # Copies, so that a jitted step may be donated both the parameters and the state.
        anchor = jax.tree.map(jnp.copy, params)
        return SamState(jnp.zeros([], bool), anchor, inner.init(params))

    def update_fn(
        updates: types.Grads,
        state: SamState,
        params: types.Params | None = None,
        **extra_args: Any,
    ) -> tuple[types.Grads, SamState]:
        if params is None:
            raise errors.MissingInputError.params("sam_alternating")

        def back() -> tuple[types.Grads, types.Params, types.OptState]:
            step, after = inner.update(updates, state.inner, state.anchor, **extra_args)
            moved = jax.tree.map(lambda a, u, w: _as(w, a + u - w), state.anchor, step, params)
            return moved, state.anchor, after

        def uphill() -> tuple[types.Grads, types.Params, types.OptState]:
            return _ascent(updates, params, rho), params, state.inner

        moved, anchor, after = jax.lax.cond(state.is_uphill, back, uphill)
        return moved, SamState(~state.is_uphill, anchor, after)

    return whole_trees.on_trained(optax.GradientTransformationExtraArgs(init_fn, update_fn))


def _ascent(grads: types.Grads, params: types.Params, rho: float) -> types.Params:
    """Return the move uphill: `rho` long, in the gradient's direction, zero for a gradient of 0."""
    norm = jnp.sqrt(sum(map(_squared_norm, jax.tree.leaves(grads)), jnp.zeros([])))
    scale = jnp.where(norm > 0, rho / jnp.where(norm > 0, norm, 1), 0)
    return jax.tree.map(lambda g, w: _as(w, scale * g), grads, params)


def _squared_norm(grad: jax.Array) -> jax.Array:
    magnitude = jnp.abs(grad)
    return jnp.sum(magnitude.astype(jnp.promote_types(magnitude.dtype, jnp.float32)) ** 2)


def _as(like: jax.Array, x: jax.Array) -> jax.Array:
    return x.astype(jnp.result_type(like))
