"""One task, one optimizer, many learning rates, seeds and schedules: a single compiled program.

All runs of a sweep are one `vmap` over (schedule, learning rate, seed), so a candidate costs one
compile per task however many settings it is tuned over. The same seed gives every optimizer and
every rate the same start and the same batches. Losses are taken on fixed batches of three splits:
`train`, at a few evenly spread checks, shows how fast the optimizer is; `valid`, at the end,
chooses the learning rate; and `test`, which chooses nothing, is reported. (Taken at every check,
the held-out losses made half of all the work on convolutions.)
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

from veldt.tasks import base
from veldt.tasks.benchmark.protocol import schedules as schedules_lib
from veldt.tasks.common import compiling, types
from veldt.tasks.inner_loop import hollow, unroll

HELD_OUT: Final[tuple[types.Split, ...]] = ("valid", "test")
SPLITS: Final[tuple[types.Split, ...]] = ("train", *HELD_OUT)
MakeTx = Callable[[Any, int], optax.GradientTransformation]
"""`(learning_rate, num_steps) -> transform`; the rate is traced, or an `optax.Schedule` of traced
numbers; the length is static."""


@final
@dataclass(frozen=True, eq=False)
class Sweep:
    """Curves of all runs with one schedule.

    Attributes:
      rates: Peak learning rates, float64 [L].
      seeds: Seeds, int64 [S].
      steps: Numbers of steps done at each check, int64 [K]; the first is 0.
      losses: Losses in the task's own units, float32 [L, S, K, 3] by `SPLITS`; infinite where a
        run diverged, and at the end of one that is hollow. Held-out losses are NaN at checks where
        they were not taken.
      compile_s: Seconds of tracing and compiling, of this schedule's share.
      run_s: Seconds of training and checking, of all runs together.
      hollow: Whether each run is hollow (`inner_loop.hollow`), bool [L, S]; False in files of
        older versions.
    """

    rates: np.ndarray
    seeds: np.ndarray
    steps: np.ndarray
    losses: np.ndarray
    compile_s: float
    run_s: float
    hollow: np.ndarray | None = None

    @property
    def hollow_runs(self) -> np.ndarray:
        """Whether each run is hollow, bool [L, S]."""
        none = np.zeros(self.losses.shape[:2], bool)
        return none if self.hollow is None else self.hollow

    @property
    def lost(self) -> np.ndarray:
        """Whether each run ended without a loss that counts: diverged or hollow, bool [L, S]."""
        return ~np.isfinite(self.losses[:, :, -1]).all(-1)

    @property
    def diverged(self) -> np.ndarray:
        """Whether each run ended without a finite loss, bool [L, S]."""
        return self.lost & ~self.hollow_runs

    def take(self, rates: Any = slice(None), seeds: Any = slice(None)) -> "Sweep":
        """Return a part of the runs; rates and seeds are indices or slices."""
        return dataclasses.replace(
            self,
            rates=self.rates[rates],
            seeds=self.seeds[seeds],
            losses=self.losses[rates][:, seeds],
            hollow=None if self.hollow is None else self.hollow[rates][:, seeds],
        )

    def until(self, num_steps: int) -> "Sweep":
        """Return the first checks of all runs, to the one after `num_steps`.

        Whether a run is hollow is known only at the end.
        """
        checks = int(np.flatnonzero(self.steps == num_steps)[0]) + 1
        if checks == len(self.steps):
            return self
        return dataclasses.replace(
            self, steps=self.steps[:checks], losses=self.losses[:, :, :checks], hollow=None
        )


def check_steps(num_steps: int, num_checks: int) -> tuple[int, ...]:
    """Return the steps after which losses are taken: 0, then `num_checks` equal parts.

    Raises:
      ValueError: `num_steps` is no positive multiple of `num_checks`.
    """
    if num_checks < 1 or num_steps < 1 or num_steps % num_checks:
        raise ValueError(
            f"num_steps ({num_steps}) must be a positive multiple of num_checks ({num_checks})"
        )
    return tuple(range(0, num_steps + 1, num_steps // num_checks))


def sweep(
    task: base.Task,
    make_tx: MakeTx,
    rates: Sequence[float],
    seeds: Sequence[int],
    *,
    num_steps: int,
    num_checks: int,
    held_out_every: int | None = None,
    schedules: Sequence[str] = (schedules_lib.CONSTANT,),
) -> tuple[Sweep, ...]:
    """Train a task with one optimizer under every schedule, at every learning rate and seed.

    Args:
      task: Task that is trained.
      make_tx: Optimizer.
      rates: Peak learning rates, at least one.
      seeds: Seeds of the runs, at least one.
      num_steps: Length of each run, a multiple of `num_checks`.
      num_checks: Number of times that losses are taken, the start not counted.
      held_out_every: Number of checks between two with `valid` and `test`, which must divide
        `num_checks`; None for the end alone.
      schedules: Names in `schedules.SCHEDULES`, at least one.

    Returns:
      A sweep per schedule.

    Raises:
      ValueError: Lengths do not fit, or there are no rates, seeds or schedules.
    """
    steps = check_steps(num_steps, num_checks)
    if not len(rates) or not len(seeds) or not len(schedules):
        raise ValueError("a sweep needs at least one learning rate, one seed and one schedule")
    held_out_every = num_checks if held_out_every is None else held_out_every
    if held_out_every < 1 or num_checks % held_out_every:
        raise ValueError(f"held_out_every ({held_out_every}) must divide num_checks ({num_checks})")
    shape = (len(schedules), len(rates), len(seeds))
    runs = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).reshape(3, -1)
    run_schedules = jnp.asarray(runs[0], jnp.int32)
    run_rates = jnp.asarray(np.asarray(rates, np.float32)[runs[1]])
    run_seeds = jnp.asarray(np.asarray(seeds, np.uint32)[runs[2]])
    began = time.perf_counter()
    train = jax.jit(
        functools.partial(_train, make_tx, tuple(schedules), num_steps, num_checks, held_out_every)
    )
    lowered = train.lower(task, run_schedules, run_rates, run_seeds)
    compiled = lowered.compile(compiler_options=compiling.options())
    compiled_at = time.perf_counter()
    losses, found = map(np.asarray, compiled(task, run_schedules, run_rates, run_seeds))
    ended = time.perf_counter()
    losses = _settle(losses.reshape(*shape, len(steps), len(SPLITS)), held_out_every)
    is_hollow = np.isfinite(losses[..., -1, :]).all(-1) & _judge(found).reshape(shape)
    losses[..., -1, :] = np.where(is_hollow[..., None], np.float32(np.inf), losses[..., -1, :])
    return tuple(
        Sweep(
            rates=np.asarray(rates, np.float64),
            seeds=np.asarray(seeds, np.int64),
            steps=np.asarray(steps, np.int64),
            losses=part,
            compile_s=(compiled_at - began) / len(schedules),
            run_s=(ended - compiled_at) / len(schedules),
            hollow=hollow_part,
        )
        for part, hollow_part in zip(losses, is_hollow, strict=True)
    )


def eval_params(opt_state: Any, params: Any) -> Any:
    """Return the parameters by which an optimizer is scored.

    They are the trained ones, but for Optax's schedule-free optimizers: these take gradients at one
    point and answer with another, an average.
    """

    def is_averaging(node: Any) -> bool:
        return isinstance(node, contrib.ScheduleFreeState)

    found = [s for s in jax.tree.leaves(opt_state, is_leaf=is_averaging) if is_averaging(s)]
    for state in found:
        same = jax.tree.structure(state.z) == jax.tree.structure(params)  # type: ignore[operator]
        if same:
            return contrib.schedule_free_eval_params(state, params)
    return params


def _train(
    make_tx: MakeTx,
    schedules: Sequence[str],
    num_steps: int,
    num_checks: int,
    held_out_every: int,
    task: base.Task,
    run_schedules: jax.Array,
    run_rates: jax.Array,
    run_seeds: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Return losses of runs, float32 [runs, K, 3], and measurements for `_judge`, [runs, 8]."""
    untaken = jnp.full((len(HELD_OUT),), jnp.nan)

    def run(which: jax.Array, rate: jax.Array, seed: jax.Array) -> tuple[jax.Array, jax.Array]:
        tx = make_tx(schedules_lib.scheduled(schedules, which, rate, num_steps), num_steps)
        state = unroll.init(task, tx, jax.random.key(seed))

        def losses(state: unroll.UnrollState, splits: Sequence[types.Split]) -> jax.Array:
            params = eval_params(state.opt_state, state.params)
            values = [unroll.evaluate(task, params, state.key, split) for split in splits]
            return jnp.stack(values).astype(jnp.float32)

        def advance(
            state: unroll.UnrollState, check: jax.Array
        ) -> tuple[unroll.UnrollState, tuple[jax.Array, jax.Array]]:
            state, steps = unroll.unroll(task, tx, state, num_steps=num_steps // num_checks)
            # All runs are at the same check, so that only one branch is computed.
            held_out = jax.lax.cond(
                check % held_out_every == 0,
                lambda: losses(state, HELD_OUT),
                lambda: untaken,
            )
            lowest = hollow.lowest_above_floor(task, steps).astype(jnp.float32)
            return state, (jnp.concatenate([losses(state, ("train",)), held_out]), lowest)

        first = jnp.concatenate([losses(state, ("train",)), untaken])
        end, (rest, lowest) = jax.lax.scan(advance, state, jnp.arange(1, num_checks + 1))
        measured = _measure(task, state, first, end, rest[-1])
        measured = jnp.append(measured, jnp.min(lowest))
        return jnp.concatenate([first[None], rest]), measured

    return jax.vmap(run)(run_schedules, run_rates, run_seeds)


def _measure(
    task: base.Task,
    start: unroll.UnrollState,
    first: jax.Array,
    end: unroll.UnrollState,
    last: jax.Array,
) -> jax.Array:
    """Return the measurements of a run for `_judge`, float32 [7].

    Args:
      task: Task that was trained.
      start: Parameters before the first step.
      first: Losses at the start, by `SPLITS`; held-out ones were not taken.
      end: Parameters after the last step.
      last: Losses at the end.
    """
    again = hollow.recheck(task, eval_params(end.opt_state, end.params), end.key, end.step)
    train, valid, _ = (task.normalizer(last[i]) for i in range(len(SPLITS)))
    early, start_size = task.normalizer(first[0]), hollow.size(start.params)
    numbers = [train, valid, again.before, again.after, start_size, again.size, early]
    return jnp.stack([jnp.asarray(number, jnp.float32) for number in numbers])


def _judge(measured: np.ndarray) -> np.ndarray:
    """Return which runs are hollow, bool [runs]; `measured` is [runs, 8], lowest loss last."""
    train, valid, *sizes, early, lowest = measured.T
    found = [
        hollow.judge(train, *sizes, lowest=lowest),
        hollow.judge(valid, *sizes, train=(early, train), lowest=lowest),
    ]
    return np.any(found, axis=0)


def _settle(losses: np.ndarray, held_out_every: int) -> np.ndarray:
    """Make a run that has once had a loss that is not finite infinite from there on."""
    taken = np.zeros(losses.shape[-2:], bool)  # [K, 3]
    taken[:, 0] = True
    taken[held_out_every::held_out_every] = True
    bad = taken & ~np.isfinite(losses)
    lost = np.logical_or.accumulate(bad.any(-1), axis=-1)[..., None]
    return np.where(taken & lost, np.float32(np.inf), losses)
