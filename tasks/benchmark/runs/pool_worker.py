"""What the task pool runs for the benchmark: sweeps, fingerprints, measurements of cost."""

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
    """Ask for a task's fingerprint; the value is that text."""

    task: str


@final
@dataclass(frozen=True, slots=True)
class SweepJob:
    """Ask for a sweep; the value is a tuple of `Sweep`, one for each of the plan's schedules."""

    plan: SweepPlan


@final
@dataclass(frozen=True, slots=True)
class CostJob:
    """Ask what a candidate's training step costs on a task; the value is a `Cost`."""

    task: str
    candidate: Candidate


BenchmarkJob: TypeAlias = FingerprintJob | SweepJob | CostJob


@final
class BenchmarkWorker:
    """Runs the benchmark's jobs; keeps the tasks used last."""

    def __init__(self) -> None:
        self._tasks: dict[str, base.Task] = {}
        self._adam: tuple[str, costs.Runner] | None = None  # Compiled for the task used last.

    def __call__(self, payload: object, /) -> object:
        """Do one job."""
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
