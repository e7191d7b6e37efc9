"""The parts of a step of meta-training, compiled: begin, estimate, and move by averaged gradients.

Each estimator is in a program of its own: alike ones find the compiled one, where a single program
would hold a copy for each.
"""

import functools
from collections.abc import Sequence

import jax
import optax

from veldt.learned_opt.base import MetaParams
from veldt.meta.estimators import base
from veldt.tasks.common import compiling, types


@compiling.jit
def begin(
    each: base.GradientEstimator, meta_params: MetaParams, key: types.Key
) -> base.EstimatorState:
    """Begin with every particle of an estimator; the key is consumed."""
    return each.init(meta_params, key)


@compiling.jit
def estimate(
    each: base.GradientEstimator,
    meta_params: MetaParams,
    state: base.EstimatorState,
    key: types.Key,
) -> tuple[base.MetaGrad, base.EstimatorState, base.Metrics]:
    """Estimate once with one estimator; the key is consumed."""
    return each.estimate(meta_params, state, key)


@functools.partial(jax.jit, static_argnames="tx")
def move(
    tx: optax.GradientTransformation,
    meta_params: MetaParams,
    opt_state: types.OptState,
    meta_grads: Sequence[base.MetaGrad],
) -> tuple[MetaParams, types.OptState, types.Scalar]:
    """Average gradients and apply them.

    Returns:
      The meta-parameters and the outer optimizer's state after the step, and the global norm of the
      average, float [].
    """
    mean = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *meta_grads)
    updates, opt_state = tx.update(mean, opt_state, meta_params)
    return optax.apply_updates(meta_params, updates), opt_state, optax.tree.norm(mean)
