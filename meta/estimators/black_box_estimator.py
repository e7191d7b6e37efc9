"""evosax's algorithms on an inner problem: evolution of small meta-parameter vectors.

Where meta-parameters are few (a program's constants, the knots of a schedule), CMA-ES, SNES and
their like adapt the scale of the search themselves and need no gradient:

    algorithm = evosax.algorithms.CMA_ES(population_size=16, solution=meta_params)
    params = algorithm.default_params.replace(std_init=0.1)
    evolution = Evolution(algorithm, params, problem, num_problems=4, num_steps=50)
    state = evolution.init(meta_params, key_init)
    for i in range(num_generations):
        state, metrics = evolution.step(state, jax.random.fold_in(key, i))
    meta_params = evolution.mean(state)

A candidate's fitness is the meta-loss of whole runs. All candidates of a generation face the same
inner problems, lengths and data, which takes out of the comparison what they have in common.
"""

import dataclasses
from typing import TYPE_CHECKING, Any, TypeAlias, final

import jax
import jax.numpy as jnp

from veldt.learned_opt.base import MetaParams
from veldt.meta import pytree
from veldt.meta.estimators import base, particles
from veldt.meta.problems import inner_problem, meta_loss
from veldt.tasks.common import types

if TYPE_CHECKING:  # To import evosax is to ask JAX for its devices, before a driver can choose.
    from evosax.algorithms.distribution_based.base import DistributionBasedAlgorithm

# Shapes: N candidates of a generation, M inner problems.

AlgorithmState: TypeAlias = Any
"""What an evosax algorithm carries from generation to generation."""


@final
@dataclasses.dataclass(frozen=True)
class Evolution(pytree.Pytree):
    """An algorithm of evosax that searches a distribution, and what its candidates are judged on.

    Attributes:
      algorithm: Any of evosax's distribution-based algorithms, made with the meta-parameters as
        its `solution`.
      params: The algorithm's own settings.
      problem: The inner problem.
      num_problems: M, runs of every candidate in a generation.
      num_steps: K: runs are taken to their ends in windows of so many steps, as by `FullES`.
      objective: What a run is worth.
    """

    algorithm: "DistributionBasedAlgorithm" = dataclasses.field(metadata=pytree.STATIC)
    params: Any
    problem: inner_problem.InnerProblem
    num_problems: int = dataclasses.field(metadata=pytree.STATIC)
    num_steps: int = dataclasses.field(metadata=pytree.STATIC)
    objective: meta_loss.MetaLoss = dataclasses.field(default_factory=meta_loss.MeanLoss)

    def init(self, meta_params: MetaParams, key: types.Key) -> AlgorithmState:
        """Begin around given meta-parameters; the key is consumed."""
        return self.algorithm.init(key, meta_params, self.params)

    def ask(self, state: AlgorithmState, key: types.Key) -> tuple[MetaParams, AlgorithmState]:
        """Draw candidates, leaves [N, ...]; the key is consumed."""
        return self.algorithm.ask(key, state, self.params)

    def evaluate(self, candidates: MetaParams, key: types.Key) -> jax.Array:
        """Return the meta-loss of each candidate, float [N], maybe not finite.

        The key, which is consumed, says which M inner problems.
        """
        return _evaluate(self, candidates, key)[0]

    def tell(
        self, state: AlgorithmState, candidates: MetaParams, losses: jax.Array, key: types.Key
    ) -> AlgorithmState:
        """Return the state after a generation; the key is consumed.

        A loss that is not finite counts as the worst finite one of the generation. If none is
        finite nothing is learned and the state stays.
        """
        finite = jnp.isfinite(losses)
        worst = jnp.max(jnp.where(finite, losses, -jnp.inf))
        told, _ = self.algorithm.tell(
            key, candidates, jnp.where(finite, losses, worst), state, self.params
        )
        return inner_problem.select(jnp.any(finite), told, state)

    def step(self, state: AlgorithmState, key: types.Key) -> tuple[AlgorithmState, base.Metrics]:
        """Ask, evaluate and tell once; the key is consumed."""
        key_ask, key_evaluate, key_tell = jax.random.split(key, 3)
        candidates, state = self.ask(state, key_ask)
        losses, length = _evaluate(self, candidates, key_evaluate)
        metrics = base.Metrics(
            meta_loss=base.finite_mean(losses),
            num_nonfinite=jnp.sum(~jnp.isfinite(losses), dtype=jnp.int32),
            num_completed=jnp.asarray(losses.size * self.num_problems, jnp.int32),
            num_steps=losses.size * self.num_problems * length,
        )
        return self.tell(state, candidates, losses, key_tell), metrics

    def mean(self, state: AlgorithmState) -> MetaParams:
        """Return the centre of the distribution."""
        return self.algorithm.get_mean(state)


@jax.jit
def _evaluate(
    evolution: Evolution, candidates: MetaParams, key: types.Key
) -> tuple[jax.Array, types.Scalar]:
    """Run each candidate on the same inner problems; the means, float [N], and the length T."""
    key_length, key_runs, key_final = jax.random.split(key, 3)
    problem, num_problems = evolution.problem, evolution.num_problems
    length = problem.draw_length(key_length)
    num_candidates = jax.tree.leaves(candidates)[0].shape[0]
    # Candidate by candidate, each with all problems: [N * M].
    each = jax.tree.map(lambda x: jnp.repeat(x, num_problems, axis=0), candidates)
    keys_run, keys_final = (
        jnp.tile(jax.random.split(key, num_problems), num_candidates)
        for key in (key_runs, key_final)
    )
    runs = jax.vmap(
        lambda meta_params, key: inner_problem.begin(problem, meta_params, key, length=length)
    )(each, keys_run)
    losses = particles.full_losses(
        problem, evolution.objective, each, runs, keys_final, num_steps=evolution.num_steps
    )
    return jnp.mean(losses.reshape(num_candidates, num_problems), axis=1), length
