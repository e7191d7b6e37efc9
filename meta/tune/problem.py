"""From a config to trainings: the task and the transform that meta-parameters make."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import jax
import numpy as np
import optax

from veldt.learned_opt.base import MetaParams
from veldt.meta import errors
from veldt.meta.replay import task_training
from veldt.meta.tune import config
from veldt.meta.tune.training import hyperparameters, optimizers, parts, shaped_task, synthetic
from veldt.meta.tune.training.synthetic import SyntheticConfig
from veldt.tasks import base, registry
from veldt.tasks.common import compiling, types
from veldt.tasks.inner_loop import hollow

RATE: Final = "learning_rate"

_LAST_SHARE = 10  # the last tenth of the steps
_CHECK_SEED = 2**30  # seeds of checks are from here on; those of updates are below
_FRESH_SEED = 2**30 + 2**29  # and those that nothing is chosen on
_FEWEST_FRESH = 8


@final
@dataclasses.dataclass(frozen=True)
class Make:
    """From meta-parameters and the plain task to the task and the transform of a training.

    It is static to compiled programs, which tunings that differ in nothing named here share.

    Attributes:
      num_steps: Length of a training run.
      optimizer: Optimizer, as in `TuneConfig`.
      tune: Hyperparameters by name, as in `TuneConfig`.
      fixed: Other arguments of the optimizer, by name.
      groups: Regular expressions by name of the group, in order: the first that fits counts.
      tensors: Places of the parameters' tensors in their tree.
      synthetic: Learned training rows; None for none.
    """

    num_steps: int
    optimizer: str
    tune: tuple[tuple[str, hyperparameters.Hyperparameter], ...]
    fixed: tuple[tuple[str, float], ...]
    groups: tuple[tuple[str, str], ...]
    tensors: tuple[str, ...] = ()
    synthetic: SyntheticConfig | None = None

    @classmethod
    def of(cls, settings: config.TuneConfig, task: base.Task) -> "Make":
        """Return a tuning's."""
        by_part = any(spec.by != "all" for spec in settings.tune.values())
        return cls(
            settings.num_steps,
            settings.optimizer,
            tuple(settings.tune.items()),
            tuple(settings.fixed.items()),
            tuple(settings.groups.items()),
            parts.places(jax.eval_shape(task.init, jax.random.key(0))) if by_part else (),
            settings.synthetic,
        )

    @property
    def model(self) -> parts.Parts:
        """The parts of the model that have hyperparameters of their own."""
        by = tuple((name, spec.by) for name, spec in self.tune if spec.by != "all")
        return parts.Parts(self.tensors, by, self.groups)

    def __call__(
        self, meta_params: Mapping[str, Any], task: base.Task
    ) -> tuple[base.Task, optax.GradientTransformation]:
        """Return both, for one run."""
        values: dict[str, hyperparameters.Value] = {}
        by_part: dict[str, Sequence[hyperparameters.Value]] = {}
        for name, spec in self.tune:
            if spec.by == "all":
                values[name] = spec.value(meta_params[name], self.num_steps)
            else:
                by_part[name] = [spec.value(row, self.num_steps) for row in meta_params[name]]
        shape: dict[str, Any] = {}
        rates: dict[str, Any] = {}
        arguments: dict[str, Any] = dict(self.fixed)
        for name, value in values.items():
            if name in hyperparameters.TASK_NAMES:
                shape[name] = value
            elif name.startswith(hyperparameters.GROUP_PREFIX):
                rates[name.removeprefix(hyperparameters.GROUP_PREFIX)] = value
            else:
                arguments[name] = value
        given = (*arguments, *by_part)
        arguments |= optimizers.of_run(self.optimizer, self.num_steps, given)
        groups = dict(self.groups)
        tx = optimizers.make(self.optimizer, arguments, groups, rates, by_part, self.model)
        if self.synthetic is not None:
            task = synthetic.make(self.synthetic, task, meta_params)
        if shape:
            task = shaped_task.ShapedTask(task, shaped_task.Shape(**shape))  # type: ignore[arg-type]
        return task, tx


