"""A pool whose workers and clock are simulated: a cluster of any size, on one core.

The decisions are the real ones (`dispatch.Dispatcher`) and so is the driver above: its own time,
from one call of the pool to the next, passes on the simulated clock as well. So a run shows where
the driver becomes the limit, how long a fault holds a search up, and what memory a long run takes,
without a cluster. What is simulated is the work: a job's value is computed at once and is back
after the duration that `fate` draws for it, if the worker lives that long.

Nothing of Ray is in it: what Ray adds to a job is `overhead_s`.
"""

import dataclasses
import enum
import functools
import heapq
import math
import time
from collections.abc import Callable
from typing import Final, final

import numpy as np

from veldt.tasks.pool import dispatch
from veldt.tasks.pool.base import (
    Job,
    JobResult,
    Pool,
    PoolError,
    PoolEvent,
    PoolStats,
    Worker,
    run_job,
)

TEND_S: Final = 0.1  # As in `ray_pool`: time between checks of limits and stragglers.


@final
class End(enum.Enum):
    """The ways in which a job ends on a worker."""

    RETURNS = "returns"
    DIES = "dies"  # With its worker.
    HANGS = "hangs"  # The job alone: its worker answers that it is still running.
    STUCK = "stuck"  # With its worker, which does not answer any more.


Fate = Callable[[Job, np.random.Generator], tuple[float, End]]
"""Function that draws a job's seconds at one worker, and how it ends."""


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Cluster:
    """The simulated machines.

    Attributes:
      num_workers: Number of workers.
      start_s: Seconds until a worker is ready.
      life_s: Mean lifetime of a machine in seconds (exponential); infinity for ever.
      overhead_s: Seconds that a batch is under way to its worker and back.
    """

    num_workers: int
    start_s: float = 0.0
    life_s: float = math.inf
    overhead_s: float = 1e-3


