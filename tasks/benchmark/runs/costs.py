"""The cost of a training step with an optimizer, relative to Adam: time and memory.

Both train the same task from the same start, in turns, a few milliseconds each, so that other work
of the machine affects both alike. Times are of whole training steps: the gradient is most of a
step on most tasks, and an optimizer that takes twice Adam's time for its update may cost next to
nothing.
"""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from veldt.tasks import base
from veldt.tasks.benchmark.protocol import baselines
from veldt.tasks.benchmark.protocol.candidates import Candidate
from veldt.tasks.inner_loop import unroll

CHUNK: Final = 20
"""Number of steps of one call."""

ROUND_S: Final = 0.03
"""Approximate time that either optimizer trains before the other takes over."""

NUM_ROUNDS: Final = 9


@final
@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a candidate's step on a task.

    Attributes:
      step_ratio: Time of a training step over that with Adam, measured side by side; the median.
      state_bytes: Bytes of optimizer state per parameter.
    """

    step_ratio: float
    state_bytes: float


Runner = Callable[[], None]
"""Function that trains for `CHUNK` steps and waits for the end."""


def measure(task: base.Task, candidate: Candidate, adam: Runner) -> Cost:
    """Return the measured cost of a candidate on a task.

    Args:
      task: Task that is trained.
      candidate: Optimizer, which is measured at the middle one of its rates.
      adam: Runner from `make_runner(task, baselines.BASELINES[baselines.ADAM])`.
    """
    run = make_runner(task, candidate)
    repeats = max(round(ROUND_S / _seconds(adam, 1)), 1)
    ratios = [_seconds(run, repeats) / _seconds(adam, repeats) for _ in range(NUM_ROUNDS)]
    return Cost(float(np.median(ratios)), state_bytes(task, candidate))


def make_runner(task: base.Task, candidate: Candidate) -> Runner:
    """Compile `CHUNK` steps of training with a candidate, run them once, and return them."""
    tx = _middle(candidate)
    train = jax.jit(functools.partial(_train, tx))
    state = jax.jit(functools.partial(_start, tx))(task)
    compiled = train.lower(task, state).compile()

    def run() -> None:
        jax.block_until_ready(compiled(task, state))

    run()
    return run


def adam_runner(task: base.Task) -> Runner:
    """Return Adam's runner, which candidates are measured against."""
    return make_runner(task, baselines.BASELINES[baselines.ADAM])


def state_bytes(task: base.Task, candidate: Candidate) -> float:
    """Return the bytes of optimizer state per parameter; nothing is computed."""
    params = jax.eval_shape(task.init, jax.random.key(0))
    state = jax.eval_shape(_middle(candidate).init, params)
    return _num_bytes(state) / sum(leaf.size for leaf in jax.tree.leaves(params))


def _middle(candidate: Candidate) -> optax.GradientTransformation:
    rate = candidate.rates[len(candidate.rates) // 2]
    return candidate.make_tx(jnp.asarray(rate, jnp.float32), CHUNK)


def _start(tx: optax.GradientTransformation, task: base.Task) -> unroll.UnrollState:
    return unroll.init(task, tx, jax.random.key(0))


def _train(
    tx: optax.GradientTransformation, task: base.Task, state: unroll.UnrollState
) -> unroll.UnrollState:
    return unroll.unroll(task, tx, state, num_steps=CHUNK)[0]


def _num_bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _seconds(run: Runner, repeats: int) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        run()
    return time.perf_counter() - began
