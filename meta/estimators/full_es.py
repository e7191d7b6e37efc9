"""Evolution strategies on whole runs (Salimans et al. 2017, arXiv 1703.03864)."""

import dataclasses
from typing import final

import jax
import jax.numpy as jnp

from veldt.learned_opt.base import MetaParams
from veldt.meta.estimators import antithetic, base, particles
from veldt.meta.problems import inner_problem
from veldt.tasks.common import types

# Shapes: P particles, each a pair; K steps of a window.


@final
@dataclasses.dataclass(frozen=True)
class FullES(particles.ParticleEstimator):
    """Run whole pairs afresh in every estimate.

    Unbiased for the meta-loss smoothed by the noise, at the cost of whole runs for one estimate.
    All particles of an estimate have one length, drawn anew each time, so that none waits for
    another. VeLO's meta-training is this with `FinalLoss` and `Antithetic(sign=True)`.

    Runs are taken to their ends in windows of `num_steps`, and the last window may go beyond. Best
    is a divisor of the lengths; the result does not depend on it.

    Attributes:
      noise: How pairs are drawn and compared.
    """

    noise: antithetic.Antithetic = dataclasses.field(default_factory=antithetic.Antithetic)

    def init(self, meta_params: MetaParams, key: types.Key) -> tuple[()]:
        """Return nothing: no estimate depends on an earlier one."""
        del meta_params, key
        return ()

    def estimate(
        self, meta_params: MetaParams, state: tuple[()], key: types.Key
    ) -> tuple[base.MetaGrad, tuple[()], base.Metrics]:
        key_noise, key_length, key_runs, key_final = jax.random.split(key, 4)
        noise = self.noise.sample(key_noise, meta_params, self.num_particles)
        sides = self.noise.pair(meta_params, noise)
        length = self.problem.draw_length(key_length)
        keys_run, keys_final = (
            jnp.tile(jax.random.split(key, self.num_particles), 2) for key in (key_runs, key_final)
        )  # Both sides of a pair have the same keys.
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), sides)
        losses = self.losses(flat, length, keys_run, keys_final).reshape(2, self.num_particles)
        differences, bad = self.noise.difference(losses)
        metrics = base.Metrics(
            meta_loss=base.finite_mean(losses),
            num_nonfinite=jnp.sum(bad, dtype=jnp.int32),
            num_completed=jnp.asarray(self.num_particles, jnp.int32),
            num_steps=2 * self.num_particles * length,
        )
        return self.noise.gradient(differences, noise), state, metrics

    def losses(
        self,
        meta_params: MetaParams,
        length: types.Scalar,
        keys_run: types.Key,
        keys_final: types.Key,
    ) -> jax.Array:
        """Return the meta-loss of whole runs, float [N].

        Args:
          meta_params: Leaves [N, ...], one for each run.
          length: Number of steps of every run, int32 [].
          keys_run: Keys of all that is random in the runs, [N]; they are consumed.
          keys_final: Keys for fresh data at the ends, [N]; they are consumed.
        """
        runs = jax.vmap(
            lambda meta_params, key: inner_problem.begin(
                self.problem, meta_params, key, length=length
            )
        )(meta_params, keys_run)
        return self._full_losses(meta_params, runs, keys_final)

    def _full_losses(
        self, meta_params: MetaParams, runs: inner_problem.Run, keys: types.Key
    ) -> jax.Array:
        """Take runs that have not begun to their ends.

        The loop goes on, window by window, until the last has ended, so runs of one length waste
        nothing; it cannot be differentiated in reverse.

        Args:
          meta_params: Leaves [N, ...].
          runs: Runs from `inner_problem.begin`, leaves [N, ...].
          keys: Keys for fresh data, [N]; they are consumed.

        Returns:
          The meta-loss of each run, float [N].
        """

        def unroll(
            meta_params: MetaParams, run: inner_problem.Run
        ) -> tuple[inner_problem.Run, inner_problem.Window]:
            return inner_problem.unroll(self.problem, meta_params, run, num_steps=self.num_steps)

        def body(
            carry: tuple[inner_problem.Run, jax.Array, jax.Array],
        ) -> tuple[inner_problem.Run, jax.Array, jax.Array]:
            runs, sums, ended = carry
            runs, windows = jax.vmap(unroll)(meta_params, runs)
            totals = jax.vmap(self.objective.total, (None, 0, 0, 0))(
                self.problem, meta_params, windows.before, keys
            )
            return runs, sums + jnp.where(ended, 0.0, totals), ended | windows.before.completes

        limits = runs.limit
        carry = (runs, jnp.zeros(limits.shape), jnp.zeros(limits.shape, bool))
        _, sums, _ = jax.lax.while_loop(lambda carry: ~jnp.all(carry[2]), body, carry)
        return sums / limits
