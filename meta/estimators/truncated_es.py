"""Evolution strategies on windows of runs: truncated ES, PES and NRES.

The three differ in what a window's difference of losses is credited to, and in whether the two
sides of a pair stay apart from window to window. With noise e of a window, and of a window in
which a run ends and another begins, the losses before (b) and after (a) apart:

| estimator   | sides start from | b credited to               | a credited to        |
|-------------|------------------|-----------------------------|----------------------|
| TruncatedES | one state        | e                           | e                    |
| PES         | their own states | sum of all e of the old run | e                    |
| NRES        | their own states | the old run's one e         | the new run's one e  |

PES: Vicol et al. 2021, arXiv 2112.13835. NRES: Li et al. 2023, arXiv 2304.12180; it is ES-Single
(Vicol 2023, arXiv 2304.11153).
"""

import dataclasses
from typing import final

import flax.struct
import jax
import jax.numpy as jnp

from veldt.learned_opt.base import MetaParams
from veldt.meta import pytree
from veldt.meta.estimators import antithetic, base, particles
from veldt.meta.problems import inner_problem, meta_loss
from veldt.tasks.common import types

# Shapes: P particles, each a pair; K steps of a window.


@final
@dataclasses.dataclass(frozen=True)
class TruncatedES(base.GradientEstimator):
    """ES on a window, both sides from one state: biased, for it ignores all before the window.

    The state to go on from is that of the positive side, as in google/learned_optimization: a third
    run at the unperturbed meta-parameters would cost half as much again.

    Attributes:
      problem: The inner problem.
      num_particles: Number of particles, P.
      num_steps: Number of steps of a window, K.
      objective: What a run is worth.
      noise: How pairs are drawn and compared.
      unlocked: Whether particles start at different steps of their runs.
    """

    problem: inner_problem.InnerProblem
    num_particles: int = dataclasses.field(metadata=pytree.STATIC)
    num_steps: int = dataclasses.field(metadata=pytree.STATIC)
    objective: meta_loss.MetaLoss = dataclasses.field(default_factory=meta_loss.MeanLoss)
    noise: antithetic.Antithetic = dataclasses.field(default_factory=antithetic.Antithetic)
    unlocked: bool = dataclasses.field(default=True, metadata=pytree.STATIC)

    def init(self, meta_params: MetaParams, key: types.Key) -> inner_problem.Run:
        """Return runs, leaves [P, ...]."""
        one_side = antithetic.repeat(meta_params, (1, self.num_particles))
        runs = particles.begin(self.problem, one_side, key, unlocked=self.unlocked)
        return jax.tree.map(lambda x: x[0], runs)

    def estimate(
        self, meta_params: MetaParams, state: inner_problem.Run, key: types.Key
    ) -> tuple[base.MetaGrad, inner_problem.Run, base.Metrics]:
        key_noise, key_final = jax.random.split(key)
        noise = self.noise.sample(key_noise, meta_params, self.num_particles)
        runs, totals = particles.unroll_pairs(
            self.problem,
            self.objective,
            self.noise.pair(meta_params, noise),
            state,
            key_final,
            num_steps=self.num_steps,
            shared_runs=True,
        )
        meta_grad, metrics = _credit(self.noise, totals, self.num_steps, before=noise, after=noise)
        return meta_grad, jax.tree.map(lambda x: x[0], runs), metrics


@flax.struct.dataclass
class PairState:
    """Pairs on their way, and the noise that their past is credited to.

    Attributes:
      runs: Both sides of each particle, leaves [2, P, ...].
      noise: Leaves [P, ...]. PES: the sum of the noise of all windows that the run under way has
        seen. NRES: the noise of the run under way.
    """

    runs: inner_problem.Run
    noise: MetaParams


