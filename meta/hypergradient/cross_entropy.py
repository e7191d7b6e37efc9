"""The cross-entropy method for hyperparameters: sample, train, keep the best, refit.

Li and Li 2024 (arXiv 2409.09240, "CEHPO"): hyperparameters are drawn from f(·; v), each draw is
trained and judged, and v is refitted by maximum likelihood to the elite, which is the M step of
expectation maximization; v is smoothed from generation to generation. The method itself is
Rubinstein's (1999). It asks for no derivative by λ, so the hyperparameters may be any that the
training loss depends on.

f is a normal distribution with independent coordinates. Departures: the paper leaves f, the size of
the elite and the smoothing open; here the elite is a number and not a quantile, mean and scale are
smoothed alike, and scales have a floor, without which they shrink to zero early. A candidate whose
loss is not finite is never in the elite while a finite one is left.
"""

import dataclasses
from typing import final

import flax.struct
import jax
import jax.flatten_util
import jax.numpy as jnp
import optax

from veldt.meta import pytree
from veldt.meta.hypergradient import bilevel
from veldt.tasks.common import types

# Shapes: N candidates, H hyperparameters.


@flax.struct.dataclass
class CrossEntropyState:
    """The distribution and the best so far.

    Attributes:
      params: Parameters trained at the best candidate so far; before the first step, the start.
      hyper: The mean of the distribution.
      scale: Standard deviations of the distribution, shaped as `hyper`.
      start: Parameters that every training begins at.
      best_hyper: The best candidate so far.
      best_loss: Validation loss of the best candidate, float []; infinite before the first step.
    """

    params: types.Params
    hyper: bilevel.HyperParams
    scale: bilevel.HyperParams
    start: types.Params
    best_hyper: bilevel.HyperParams
    best_loss: types.Scalar


@final
@dataclasses.dataclass(frozen=True)
class CrossEntropy(bilevel.HyperOptimizer):
    """The cross-entropy method; a step trains all candidates of a generation side by side.

    Attributes:
      tx: Transform that trains the parameters.
      num_steps: Number of steps of a training.
      num_candidates: Number of candidates of a generation, N.
      num_elites: Number of candidates that the distribution is refitted to, at least 2.
      init_scale: The first standard deviation of every hyperparameter.
      min_scale: The least standard deviation of a hyperparameter.
      smoothing: Weight of the refitted mean and scale against the last ones, in (0, 1].
    """

    tx: optax.GradientTransformation = dataclasses.field(metadata=pytree.STATIC)
    num_steps: int = dataclasses.field(metadata=pytree.STATIC)
    num_candidates: int = dataclasses.field(default=20, metadata=pytree.STATIC)
    num_elites: int = dataclasses.field(default=5, metadata=pytree.STATIC)
    init_scale: float | jax.Array = 1.0
    min_scale: float | jax.Array = 1e-3
    smoothing: float | jax.Array = 0.7

    def init(
        self, problem: bilevel.BilevelProblem, params: types.Params, hyper: bilevel.HyperParams
    ) -> CrossEntropyState:
        del problem
        flat, unravel = jax.flatten_util.ravel_pytree(hyper)
        return CrossEntropyState(
            params=params,
            hyper=hyper,
            scale=unravel(jnp.full_like(flat, self.init_scale)),
            start=params,
            best_hyper=hyper,
            best_loss=jnp.full((), jnp.inf, flat.dtype),
        )

    def ask(self, state: CrossEntropyState, key: types.Key) -> bilevel.HyperParams:
        """Draw candidates, leaves [N, ...]; the key is consumed."""
        mean, unravel = jax.flatten_util.ravel_pytree(state.hyper)
        scale, _ = jax.flatten_util.ravel_pytree(state.scale)
        noise = jax.random.normal(key, (self.num_candidates, mean.size), mean.dtype)
        return jax.vmap(unravel)(mean + scale * noise)

    def tell(
        self, state: CrossEntropyState, candidates: bilevel.HyperParams, losses: jax.Array
    ) -> CrossEntropyState:
        """Refit the distribution and remember the best candidate.

        Args:
          state: State that was asked.
          candidates: Candidates from `ask`, leaves [N, ...].
          losses: Loss of each candidate, float [N]; what is not finite is worst.

        Returns:
          The state after the generation; its `params` are as they were. If no loss is finite
          the state is as it was.
        """
        losses = jnp.where(jnp.isfinite(losses), losses, jnp.inf).astype(state.best_loss.dtype)
        order = jnp.argsort(losses)[: self.num_elites]
        # Elites that are not finite count for nothing.
        weights = jnp.isfinite(losses[order]).astype(losses.dtype)
        total = jnp.sum(weights)
        _, unravel = jax.flatten_util.ravel_pytree(state.hyper)
        flat = jax.vmap(lambda hyper: jax.flatten_util.ravel_pytree(hyper)[0])(candidates)  # [N, H]
        elites = flat[order]
        mean = weights @ elites / jnp.maximum(total, 1.0)
        scale = jnp.sqrt(weights @ jnp.square(elites - mean) / jnp.maximum(total, 1.0))
        scale = jnp.maximum(scale, self.min_scale)
        rate = jnp.where(total > 0, self.smoothing, 0.0).astype(losses.dtype)
        best = order[0]
        is_better = losses[best] < state.best_loss
        best_hyper = jax.tree.map(
            lambda each, old: jnp.where(is_better, each[best], old), candidates, state.best_hyper
        )
        return dataclasses.replace(
            state,
            hyper=optax.tree.add_scale(
                state.hyper, rate, optax.tree.sub(unravel(mean), state.hyper)
            ),
            scale=optax.tree.add_scale(
                state.scale, rate, optax.tree.sub(unravel(scale), state.scale)
            ),
            best_hyper=best_hyper,
            best_loss=jnp.minimum(losses[best], state.best_loss),
        )

    def step(
        self, problem: bilevel.BilevelProblem, state: CrossEntropyState, key: types.Key
    ) -> tuple[CrossEntropyState, bilevel.BilevelLosses]:
        candidates = self.ask(state, key)

        def train(hyper: bilevel.HyperParams) -> tuple[types.Params, types.Scalar]:
            params, _ = bilevel.descend(
                problem,
                self.tx,
                state.start,
                self.tx.init(state.start),
                hyper,
                num_steps=self.num_steps,
            )
            return params, problem.valid_loss(params, hyper)

        trained, losses = jax.vmap(train)(candidates)
        told = self.tell(state, candidates, losses)
        is_better = told.best_loss < state.best_loss
        best = jnp.argmin(jnp.where(jnp.isfinite(losses), losses, jnp.inf))
        params = jax.tree.map(
            lambda each, old: jnp.where(is_better, each[best], old), trained, state.params
        )
        told = dataclasses.replace(told, params=params)
        return told, bilevel.measure(problem, params, told.best_hyper)
