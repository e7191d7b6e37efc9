"""The parameters to evaluate, where a wrapper has the loop hold others.

Lookahead is evaluated at its slow weights; `weight_prediction` has the loop hold predicted weights,
and `sam_alternating`, every other step, weights moved uphill.
"""

from typing import Any, Final

import jax

from veldt.learned_opt import errors
from veldt.learned_opt.wrappers.predicted_weights import WeightPredictionState
from veldt.learned_opt.wrappers.sharpness import SamState
from veldt.learned_opt.wrappers.slow_weights import LookaheadState
from veldt.tasks.common import types

_HOLDERS: Final = (LookaheadState, SamState, WeightPredictionState)


def eval_params(state: types.OptState, params: types.Params) -> types.Params:
    """Return the parameters to evaluate and to keep, from the loop's own and the state.

        params_for_eval = veldt.wrappers.eval_params(state, params)

    Args:
      state: State in which one of `lookahead`, `sam_alternating` and `weight_prediction` has its
        own, at any depth: in `optax.chain`, in `optax.MultiSteps`, in one another.
      params: Parameters that the loop holds.

    Raises:
      MissingInputError: There is no such state.
    """
    if not _holders(state):
        raise errors.MissingInputError(
            "this state holds none of veldt's wrappers that eval_params knows: lookahead, "
            "sam_alternating, weight_prediction; without them the loop's own parameters are "
            "those to evaluate"
        )
    return _evaluated(state, params)


def _evaluated(state: types.OptState, params: types.Params) -> types.Params:
    for holder in _holders(state):
        params = holder.eval_params(params)
        if not isinstance(holder, LookaheadState):  # Its slow weights are what it ends with.
            params = _evaluated(holder.inner, params)
    return params


def _holders(state: types.OptState) -> list[Any]:
    """Return the outermost states of wrappers."""
    found = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, _HOLDERS))
    return [node for node in found if isinstance(node, _HOLDERS)]
