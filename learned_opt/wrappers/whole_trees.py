"""What every wrapper does about leaves that nobody trains: it passes over them.

`skip_untrainable` hides these leaves from a transform. The functions of the parameters that Optax
passes in `update` are the caller's, who knows nothing of that: they are given whole trees.
"""

from collections.abc import Callable
from typing import Any, Final

import jax
import optax

from veldt.tasks.common import types
from veldt.tasks.inner_loop import trainable

_OF_PARAMS: Final = ("obj_fn", "value_fn", "grad_fn")
"""Optax's extra arguments that are functions of the parameters."""


def on_trained(
    tx: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Return the transform restricted to what is trained, as `skip_untrainable` does.

    Its `obj_fn=`, `value_fn=` and `grad_fn=` may be called with the restricted parameters; the
    caller's functions behind them get whole ones.

    Args:
      tx: Transform of trees that have None for leaves that are not trained.
    """
    inner = trainable.skip_untrainable(tx)

    def update_fn(
        updates: types.Grads,
        state: types.OptState,
        params: types.Params | None = None,
        **extra_args: Any,
    ) -> tuple[types.Grads, types.OptState]:
        if params is not None:
            for name in _OF_PARAMS:
                if extra_args.get(name) is not None:
                    extra_args[name] = _of_trained(extra_args[name], params, name == "grad_fn")
        return inner.update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(inner.init, update_fn)


def with_held(
    combine: Callable[[Any, Any], Any], params: types.Params, held: types.Params
) -> types.Params:
    """Return parameters combined with what a state holds for some of them; the rest as it is.

    Args:
      combine: Function of one parameter and of what is held for it.
      params: Whole tree.
      held: Tree of one structure, in which leaves may be None or masked by Optax.
    """

    def of_leaf(param: Any, leaf: Any) -> Any:
        is_held = leaf is not None and not isinstance(leaf, optax.MaskedNode)
        return combine(param, leaf) if is_held else param

    return jax.tree.map(of_leaf, params, held)


def _of_trained(
    function: Callable[..., Any], whole: types.Params, gives_tree: bool
) -> Callable[..., Any]:
    """Return the function of whole trees as one of restricted trees."""

    def of_trained(params: types.Params, *args: Any, **options: Any) -> Any:
        found = function(trainable.merged(params, whole), *args, **options)
        return trainable.pruned(found, whole) if gives_tree else found

    return of_trained
