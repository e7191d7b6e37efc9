"""What the task pool runs for a meta-training: gradients on task families, and meta-validation.

A job carries everything its result depends on (meta-parameters, the particles' states, numbers
from which its random keys are made), so it may run anywhere, and again if a worker is lost. What a
worker keeps between jobs is what would be made alike again: families, tasks, compiled programs.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np

from veldt.learned_opt.base import MetaParams
from veldt.meta import array_lists
from veldt.meta.train import build, config, outer_step
from veldt.tasks import base, task_objects
from veldt.tasks.common import compiling, types
from veldt.tasks.families import distribution
from veldt.tasks.inner_loop import hollow, unroll

# Streams of a run's key; 0 draws the first meta-parameters (see `veldt.meta.train.meta_training`).
INIT, BEGIN, GRADIENT, CHECK = range(4)


@final
@dataclasses.dataclass(frozen=True)
class GradientJob:
    """One estimate of the meta-gradient, on one family of tasks.

    Attributes:
      phase: The phase's number.
      family: The family's number.
      update: The update that it is for, counted over the whole run.
      stream: Number of the family's stream of runs that continues.
      meta_params: Meta-parameters that move, by top-level name.
      frozen: The others.
      state: State of the stream, from the last `Gradient` in this phase; None begins the stream.
    """

    phase: int
    family: int
    update: int
    stream: int
    meta_params: Mapping[str, MetaParams]
    frozen: Mapping[str, MetaParams]
    state: array_lists.Leaves | None


@final
@dataclasses.dataclass(frozen=True)
class Gradient:
    """The estimate.

    Attributes:
      meta_grad: Shaped as the job's `meta_params`, of NumPy arrays.
      state: State of the stream after the window.
      meta_loss: Mean of what the runs counted; NaN if none was finite.
      num_nonfinite: Differences that count as zero.
      num_completed: Runs that reached their length.
      num_steps: Inner steps done.
    """

    meta_grad: Any
    state: array_lists.Leaves
    meta_loss: float
    num_nonfinite: int
    num_completed: int
    num_steps: int


@final
@dataclasses.dataclass(frozen=True)
class CheckJob:
    """A job of meta-validation: train one task with the meta-parameters.

    Attributes:
      phase: Number of the phase that the architecture's fields are of.
      check: Number of the task in `MetaTrainConfig.meta_validation`.
      meta_params: All meta-parameters.
    """

    phase: int
    check: int
    meta_params: MetaParams


@final
@dataclasses.dataclass(frozen=True)
class Check:
    """The result of a `CheckJob`.

    Attributes:
      losses: Normalised losses, by seed; the loss of a hollow run is as bad as can be.
      num_hollow: Number of hollow runs (`veldt.tasks.inner_loop.hollow`).
    """

    losses: tuple[float, ...]
    num_hollow: int = 0


@final
@dataclasses.dataclass(frozen=True)
class GradientWorkerFactory:
    """A picklable factory of workers, for this process or another.

    Attributes:
      config: Config of the meta-training.
      tasks: Tasks that are objects.
    """

    config: config.MetaTrainConfig
    tasks: task_objects.TaskObjects = task_objects.NONE

    def __call__(self) -> "GradientWorker":
        return GradientWorker(self.config, self.tasks)


@final
class GradientWorker:
    """A worker that computes `Gradient`s of `GradientJob`s and `Check`s of `CheckJob`s."""

    def __init__(
        self,
        settings: config.MetaTrainConfig,
        tasks: task_objects.TaskObjects = task_objects.NONE,
    ):
        """Draw the families and load the tasks of meta-validation.

        Args:
          settings: Config of the meta-training.
          tasks: Tasks that are objects.

        Raises:
          TaskError: A task cannot be loaded, or the distribution cannot be drawn from.
        """
        self._config = settings
        self._families = distribution.draw(settings.tasks, settings.seed)
        self._tasks = [tasks.load(check.task) for check in settings.meta_validation]
        self._shapes: dict[tuple[int, int], Any] = {}

    @property
    def families(self) -> tuple[base.TaskFamily, ...]:
        """Families of tasks that are trained on."""
        return self._families

    def __call__(self, payload: object) -> object:
        match payload:
            case GradientJob():
                return self._estimate(payload)
            case CheckJob():
                return self._check(payload)
        raise TypeError(f"a meta-training has no job {type(payload).__name__}")

    def _estimate(self, job: GradientJob) -> Gradient:
        phase = self._config.phases[job.phase]
        each = build.make_estimator(self._config, phase, self._families[job.family], job.frozen)
        if job.state is None:
            key = self._key(BEGIN, job.phase, job.stream, job.family)
            state = outer_step.begin(each, job.meta_params, key)
        else:
            state = array_lists.rebuild(self._state_shapes(job, each), job.state)
        key = self._key(GRADIENT, job.update, job.family)
        meta_grad, state, metrics = outer_step.estimate(each, job.meta_params, state, key)
        return Gradient(
            meta_grad=jax.tree.map(np.asarray, meta_grad),
            state=array_lists.leaves(state),
            meta_loss=float(metrics.meta_loss),
            num_nonfinite=int(metrics.num_nonfinite),
            num_completed=int(metrics.num_completed),
            num_steps=int(metrics.num_steps),
        )

    def _state_shapes(self, job: GradientJob, each: Any) -> Any:
        place = job.phase, job.family
        if place not in self._shapes:
            key = jax.random.key(0)
            self._shapes[place] = jax.eval_shape(
                lambda each, meta_params: each.init(meta_params, key), each, job.meta_params
            )
        return self._shapes[place]

    def _check(self, job: CheckJob) -> Check:
        rule = build.architecture(self._config, self._config.phases[job.phase])
        check = self._config.meta_validation[job.check]
        keys = jax.random.split(self._key(CHECK, job.check), self._config.validation_seeds)
        ended = train_and_validate(
            self._tasks[job.check], build.MakeTx(rule), job.meta_params, keys, check.num_steps
        )
        losses, *measured = np.asarray(ended).T
        is_hollow = hollow.judge(losses, *measured) > 0
        losses = np.where(is_hollow, base.MAX_NORMALIZED_LOSS, losses)
        return Check(tuple(float(loss) for loss in losses), int(is_hollow.sum()))

    def _key(self, *numbers: int) -> types.Key:
        return functools.reduce(jax.random.fold_in, numbers, jax.random.key(self._config.seed))


@functools.partial(compiling.jit, static_argnums=(1, 4))
def train_and_validate(
    task: base.Task, make_tx: Any, meta_params: MetaParams, keys: types.Key, num_steps: int
) -> jax.Array:
    """Train a task once for each key, and measure the ends.

    Returns:
      For each run its normalised validation loss, then what `hollow.judge` needs beside it, [S, 5].

    Args:
      task: What is trained.
      make_tx: `(meta_params, num_steps) -> transform`, static.
      meta_params: Meta-parameters of the transform.
      keys: Keys of the runs, [S]; they are consumed.
      num_steps: Number of steps of each run, static.
    """
    tx = make_tx(meta_params, num_steps)

    def run(key: types.Key) -> jax.Array:
        start = unroll.init(task, tx, key)
        start_size = hollow.size(start.params)
        state, _ = unroll.unroll(task, tx, start, num_steps=num_steps)
        loss = task.normalizer(unroll.evaluate(task, state.params, state.key, "valid"))
        again = hollow.recheck(task, state.params, state.key, state.step)
        return jnp.stack([loss, again.before, again.after, start_size, again.size])

    return jnp.asarray(jax.lax.map(run, keys))
