"""Metagradients as an estimator: backpropagation through whole runs.

The exact gradient of a run's meta-loss, with the memory of one window and one state per window: the
steps of a window are done again on the way back (two levels, as `veldt.meta.replay` has them for a
single run; here everything is one compiled program, so that it runs wherever an estimator does).
For one estimate it costs about four forward runs where evolution strategies need thousands of pairs
for as little noise; Metz et al. 2021 (arXiv 2111.05803) say where it fails: through chaotic runs
gradients explode. So the gradient of each run may be scaled down to a norm before the mean is
taken, which bounds what a single chaotic run can do.
"""

import dataclasses
from typing import final

import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt.base import MetaParams
from veldt.meta import pytree
from veldt.meta.estimators import antithetic, base, particles
from veldt.meta.problems import inner_problem
from veldt.tasks.common import types

# Shapes: P particles, K steps of a window.


@final
@dataclasses.dataclass(frozen=True)
class FullBackprop(particles.ParticleEstimator):
    """Run whole runs afresh in every estimate, and back.

    All particles of an estimate have one length, drawn anew each time and rounded to whole windows.
    Unbiased for the meta-loss itself, without smoothing, but for clipping.

    Attributes:
      clip_norm: The largest norm of the gradient of one run, scaled down to it. None: any.
    """

    clip_norm: float | None = dataclasses.field(default=None, metadata=pytree.STATIC)

    def init(self, meta_params: MetaParams, key: types.Key) -> tuple[()]:
        """Return nothing: no estimate depends on an earlier one."""
        del meta_params, key
        return ()

    def estimate(
        self, meta_params: MetaParams, state: tuple[()], key: types.Key
    ) -> tuple[base.MetaGrad, tuple[()], base.Metrics]:
        key_length, key_runs, key_final = jax.random.split(key, 3)
        length = self.problem.draw_length(key_length)
        num_windows = jnp.maximum(jnp.round(length / self.num_steps).astype(jnp.int32), 1)
        keys = tuple(jax.random.split(k, self.num_particles) for k in (key_runs, key_final))
        grad_fn = jax.vmap(jax.value_and_grad(self._loss), (None, None, 0, 0))
        losses, meta_grads = grad_fn(meta_params, num_windows, *keys)
        norms = jax.vmap(optax.tree.norm)(meta_grads)
        finite = jnp.isfinite(losses) & jnp.isfinite(norms)
        scales = jnp.ones_like(norms)
        if self.clip_norm is not None:
            scales = self.clip_norm / jnp.maximum(norms, self.clip_norm)
        zeros = jax.tree.map(jnp.zeros_like, meta_grads)
        kept = antithetic.where_particle(finite, meta_grads, zeros)
        scales = jnp.where(finite, scales, 0.0) / self.num_particles
        metrics = base.Metrics(
            meta_loss=base.finite_mean(losses),
            num_nonfinite=jnp.sum(~finite, dtype=jnp.int32),
            num_completed=jnp.asarray(self.num_particles, jnp.int32),
            num_steps=self.num_particles * num_windows * self.num_steps,
        )
        mean = jax.tree.map(lambda g: jnp.tensordot(scales.astype(g.dtype), g, axes=1), kept)
        return mean, state, metrics

    def _loss(
        self,
        meta_params: MetaParams,
        num_windows: types.Scalar,
        key_run: types.Key,
        key_final: types.Key,
    ) -> types.Scalar:
        """Return the meta-loss of one run of so many windows, float []."""
        problem, length = self.problem, num_windows * self.num_steps
        run = inner_problem.begin(problem, meta_params, key_run, length=length)
        instance = problem.instance(run.config)

        @jax.checkpoint
        def step(state: inner_problem.State, _: None) -> tuple[inner_problem.State, types.Scalar]:
            return problem.step(meta_params, instance, state, length)

        @jax.checkpoint
        def window(state: inner_problem.State) -> tuple[inner_problem.State, types.Scalar]:
            state, losses = jax.lax.scan(step, state, None, self.num_steps)
            return state, jnp.sum(losses)

        def one(
            carry: tuple[inner_problem.State, types.Scalar], index: types.Scalar
        ) -> tuple[tuple[inner_problem.State, types.Scalar], None]:
            # The number of windows is that of all particles, so that this stays a branch and what
            # is not run costs nothing, there or back.
            state, total = carry
            state, added = jax.lax.cond(
                index < num_windows, window, lambda state: (state, jnp.zeros_like(total)), state
            )
            return (state, total + added), None

        most = max(round(problem.lengths[1] / self.num_steps), 1)
        carry = (run.state, jnp.zeros(()))
        (last, total), _ = jax.lax.scan(one, carry, jnp.arange(most, dtype=jnp.int32))
        segment = inner_problem.Segment(
            config=run.config,
            first=run.state,
            last=last,
            loss_sum=total,
            num_steps=length,
            limit=length,
            completes=jnp.asarray(True),
        )
        return self.objective.total(problem, meta_params, segment, key_final) / length