@final
class SimulatedPool(Pool):
    """Simulated workers behind the real dispatcher."""

    def __init__(
        self,
        worker: Worker,
        cluster: Cluster,
        fate: Fate,
        *,
        policy: dispatch.Policy | None = None,
        seed: int = 0,
        driver_time: bool = True,
    ):
        """Start the simulated clock at 0.

        Args:
          worker: Worker that computes values; its real time does not count.
          cluster: Machines.
          fate: Function that draws durations and ends.
          policy: Rules of the dispatcher; None for the defaults.
          seed: Seed of the draws.
          driver_time: Whether the driver's real time passes on the simulated clock.
        """
        self.now = 0.0
        """Simulated seconds."""
        self._worker = worker
        self._cluster = cluster
        self._fate = fate
        self._policy = dispatch.Policy() if policy is None else policy
        self._rng = np.random.default_rng(seed)
        self._driver_time = driver_time
        self._left = time.perf_counter()
        self._dispatcher = dispatch.Dispatcher(self._policy, lambda: self.now)
        self._dispatcher.overhead_s = cluster.overhead_s
        # Future events: (time, a number that breaks ties, function), which gets the time.
        self._agenda: list[tuple[float, int, Callable[[float], None]]] = []
        self._num_planned = 0
        self._num_workers = 0
        self._free_at: dict[str, float] = {}  # By live worker: the time when all its jobs are done.
        self._stuck: dict[str, tuple[End, Job, float]] = {}
        self._forgotten: set[int] = set()
        self._closed = False
        for _ in range(cluster.num_workers):
            self._start(0.0)
        self._plan(self.now + TEND_S, self._tend)

    @property
    def num_workers(self) -> int:
        return self._cluster.num_workers

    @property
    def capacity(self) -> int:
        return max(self.num_workers, self._dispatcher.capacity)

    @property
    def in_flight(self) -> int:
        return self._dispatcher.in_flight

    def submit(self, job: Job) -> None:
        if self._closed:
            raise PoolError(f"job {job.id} was submitted to a closed pool")
        self._enter()
        self._dispatcher.submit(job)
        self._send()
        self._left = time.perf_counter()

    def next_result(self, timeout_s: float | None = None) -> JobResult:
        if self._closed or not self.in_flight:
            raise PoolError("no job is in flight, so no result will come")
        self._enter()
        deadline = math.inf if timeout_s is None else self.now + timeout_s
        while self._agenda[0][0] <= self.now:  # Events while the driver was busy.
            self._step()
        while (result := self._dispatcher.pop_result()) is None:
            if self._agenda[0][0] > deadline:
                self.now = deadline
                raise TimeoutError(f"no job completed within {timeout_s} s")
            self._step()
        self._left = time.perf_counter()
        return result

    def stats(self) -> PoolStats:
        return self._dispatcher.stats("simulated", self.num_workers)

    def take_events(self) -> list[PoolEvent]:
        return self._dispatcher.ledger.take_events()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._dispatcher.close()

    # ------------------------------------------------------------------ the simulated world

    def _enter(self) -> None:
        """Add the real time of the driver since it left the pool to the simulated clock."""
        if self._driver_time:
            self.now += time.perf_counter() - self._left

    def _plan(self, when: float, then: Callable[[float], None]) -> None:
        self._num_planned += 1
        heapq.heappush(self._agenda, (when, self._num_planned, then))

    def _step(self) -> None:
        when, _, then = heapq.heappop(self._agenda)
        # A busy driver hears of it late; at the workers it happened in time.
        self.now = max(self.now, when)
        then(when)
        self._send()

    def _start(self, at: float) -> None:
        name = f"worker-{self._num_workers}"
        self._num_workers += 1
        self._plan(at + self._cluster.start_s, functools.partial(self._ready, name))

    def _ready(self, name: str, at: float) -> None:
        self._free_at[name] = at
        self._dispatcher.add_worker(name, f"machine of {name}", self._cluster.start_s)
        if math.isfinite(self._cluster.life_s):
            life_s = float(self._rng.exponential(self._cluster.life_s))
            self._plan(at + life_s, functools.partial(self._lose, name, dispatch.Cause.PLACE, None))

    def _lose(self, name: str, cause: dispatch.Cause, guilty: int | None, at: float) -> None:
        if self._free_at.pop(name, None) is None:
            return
        self._stuck.pop(name, None)
        self._dispatcher.lost(name, cause, guilty=guilty)
        self._start(at)

    def _send(self) -> None:
        for batch in self._dispatcher.assign():
            arrives = self.now + self._cluster.overhead_s / 2
            self._plan(arrives, functools.partial(self._begin, batch))

    def _begin(self, batch: dispatch.Batch, at: float) -> None:
        name = batch.worker
        if name not in self._free_at:
            return
        if self._free_at[name] > at:  # It waits behind another.
            if math.isfinite(self._free_at[name]):
                self._plan(self._free_at[name], functools.partial(self._begin, batch))
            return
        if batch.id in self._forgotten:
            self._forgotten.discard(batch.id)
            return
        results, limit_s = [], self._policy.timeout_s or math.inf
        for job in batch.jobs:
            duration_s, end = self._fate(job, self._rng)
            if duration_s > limit_s and end is End.RETURNS:
                end = End.HANGS
            if end is not End.RETURNS:
                self._free_at[name] = math.inf
                self._stuck[name] = (end, job, at)
                if end is End.DIES:
                    died = functools.partial(self._lose, name, dispatch.Cause.DIED, None)
                    self._plan(at + duration_s, died)
                return
            result = run_job(self._worker, job, timeout_s=None, name=name)
            at += duration_s
            results.append(dataclasses.replace(result, wall_s=duration_s))
        self._free_at[name] = at
        self._plan(at + self._cluster.overhead_s / 2, functools.partial(self._back, batch, results))

    def _back(self, batch: dispatch.Batch, results: list[JobResult], at: float) -> None:
        if batch.worker in self._free_at:
            self._dispatcher.returned(batch.id, results)

    def _tend(self, at: float) -> None:
        limit_s = self._policy.timeout_s
        for name in self._dispatcher.overdue():
            if name not in self._stuck:
                self._dispatcher.excuse(name, TEND_S)
                continue
            end, job, since = self._stuck[name]
            if end is End.STUCK:
                self._lose(name, dispatch.Cause.SILENT, None, self.now)
            elif limit_s is None or self.now - since > limit_s:
                self._lose(name, dispatch.Cause.TIMEOUT, job.id, self.now)
        for batch in self._dispatcher.rebalance():
            self._forgotten.add(batch.id)
        self._plan(self.now + TEND_S, self._tend)
