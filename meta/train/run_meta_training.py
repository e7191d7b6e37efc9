"""Running a meta-training: the run directory, the pool, the loop and its records, put together.

A run directory holds all of a run: `run.json`, `config.yaml`, `checkpoints/`, `metrics.jsonl`,
`weights.npz` (the best by meta-validation, or the last without one), and `last.npz`. A run that was
killed is continued with `resume=True`, and on the CPU ends with the same weights, bit for bit.
"""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

import jax

from veldt.learned_opt import shipped
from veldt.learned_opt import weight_files as weights
from veldt.learned_opt.base import MetaParams
from veldt.learned_opt.blocks import accumulators
from veldt.meta import checkpoint, errors
from veldt.meta.train import build, config, gradient_worker, log, meta_training, training_view
from veldt.tasks import base, task_objects
from veldt.tasks.common import stopping, versions
from veldt.tasks.common.config import codec
from veldt.tasks.common.disk.run_directory import RunDirectory, Terms
from veldt.tasks.pool import config as pool_config
from veldt.tasks.pool import pools, work_line

LAST_FILE: Final = "last.npz"
# Fields that may differ when a run is resumed: they change where and how it runs, not its result.
TERMS: Final = Terms(
    "meta-train",
    config.MetaTrainConfig,
    may_differ=("pool", "checkpoint_every_s", "tensorboard"),
    may_grow=("phases",),
)


@final
@dataclasses.dataclass(frozen=True)
class MetaTrainResult:
    """The result of a meta-training.

    Attributes:
      weights: Weights that were written to `weights.npz`.
      progress: State at the end.
    """

    weights: weights.Weights
    progress: meta_training.MetaTrainProgress


def run_meta_training(
    settings: config.MetaTrainConfig,
    run_dir: Path,
    *,
    resume: bool = False,
    view: training_view.TrainingView | None = None,
    tasks: task_objects.TaskObjects = task_objects.NONE,
) -> MetaTrainResult:
    """Run a meta-training to its end.

    Args:
      settings: Config of the meta-training.
      run_dir: Directory of the run; made if it does not exist.
      resume: Whether to resume the run in the directory; `settings` must be the stored config
        except for what `TERMS` let change.
      view: Display of the run; None shows nothing.
      tasks: Tasks that are objects, which the config has names for.

    Raises:
      FileError: The run directory cannot be used.
      MetaTrainError: A gradient cannot be computed.
      TaskError, LearnedOptError: A task, an architecture or weights cannot be used.
      KeyboardInterrupt: Ctrl-C; the progress is kept, and `resume` continues it.
    """
    # Everything named is loaded before anything is written: a misspelt name leaves no run behind.
    view = training_view.TrainingView() if view is None else view
    view.doing("loading tasks and drawing task families")
    factory = gradient_worker.GradientWorkerFactory(settings, tasks)
    families = factory().families
    shapes = jax.eval_shape(build.architecture(settings).init, jax.random.key(0))
    for phase in settings.phases:
        _, frozen = build.split(shapes, phase.train)
        build.make_estimator(settings, phase, families[0], frozen)
    start = _start(settings)
    if settings.tensorboard:
        log.summary_writer()
    if pool_config.choose_backend(settings.pool) == "ray":
        tasks.check_sendable()
    if resume:
        tasks.check_stored(run_dir)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(
            RunDirectory(run_dir, TERMS, settings, tasks.fingerprints())
        )
        directory.begin(holds_run=(run_dir / checkpoint.FOLDER).exists(), resume=resume)
        checkpoints = stack.enter_context(checkpoint.Checkpoints(run_dir))
        if checkpoints.latest is None:
            progress = meta_training.begin(settings, None if start is None else start.meta_params)
        else:
            stored = checkpoints.restore()
            if stored.config is not None:  # The files beside it may have been edited.
                directory.check(stored.config)
            progress = meta_training.restore(settings, stored)
            if stored.form == 1:
                progress = in_present_form(settings, progress, families)
            view.note(f"going on after update {progress.update:,}")
        logs = _open_logs(settings, run_dir, progress, stack)
        view.note(
            f"{settings.architecture}, {_size(progress.meta_params):,} meta-parameters, on "
            f"{len(families)} task families; {settings.num_updates:,} updates"
        )
        workers = stack.enter_context(pools.make_pool(settings.pool, factory))
        watcher = _ViewAndLogs(settings, view, logs)
        view.doing("compiling")
        loop = meta_training.MetaTraining(settings, progress, workers, len(families), watcher)

        def save(progress: meta_training.MetaTrainProgress) -> None:
            with stopping.hold(firmly=True):
                for each in logs:
                    each.flush()
                stored = dataclasses.replace(
                    meta_training.store(progress), config=codec.to_plain(settings)
                )
                checkpoints.save(progress.update, stored)
                write_weights(settings, run_dir, progress, families, start)

        try:
            loop.run(save)
        finally:
            if loop.progress.update > 0:
                save(loop.progress)
        if work := work_line.line([workers.stats()]):
            view.note(work)
        return MetaTrainResult(weights.read(run_dir / shipped.RUN_FILE), loop.progress)


