"""Jobs and worker of the benchmark for the task pool: sweeps, fingerprints, costs."""

from dataclasses import dataclass
from typing import Final, TypeAlias, final

from veldt.tasks import base, registry, task_fingerprint
from veldt.tasks.benchmark.protocol.candidates import Candidate
from veldt.tasks.benchmark.protocol.protocol import SweepPlan
from veldt.tasks.benchmark.runs import costs, sweep

MAX_TASKS: Final = 4  # Kept in a worker at a time, with their data.


@final
@dataclass(frozen=True, slots=True)
class FingerprintJob:
    """A request for a task's fingerprint; the value is that text."""

    task: str


@final
@dataclass(frozen=True, slots=True)
class SweepJob:
    """A request for a sweep; the value is a tuple of `Sweep`, one per schedule of the plan."""

    plan: SweepPlan


@final
@dataclass(frozen=True, slots=True)
class CostJob:
    """A request for the cost of a candidate's training step on a task; the value is a `Cost`."""

    task: str
    candidate: Candidate


BenchmarkJob: TypeAlias = FingerprintJob | SweepJob | CostJob


@final
class BenchmarkWorker:
    """A worker that runs the benchmark's jobs and keeps the tasks used last."""

    def __init__(self) -> None:
        self._tasks: dict[str, base.Task] = {}
        self._adam: tuple[str, costs.Runner] | None = None  # Compiled for the task used last.

    def __call__(self, payload: object, /) -> object:
        """Run one job and return its value."""
        match payload:
            case FingerprintJob(task):
                return task_fingerprint.fingerprint(self._load(task))
            case SweepJob(plan):
                return sweep.sweep(
                    self._load(plan.task),
                    plan.candidate.make_tx,
                    plan.candidate.rates,
                    plan.seeds,
                    num_steps=plan.num_steps,
                    num_checks=plan.num_checks,
                    held_out_every=plan.held_out_every,
                    schedules=plan.schedules,
                )
            case CostJob(task, candidate):
                if self._adam is None or self._adam[0] != task:
                    self._adam = task, costs.adam_runner(self._load(task))
                return costs.measure(self._load(task), candidate, self._adam[1])
            case other:
                raise TypeError(f"no job of the benchmark: {other!r}")

    def _load(self, name: str) -> base.Task:
        task = self._tasks.pop(name, None) or registry.load_task(name)
        self._tasks[name] = task  # The last is the one used last.
        while len(self._tasks) > MAX_TASKS:
            del self._tasks[next(iter(self._tasks))]
        return task
