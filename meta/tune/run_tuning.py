"""Running a tuning: the run directory, the loop and its records, put together.

A run directory holds all of a run: `run.json`, `config.yaml`, `checkpoints/`, `metrics.jsonl`,
and the best result: `schedules.py` and `tuned.npz`. A run that was killed is continued with
`resume=True`, and on the CPU ends with the same numbers, bit for bit. `comparison.json` shows
whether it was worth it.
"""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from veldt.meta import checkpoint, errors
from veldt.meta.train import log
from veldt.meta.tune import (
    comparison,
    config,
    config_descent,
    loop,
    problem,
    schedule_file,
    tuning_jobs,
    tuning_view,
    tuning_worker,
)
from veldt.tasks.common import stopping
from veldt.tasks.common.config import codec
from veldt.tasks.common.disk.run_directory import RunDirectory, Terms
from veldt.tasks.pool import config as pool_config
from veldt.tasks.pool import pools, work_line

JOURNAL_FOLDER: Final = "backward"
# Where the work is done may differ when a run is resumed.
TERMS: Final = Terms("tune", config.TuneConfig, may_differ=("pool",))


@final
@dataclasses.dataclass(frozen=True)
class TuneResult:
    """The result of a tuning in a run directory.

    Attributes:
      numbers: Best hyperparameters, at their knots if they have any.
      progress: Last state of the tuning.
      compared: Outcomes of the learned hyperparameters and of those that they are compared with;
        empty if nothing is compared.
    """

    numbers: Mapping[str, np.ndarray]
    progress: loop.TuningProgress
    compared: tuple[comparison.Row, ...] = ()


def run_tuning(
    settings: config.TuneConfig,
    run_dir: Path,
    *,
    resume: bool = False,
    view: tuning_view.TuningView | None = None,
) -> TuneResult:
    """Run a tuning to its end.

    Args:
      settings: Config of the tuning.
      run_dir: Directory of the run; made if it does not exist.
      resume: Whether to resume the run in the directory; `settings` must be the stored config.
      view: View that shows the run; None shows nothing.

    Raises:
      FileError: The run directory cannot be used.
      MetaTrainError: The config names something that does not exist, the workers cannot have the
        journal, or a worker could not do its job.
      ReplayError: A metagradient is not trusted, and no estimate may take its place.
      PoolError: No worker can be made.
      TaskError: The task cannot be used.
      KeyboardInterrupt: Ctrl-C; the progress is kept, and `resume` continues it.
    """
    # Everything named is loaded before anything is written: a misspelt name leaves no run behind.
    schedule_file.check_names(settings)
    journal = _journal(settings, run_dir)
    view = tuning_view.TuningView() if view is None else view
    view.doing(f"loading {settings.task}")
    subject = problem.Problem(settings)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(RunDirectory(run_dir, TERMS, settings))
        directory.begin(holds_run=(run_dir / checkpoint.FOLDER).exists(), resume=resume)
        checkpoints = stack.enter_context(checkpoint.Checkpoints(run_dir))
        if checkpoints.latest is None:
            progress = loop.TuningProgress(0, subject.meta_params)
        else:
            stored = checkpoints.restore()
            if stored.config is not None:  # The files beside it may have been edited.
                directory.check(stored.config)
            progress = loop.restore(stored)
            view.note(f"going on after update {progress.update:,}")
        last = {"update": progress.update, "check": progress.checked_at}
        lines = log.JsonLog(run_dir, last)
        stack.callback(lines.close)
        size = sum(value.size for value in subject.meta_params.values())
        view.note(
            f"{settings.task}, {settings.num_steps:,} steps of {settings.optimizer}: {size:,} "
            f"numbers of {', '.join(subject.meta_params)}; {settings.num_updates:,} updates of "
            f"{settings.seeds} runs"
        )

        def save(progress: loop.TuningProgress) -> None:
            with stopping.hold(firmly=True):
                lines.flush()
                if progress.best is not None:
                    _write_found(settings, subject, run_dir, progress)
                # A check after an update makes a state of its own.
                checked = progress.checked_at == progress.update
                stored = dataclasses.replace(loop.store(progress), config=codec.to_plain(settings))
                checkpoints.save(2 * progress.update + checked, stored)

        factory = tuning_worker.TuningWorkerFactory(settings, journal)
        workers = stack.enter_context(pools.make_pool(settings.pool, factory))
        jobs = tuning_jobs.TuningJobs(workers, view.doing)
        descent = config_descent.make(settings, subject, jobs)
        progress = loop.run(descent, progress, _ViewAndLog(settings, view, lines), save)
        assert progress.best is not None
        rows = comparison.compare(settings, subject, progress, run_dir, jobs, view.doing)
        if work := work_line.line([workers.stats()]):
            view.note(work)
        return TuneResult(subject.numbers(progress.best), progress, rows)


def _journal(settings: config.TuneConfig, run_dir: Path) -> Path | None:
    """Return the folder of the journal; None for none.

    Raises:
      MetaTrainError: The workers may be on other machines than the run directory.
    """
    if not settings.journal:
        return None
    if pool_config.choose_backend(settings.pool) == "ray":
        raise errors.MetaTrainError(
            "journal: true is kept in the run directory, which workers of a Ray cluster do not "
            "have: set pool.backend to inline, or journal to false"
        )
    return run_dir / JOURNAL_FOLDER


def _write_found(
    settings: config.TuneConfig,
    subject: problem.Problem,
    run_dir: Path,
    progress: loop.TuningProgress,
) -> None:
    best: Mapping[str, Any] = progress.best or {}
    remark = (
        f"{settings.task}, {settings.optimizer}, seed {settings.seed}: outcome "
        f"{progress.best_outcome:.5g} over {settings.check_seeds} runs, "
        f"{progress.first_outcome:.5g} at the start; {progress.update} of "
        f"{settings.num_updates} updates, "
        f"{progress.forward_runs * settings.seeds:.0f} training runs forward and "
        f"{progress.update * settings.seeds} backward."
    )
    schedule_file.write(settings, subject.numbers(best), run_dir, remark, subject.model)


@final
class _ViewAndLog:
    """The watcher that shows events and writes them to the log."""

    def __init__(
        self, settings: config.TuneConfig, view: tuning_view.TuningView, lines: log.JsonLog
    ):
        self._config = settings
        self._view = view
        self._lines = lines

    def updated(self, progress: loop.TuningProgress, figures: Mapping[str, Any]) -> None:
        self._lines.write("update", progress.update, figures)
        self._view.updated(self._config, progress, figures)

    def doing(self, text: str) -> None:
        self._view.doing(text)

    def checked(self, progress: loop.TuningProgress, figures: Mapping[str, Any]) -> None:
        self._lines.write("check", progress.update, figures)
        self._view.checked(self._config, progress, figures)
