"""One task, one optimizer, many learning rates and seeds: a single compiled program.

All runs of a sweep are one `vmap` over (learning rate, seed), so a candidate costs one compile per
task however many rates it is tuned over. The same seed gives every optimizer and every rate the
same start and the same batches. Losses are taken at a few evenly spread checks, on fixed batches of
three splits: `train` says how fast the optimizer is, `valid` chooses the learning rate, and `test`,
which nothing is chosen by, is reported.
"""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from veldt.tasks import base, unroll

SPLITS: Final = ("train", "valid", "test")
MakeTx = Callable[[Any, int], optax.GradientTransformation]
"""`(learning_rate, num_steps) -> transform`; the rate is traced, the length is static."""


@final
@dataclass(frozen=True, eq=False)
class Sweep:
    """Curves of all runs.

    Attributes:
      rates: learning rates, float64 [L].
      seeds: int64 [S].
      steps: steps done at each check, int64 [K]; the first is 0.
      losses: in the task's own units, float32 [L, S, K, 3] by `SPLITS`; infinite from where a run
        diverged.
      compile_s: seconds of tracing and compiling.
      run_s: seconds of training and checking, of all runs together.
    """

    rates: np.ndarray
    seeds: np.ndarray
    steps: np.ndarray
    losses: np.ndarray
    compile_s: float
    run_s: float

    @property
    def diverged(self) -> np.ndarray:
        """Which runs ended without a finite loss, bool [L, S]."""
        return ~np.isfinite(self.losses[:, :, -1]).all(-1)


def check_steps(num_steps: int, num_checks: int) -> tuple[int, ...]:
    """The steps after which losses are taken: 0, then `num_checks` equal parts of `num_steps`.

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
    schedule_steps: int | None = None,
) -> Sweep:
    """Trains a task with one optimizer at every learning rate and seed.

    Args:
      task: what is trained.
      make_tx: the optimizer.
      rates: learning rates, at least one.
      seeds: of the runs, at least one.
      num_steps: length of each run, a multiple of `num_checks`.
      num_checks: how often losses are taken, the start not counted.
      schedule_steps: the length that `make_tx` is told; `num_steps` if None.

    Raises:
      ValueError: lengths that do not fit, or no rates or seeds.
    """
    steps = check_steps(num_steps, num_checks)
    if not len(rates) or not len(seeds):
        raise ValueError("a sweep needs at least one learning rate and one seed")
    length = num_steps if schedule_steps is None else schedule_steps
    began = time.perf_counter()
    # Runs in the order of the result: all seeds of the first rate, then of the second.
    run_rates = jnp.repeat(jnp.asarray(rates, jnp.float32), len(seeds))
    run_seeds = jnp.tile(jnp.asarray(seeds, jnp.uint32), len(rates))
    train = jax.jit(functools.partial(_train, make_tx, length, num_steps // num_checks, num_checks))
    compiled = train.lower(task, run_rates, run_seeds).compile()
    compiled_at = time.perf_counter()
    losses = np.asarray(compiled(task, run_rates, run_seeds))
    ended = time.perf_counter()
    return Sweep(
        rates=np.asarray(rates, np.float64),
        seeds=np.asarray(seeds, np.int64),
        steps=np.asarray(steps, np.int64),
        losses=_settle(losses.reshape(len(rates), len(seeds), len(steps), len(SPLITS))),
        compile_s=compiled_at - began,
        run_s=ended - compiled_at,
    )


def _train(
    make_tx: MakeTx,
    length: int,
    chunk: int,
    num_checks: int,
    task: base.Task,
    rates: jax.Array,
    seeds: jax.Array,
) -> jax.Array:
    """Losses of runs, float32 [runs, K, 3]."""

    def check(state: unroll.UnrollState) -> jax.Array:
        losses = [unroll.evaluate(task, state.params, state.key, split) for split in SPLITS]
        return jnp.stack(losses).astype(jnp.float32)

    def run(rate: jax.Array, seed: jax.Array) -> jax.Array:
        tx = make_tx(rate, length)
        state = unroll.init(task, tx, jax.random.key(seed))

        def advance(state: unroll.UnrollState, _: None) -> tuple[unroll.UnrollState, jax.Array]:
            state, _losses = unroll.unroll(task, tx, state, num_steps=chunk)
            return state, check(state)

        first = check(state)
        _, rest = jax.lax.scan(advance, state, length=num_checks)
        return jnp.concatenate([first[None], rest])

    return jax.vmap(run)(rates, seeds)


def _settle(losses: np.ndarray) -> np.ndarray:
    """Make a run that has once had a loss that is not finite infinite from there on."""
    lost = np.logical_or.accumulate(~np.isfinite(losses).all(-1), axis=2)
    return np.where(lost[..., None], np.float32(np.inf), losses)