@final
@dataclasses.dataclass(frozen=True)
class PES(base.GradientEstimator):
    """Persistent evolution strategies: new noise in every window, credited for the whole past.

    Attributes:
      problem: The inner problem.
      num_particles: Number of particles, P.
      num_steps: Number of steps of a window, K.
      objective: What a run is worth.
      noise: How pairs are drawn and compared.
      unlocked: Whether particles start at different steps of their runs.
    """

    problem: inner_problem.InnerProblem
    num_particles: int = dataclasses.field(metadata=pytree.STATIC)
    num_steps: int = dataclasses.field(metadata=pytree.STATIC)
    objective: meta_loss.MetaLoss = dataclasses.field(default_factory=meta_loss.MeanLoss)
    noise: antithetic.Antithetic = dataclasses.field(default_factory=antithetic.Antithetic)
    unlocked: bool = dataclasses.field(default=True, metadata=pytree.STATIC)

    def init(self, meta_params: MetaParams, key: types.Key) -> PairState:
        # First runs begin without noise, so there is none to be credited. (So they miss how the
        # start of a run depends on the meta-parameters; later runs begin under their noise.)
        nothing = jax.tree.map(
            jnp.zeros_like, antithetic.repeat(meta_params, (self.num_particles,))
        )
        sides = self.noise.pair(meta_params, nothing)
        runs = particles.begin(self.problem, sides, key, unlocked=self.unlocked)
        return PairState(runs, nothing)

    def estimate(
        self, meta_params: MetaParams, state: PairState, key: types.Key
    ) -> tuple[base.MetaGrad, PairState, base.Metrics]:
        key_noise, key_final = jax.random.split(key)
        noise = self.noise.sample(key_noise, meta_params, self.num_particles)
        runs, totals = particles.unroll_pairs(
            self.problem,
            self.objective,
            self.noise.pair(meta_params, noise),
            state.runs,
            key_final,
            num_steps=self.num_steps,
        )
        accumulated = antithetic.add(state.noise, noise)
        meta_grad, metrics = _credit(
            self.noise, totals, self.num_steps, before=accumulated, after=noise
        )
        accumulated = antithetic.where_particle(totals.begins, noise, accumulated)
        return meta_grad, PairState(runs, accumulated), metrics


@final
@dataclasses.dataclass(frozen=True)
class NRES(base.GradientEstimator):
    """Noise-reuse evolution strategies (ES-Single): one noise for a run, drawn when it begins.

    Attributes:
      problem: The inner problem.
      num_particles: Number of particles, P.
      num_steps: Number of steps of a window, K.
      objective: What a run is worth.
      noise: How pairs are drawn and compared.
      unlocked: Whether particles start at different steps of their runs.
    """

    problem: inner_problem.InnerProblem
    num_particles: int = dataclasses.field(metadata=pytree.STATIC)
    num_steps: int = dataclasses.field(metadata=pytree.STATIC)
    objective: meta_loss.MetaLoss = dataclasses.field(default_factory=meta_loss.MeanLoss)
    noise: antithetic.Antithetic = dataclasses.field(default_factory=antithetic.Antithetic)
    unlocked: bool = dataclasses.field(default=True, metadata=pytree.STATIC)

    def init(self, meta_params: MetaParams, key: types.Key) -> PairState:
        key_runs, key_noise = jax.random.split(key)
        noise = self.noise.sample(key_noise, meta_params, self.num_particles)
        sides = self.noise.pair(meta_params, noise)
        runs = particles.begin(self.problem, sides, key_runs, unlocked=self.unlocked)
        return PairState(runs, noise)

    def estimate(
        self, meta_params: MetaParams, state: PairState, key: types.Key
    ) -> tuple[base.MetaGrad, PairState, base.Metrics]:
        key_noise, key_final = jax.random.split(key)
        fresh = self.noise.sample(key_noise, meta_params, self.num_particles)
        runs, totals = particles.unroll_pairs(
            self.problem,
            self.objective,
            self.noise.pair(meta_params, state.noise),
            state.runs,
            key_final,
            num_steps=self.num_steps,
            next_meta_params=self.noise.pair(meta_params, fresh),
        )
        meta_grad, metrics = _credit(
            self.noise, totals, self.num_steps, before=state.noise, after=fresh
        )
        noise = antithetic.where_particle(totals.begins, fresh, state.noise)
        return meta_grad, PairState(runs, noise), metrics


def _credit(
    noise: antithetic.Antithetic,
    totals: particles.Totals,
    num_steps: int,
    *,
    before: MetaParams,
    after: MetaParams,
) -> tuple[base.MetaGrad, base.Metrics]:
    """Credit a window's differences to noise, leaves [P, ...], segment by segment."""
    difference_before, bad_before = noise.difference(totals.before)
    difference_after, bad_after = noise.difference(totals.after)
    meta_grad = antithetic.add(
        noise.gradient(difference_before, before), noise.gradient(difference_after, after)
    )
    metrics = base.Metrics(
        meta_loss=base.finite_mean(totals.before + totals.after),
        num_nonfinite=jnp.sum(bad_before, dtype=jnp.int32) + jnp.sum(bad_after, dtype=jnp.int32),
        num_completed=jnp.sum(totals.completes, dtype=jnp.int32),
        num_steps=jnp.asarray(2 * totals.begins.size * num_steps, jnp.int32),
    )
    return meta_grad, metrics
