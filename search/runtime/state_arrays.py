"""How a transform keeps its state's arrays: their dtype, and their place on devices.

Exports of rules copy both functions unchanged, so they import nothing of veldt.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def keep_dtype(
    tx: optax.GradientTransformation, state_dtype: Any
) -> optax.GradientTransformationExtraArgs:
    """Return a transform whose state has a dtype of its own.

    It computes in the wider one of that and the gradients' dtype.

    Args:
      tx: Transform with a state of the parameters' dtype.
      state_dtype: Dtype of the real numbers in the state, such as bfloat16.
    """
    tx = optax.with_extra_args_support(tx)

    def widened(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, state_dtype)), tree)

    def stored(state: Any) -> Any:
        def cast(x: Any) -> Any:
            return x.astype(state_dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

        return jax.tree.map(cast, state)

    def init_fn(params: Any) -> Any:
        return stored(tx.init(params))

    def update_fn(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        likes = jax.eval_shape(tx.init, widened(updates))
        state = jax.tree.map(lambda x, like: x.astype(like.dtype), state, likes)
        given = None if params is None else widened(params)
        moved, state = tx.update(widened(updates), state, given, **extra_args)
        moved = jax.tree.map(lambda x, like: x.astype(like.dtype), moved, updates)
        return moved, stored(state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def keep_shardings(
    tx: optax.GradientTransformation, **given: Any
) -> optax.GradientTransformationExtraArgs:
    """Return a transform that leaves all arrays sharded as they are, under explicit meshes.

    There, sums and products over a sharded axis are errors or change shardings. So the compiler
    finds the way (`jax.sharding.auto_axes`), as it does under all other meshes.

    Args:
      tx: Transform whose update reads no extra argument but `value` and those given here.
      **given: Trees of numbers, which may be traced.
    """
    tx = optax.with_extra_args_support(tx)

    def update_fn(
        updates: Any, state: Any, params: Any = None, *, value: Any = None, **extra_args: Any
    ) -> Any:
        def update(updates: Any, state: Any, params: Any, value: Any, given: Any) -> Any:
            return tx.update(updates, state, params, value=value, **given, **extra_args)

        kinds = getattr(jax.sharding.get_abstract_mesh(), "axis_types", ())
        if jax.sharding.AxisType.Explicit in kinds:
            places = jax.tree.map(lambda x: jax.typeof(x).sharding, (updates, state))
            update = jax.sharding.auto_axes(update, out_sharding=places)
        return update(updates, state, params, value, given)

    return optax.GradientTransformationExtraArgs(tx.init, update_fn)
