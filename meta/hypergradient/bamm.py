"""sl-BAMM: one loop in which parameters, multipliers and hyperparameters move side by side.

Liu, Liu, Yao, Zeng and Zhang 2023 (arXiv 2302.03407; as the operation "DM" of
github.com/callous-youth/BOAT). With ψ_μ = μ L_V + (1 - μ) L_T and a multiplier v shaped as the
parameters, step k does at once

    w <- w - β ∇_w ψ_μ
    v <- v - η (∇²_ww ψ_μ v - ∇_w L_V)
    λ <- λ - γ (∇_λ L_V - ∇_λ⟨∇_w ψ_μ, v⟩)

v tracks the q of `implicit`. Averaging the losses lets L_V choose among the minima of L_T where it
has many, so L_T need not be strongly convex; as μ = μ_0 (k + 1)^(-1/p) goes to zero the averaged
problem becomes the bilevel one. η shrinks as (k + 1)^(-τ/2) (μ/μ_0)^a and γ as
(k + 1)^(-3τ/2) (μ/μ_0)^b.

Departures: the theory asks for (a, b) of (2, 7), (1, 5) or (0, 3) by strategy, with which λ all but
stands still; the default is (0, 0). β is constant, as there. There is no projection of λ.
"""

import dataclasses
from typing import final

import flax.struct
import jax
import jax.numpy as jnp
import optax

from veldt.meta.hypergradient import bilevel
from veldt.tasks.common import types


@flax.struct.dataclass
class BammState:
    """The state of the three variables.

    Attributes:
      params: Parameters, w.
      hyper: Hyperparameters, λ.
      multiplier: Multiplier, v, shaped as the parameters.
      step: Steps done, int32 [].
    """

    params: types.Params
    hyper: bilevel.HyperParams
    multiplier: types.Params
    step: types.Scalar


@final
@dataclasses.dataclass(frozen=True)
class Bamm(bilevel.HyperOptimizer):
    """The single loop; two products with second derivatives a step.

    Attributes:
      params_rate: Learning rate of the parameters, β.
      multiplier_rate: η at the start.
      hyper_rate: γ at the start.
      averaging: μ_0, the first weight of the validation loss, in [0, 1); 0 where the training loss
        is strongly convex.
      averaging_root: p: μ shrinks as the p-th root of the steps.
      decay: Decay of the rates of multiplier and hyperparameters, τ.
      multiplier_power: Power of the averaging in the multiplier's rate, a.
      hyper_power: Power of the averaging in the hyperparameters' rate, b.
    """

    params_rate: float | jax.Array
    multiplier_rate: float | jax.Array
    hyper_rate: float | jax.Array
    averaging: float | jax.Array = 0.5
    averaging_root: float | jax.Array = 2.0
    decay: float | jax.Array = 0.0
    multiplier_power: float | jax.Array = 0.0
    hyper_power: float | jax.Array = 0.0

    def init(
        self, problem: bilevel.BilevelProblem, params: types.Params, hyper: bilevel.HyperParams
    ) -> BammState:
        del problem
        return BammState(
            params=params,
            hyper=hyper,
            multiplier=jax.tree.map(jnp.zeros_like, params),
            step=jnp.zeros((), jnp.int32),
        )

    def step(
        self, problem: bilevel.BilevelProblem, state: BammState, key: types.Key
    ) -> tuple[BammState, bilevel.BilevelLosses]:
        del key
        time = (state.step + 1).astype(jnp.result_type(float))
        root = time ** (-1.0 / self.averaging_root)
        weight = self.averaging * root

        def averaged(params: types.Params, hyper: bilevel.HyperParams) -> types.Scalar:
            valid_loss = problem.valid_loss(params, hyper)
            return weight * valid_loss + (1.0 - weight) * problem.train_loss(params, hyper)

        params, hyper, multiplier = state.params, state.hyper, state.multiplier
        valid_grads, direct = jax.grad(problem.valid_loss, argnums=(0, 1))(params, hyper)
        # One forward derivative along v gives both products: ∇_w and ∇_λ of ⟨∇_w ψ, v⟩.
        (grads, _), (product, mixed) = jax.jvp(
            lambda w: jax.grad(averaged, argnums=(0, 1))(w, hyper), (params,), (multiplier,)
        )
        multiplier_rate = (
            self.multiplier_rate * time ** (-0.5 * self.decay) * root**self.multiplier_power
        )
        hyper_rate = self.hyper_rate * time ** (-1.5 * self.decay) * root**self.hyper_power
        state = BammState(
            params=_descend(params, self.params_rate, grads),
            hyper=_descend(hyper, hyper_rate, optax.tree.sub(direct, mixed)),
            multiplier=_descend(multiplier, multiplier_rate, optax.tree.sub(product, valid_grads)),
            step=state.step + 1,
        )
        return state, bilevel.measure(problem, state.params, state.hyper)


def _descend(
    variable: types.Params, rate: float | jax.Array, direction: types.Params
) -> types.Params:
    """Return `variable - rate * direction` in the variable's own dtypes."""
    return optax.apply_updates(variable, optax.tree.scale(-rate, direction))
