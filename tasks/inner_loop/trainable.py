"""The leaves of a parameter tree that a transform moves: real numbers, and at least one of them.

Models hold other leaves too: counters and old-style random keys (integers, for which
`jax.grad(..., allow_int=True)` gives gradients of dtype float0), and arrays without elements. For a
transform such a leaf is as if it were None, which Optax skips: it has no state, no part in norms or
means, and an update of exactly zero in the parameter's own dtype, so that `optax.apply_updates`
leaves its bits alone.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def is_trainable(leaf: Any) -> bool:
    """Return whether a leaf is an array of real or complex numbers that is not empty."""
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)) and jnp.size(leaf) > 0


def skip_untrainable(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Return the transform restricted to the leaves that can be trained.

    Trees without other leaves go through as they are, and so does the state.

    Args:
      tx: Transform; extra arguments of `update` reach it if it takes them.
    """
    inner = optax.with_extra_args_support(tx)

    def init_fn(params: Any) -> Any:
        return inner.init(pruned(params, params))

    def update_fn(
        updates: Any, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[Any, Any]:
        likes = updates if params is None else params
        trained = None if params is None else pruned(params, params)
        moved, state = inner.update(pruned(updates, likes), state, trained, **extra_args)
        return _restored(moved, updates, likes), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def pruned(tree: Any, likes: Any) -> Any:
    """Return a tree with None at each leaf that is not trained in `likes`, of one structure."""
    return jax.tree.map(lambda leaf, like: leaf if is_trainable(like) else None, tree, likes)


def merged(tree: Any, whole: Any) -> Any:
    """Return a tree that was pruned with the leaves of the whole one where it has None."""
    return jax.tree.map(lambda like, leaf: like if leaf is None else leaf, whole, tree)


def _restored(moved: Any, updates: Any, likes: Any) -> Any:
    """Return updates for all leaves: zeros where the pruned ones have None."""

    def restore(_: Any, like: Any, update: Any) -> Any:
        if update is not None:
            return update
        # Without the parameters, only updates are known. They may be float0, which nothing takes.
        dtype = jnp.result_type(like)
        return jnp.zeros(jnp.shape(like), dtype if jnp.issubdtype(dtype, jnp.number) else bool)

    return jax.tree.map(restore, updates, likes, moved)
