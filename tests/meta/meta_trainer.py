"""Meta-training without workers, phases and checkpoints, as an oracle and for short tests."""

import dataclasses
from typing import final

import flax.struct
import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt.base import MetaParams
from veldt.meta import pytree
from veldt.meta.estimators import base
from veldt.meta.train import outer_step
from veldt.tasks.common import types

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
            outer_step.begin(each, meta_params, jax.random.fold_in(key, index))
            for index, each in enumerate(self.estimators)
        )
        return MetaState(jnp.zeros((), jnp.int32), meta_params, self.tx.init(meta_params), states)

    def step(self, state: MetaState, key: types.Key) -> tuple[MetaState, MetaMetrics]:
        """Estimate once with each estimator and move; the key is consumed.

        Estimator i gets `fold_in(key, i)`, so another one more changes none of the others'.
        """
        results = [
            outer_step.estimate(each, state.meta_params, own, jax.random.fold_in(key, index))
            for index, (each, own) in enumerate(
                zip(self.estimators, state.estimator_states, strict=True)
            )
        ]
        meta_grads, states, metrics = zip(*results, strict=True)
        meta_params, opt_state, norm = outer_step.move(
            self.tx, state.meta_params, state.opt_state, meta_grads
        )
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *metrics)
        state = MetaState(state.meta_step + 1, meta_params, opt_state, states)
        return state, MetaMetrics(stacked, norm)
