"""Many streams of runs side by side: the abstract `ParticleEstimator`."""

import dataclasses

import flax.struct
import jax

from veldt.learned_opt.base import MetaParams
from veldt.meta import pytree
from veldt.meta.estimators import antithetic, base
from veldt.meta.problems import inner_problem, meta_loss
from veldt.tasks.common import types

# Shapes: P particles, K steps of a window; axes [...] before P are sides of pairs, if any.


@flax.struct.dataclass
class Totals:
    """Losses of a window of each particle, per step.

    Attributes:
      before: Totals of the run that was under way, float [..., P].
      after: Totals of the run that began in the window, float [..., P]; 0 if none did.
      begins: Whether one did, bool [P].
      completes: Whether a run reached the end of its length in the window, bool [P].
    """

    before: jax.Array
    after: jax.Array
    begins: jax.Array
    completes: jax.Array


@dataclasses.dataclass(frozen=True)
class ParticleEstimator(base.GradientEstimator):
    """An estimator that runs P inner problems, or pairs of them, side by side.

    Subclasses are final, or abstract as this class is.

    Attributes:
      problem: The inner problem; differentiable, where an estimator backpropagates.
      num_particles: Number of particles, P.
      num_steps: Number of steps of a window, K.
      objective: What a run is worth.
    """

    problem: inner_problem.InnerProblem
    num_particles: int = dataclasses.field(metadata=pytree.STATIC)
    num_steps: int = dataclasses.field(metadata=pytree.STATIC)
    objective: meta_loss.MetaLoss = dataclasses.field(default_factory=meta_loss.MeanLoss)

    def begin_sides(
        self, meta_params: MetaParams, key: types.Key, *, unlocked: bool
    ) -> inner_problem.Run:
        """Begin a stream of runs for each side of each particle; the key is consumed.

        Args:
          meta_params: Meta-parameters of each stream's first run, leaves [S, P, ...]; the S sides
            share everything else.
          key: Key of all streams.
          unlocked: Whether first runs are cut short at random (`inner_problem.cut_short`), so that
            particles do not begin all their runs together.

        Returns:
          Runs, leaves [S, P, ...].
        """
        keys = jax.random.split(key, (self.num_particles, 2))  # of streams and of limits

        def one(meta_params: MetaParams, keys: types.Key) -> inner_problem.Run:
            run = inner_problem.begin(self.problem, meta_params, keys[0])
            return inner_problem.cut_short(run, keys[1]) if unlocked else run

        return jax.vmap(jax.vmap(one), in_axes=(0, None))(meta_params, keys)

    def begin_alike(
        self, meta_params: MetaParams, key: types.Key, *, unlocked: bool
    ) -> inner_problem.Run:
        """Begin a stream for each particle, all under one `meta_params`; leaves [P, ...]."""
        one_side = antithetic.repeat(meta_params, (1, self.num_particles))
        runs = self.begin_sides(one_side, key, unlocked=unlocked)
        return jax.tree.map(lambda x: x[0], runs)

    def unroll_window(
        self,
        meta_params: MetaParams,
        run: inner_problem.Run,
        key: types.Key,
        next_meta_params: MetaParams | None = None,
    ) -> tuple[inner_problem.Run, Totals]:
        """Go on for a window with one particle; its `Totals` have no axes. The key is consumed.

        Args:
          meta_params: Meta-parameters of the run under way.
          run: The stream.
          key: Key for fresh data.
          next_meta_params: Those of a run that begins in this window; None for `meta_params`.
        """
        following = meta_params if next_meta_params is None else next_meta_params
        run, window = inner_problem.unroll(
            self.problem, meta_params, run, num_steps=self.num_steps, next_meta_params=following
        )
        before = self.objective.total(self.problem, meta_params, window.before, key)
        after = self.objective.total(self.problem, following, window.after, key)
        completes = window.before.completes | window.after.completes
        return run, Totals(
            before / self.num_steps, after / self.num_steps, window.begins, completes
        )
