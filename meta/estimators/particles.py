"""Many streams of runs side by side: how they begin, and a window of all of them."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from veldt.learned_opt.base import MetaParams
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


def begin(
    problem: inner_problem.InnerProblem, meta_params: MetaParams, key: types.Key, *, unlocked: bool
) -> inner_problem.Run:
    """Begin a stream of runs for each side of each particle; the key is consumed.

    Args:
      problem: Inner problem that is run.
      meta_params: Meta-parameters of each stream's first run, leaves [S, P, ...]; the S sides share
        everything else.
      key: Key of all streams.
      unlocked: Whether first runs are cut short at random (`inner.cut_short`), so that particles
        do not begin all their runs together.

    Returns:
      Runs, leaves [S, P, ...].
    """
    num_particles = jax.tree.leaves(meta_params)[0].shape[1]
    keys = jax.random.split(key, (num_particles, 2))  # of streams and of limits

    def one(meta_params: MetaParams, keys: types.Key) -> inner_problem.Run:
        run = inner_problem.begin(problem, meta_params, keys[0])
        return inner_problem.cut_short(run, keys[1]) if unlocked else run

    return jax.vmap(jax.vmap(one), in_axes=(0, None))(meta_params, keys)


def unroll_pairs(
    problem: inner_problem.InnerProblem,
    objective: meta_loss.MetaLoss,
    meta_params: MetaParams,
    runs: inner_problem.Run,
    key: types.Key,
    *,
    num_steps: int,
    next_meta_params: MetaParams | None = None,
    shared_runs: bool = False,
) -> tuple[inner_problem.Run, Totals]:
    """Go on for a window with both sides of every particle, in one loop.

    Args:
      problem: Inner problem that is run.
      objective: What a run is worth.
      meta_params: Leaves [2, P, ...].
      runs: Leaves [2, P, ...], or [P, ...] if shared.
      key: Key for fresh data, the same on both sides of a pair; it is consumed.
      num_steps: Number of steps of a window, K.
      next_meta_params: Meta-parameters of runs that begin in this window, shaped as `meta_params`;
        None for `meta_params`.
      shared_runs: Whether both sides start from the same state.

    Returns:
      The runs K steps later, leaves [2, P, ...], and what counts.
    """

    def one(
        meta_params: MetaParams,
        following: MetaParams | None,
        run: inner_problem.Run,
        key: types.Key,
    ) -> tuple[inner_problem.Run, Totals]:
        return unroll_one(
            problem,
            objective,
            meta_params,
            run,
            key,
            num_steps=num_steps,
            next_meta_params=following,
        )

    # None goes through as it is: the same meta-parameters for both runs need no choice per step.
    sides = jax.vmap(jax.vmap(one), in_axes=(0, 0, None if shared_runs else 0, None))
    keys = jax.random.split(key, runs.step.shape[-1])
    runs, totals = sides(meta_params, next_meta_params, runs, keys)
    # When a run begins does not depend on losses, so both sides agree.
    return runs, dataclasses.replace(totals, begins=totals.begins[0], completes=totals.completes[0])


def unroll_one(
    problem: inner_problem.InnerProblem,
    objective: meta_loss.MetaLoss,
    meta_params: MetaParams,
    run: inner_problem.Run,
    key: types.Key,
    *,
    num_steps: int,
    next_meta_params: MetaParams | None = None,
) -> tuple[inner_problem.Run, Totals]:
    """Go on for a window with one particle; its `Totals` have no axes. The key is consumed."""
    following = meta_params if next_meta_params is None else next_meta_params
    run, window = inner_problem.unroll(
        problem, meta_params, run, num_steps=num_steps, next_meta_params=following
    )
    before = objective.total(problem, meta_params, window.before, key) / num_steps
    after = objective.total(problem, following, window.after, key) / num_steps
    completes = window.before.completes | window.after.completes
    return run, Totals(before, after, window.begins, completes)


def full_losses(
    problem: inner_problem.InnerProblem,
    objective: meta_loss.MetaLoss,
    meta_params: MetaParams,
    runs: inner_problem.Run,
    keys: types.Key,
    *,
    num_steps: int,
) -> jax.Array:
    """Take runs that have not begun to their ends.

    The loop runs, window by window, until the last has ended, so runs of one length waste
    nothing; it cannot be differentiated in reverse.

    Args:
      problem: Inner problem that is run.
      objective: What a run is worth.
      meta_params: Leaves [N, ...].
      runs: Runs from `inner_problem.begin`, leaves [N, ...].
      keys: Keys for fresh data, [N]; they are consumed.
      num_steps: Number of steps of a window, K.

    Returns:
      The meta-loss of each run, float [N].
    """

    def body(
        carry: tuple[inner_problem.Run, jax.Array, jax.Array],
    ) -> tuple[inner_problem.Run, jax.Array, jax.Array]:
        runs, sums, ended = carry
        runs, windows = jax.vmap(
            lambda meta_params, run: inner_problem.unroll(
                problem, meta_params, run, num_steps=num_steps
            )
        )(meta_params, runs)
        totals = jax.vmap(objective.total, (None, 0, 0, 0))(
            problem, meta_params, windows.before, keys
        )
        return runs, sums + jnp.where(ended, 0.0, totals), ended | windows.before.completes

    limits = runs.limit
    carry = (runs, jnp.zeros(limits.shape), jnp.zeros(limits.shape, bool))
    _, sums, _ = jax.lax.while_loop(lambda carry: ~jnp.all(carry[2]), body, carry)
    return sums / limits
