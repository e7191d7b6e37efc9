"""What meta-parameters are judged on: the abstract `InnerProblem`, and runs of it in windows.

An inner problem is anything that goes on step by step under meta-parameters and has a loss at each
step: training a task with a learned optimizer, or a plain dynamical system. What estimates a
meta-gradient sees only this, and never knows that it trains an optimizer (the split of
google/learned_optimization, whose `TruncatedStep` this is).

A *run* goes from a fresh state to its length T, which each run draws for itself; then the next run
begins, with a draw of everything, and so on: a stream of runs. A *window* is K steps of a stream,
wherever it stands. K is at most the shortest length, so that at most one run begins in a window, at
any step of it: a window has a segment `before` that, of the run under way, and a segment `after`,
of the new one, and one of them may be empty. Where runs begin depends on lengths alone, never on
losses, so antithetic pairs, which share a key, stay in step.

A run that reaches its length in the last step of a window is followed by the next run only in the
next window: the new run is thus under the meta-parameters of that window from its start.
"""

import abc
import dataclasses
from typing import Any, TypeAlias

import flax.struct
import jax
import jax.numpy as jnp

from veldt.learned_opt.base import MetaParams
from veldt.meta import pytree
from veldt.tasks.common import types

# Shapes: K steps of a window, T steps of a run.

Config: TypeAlias = Any
"""Pytree of arrays: which inner problem a run is of, such as a task family's configuration."""

Instance: TypeAlias = Any
"""What a config makes, such as a task: a pytree, made once for a window and not carried."""

State: TypeAlias = Any
"""Pytree of arrays: an inner problem between two steps."""


class InnerProblem(pytree.Pytree, abc.ABC):
    """A distribution of problems that go on step by step.

    A subclass is a frozen dataclass (see `veldt.meta.pytree`): so that its arrays are arguments of
    the jitted functions that get an estimator, and no constants of the program.
    """

    lengths: tuple[int, int]
    """The least and the greatest length of a run; no window may be longer than the least."""

    def draw_length(self, key: types.Key) -> types.Scalar:
        """Draw T, the number of steps of a run, log-uniform, int32 []. The key is consumed."""
        low, high = self.lengths
        if low == high:
            return jnp.asarray(low, jnp.int32)
        # Each whole number n has the log-uniform mass of [n, n + 1).
        ratio = (high + 1) / low
        length = jnp.floor(low * ratio ** jax.random.uniform(key)).astype(jnp.int32)
        return jnp.clip(length, low, high)

    @abc.abstractmethod
    def draw_config(self, key: types.Key) -> Config:
        """Draw which problem a run is of. The key is consumed."""

    @abc.abstractmethod
    def instance(self, config: Config) -> Instance:
        """Make the problem that `config` names."""

    @abc.abstractmethod
    def init(
        self, meta_params: MetaParams, instance: Instance, key: types.Key, length: types.Scalar
    ) -> State:
        """Return the state before step 0. The key is consumed: the whole run's randomness."""

    @abc.abstractmethod
    def step(
        self, meta_params: MetaParams, instance: Instance, state: State, length: types.Scalar
    ) -> tuple[State, types.Scalar]:
        """Do one step; returns the next state and the loss, float []."""

    @abc.abstractmethod
    def final_loss(
        self, meta_params: MetaParams, instance: Instance, state: State, key: types.Key
    ) -> types.Scalar:
        """Return the loss of a state, on fresh data of `key`'s, which is consumed; float []."""


@flax.struct.dataclass
class Run:
    """A stream of runs, between two steps of one.

    Attributes:
      state: The problem's own state.
      config: Which problem this run is of.
      step: Steps done in this run, int32 [].
      length: T as drawn, which the problem receives, int32 [].
      limit: The step at which this run ends, int32 []: T, unless a first run was cut short.
      key: Key of the next run.
    """

    state: State
    config: Config
    step: types.Scalar
    length: types.Scalar
    limit: types.Scalar
    key: types.Key


@flax.struct.dataclass
class Segment:
    """The steps of one run that lie in one window; empty if `num_steps` is 0.

    Attributes:
      config: Which problem the run is of.
      first: The state before the segment's first step.
      last: The state after the last step of the segment.
      loss_sum: Sum of the losses of the segment's steps, float [].
      num_steps: int32 [].
      limit: The number of steps of the whole run, int32 [].
      completes: Whether the run ends with the segment's last step, bool [].
    """

    config: Config
    first: State
    last: State
    loss_sum: types.Scalar
    num_steps: types.Scalar
    limit: types.Scalar
    completes: types.Scalar


@flax.struct.dataclass
class Window:
    """K steps of a stream of runs.

    Attributes:
      losses: Loss of every step, float [K].
      before: The steps of the run that was under way.
      after: The steps of the run that began in this window.
      begins: Whether one did, bool [].
    """

    losses: jax.Array
    before: Segment
    after: Segment
    begins: types.Scalar


