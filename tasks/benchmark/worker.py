"""What the task pool runs for the benchmark: sweeps and fingerprints."""

from dataclasses import dataclass
from typing import Final, TypeAlias, final

from veldt.tasks import base, fingerprint, registry
from veldt.tasks.benchmark import sweep
from veldt.tasks.benchmark.protocol import SweepPlan

MAX_TASKS: Final = 4  # Kept in a worker at a time, with their data.


@final
@dataclass(frozen=True, slots=True)
class FingerprintJob:
    """Ask for a task's fingerprint; the value is that text."""

    task: str


@final
@dataclass(frozen=True, slots=True)
class SweepJob:
    """Ask for a sweep; the value is a tuple of `Sweep`, one for each of the plan's schedules."""

    plan: SweepPlan


BenchmarkJob: TypeAlias = FingerprintJob | SweepJob


@final
class BenchmarkWorker:
    """Runs the benchmark's jobs; keeps the tasks used last."""

    def __init__(self) -> None:
        self._tasks: dict[str, base.Task] = {}

    def __call__(self, payload: object, /) -> object:
        """Do one job."""
        match payload:
            case FingerprintJob(task):
                return fingerprint.fingerprint(self._load(task))
            case SweepJob(plan):
                return sweep.sweep(
                    self._load(plan.task),
                    plan.candidate.make_tx,
                    plan.candidate.rates,
                    plan.seeds,
                    num_steps=plan.num_steps,
                    num_checks=plan.num_checks,
                    schedules=plan.schedules,
                )
            case other:
                raise TypeError(f"no job of the benchmark: {other!r}")

    def _load(self, name: str) -> base.Task:
        task = self._tasks.pop(name, None) or registry.load_task(name)
        self._tasks[name] = task  # The last is the one used last.
        while len(self._tasks) > MAX_TASKS:
            del self._tasks[next(iter(self._tasks))]
        return task
