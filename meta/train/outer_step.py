"""One step of meta-training: estimates from several estimators, averaged, and an outer optimizer.

    trainer = outer.MetaTrainer(estimators=(PES(...), PES(...)), tx=optax.adam(3e-4))
    state = trainer.init(meta_params, key_init)
    for i in range(num_meta_steps):
        state, metrics = trainer.step(state, jax.random.fold_in(key, i))

What `step` does is a pure function of state and key, and may be traced into a larger program.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import final

import flax.struct
import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt.base import MetaParams
from veldt.meta import pytree
from veldt.meta.estimators import base
from veldt.tasks.common import compiling, types

# Shapes: E estimators.


@flax.struct.dataclass
class MetaState:
    """Meta-training between two steps.

    Attributes:
      meta_step: Number of steps done, int32 [].
      meta_params: What is trained.
      opt_state: The outer optimizer's.
      estimator_states: One of each estimator.
    """

    meta_step: types.Scalar
    meta_params: MetaParams
    opt_state: types.OptState
    estimator_states: tuple[base.EstimatorState, ...]


@flax.struct.dataclass
class MetaMetrics:
    """What one step of meta-training went by.

    Attributes:
      estimates: What each estimate went by, leaves [E].
      meta_grad_norm: Global norm of the averaged gradient, float [].
    """

    estimates: base.Metrics
    meta_grad_norm: types.Scalar


@final
@dataclasses.dataclass(frozen=True)
class MetaTrainer(pytree.Pytree):
    """Estimators and an outer optimizer.

    Attributes:
      estimators: E estimators, such as one for each task; the gradients are averaged. Those that
        differ in arrays alone (the same shapes of task, model and window) compile once.
      tx: Any Optax transform; `optax.clip` before it is what VeLO's meta-training has.
    """

    estimators: tuple[base.GradientEstimator, ...]
    tx: optax.GradientTransformation = dataclasses.field(metadata=pytree.STATIC)

    def init(self, meta_params: MetaParams, key: types.Key) -> MetaState:
        """Begin with given meta-parameters; the key is consumed."""
        states = tuple(
            begin(each, meta_params, jax.random.fold_in(key, index))
            for index, each in enumerate(self.estimators)
        )
        return MetaState(jnp.zeros((), jnp.int32), meta_params, self.tx.init(meta_params), states)

    def step(self, state: MetaState, key: types.Key) -> tuple[MetaState, MetaMetrics]:
        """Estimate once with each estimator and move; the key is consumed.

        Estimator i gets `fold_in(key, i)`, so another one more changes none of the others'.
        """
        results = [
            estimate(each, state.meta_params, own, jax.random.fold_in(key, index))
            for index, (each, own) in enumerate(
                zip(self.estimators, state.estimator_states, strict=True)
            )
        ]
        meta_grads, states, metrics = zip(*results, strict=True)
        meta_params, opt_state, norm = move(self.tx, state.meta_params, state.opt_state, meta_grads)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *metrics)
        state = MetaState(state.meta_step + 1, meta_params, opt_state, states)
        return state, MetaMetrics(stacked, norm)


# Each estimator in a program of its own: alike ones find the compiled one, where a single program
# would hold a copy for each.


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
