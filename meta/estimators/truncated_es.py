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
from veldt.meta.problems import inner_problem
from veldt.tasks.common import types

# Shapes: P particles, each a pair; K steps of a window.


@dataclasses.dataclass(frozen=True)
class WindowES(particles.ParticleEstimator):
    """ES on windows; subclasses are final.

    Attributes:
      noise: How pairs are drawn and compared.
      unlocked: Whether particles start at different steps of their runs.
    """

    noise: antithetic.Antithetic = dataclasses.field(default_factory=antithetic.Antithetic)
    unlocked: bool = dataclasses.field(default=True, metadata=pytree.STATIC)

    def unroll_pairs(
        self,
        meta_params: MetaParams,
        runs: inner_problem.Run,
        key: types.Key,
        *,
        next_meta_params: MetaParams | None = None,
        shared_runs: bool = False,
    ) -> tuple[inner_problem.Run, particles.Totals]:
        """Go on for a window with both sides of every particle, in one loop.

        Args:
          meta_params: Leaves [2, P, ...].
          runs: Leaves [2, P, ...], or [P, ...] if shared.
          key: Key for fresh data, the same on both sides of a pair; it is consumed.
          next_meta_params: Meta-parameters of runs that begin in this window, shaped as
            `meta_params`; None for `meta_params`.
          shared_runs: Whether both sides start from the same state.

        Returns:
          The runs K steps later, leaves [2, P, ...], and what counts.
        """
        # None goes through as it is: the same meta-parameters for both runs need no choice per
        # step.
        sides = jax.vmap(
            jax.vmap(self.unroll_window), in_axes=(0, None if shared_runs else 0, None, 0)
        )
        keys = jax.random.split(key, self.num_particles)
        runs, totals = sides(meta_params, runs, keys, next_meta_params)
        # When a run begins does not depend on losses, so both sides agree.
        once = dataclasses.replace(totals, begins=totals.begins[0], completes=totals.completes[0])
        return runs, once

    def credit(
        self, totals: particles.Totals, *, before: MetaParams, after: MetaParams
    ) -> tuple[base.MetaGrad, base.Metrics]:
        """Credit a window's differences to noise, leaves [P, ...], segment by segment."""
        difference_before, bad_before = self.noise.difference(totals.before)
        difference_after, bad_after = self.noise.difference(totals.after)
        meta_grad = antithetic.add(
            self.noise.gradient(difference_before, before),
            self.noise.gradient(difference_after, after),
        )
        num_bad = jnp.sum(bad_before, dtype=jnp.int32) + jnp.sum(bad_after, dtype=jnp.int32)
        metrics = base.Metrics(
            meta_loss=base.finite_mean(totals.before + totals.after),
            num_nonfinite=num_bad,
            num_completed=jnp.sum(totals.completes, dtype=jnp.int32),
            num_steps=jnp.asarray(2 * self.num_particles * self.num_steps, jnp.int32),
        )
        return meta_grad, metrics


@final
@dataclasses.dataclass(frozen=True)
class TruncatedES(WindowES):
    """ES on a window, both sides from one state: biased, for it ignores all before the window.

    The state to go on from is that of the positive side, as in google/learned_optimization: a third
    run at the unperturbed meta-parameters would cost half as much again.
    """

    def init(self, meta_params: MetaParams, key: types.Key) -> inner_problem.Run:
        """Return runs, leaves [P, ...]."""
        return self.begin_alike(meta_params, key, unlocked=self.unlocked)

    def estimate(
        self, meta_params: MetaParams, state: inner_problem.Run, key: types.Key
    ) -> tuple[base.MetaGrad, inner_problem.Run, base.Metrics]:
        key_noise, key_final = jax.random.split(key)
        noise = self.noise.sample(key_noise, meta_params, self.num_particles)
        runs, totals = self.unroll_pairs(
            self.noise.pair(meta_params, noise), state, key_final, shared_runs=True
        )
        meta_grad, metrics = self.credit(totals, before=noise, after=noise)
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
class PES(WindowES):
    """Persistent evolution strategies: new noise in every window, credited for the whole past."""

    def init(self, meta_params: MetaParams, key: types.Key) -> PairState:
        # First runs begin without noise, so there is none to be credited. (So they miss how the
        # start of a run depends on the meta-parameters; later runs begin under their noise.)
        nothing = jax.tree.map(
            jnp.zeros_like, antithetic.repeat(meta_params, (self.num_particles,))
        )
        sides = self.noise.pair(meta_params, nothing)
        runs = self.begin_sides(sides, key, unlocked=self.unlocked)
        return PairState(runs, nothing)

    def estimate(
        self, meta_params: MetaParams, state: PairState, key: types.Key
    ) -> tuple[base.MetaGrad, PairState, base.Metrics]:
        key_noise, key_final = jax.random.split(key)
        noise = self.noise.sample(key_noise, meta_params, self.num_particles)
        runs, totals = self.unroll_pairs(self.noise.pair(meta_params, noise), state.runs, key_final)
        accumulated = antithetic.add(state.noise, noise)
        meta_grad, metrics = self.credit(totals, before=accumulated, after=noise)
        accumulated = antithetic.where_particle(totals.begins, noise, accumulated)
        return meta_grad, PairState(runs, accumulated), metrics


@final
@dataclasses.dataclass(frozen=True)
class NRES(WindowES):
    """Noise-reuse evolution strategies (ES-Single): one noise for a run, drawn when it begins."""

    def init(self, meta_params: MetaParams, key: types.Key) -> PairState:
        key_runs, key_noise = jax.random.split(key)
        noise = self.noise.sample(key_noise, meta_params, self.num_particles)
        sides = self.noise.pair(meta_params, noise)
        runs = self.begin_sides(sides, key_runs, unlocked=self.unlocked)
        return PairState(runs, noise)

    def estimate(
        self, meta_params: MetaParams, state: PairState, key: types.Key
    ) -> tuple[base.MetaGrad, PairState, base.Metrics]:
        key_noise, key_final = jax.random.split(key)
        fresh = self.noise.sample(key_noise, meta_params, self.num_particles)
        runs, totals = self.unroll_pairs(
            self.noise.pair(meta_params, state.noise),
            state.runs,
            key_final,
            next_meta_params=self.noise.pair(meta_params, fresh),
        )
        meta_grad, metrics = self.credit(totals, before=state.noise, after=fresh)
        noise = antithetic.where_particle(totals.begins, fresh, state.noise)
        return meta_grad, PairState(runs, noise), metrics
