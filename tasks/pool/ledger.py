"""The cost of a pool's work: counts, worker-seconds, durations, events; for every back end.

Seconds are split in four. *Busy* ones made a result that was used. *Wasted* ones did not: work lost
with its worker, over the limit, or done twice. *Starting* ones made workers. What is left of a
worker's life was idle.
"""

import collections
import dataclasses
import time
from collections.abc import Callable
from typing import Final, final

from veldt.tasks.pool.base import EventKind, JobResult, JobStatus, PoolEvent, PoolStats, WorkerStats

MAX_EVENTS: Final = 1000  # Of the events not taken yet, the most recent are kept.
NUM_DURATIONS: Final = 256  # Number of recent durations that are remembered.
MIN_DURATIONS: Final = 20  # Number of durations needed to say what is usual.


@dataclasses.dataclass(slots=True)
class _Life:
    """The seconds of a live worker."""

    place: str
    since: float
    num_jobs: int = 0
    busy_s: float = 0.0


@final
class Ledger:
    """The accounts of one pool. Not for several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        """Start with nothing; `clock` gives seconds from any start."""
        self._clock = clock
        self._lives: dict[str, _Life] = {}
        self._num: collections.Counter[str] = collections.Counter()
        self._busy_s = self._wasted_s = self._starting_s = self._ended_s = 0.0
        self._durations: collections.deque[float] = collections.deque(maxlen=NUM_DURATIONS)
        self._mean_s: float | None = None
        self._events: collections.deque[PoolEvent] = collections.deque(maxlen=MAX_EVENTS)

    def ready(self, worker: str, place: str, starting_s: float = 0.0) -> None:
        """Record that a worker can work; making it took `starting_s`."""
        self._lives[worker] = _Life(place, self._clock())
        self._starting_s += starting_s
        self.note(EventKind.WORKER_READY, worker, message=f"{place}, after {starting_s:.1f} s")

    def gone(self, worker: str) -> None:
        """Record the end of a worker."""
        life = self._lives.pop(worker)
        self._ended_s += self._clock() - life.since

    def lost(self, worker: str, spent_s: float, jobs: str, why: str) -> None:
        """Record the loss of a worker, and of `spent_s` of work with it."""
        self.gone(worker)
        self._num["lost"] += 1
        self._wasted_s += spent_s
        self.note(EventKind.WORKER_LOST, worker, jobs, why)

    def retired(self, worker: str, why: str) -> None:
        """Record that a worker has ended between two jobs, as it was to."""
        self.gone(worker)
        self.note(EventKind.WORKER_RETIRED, worker, message=why)

    def ran(self, worker: str, wall_s: float) -> None:
        """Record that a worker ran a job to its end, with any result."""
        life = self._lives[worker]
        life.num_jobs += 1
        life.busy_s += wall_s
        self._durations.append(wall_s)
        self._mean_s = wall_s if self._mean_s is None else 0.9 * self._mean_s + 0.1 * wall_s

    def ended(self, result: JobResult, name: str) -> None:
        """Record the one result of a job. `name`: Name of the job, for people."""
        self._num["done"] += 1
        match result.status:
            case JobStatus.TIMEOUT:
                self._num["timeouts"] += 1
                self.note(EventKind.TIMEOUT, result.worker, name, result.message)
            case JobStatus.KILLED:
                self._num["killed"] += 1
                self.note(EventKind.QUARANTINE, result.worker, name, result.message)
            case _:
                self._busy_s += result.wall_s
                return
        if result.worker in self._lives:  # The time of a lost worker is counted already.
            self._wasted_s += result.wall_s

    def wasted(self, wall_s: float) -> None:
        """Record a result that was not needed any more."""
        self._wasted_s += wall_s

    def retried(self, worker: str, name: str, why: str) -> None:
        """Record that a job is handed out again, since its worker was lost."""
        self._num["retries"] += 1
        self.note(EventKind.RETRY, worker, name, why)

    def reissued(self, worker: str, name: str, spent_s: float) -> None:
        """Record that a straggler is given to a second worker."""
        self._num["reissued"] += 1
        self.note(EventKind.REISSUE, worker, name, f"{spent_s:.1f} s at its first worker")

    def note(self, kind: EventKind, worker: str = "", job: str = "", message: str = "") -> None:
        """Add an event."""
        self._events.append(PoolEvent(time.time(), kind, worker, job, message))

    def take_events(self) -> list[PoolEvent]:
        """Return the events since the last call, oldest first."""
        events = list(self._events)
        self._events.clear()
        return events

    @property
    def mean_s(self) -> float | None:
        """The recent mean duration of a job; None before the first."""
        return self._mean_s

    @property
    def usual_s(self) -> float | None:
        """The duration that 95% of recent jobs stay below; None while too few are known."""
        if len(self._durations) < MIN_DURATIONS:
            return None
        return sorted(self._durations)[int(0.95 * len(self._durations))]

    def stats(self, backend: str, num_workers: int, num_queued: int, num_running: int) -> PoolStats:
        """Return the figures so far."""
        now = self._clock()
        workers = tuple(
            WorkerStats(name, life.place, life.num_jobs, life.busy_s, now - life.since)
            for name, life in self._lives.items()
        )
        return PoolStats(
            backend=backend,
            num_workers=num_workers,
            num_ready=len(workers),
            num_queued=num_queued,
            num_running=num_running,
            num_done=self._num["done"],
            num_retries=self._num["retries"],
            num_reissued=self._num["reissued"],
            num_timeouts=self._num["timeouts"],
            num_killed=self._num["killed"],
            num_lost_workers=self._num["lost"],
            busy_s=self._busy_s,
            wasted_s=self._wasted_s,
            starting_s=self._starting_s,
            alive_s=self._ended_s + sum(worker.alive_s for worker in workers),
            workers=workers,
        )
