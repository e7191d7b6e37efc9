"""Alternating descent: a few steps of training, then one step along the implicit hypergradient.

Lorraine, Vicol and Duvenaud 2019 (arXiv 1911.02590, algorithm 1): the parameters are never trained
to the end, they follow the hyperparameters. The implicit function theorem holds at a minimum only,
so the hypergradient is off by as much as training lags behind.

Departures: both optimizers are any Optax transforms; the solution of the linear system is kept as
the guess for the next step, which the Neumann series ignores.
"""

import dataclasses
from typing import final

import flax.struct
import jax
import jax.numpy as jnp
import optax

from veldt.meta import pytree
from veldt.meta.hypergradient import bilevel, implicit
from veldt.tasks.common import types


@flax.struct.dataclass
class AlternatingState:
    """The state of alternating descent.

    Attributes:
      params: Parameters, w.
      hyper: Hyperparameters, λ.
      opt_state: State of the transform that trains w.
      hyper_opt_state: State of the transform that moves λ.
      solution: The last H⁻¹ ∇_w L_V, shaped as the parameters.
    """

    params: types.Params
    hyper: bilevel.HyperParams
    opt_state: types.OptState
    hyper_opt_state: types.OptState
    solution: types.Params


@final
@dataclasses.dataclass(frozen=True)
class AlternatingDescent(bilevel.HyperOptimizer):
    """Alternating descent: `num_train_steps` steps of training, then one of the hyperparameters.

    Attributes:
      tx: Transform that trains the parameters.
      hyper_tx: Transform that moves the hyperparameters.
      inverse: Method that inverts the Hessian of the training loss.
      num_train_steps: Number of training steps between two steps of the hyperparameters.
    """

    tx: optax.GradientTransformation = dataclasses.field(metadata=pytree.STATIC)
    hyper_tx: optax.GradientTransformation = dataclasses.field(metadata=pytree.STATIC)
    inverse: implicit.InverseHessian = dataclasses.field(default_factory=implicit.Neumann)
    num_train_steps: int = dataclasses.field(default=5, metadata=pytree.STATIC)

    def init(
        self, problem: bilevel.BilevelProblem, params: types.Params, hyper: bilevel.HyperParams
    ) -> AlternatingState:
        del problem
        return AlternatingState(
            params=params,
            hyper=hyper,
            opt_state=self.tx.init(params),
            hyper_opt_state=self.hyper_tx.init(hyper),
            solution=jax.tree.map(jnp.zeros_like, params),
        )

    def step(
        self, problem: bilevel.BilevelProblem, state: AlternatingState, key: types.Key
    ) -> tuple[AlternatingState, bilevel.BilevelLosses]:
        del key
        params, opt_state = bilevel.descend(
            problem,
            self.tx,
            state.params,
            state.opt_state,
            state.hyper,
            num_steps=self.num_train_steps,
        )
        found = implicit.hypergradient(problem, self.inverse, params, state.hyper, state.solution)
        updates, hyper_opt_state = self.hyper_tx.update(
            found.grad, state.hyper_opt_state, state.hyper
        )
        hyper = optax.apply_updates(state.hyper, updates)
        state = AlternatingState(
            params=params,
            hyper=hyper,
            opt_state=opt_state,
            hyper_opt_state=hyper_opt_state,
            solution=found.solution,
        )
        return state, bilevel.measure(problem, params, hyper)
