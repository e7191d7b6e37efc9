"""What a training step with an optimizer costs, beside one with Adam: time and memory.

Both train the same task from the same start, in turns, a few milliseconds each, so that whatever
else the machine does meets both alike. Times are of whole training steps: the gradient is most of a
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
"""Steps of one call."""

ROUND_S: Final = 0.03
"""About how long either optimizer trains before it is the other's turn."""

NUM_ROUNDS: Final = 9


@final
@dataclass(frozen=True, slots=True)
class Cost:
    """What a candidate's step costs on a task.

    Attributes:
      step_ratio: time of a training step over that with Adam, measured side by side; the median.
      state_bytes: bytes of optimizer state per parameter.
    """

    step_ratio: float
    state_bytes: float


Runner = Callable[[], None]
"""Trains for `CHUNK` steps and waits for the end."""


def measure(task: base.Task, candidate: Candidate, adam: Runner) -> Cost:
    """Measures a candidate on a task.

    Args:
      task: what is trained.
      candidate: the optimizer; at the middle one of its rates.
      adam: from `make_runner(task, baselines.BASELINES[baselines.ADAM])`.
    """
    run = make_runner(task, candidate)
    repeats = max(round(ROUND_S / _seconds(adam, 1)), 1)
    ratios = [_seconds(run, repeats) / _seconds(adam, repeats) for _ in range(NUM_ROUNDS)]
    return Cost(float(np.median(ratios)), state_bytes(task, candidate))


def make_runner(task: base.Task, candidate: Candidate) -> Runner:
    """Compiles `CHUNK` steps of training with a candidate, and runs them once."""
    tx = _middle(candidate)
    train = jax.jit(functools.partial(_train, tx))
    state = jax.jit(functools.partial(_start, tx))(task)
    compiled = train.lower(task, state).compile()

    def run() -> None:
        jax.block_until_ready(compiled(task, state))

    run()
    return run


def adam_runner(task: base.Task) -> Runner:
    """Adam's, that candidates are measured against."""
    return make_runner(task, baselines.BASELINES[baselines.ADAM])


def state_bytes(task: base.Task, candidate: Candidate) -> float:
    """Bytes of optimizer state per parameter; nothing is computed."""
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