@final
class Problem:
    """The trainings of a tuning, and where its meta-parameters start.

    Attributes:
      task: The plain task.
      meta_params: Meta-parameters at the start, by name.
    """

    def __init__(self, settings: config.TuneConfig, task: base.Task | None = None) -> None:
        """Load what the config names.

        Args:
          settings: Settings of the tuning.
          task: The task, where it is loaded already.

        Raises:
          TaskError: The task cannot be loaded.
          MetaTrainError: The optimizer is not known, or a hyperparameter is none of its or of the
            task's.
        """
        self._settings = settings
        self.task = registry.load_task(settings.task) if task is None else task
        self._make = Make.of(settings, self.task)
        self.meta_params = {
            name: spec.init(self._num_elements(name, spec)) for name, spec in settings.tune.items()
        }
        if settings.synthetic is not None:
            self.meta_params |= synthetic.init(settings.synthetic, self.task, settings.seed)
        arguments = {
            name
            for name in settings.tune
            if name not in hyperparameters.TASK_NAMES
            and not name.startswith(hyperparameters.GROUP_PREFIX)
        }
        given = dict.fromkeys([*settings.fixed, *arguments], 0.0)
        given |= optimizers.of_run(settings.optimizer, settings.num_steps, given)
        optimizers.check_arguments(settings.optimizer, given)

    def _num_elements(self, name: str, spec: hyperparameters.Hyperparameter) -> int | None:
        if spec.by != "all":
            return len(self.model.names(name))
        if name not in hyperparameters.TASK_NAMES:
            return None
        if spec.knots:
            raise errors.MetaTrainError(f"tune.{name} is the task's and has no schedule: knots: 0")
        return shaped_task.num_elements(name, self.task)

    @property
    def model(self) -> parts.Parts:
        """The parts of the model that have hyperparameters of their own."""
        return self._make.model

    def seeds_of(self, update: int) -> range:
        """Return the numbers of the seeds of an update's metagradient; they are its own."""
        count = self._settings.seeds
        return range(update * count, (update + 1) * count)

    @property
    def check_seeds(self) -> range:
        """The numbers of the seeds that hyperparameters are compared by; always the same."""
        return range(_CHECK_SEED, _CHECK_SEED + self._settings.check_seeds)

    @property
    def fresh_seeds(self) -> range:
        """The numbers of the seeds on which nothing is chosen."""
        count = max(self._settings.check_seeds, _FEWEST_FRESH)
        return range(_FRESH_SEED, _FRESH_SEED + count)

    def groups(self, seeds: range) -> list[tuple[int, ...]]:
        """Return the seeds of each job that runs with these are split into."""
        size = self._settings.runs_per_job or len(seeds)
        return [tuple(seeds[i : i + size]) for i in range(0, len(seeds), size)]

    def training_of(self, update: int) -> task_training.TaskTraining:
        """Return the training that an update's metagradient goes through."""
        return self.training(self.seeds_of(update))

    def check(self) -> task_training.TaskTraining:
        """Return the training that hyperparameters are compared by."""
        return self.training(self.check_seeds)

    def fresh(self) -> list[task_training.TaskTraining]:
        """Return trainings of one seed each, on which nothing is chosen."""
        return [self.training([seed]) for seed in self.fresh_seeds]

    def with_rate_by_step(self) -> "Problem":
        """Return the same trainings with a learning rate that is given for each step.

        The other hyperparameters stay as they are.
        """
        settings = self._settings
        by_step = hyperparameters.Hyperparameter(
            settings.tune[RATE].start, "linear", settings.num_steps
        )
        changed = dataclasses.replace(settings, tune={**settings.tune, RATE: by_step})
        return Problem(changed, self.task)

    def training(self, numbers: Sequence[int]) -> task_training.TaskTraining:
        """Return the runs with some seeds, side by side.

        Args:
          numbers: Numbers of the seeds among those of this tuning.
        """
        settings = self._settings
        # Seeds of one tuning, spread over all 32-bit numbers without two of them meeting.
        seeds = [(settings.seed * 1_000_003 + number) % 2**31 for number in numbers]
        objective: task_training.Objective = "valid"
        if settings.objective == "train":
            objective = task_training.LastWindow(max(settings.num_steps // _LAST_SHARE, 1))
        return task_training.TaskTraining.of(
            self._make, settings.num_steps, seeds=seeds, objective=objective, data=self.task
        ).spread()

    def numbers(self, meta_params: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return the hyperparameters themselves, at knots where they have a schedule."""
        found = {
            name: spec.numbers(np.asarray(meta_params[name]))
            for name, spec in self._settings.tune.items()
        }
        if self._settings.synthetic is not None:
            found |= synthetic.numbers(self._settings.synthetic, self.task, meta_params)
        return found


@final
@dataclasses.dataclass(frozen=True)
class Ended:
    """Runs that have come to their end.

    Attributes:
      outcome: Mean outcome of the runs; not finite where one diverged.
      code: The highest code of a hollow run, an index of `hollow.REASONS`; 0 if none is hollow.
    """

    outcome: float
    code: int


def end(run: task_training.TaskTraining, meta_params: MetaParams) -> Ended:
    """Run a training to its end."""
    found, ends = _outcome(run, meta_params)
    # A run that diverged has said so by its outcome.
    codes = hollow.judge(*np.asarray(ends, np.float64).T) if math.isfinite(found) else np.zeros(1)
    return Ended(float(found), int(np.max(codes)))


def judge(parts: Sequence[Ended], shares: Sequence[float]) -> tuple[float, str]:
    """Return the mean outcome of runs, and why it is not real.

    Args:
      parts: Runs that have come to their end.
      shares: Share of each part in the mean; their sum is 1.

    Returns:
      The outcome, and why a run is hollow (`hollow.REASONS`), empty where none is. The outcome of a
      hollow run is NaN.
    """
    mean = sum(share * part.outcome for share, part in zip(shares, parts, strict=True))
    if not math.isfinite(mean):
        return mean, ""
    why = hollow.REASONS[max(part.code for part in parts)]
    return (math.nan, why) if why else (mean, "")


def outcome(run: task_training.TaskTraining, meta_params: MetaParams) -> float:
    """Run a training and return its outcome; NaN where the run is hollow."""
    return run_once(run, meta_params)[0]


def run_once(run: task_training.TaskTraining, meta_params: MetaParams) -> tuple[float, str]:
    """Run a training, and say whether its outcome is real; see `judge`."""
    return judge([end(run, meta_params)], [1.0])


def _run(
    run: task_training.TaskTraining, meta_params: MetaParams
) -> tuple[types.Scalar, jax.Array]:
    def step(index: types.Scalar, state: task_training.TaskState) -> task_training.TaskState:
        return run.step(meta_params, state, index)

    first = run.init(meta_params)
    state = jax.lax.fori_loop(0, run.num_steps, step, first)
    return run.outcome(meta_params, state), run.ends(meta_params, first, state)


_outcome = compiling.jit(_run)
