"""The gradient of a score by a rule's numbers: a worker's part in tuning by metagradients.

One job is one proxy: the program is trained on all the seeds at once, compiled with its constants
as traced numbers, and the mean of the runs' scores is differentiated through the whole training
(`veldt.meta.replay`) by a shift in the coordinates in which the numbers are tuned (`coordinates`).
Every gradient is compared with differences at two step sizes along a random direction, and a
gradient that does not agree with them is rejected: for example that of sign(m) by its decay, which
is zero almost everywhere.

The score that is differentiated is that of the search, log loss and all: of the held-out loss at
the end, or of the mean training loss since the last check. The numbers agree with an evaluation's
to float32 rounding and no further, because there the program may have been interpreted.
"""

import dataclasses
from typing import final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from veldt.learned_opt.base import MetaParams
from veldt.meta.replay import api, task_training
from veldt.search.config.proxy_config import ProxyConfig
from veldt.search.evaluation import coordinates
from veldt.search.evaluation.genotype import Genotype
from veldt.search.program import Program
from veldt.search.runtime import optax_transform
from veldt.tasks import base
from veldt.tasks.benchmark.protocol import schedules
from veldt.tasks.common import types
from veldt.tasks.inner_loop import flat, hollow, unroll

# Shapes: N numbers of a rule, its learning rate first; S seeds.


@final
@dataclasses.dataclass(frozen=True, slots=True)
class GradientJob:
    """A job of the pool's worker: one gradient.

    Attributes:
      start: Program with the constants that tuning began with, which define the coordinates.
      genotype: Point of the gradient: the same program with other numbers.
      proxy: Proxy that is trained, as `jobs.ProxyRun` counts.
      seeds: Seeds of the runs.
      candidate: Candidate of the job, as the store counts; the result does not depend on it.
    """

    start: Program
    genotype: Genotype
    proxy: int
    seeds: tuple[int, ...]
    candidate: int = 0


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Gradient:
    """The result of a gradient's job.

    Attributes:
      values: Gradient of the mean score by the coordinates, N numbers; None where it is rejected.
      score: Mean score of the runs; None with `values`.
      message: Result of the check, in words.
    """

    values: tuple[float, ...] | None
    score: float | None
    message: str


def take(
    job: GradientJob, task: flat.FlatTask, proxy: ProxyConfig, window: int | None, seed: int
) -> Gradient:
    """Take a gradient.

    Args:
      job: Rule and point of the gradient.
      task: Task of the proxy.
      proxy: Proxy: length and schedule.
      window: Number of last steps whose mean training loss is the score; None: the held-out loss.
      seed: Seed of the search, from which the keys of the runs are folded.
    """
    num_steps = proxy.num_steps
    numbers = [job.genotype.learning_rate, *(v for _, v in job.genotype.program.constants)]
    base_key = jax.random.key(seed)
    inner = task_training.TaskTraining(
        make=_Maker(job.start, task.layout, proxy),
        num_steps=num_steps,
        keys=jax.vmap(jax.random.fold_in, (None, 0))(base_key, np.asarray(job.seeds, np.uint32)),
        objective="valid" if window is None else task_training.LastWindow(window),
        data=(task, jnp.asarray(numbers, jnp.float32)),
    )
    found = api.metagradient(
        _Scored(num_steps, inner),
        jnp.zeros(len(numbers), jnp.float32),
        key=base_key,
        on_failure="keep",
    )
    if not found.verdict.passed:
        return Gradient(None, None, found.verdict.message)
    values = tuple(float(x) for x in np.asarray(found.gradient))
    return Gradient(values, found.outcome, found.verdict.message)


@final
@dataclasses.dataclass(frozen=True)
class _Maker:
    """The rule at shifted numbers; equal for the same program, so that it is compiled once."""

    start: Program
    layout: flat.Layout
    proxy: ProxyConfig

    def __call__(
        self, shift: jax.Array, data: tuple[base.Task, jax.Array]
    ) -> tuple[base.Task, optax.GradientTransformation]:
        task, numbers = data
        rate, constants = coordinates.shifted(self.start, numbers, shift)
        num_steps = self.proxy.num_steps
        rule = optax_transform.scale_by_dataflow(
            self.start.lower(), num_steps=num_steps, constants=constants
        )
        scheduled = schedules.one(self.proxy.schedule, rate, num_steps)
        descent = optax.chain(
            optax_transform.on_vector(rule, self.layout), optax.scale_by_learning_rate(scheduled)
        )
        return task, descent


@final
@dataclasses.dataclass(frozen=True)
class _Scored(task_training.Training):
    """Training whose outcome is the mean, over seeds, of the score of a run in the search."""

    num_steps: int
    inner: task_training.TaskTraining

    def init(self, meta_params: MetaParams) -> task_training.TaskState:
        return self.inner.init(meta_params)

    def step(
        self, meta_params: MetaParams, state: task_training.TaskState, index: types.Scalar
    ) -> task_training.TaskState:
        return self.inner.step(meta_params, state, index)

    def outcome(self, meta_params: MetaParams, state: task_training.TaskState) -> types.Scalar:
        del meta_params
        task, _ = self.inner.data

        def score(params: types.Params, key: types.Key, window_loss: jax.Array | None) -> jax.Array:
            held_out = window_loss is None
            loss = unroll.evaluate(task, params, key, "valid") if held_out else window_loss
            return jnp.log(jnp.maximum(task.normalizer(loss), hollow.MIN_NORMALIZED))

        return jnp.mean(jax.vmap(score)(state.params, self.inner.keys, state.window_loss))

    def params(self, state: task_training.TaskState) -> types.Params:
        return self.inner.params(state)
