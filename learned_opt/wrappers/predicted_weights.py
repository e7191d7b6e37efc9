"""Weight prediction around any transform: the gradient is taken where the weights will be.

Guan, Li, Shi & Meng 2023, "XGrad: Boosting Gradient-Based Optimizers With Weight Prediction" (arXiv
2305.18240): before each batch the weights are moved by s times the step that the optimizer's state
would make again; the gradient is taken there, the weights are put back, and the step is made from
where they were. For SGD with momentum and for Adam at a constant rate that step is the last one
(`load_predicted_weights` in the authors' `SGD.py` and `Adam.py`), so that nothing need be known of
the rule. It departs from the authors' code where the two differ: under a schedule the last step's
rate counts and not the next one's, and AdamW's decay is in the prediction.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt import errors
from veldt.learned_opt.wrappers import whole_trees
from veldt.tasks.common import types


class WeightPredictionState(NamedTuple):
    """State of `weight_prediction`."""

    offset: types.Params  # as the parameters; the predicted weights less the true ones
    inner: types.OptState

    def eval_params(self, params: types.Params) -> types.Params:
        """Return the true weights."""
        return whole_trees.with_held(_less, params, self.offset)


def weight_prediction(
    tx: optax.GradientTransformation, num_ahead: float = 1.0
) -> optax.GradientTransformationExtraArgs:
    """Return the transform that is given gradients at predicted weights.

        gradient at w + num_ahead * (the last step);  the next step is made from w

    The loop holds the predicted weights; `veldt.wrappers.eval_params(state, params)` gives the true
    ones, which the wrapped transform reads too.

    Args:
      tx: Transform of the true weights.
      num_ahead: Steps to look ahead, the paper's s.
    """
    inner = optax.with_extra_args_support(tx)

    def init_fn(params: types.Params) -> WeightPredictionState:
        return WeightPredictionState(jax.tree.map(jnp.zeros_like, params), inner.init(params))

    def update_fn(
        updates: types.Grads,
        state: WeightPredictionState,
        params: types.Params | None = None,
        **extra_args: Any,
    ) -> tuple[types.Grads, WeightPredictionState]:
        if params is None:
            raise errors.MissingInputError.params("weight_prediction")
        true = jax.tree.map(_less, params, state.offset)
        step, inner_state = inner.update(updates, state.inner, true, **extra_args)
        offset = jax.tree.map(lambda u, old: (num_ahead * u).astype(old.dtype), step, state.offset)
        # Differences only: what else moves the loop's parameters moves the true ones too.
        moved = jax.tree.map(
            lambda u, new, old: (u + (new - old)).astype(jnp.result_type(u)),
            step,
            offset,
            state.offset,
        )
        return moved, WeightPredictionState(offset, inner_state)

    return whole_trees.on_trained(optax.GradientTransformationExtraArgs(init_fn, update_fn))


def _less(param: jax.Array, offset: jax.Array) -> jax.Array:
    return (param - offset).astype(jnp.result_type(param))
