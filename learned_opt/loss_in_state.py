"""Rules that read the loss, in loops that call `update(grads, state, params)` and nothing else.

Optax's way to hand over the loss is `update(..., value=loss)`, and its wrappers pass it on. A loop
that belongs to someone else may not: `flax.training.train_state.TrainState.apply_gradients` does
not. There the loss goes in by the state, which such a loop lets through:

    tx = veldt.loss_in_state(veldt.learned_optimizer("celo", num_steps=1000))
    ...
    opt_state = optax.tree.set(state.opt_state, loss=loss)
    state = state.replace(opt_state=opt_state).apply_gradients(grads=grads)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt import errors
from veldt.tasks.common import types

_UNSET = -jnp.inf  # no loss that training could go on from


class LossInState(NamedTuple):
    """State of `loss_in_state`."""

    loss: Any  # shape=(), dtype=jnp.float32; of the next update, -inf if it was not written
    inner: types.OptState


def loss_in_state(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Return the transform, which reads the loss from its state where `value=` is not given.

    Write it before each update: `opt_state = optax.tree.set(opt_state, loss=loss)`. An update
    without is an error, and under `jax.jit`, which cannot raise, all NaN.

    Args:
      tx: A transform that reads the loss.
    """
    inner = optax.with_extra_args_support(tx)

    def init_fn(params: types.Params) -> LossInState:
        return LossInState(jnp.asarray(_UNSET, jnp.float32), inner.init(params))

    def update_fn(
        updates: types.Grads,
        state: LossInState,
        params: types.Params | None = None,
        *,
        value: jax.Array | float | None = None,
        **extra_args: Any,
    ) -> tuple[types.Grads, LossInState]:
        loss = jnp.asarray(state.loss if value is None else value, jnp.float32)
        is_unset = loss == _UNSET
        if not isinstance(is_unset, jax.core.Tracer) and bool(is_unset):
            raise errors.MissingInputError(
                "the loss was not written into the state: before each update, "
                "opt_state = optax.tree.set(opt_state, loss=loss)"
            )
        moved, state_after = inner.update(updates, state.inner, params, value=loss, **extra_args)
        moved = jax.tree.map(lambda u: _where(is_unset, u), moved)
        return moved, LossInState(jnp.asarray(_UNSET, jnp.float32), state_after)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _where(is_unset: jax.Array, update: jax.Array) -> jax.Array:
    if not jnp.issubdtype(jnp.result_type(update), jnp.inexact):
        return update
    return jnp.where(is_unset, jnp.nan, update).astype(jnp.result_type(update))
