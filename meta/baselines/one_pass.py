"""One-pass tuning of any hyperparameter of the weight update, by implicit differentiation.

Clarke, Oldewage and Hernandez-Lobato 2022 (arXiv 2110.10461). `implicit` needs λ in the training
loss; here λ is whatever the update w <- Φ(w, λ) = w - u(w, λ) depends on: learning rate, momentum,
weight decay, one each or one per parameter. At a fixed point of Φ the theorem gives

    d L_V / dλ = ∂_λ L_V + pᵀ ∂Φ/∂λ,   p = Σ_{j=0..i} (∂Φ/∂wᵀ)^j ∇_w L_V,

every T steps, in the course of one training. The Jacobians are those at the present w, ∇_w L_V is
taken one step on: with i = 0 it is the exact derivative through the next step alone.

Departures: the optimizer's state is held fixed in Φ, so what momentum remembers is no function of
λ. The paper's numbers are the defaults: T = 10, a look-back of 5, Adam at 0.05 for λ. It clips
learning rates to [1e-10, 1]; here λ is unconstrained, `make_tx` says what it means, for instance
`optax.sgd(jnp.exp(hyper))`.
"""

import dataclasses
from collections.abc import Callable
from typing import final

import flax.struct
import jax
import optax

from veldt.meta import pytree
from veldt.meta.hypergradient import bilevel
from veldt.tasks.common import types


@flax.struct.dataclass
class OnePassState:
    """The state of a training and of its tuning.

    Attributes:
      params: Parameters, w.
      hyper: Hyperparameters, λ.
      opt_state: State of `make_tx(hyper)`.
      hyper_opt_state: State of the transform that moves λ.
    """

    params: types.Params
    hyper: bilevel.HyperParams
    opt_state: types.OptState
    hyper_opt_state: types.OptState


@final
@dataclasses.dataclass(frozen=True)
class OnePass(bilevel.HyperOptimizer):
    """Train under `make_tx(hyper)` and move `hyper` every few steps.

    Attributes:
      make_tx: λ -> the transform that trains; λ may be traced, and the shape of the transform's
        state must not depend on it.
      hyper_tx: Transform that moves λ.
      num_train_steps: Number of training steps between two steps of λ, T.
      num_terms: Number of terms of the look-back, i.
    """

    make_tx: Callable[[bilevel.HyperParams], optax.GradientTransformation] = dataclasses.field(
        metadata=pytree.STATIC
    )
    hyper_tx: optax.GradientTransformation = dataclasses.field(
        default_factory=lambda: optax.adam(0.05), metadata=pytree.STATIC
    )
    num_train_steps: int = dataclasses.field(default=10, metadata=pytree.STATIC)
    num_terms: int = dataclasses.field(default=5, metadata=pytree.STATIC)

    def init(
        self, problem: bilevel.BilevelProblem, params: types.Params, hyper: bilevel.HyperParams
    ) -> OnePassState:
        del problem
        return OnePassState(
            params=params,
            hyper=hyper,
            opt_state=self.make_tx(hyper).init(params),
            hyper_opt_state=self.hyper_tx.init(hyper),
        )

    def step(
        self, problem: bilevel.BilevelProblem, state: OnePassState, key: types.Key
    ) -> tuple[OnePassState, bilevel.BilevelLosses]:
        del key
        params, opt_state = bilevel.descend(
            problem,
            self.make_tx(state.hyper),
            state.params,
            state.opt_state,
            state.hyper,
            num_steps=self.num_train_steps,
        )
        grad = self.hypergradient(problem, params, opt_state, state.hyper)
        updates, hyper_opt_state = self.hyper_tx.update(grad, state.hyper_opt_state, state.hyper)
        hyper = optax.apply_updates(state.hyper, updates)
        state = OnePassState(
            params=params, hyper=hyper, opt_state=opt_state, hyper_opt_state=hyper_opt_state
        )
        return state, bilevel.measure(problem, params, hyper)

    def hypergradient(
        self,
        problem: bilevel.BilevelProblem,
        params: types.Params,
        opt_state: types.OptState,
        hyper: bilevel.HyperParams,
    ) -> bilevel.HyperParams:
        """Return the look-back hypergradient at present, shaped as the hyperparameters."""

        def update(params: types.Params, hyper: bilevel.HyperParams) -> types.Params:
            grads = jax.grad(problem.train_loss)(params, hyper)
            updates, _ = self.make_tx(hyper).update(grads, opt_state, params)
            return optax.apply_updates(params, updates)

        reached, pull = jax.vjp(update, params, hyper)
        grads, direct = jax.grad(problem.valid_loss, argnums=(0, 1))(reached, hyper)

        def body(
            _: jax.Array, carry: tuple[types.Params, types.Params]
        ) -> tuple[types.Params, types.Params]:
            term, total = carry
            term, _ = pull(term)
            return term, optax.tree.add(total, term)

        _, total = jax.lax.fori_loop(0, self.num_terms, body, (grads, grads))
        return optax.tree.add(direct, pull(total)[1])
