"""Evolution strategies on whole runs (Salimans et al. 2017, arXiv 1703.03864)."""

import dataclasses
from typing import final

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
class FullES(base.GradientEstimator):
    """Run whole pairs afresh in every estimate.

    Unbiased for the meta-loss smoothed by the noise, at the cost of whole runs for one estimate.
    All particles of an estimate have one length, drawn anew each time, so that none waits for
    another. VeLO's meta-training is this with `FinalLoss` and `Antithetic(sign=True)`.

    Attributes:
      problem: The inner problem.
      num_particles: Number of particles, P.
      num_steps: K: runs are taken to their ends in windows of so many steps, and the last window
        may go beyond. Best a divisor of the lengths; the result does not depend on it.
      objective: What a run is worth.
      noise: How pairs are drawn and compared.
    """

    problem: inner_problem.InnerProblem
    num_particles: int = dataclasses.field(metadata=pytree.STATIC)
    num_steps: int = dataclasses.field(metadata=pytree.STATIC)
    objective: meta_loss.MetaLoss = dataclasses.field(default_factory=meta_loss.MeanLoss)
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
        shape = (2, self.num_particles)
        keys_run, keys_final = (
            jnp.tile(jax.random.split(key, self.num_particles), 2) for key in (key_runs, key_final)
        )  # Both sides of a pair have the same keys.
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), sides)
        runs = jax.vmap(
            lambda meta_params, key: inner_problem.begin(
                self.problem, meta_params, key, length=length
            )
        )(flat, keys_run)
        losses = particles.full_losses(
            self.problem, self.objective, flat, runs, keys_final, num_steps=self.num_steps
        ).reshape(shape)
        differences, bad = self.noise.difference(losses)
        metrics = base.Metrics(
            meta_loss=base.finite_mean(losses),
            num_nonfinite=jnp.sum(bad, dtype=jnp.int32),
            num_completed=jnp.asarray(self.num_particles, jnp.int32),
            num_steps=2 * self.num_particles * length,
        )
        return self.noise.gradient(differences, noise), state, metrics
