"""Lookahead around any transform: k steps forward, one step back.

Zhang, Lucas, Hinton & Ba 2019, "Lookahead Optimizer: k steps forward, 1 step back" (arXiv
1907.08610), Algorithm 1. `optax.lookahead` does the same to pairs of parameters, which the loop
must carry; here the slow weights are in the state, so that the loop is left as it is. The wrapped
transform's state is kept at a synchronisation, which is the default there.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt import errors
from veldt.learned_opt.wrappers import whole_trees
from veldt.tasks.common import types


class LookaheadState(NamedTuple):
    """State of `lookahead`."""

    num_since: Any  # shape=(), dtype=jnp.int32; steps since the last synchronisation
    slow: types.Params  # as the parameters
    inner: types.OptState

    def eval_params(self, params: types.Params) -> types.Params:
        """Return the slow weights."""
        return whole_trees.with_held(lambda _, slow: slow, params, self.slow)


def lookahead(
    tx: optax.GradientTransformation, sync_period: int = 6, slow_step_size: float = 0.5
) -> optax.GradientTransformationExtraArgs:
    """Return the transform with slow weights, to which training goes back every few steps.

        every `sync_period` steps: slow <- slow + slow_step_size * (w - slow);  w <- slow

    Evaluate at the slow weights, `veldt.wrappers.eval_params(state, params)`.

    Args:
      tx: Transform of the fast weights.
      sync_period: Steps between two synchronisations, at least 1.
      slow_step_size: Part of the way that the slow weights go, in [0, 1].
    """
    if sync_period < 1:
        raise errors.OptionError.of("lookahead", "sync_period", sync_period, "at least 1")
    inner = optax.with_extra_args_support(tx)

    def init_fn(params: types.Params) -> LookaheadState:
        # Copies, so that a jitted step may be donated both the parameters and the state.
        slow = jax.tree.map(jnp.copy, params)
        return LookaheadState(jnp.zeros([], jnp.int32), slow, inner.init(params))

    def update_fn(
        updates: types.Grads,
        state: LookaheadState,
        params: types.Params | None = None,
        **extra_args: Any,
    ) -> tuple[types.Grads, LookaheadState]:
        if params is None:
            raise errors.MissingInputError.params("lookahead")
        moved, inner_state = inner.update(updates, state.inner, params, **extra_args)
        is_sync = state.num_since == sync_period - 1

        def slow_of(slow: jax.Array, w: jax.Array, u: jax.Array) -> jax.Array:
            ahead = slow + slow_step_size * (w + u - slow)
            return jnp.where(is_sync, ahead, slow).astype(slow.dtype)

        slow = jax.tree.map(slow_of, state.slow, params, moved)
        moved = jax.tree.map(
            lambda u, w, s: jnp.where(is_sync, s - w, u).astype(jnp.result_type(u)),
            moved,
            params,
            slow,
        )
        num_since = (state.num_since + 1) % sync_period
        return moved, LookaheadState(num_since, slow, inner_state)

    return whole_trees.on_trained(optax.GradientTransformationExtraArgs(init_fn, update_fn))
