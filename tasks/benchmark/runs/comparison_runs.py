"""The runs of a comparison: computed by the task pool and kept as they come.

Tasks are fingerprinted first, since runs in the cache are found by the fingerprint too. Then each
plan that the cache does not hold is one job, the longest first, and its result is in the cache
before the next is awaited: an evaluation that is stopped loses only the jobs that were running.
"""

import dataclasses
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, final

from veldt.tasks.benchmark.protocol.candidates import Candidate
from veldt.tasks.benchmark.protocol.protocol import SweepPlan
from veldt.tasks.benchmark.runs import pool_worker
from veldt.tasks.benchmark.runs.cache import RunCache
from veldt.tasks.benchmark.runs.costs import Cost
from veldt.tasks.benchmark.runs.sweep import Sweep
from veldt.tasks.common import errors
from veldt.tasks.common.disk.lock import DirectoryLock
from veldt.tasks.pool import base, driver, pools, work_line
from veldt.tasks.pool import config as pool_config


class Watcher(Protocol):
    """A display of the progress of jobs."""

    def phase(self, text: str, done: int, total: int) -> None:
        """Show how far the jobs are. Called for every job."""
        ...

    def note(self, text: str) -> None:
        """Show a line that must be seen."""
        ...


@final
class Runner:
    """A runner of the benchmark's jobs through one pool; a context manager, as the pool is.

    While it is open, the cache is this process's alone.

    Args:
      config: Config of the pool.
      cache: Cache of sweeps.
      watcher: Display of the progress.
    """

    def __init__(self, config: pool_config.PoolConfig, cache: RunCache, watcher: Watcher):
        self._config = config
        self._cache = cache
        self._watcher = watcher
        self._pool: base.Pool | None = None
        self._work: list[base.PoolStats] = []
        self._lock: DirectoryLock | None = None

    def __enter__(self) -> "Runner":
        self._lock = self._cache.take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.__exit__(kind, error, trace)
            self._work.append(self._pool.stats())
            self._pool = None
        if self._lock is not None:
            self._lock.close()

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._work.append(self._pool.stats())
            self._pool = None

    @property
    def work(self) -> str:
        """What the pools that are closed have done, on one line; empty if there was nothing."""
        return work_line.line(self._work)

    def fingerprints(self, tasks: Sequence[str]) -> dict[str, str]:
        """Return the fingerprint of each task.

        Raises:
          TaskError: A task cannot be loaded or computed.
        """
        found: dict[str, str] = {}

        def take(index: int, value: object) -> None:
            found[tasks[index]] = str(value)

        jobs = [pool_worker.FingerprintJob(task) for task in tasks]
        failed = self._run("checking tasks", jobs, list(tasks), take)
        for index, message in failed.items():
            raise errors.TaskError(f"task {tasks[index]!r} cannot be used: {message}")
        return found

    def sweeps(
        self, plans: Sequence[SweepPlan], fingerprints: dict[str, str]
    ) -> dict[SweepPlan, tuple[Sweep, ...]]:
        """Return the sweeps of each plan, from the cache or by running it.

        A plan whose optimizer or task raises is left out and noted.

        Raises:
          KeyboardInterrupt: Ctrl-C; finished sweeps are in the cache.
        """
        found: dict[SweepPlan, tuple[Sweep, ...]] = {}
        missing: list[SweepPlan] = []
        plans = list(dict.fromkeys(plans))
        for plan in plans:
            kept = self._cache.find(plan, fingerprints[plan.task])
            if kept is None:
                missing.append(plan)
            else:
                found[plan] = kept
        self._note_kept(len(found), len(plans), "sweeps")
        missing.sort(key=_size, reverse=True)
        # An optimizer's file may be edited while it trains: its identity is fixed now.
        paths = [self._cache.path(plan, fingerprints[plan.task]) for plan in missing]

        def take(index: int, value: object) -> None:
            plan, sweeps = missing[index], _as_sweeps(value)
            self._cache.write_sweeps(paths[index], sweeps)
            found[plan] = sweeps

        jobs = [pool_worker.SweepJob(plan) for plan in missing]
        labels = [plan.label for plan in missing]
        self._note_failed(labels, self._run("training", jobs, labels, take))
        return found

    def costs(
        self, pairs: Sequence[tuple[str, Candidate]], fingerprints: dict[str, str]
    ) -> dict[tuple[str, str], Cost]:
        """Return the cost of a candidate's step on a task, by task and candidate's name.

        Costs are measured one at a time; those that cannot be measured are left out and noted.

        Args:
          pairs: Pairs of task and candidate; those of one task side by side, since a worker keeps
            Adam's compiled step for the last task.
          fingerprints: Fingerprints of the tasks.
        """
        found: dict[tuple[str, str], Cost] = {}
        missing: list[tuple[str, Candidate]] = []
        for task, candidate in pairs:
            kept = self._cache.find_cost(task, candidate, fingerprints[task])
            if kept is None:
                missing.append((task, candidate))
            else:
                found[task, candidate.name] = kept
        self._note_kept(len(found), len(found) + len(missing), "costs")
        paths = [
            self._cache.cost_path(task, candidate, fingerprints[task])
            for task, candidate in missing
        ]
        # Two measurements at a time would share cores, caches and memory.
        self._close()
        self._config = dataclasses.replace(self._config, num_workers=1)

        def take(index: int, value: object) -> None:
            task, candidate = missing[index]
            if not isinstance(value, Cost):
                raise TypeError(f"a worker returned {type(value).__name__}, not a cost")
            self._cache.write_cost(paths[index], value)
            found[task, candidate.name] = value

        jobs = [pool_worker.CostJob(task, candidate) for task, candidate in missing]
        labels = [f"cost of {candidate.name} on {task}" for task, candidate in missing]
        self._note_failed(labels, self._run("measuring step times", jobs, labels, take))
        return found

    def _note_failed(self, labels: Sequence[str], failed: dict[int, str]) -> None:
        """Note failures and reasons; the place only once for each reason."""
        seen: set[str] = set()
        for index, message in failed.items():
            reason, _, frames = message.partition("\n")
            where = f"\n{frames}" if frames and reason not in seen else ""
            self._watcher.note(f"{labels[index]} failed: {reason}{where}")
            seen.add(reason)

    def _note_kept(self, num_kept: int, total: int, what: str) -> None:
        if num_kept:
            self._watcher.note(f"{num_kept} of {total} {what} were done before")

    def _run(
        self,
        what: str,
        payloads: Sequence[pool_worker.BenchmarkJob],
        labels: Sequence[str],
        take: Callable[[int, object], None],
    ) -> dict[int, str]:
        """Run jobs, hand each value to `take` as it comes; return the failures and reasons."""
        failed: dict[int, str] = {}
        if not payloads:
            return failed
        if self._pool is None:
            self._pool = _make_pool(self._config)
        jobs = driver.PoolJobs(self._pool)
        for payload, label in zip(payloads, labels, strict=True):
            jobs.submit(driver.NamedJob(payload, label))
        self._watcher.phase(what, 0, len(payloads))
        for done, result in enumerate(jobs.as_completed(), start=1):
            if result.status is base.JobStatus.OK:
                take(result.id, result.value)
            else:
                failed[result.id] = f"{result.status}: {result.message}"
            self._watcher.phase(what, done, len(payloads))
        return failed


def _make_pool(config: pool_config.PoolConfig) -> base.Pool:
    """Return the pool of the benchmark's workers."""
    return pools.make_pool(config, pool_worker.BenchmarkWorker)


def _as_sweeps(value: object) -> tuple[Sweep, ...]:
    if not (isinstance(value, tuple) and all(isinstance(sweep, Sweep) for sweep in value)):
        raise TypeError(f"a worker returned {type(value).__name__}, not sweeps")
    return value


def _size(plan: SweepPlan) -> int:
    """Return about how long a plan takes; in steps, since a task's cost is not known."""
    return plan.num_steps * len(plan.candidate.rates) * len(plan.seeds) * len(plan.schedules)