def in_present_form(
    settings: config.MetaTrainConfig,
    progress: meta_training.MetaTrainProgress,
    families: tuple[base.TaskFamily, ...],
) -> meta_training.MetaTrainProgress:
    """Return the progress of a checkpoint of form 1 (`checkpoint.FORM`)."""
    if not progress.streams:
        return progress
    index, _ = settings.phase_at(progress.update)
    phase = settings.phases[index]
    moving, frozen = build.split(progress.meta_params, phase.train)
    streams = {}
    for (stream, family), leaves in progress.streams.items():
        each = build.make_estimator(settings, phase, families[family], frozen)
        shapes = jax.eval_shape(each.init, moving, jax.random.key(0))
        streams[stream, family] = accumulators.from_older_order(shapes, leaves)
    return dataclasses.replace(progress, streams=streams)


def write_weights(
    settings: config.MetaTrainConfig,
    run_dir: Path,
    progress: meta_training.MetaTrainProgress,
    families: tuple[base.TaskFamily, ...],
    start: weights.Weights | None,
) -> None:
    """Write the weights of a run so far: `weights.npz` and `last.npz`."""
    # The tasks that the weights at the start were selected on count for these too.
    seen = {check.task for check in settings.meta_validation}
    seen |= start.tasks if start is not None else set()
    record = {
        "config": codec.to_plain(settings),
        "seed": settings.seed,
        "update": progress.update,
        "cost": {
            "inner_steps": progress.num_inner_steps,
            "worker_hours": round(progress.worker_s / 3600, 3),
            "wall_hours": round(progress.wall_s / 3600, 3),
        },
        "families": [family.name for family in families],
        weights.TASKS: sorted(seen),
        "versions": versions.versions(),
    }
    rule = build.architecture(settings)

    def write(name: str, meta_params: MetaParams, **more: Any) -> None:
        content = weights.Weights(
            settings.architecture, rule, dict(meta_params), {**record, **more}
        )
        weights.write(run_dir / name, content)

    write(LAST_FILE, progress.meta_params)
    if progress.best is None:
        write(shipped.RUN_FILE, progress.meta_params)
    else:
        write(shipped.RUN_FILE, progress.best, meta_validation_score=progress.best_score)


def _start(settings: config.MetaTrainConfig) -> weights.Weights | None:
    """Return the weights that a run starts from, if there are any.

    Raises:
      MetaTrainError: They do not fit the architecture.
    """
    if settings.start is None:
        return None
    found = shipped.load(settings.start)
    wanted = jax.eval_shape(build.architecture(settings).init, jax.random.key(0))
    shapes = jax.tree.map(lambda leaf: leaf.shape, found.meta_params)
    if shapes != jax.tree.map(lambda leaf: leaf.shape, wanted):
        raise errors.MetaTrainError(
            f"start: {settings.start} holds weights of {found.name} in other sizes than this "
            f"{settings.architecture}'s"
        )
    return found


def _open_logs(
    settings: config.MetaTrainConfig,
    run_dir: Path,
    progress: meta_training.MetaTrainProgress,
    stack: contextlib.ExitStack,
) -> list[log.Log]:
    last = {"update": progress.update, "check": progress.checked_at}
    logs: list[log.Log] = [log.JsonLog(run_dir, last)]
    if settings.tensorboard:
        logs.append(log.TensorBoardLog(run_dir, progress.update))
    for each in logs:
        stack.callback(each.close)
    return logs


def _size(meta_params: Mapping[str, MetaParams]) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(meta_params))


@final
class _ViewAndLogs:
    """The watcher that shows events and writes them to the logs."""

    def __init__(
        self,
        settings: config.MetaTrainConfig,
        view: training_view.TrainingView,
        logs: list[log.Log],
    ):
        self._config = settings
        self._view = view
        self._logs = logs

    def updated(
        self, progress: meta_training.MetaTrainProgress, figures: Mapping[str, Any]
    ) -> None:
        for each in self._logs:
            each.write("update", progress.update, figures)
        self._view.updated(self._config, progress, figures)

    def checked(
        self, progress: meta_training.MetaTrainProgress, figures: Mapping[str, Any]
    ) -> None:
        for each in self._logs:
            each.write("check", progress.update, figures)
        self._view.checked(progress, figures)

    def waiting(
        self, progress: meta_training.MetaTrainProgress, what: str, done: int, total: int
    ) -> None:
        self._view.doing(f"compiling and running {what}: {done} of {total} done")
