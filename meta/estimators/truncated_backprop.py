"""Truncated backpropagation through windows of runs."""

import dataclasses
from typing import final

import jax
import jax.numpy as jnp

from veldt.learned_opt.base import MetaParams
from veldt.meta import pytree
from veldt.meta.estimators import antithetic, base, particles
from veldt.meta.problems import inner_problem
from veldt.tasks.common import types

# Shapes: P particles, K steps of a window.


@final
@dataclasses.dataclass(frozen=True)
class TruncatedBackprop(particles.ParticleEstimator):
    """The exact gradient of a window's meta-loss, given the state that the window starts from.

    Biased, for it ignores all before the window, unless the window is the whole run. Through long
    chaotic windows it explodes (Metz et al. 2021, arXiv 2111.05803); what is not finite is dropped.

    Attributes:
      unlocked: Whether particles start at different steps of their runs.
    """

    unlocked: bool = dataclasses.field(default=True, metadata=pytree.STATIC)

    def init(self, meta_params: MetaParams, key: types.Key) -> inner_problem.Run:
        """Return runs, leaves [P, ...]."""
        return self.begin_alike(meta_params, key, unlocked=self.unlocked)

    def estimate(
        self, meta_params: MetaParams, state: inner_problem.Run, key: types.Key
    ) -> tuple[base.MetaGrad, inner_problem.Run, base.Metrics]:
        def window_loss(
            meta_params: MetaParams, run: inner_problem.Run, key: types.Key
        ) -> tuple[types.Scalar, tuple[inner_problem.Run, particles.Totals]]:
            run, totals = self.unroll_window(meta_params, run, key)
            return totals.before + totals.after, (run, totals)

        keys = jax.random.split(key, self.num_particles)
        grad_fn = jax.vmap(jax.value_and_grad(window_loss, has_aux=True), (None, 0, 0))
        (losses, (runs, totals)), meta_grads = grad_fn(meta_params, state, keys)
        finite = jnp.isfinite(losses)
        for leaf in jax.tree.leaves(meta_grads):
            finite &= jnp.all(jnp.isfinite(leaf.reshape(self.num_particles, -1)), axis=1)
        zeros = jax.tree.map(jnp.zeros_like, meta_grads)
        kept = antithetic.where_particle(finite, meta_grads, zeros)
        metrics = base.Metrics(
            meta_loss=base.finite_mean(losses),
            num_nonfinite=jnp.sum(~finite, dtype=jnp.int32),
            num_completed=jnp.sum(totals.completes, dtype=jnp.int32),
            num_steps=jnp.asarray(self.num_particles * self.num_steps, jnp.int32),
        )
        return jax.tree.map(lambda g: jnp.mean(g, axis=0), kept), runs, metrics