def begin(
    problem: InnerProblem,
    meta_params: MetaParams,
    key: types.Key,
    *,
    length: types.Scalar | None = None,
) -> Run:
    """Return a run before its first step.

    Args:
      problem: Inner problem that is run.
      meta_params: Meta-parameters of the first state.
      key: What this run and all that follow it draw from; it is consumed.
      length: T of this run; by default it is drawn.
    """
    keys = jax.random.split(key, 4)
    key_next, key_length, key_config, key_state = keys[0], keys[1], keys[2], keys[3]
    if length is None:
        length = problem.draw_length(key_length)
    config = problem.draw_config(key_config)
    return Run(
        state=problem.init(meta_params, problem.instance(config), key_state, length),
        config=config,
        step=jnp.zeros((), jnp.int32),
        length=length,
        limit=length,
        key=key_next,
    )


def cut_short(run: Run, key: types.Key) -> Run:
    """Let a run that has not begun end at a random step instead, 1 to T; the key is consumed.

    With the first run of each stream cut short, streams of one length T are spread evenly over the
    steps of a run from the second run on (step-unlocked, as Vicol et al. 2021 call it). The
    problem still receives T.
    """
    skipped = jnp.floor(jax.random.uniform(key) * run.length).astype(jnp.int32)  # 0 to T - 1
    return dataclasses.replace(run, limit=run.length - jnp.minimum(skipped, run.length - 1))


def unroll(
    problem: InnerProblem,
    meta_params: MetaParams,
    run: Run,
    *,
    num_steps: int,
    next_meta_params: MetaParams | None = None,
) -> tuple[Run, Window]:
    """Unroll a window of `num_steps` (K) steps from the present state of `run`.

    Args:
      problem: Inner problem that is run.
      meta_params: Meta-parameters of the run under way.
      run: Run from `begin` or from an earlier `unroll`.
      num_steps: Number of steps of a window, K, static.
      next_meta_params: Meta-parameters of a run that begins in this window; by default the same.

    Returns:
      The stream K steps later, and what happened.

    Raises:
      ValueError: The window is longer than a run may be.
    """
    if not 1 <= num_steps <= problem.lengths[0]:
        raise ValueError(
            f"A window of {num_steps} steps must have at least 1 and at most as many as the "
            f"shortest run, {problem.lengths[0]}."
        )
    if next_meta_params is None:
        next_meta_params = meta_params
    following = begin(problem, next_meta_params, run.key)
    # The window's first step that is the new run's; at or beyond K if none begins.
    begins_at = run.limit - run.step
    instances = problem.instance(run.config), problem.instance(following.config)

    def body(carry: tuple[State, State], k: types.Scalar) -> tuple[tuple[State, State], jax.Array]:
        state, last = carry
        is_new = k >= begins_at
        state, loss = problem.step(
            select(is_new, next_meta_params, meta_params),
            select(is_new, instances[1], instances[0]),
            select(k == begins_at, following.state, state),
            jnp.where(is_new, following.length, run.length),
        )
        # Where nobody reads `last`, XLA drops it from the loop.
        return (state, select(is_new, last, state)), loss

    steps = jnp.arange(num_steps, dtype=jnp.int32)
    (state, last), losses = jax.lax.scan(body, (run.state, run.state), steps)
    num_before = jnp.minimum(begins_at, num_steps)
    num_after = num_steps - num_before
    is_before = steps < begins_at
    before = Segment(
        config=run.config,
        first=run.state,
        last=last,
        # Masked, not multiplied: a run that diverged leaves the next one's losses alone.
        loss_sum=jnp.sum(jnp.where(is_before, losses, 0.0)),
        num_steps=num_before,
        limit=run.limit,
        completes=(num_before > 0) & (begins_at <= num_steps),
    )
    after = Segment(
        config=following.config,
        first=following.state,
        last=state,
        loss_sum=jnp.sum(jnp.where(is_before, 0.0, losses)),
        num_steps=num_after,
        limit=following.limit,
        completes=num_after == following.limit,
    )
    begins = num_after > 0
    ran_on = dataclasses.replace(run, state=state, step=run.step + num_steps)
    began = dataclasses.replace(following, state=state, step=num_after)
    return select(begins, began, ran_on), Window(losses, before, after, begins)


def select(condition: types.Scalar, if_true: Any, if_false: Any) -> Any:
    """Choose between two pytrees of one structure; leaves that are the same object stay whole.

    So what does not differ, such as a data set, is not copied step by step.
    """
    return jax.tree.map(lambda a, b: a if a is b else jnp.where(condition, a, b), if_true, if_false)
