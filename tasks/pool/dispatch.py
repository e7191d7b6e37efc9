"""Who works on what: the part of a pool that decides, without any input or output of its own.

`Dispatcher` is told what happens (a job submitted, a worker ready, a batch back, a worker lost) and
answers with what to do (send this batch there, ask that worker what it is at, forget that batch).
A back end does it: `ray_pool` with actors, a test or a simulation with a virtual clock.

What it keeps:

* **Exactly one result per job**, whatever dies, whatever is done twice. The first result counts.
* **Blame is exact.** A batch or a worker that has more than one job gives no verdict: its jobs are
  tried again, each alone. A job that is alone on a worker that dies has taken it down; after
  `max_tries` of that it ends as `killed`. A lost machine or a pre-emption blames nobody (up to
  `MAX_LOSSES`, since some job may bring machines down).
* **Batches** hold as many jobs as it takes for the cost of handing one out to fall below
  `overhead_share` of its work, by measured durations, and no more than a fair share of the queue.
* **A second batch waits at each worker** while batches are short, so that no worker waits for the
  driver; it is taken back when another worker falls idle.
* **Stragglers**: with nothing queued, a job that takes `straggler_factor` times as long as nearly
  all others is given to an idle worker as well.

The retry rules follow what users of other systems ask for (pre-emption is no failure, a poisonous
job ends): see `PoolConfig`. Exactly-once is kept here and not left to Ray, whose own retries of
actor calls are at-most-once or at-least-once.
"""

import collections
import dataclasses
import enum
import heapq
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, final

from veldt.tasks.pool import ledger as ledger_lib
from veldt.tasks.pool.base import Job, JobResult, JobStatus, PoolError, PoolStats, over_limit

MAX_LOSSES: Final = 20  # Times that a job may lose its worker through no fault of its own.
MAX_BATCH: Final = 64
# A batch expected to take longer than this hides the driver's answer anyway: nothing waits behind.
LONG_BATCH_S: Final = 1.0
MIN_STRAGGLER_S: Final = 1.0
MIN_STEAL_S: Final = 0.1


@final
class Cause(enum.Enum):
    """Why a worker is no more."""

    DIED = "died"  # Its process ended: by memory, a crash, a signal.
    SILENT = "does not answer"  # Alive perhaps, but stuck as a whole; the back end has ended it.
    PLACE = "went away with its machine"  # A node or the network failed, or it was pre-empted.
    TIMEOUT = "was replaced"  # A job on it ran over the limit, or on for nothing.

    @property
    def blames(self) -> bool:
        """Whether the job it was at may be at fault."""
        return self in (Cause.DIED, Cause.SILENT)


@final
@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Jobs handed to one worker at once, run in order."""

    id: int
    worker: str
    jobs: tuple[Job, ...]


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """When to try again, give up and hand out twice; see `PoolConfig` and the module."""

    timeout_s: float | None = None
    max_tries: int = 3
    straggler_factor: float | None = 4.0
    overhead_share: float = 0.02


@dataclasses.dataclass(slots=True)
class _Entry:
    """A job in flight. It is queued, or in one batch, or as a straggler in two."""

    job: Job
    sequence: int
    batches: set[int] = dataclasses.field(default_factory=set)
    alone: bool = False
    tries: int = 0
    losses: int = 0
    reissued: bool = False

    @property
    def name(self) -> str:
        return self.job.label or f"job {self.job.id}"


@dataclasses.dataclass(slots=True)
class _Worker:
    name: str
    batches: collections.deque[Batch] = dataclasses.field(default_factory=collections.deque)
    head_since: float = 0.0  # When its first batch began, or a little later.
    excused_until: float = 0.0


@final
class Dispatcher:
    """The decisions of one pool. Not for several threads."""

    def __init__(self, policy: Policy, clock: Callable[[], float] = time.monotonic):
        """Start without workers.

        Args:
            policy: The limits.
            clock: Seconds from any start; a simulation passes its own.
        """
        self.ledger = ledger_lib.Ledger(clock)
        self.overhead_s = 0.0  # What handing out one batch costs; the back end measures it.
        self._policy = policy
        self._clock = clock
        self._entries: dict[int, _Entry] = {}
        self._queue: list[tuple[int, int]] = []  # A heap of (sequence, job): oldest first.
        self._workers: dict[str, _Worker] = {}
        # Workers with nothing, and workers with room behind what they have; in turn.
        self._idle: collections.OrderedDict[str, None] = collections.OrderedDict()
        self._roomy: collections.OrderedDict[str, None] = collections.OrderedDict()
        self._batches: dict[int, Batch] = {}
        self._outbox: list[Batch] = []
        self._results: collections.deque[JobResult] = collections.deque()
        self._untaken: set[int] = set()  # The jobs of `_results`.
        self._num_submitted = 0
        self._num_batches = 0

    @property
    def num_workers(self) -> int:
        """Workers that are ready."""
        return len(self._workers)

    @property
    def in_flight(self) -> int:
        """Jobs submitted whose results have not been taken."""
        return len(self._entries) + len(self._results)

    @property
    def num_running(self) -> int:
        """Jobs that a worker has."""
        return sum(bool(entry.batches) for entry in self._entries.values())

    @property
    def num_queued(self) -> int:
        """Jobs that no worker has."""
        return len(self._queue)

    def stats(self, backend: str, num_workers: int) -> PoolStats:
        """The accounts so far, of a pool that wants `num_workers`."""
        return self.ledger.stats(backend, num_workers, self.num_queued, self.num_running)

    @property
    def capacity(self) -> int:
        """Jobs in flight that keep all workers busy."""
        return max(1, len(self._workers) * self._batch_size() * self._depth())

    # ------------------------------------------------------------------ what happens

    def submit(self, job: Job) -> None:
        """Take in a job.

        Raises:
            PoolError: One with its id is in flight.
        """
        if job.id in self._entries or job.id in self._untaken:
            raise PoolError(f"a job with id {job.id} is already in flight")
        self._entries[job.id] = _Entry(job, self._num_submitted)
        self._num_submitted += 1
        self._enqueue(self._entries[job.id])

    def add_worker(self, name: str, place: str, starting_s: float = 0.0) -> None:
        """A worker is ready, at `place`; making it took `starting_s`."""
        self._workers[name] = _Worker(name)
        self._idle[name] = None
        self.ledger.ready(name, place, starting_s)

    def returned(self, batch_id: int, results: Sequence[JobResult]) -> None:
        """A batch is back, with the results of its jobs; jobs without one were not begun."""
        batch = self._batches.get(batch_id)
        if batch is None:  # Its worker was given up meanwhile, and the work redone elsewhere.
            self.ledger.wasted(sum(result.wall_s for result in results))
            return
        entries = {entry.job.id: entry for entry in self._live(batch)}
        self._drop(batch)
        for result in results:
            self.ledger.ran(batch.worker, result.wall_s)
            if (entry := entries.pop(result.id, None)) is not None:
                self._end(entry, result)
            else:
                self.ledger.wasted(result.wall_s)
        for entry in entries.values():
            self._enqueue(entry)

    def failed(self, batch_id: int, message: str) -> None:
        """A batch could not be run or its results not be brought back: something in it is bad.

        Args:
            batch_id: Which.
            message: What happened.
        """
        batch = self._batches.get(batch_id)
        if batch is None:
            return
        entries = self._live(batch)
        self._drop(batch)
        for entry in entries:
            if len(batch.jobs) == 1:
                self._end(entry, _ended(entry.job, JobStatus.ERROR, message, 0.0, batch.worker))
            else:
                entry.alone = True
                self._enqueue(entry)

    def lost(self, name: str, cause: Cause, reason: str = "", *, guilty: int | None = None) -> None:
        """A worker is no more; what it had is handed out again, or ends.

        Args:
            name: The worker's.
            cause: Why.
            reason: One line more.
            guilty: The job that ran over its limit, with `Cause.TIMEOUT`.
        """
        worker = self._workers.pop(name, None)
        if worker is None:
            return
        spent_s = self._clock() - worker.head_since if worker.batches else 0.0
        why = f"{cause.value}: {reason}" if reason else cause.value
        head = self._live(worker.batches[0]) if worker.batches else []
        self.ledger.lost(name, spent_s, ", ".join(entry.name for entry in head), why)
        self._idle.pop(name, None)
        self._roomy.pop(name, None)
        self._outbox = [batch for batch in self._outbox if batch.worker != name]
        num_jobs = len(worker.batches[0].jobs) if worker.batches else 0
        behind = [entry for batch in list(worker.batches)[1:] for entry in self._live(batch)]
        for batch in worker.batches:
            del self._batches[batch.id]
            for entry in self._live(batch):
                entry.batches.discard(batch.id)
        for entry in head:
            if entry.job.id == guilty and self._policy.timeout_s is not None:
                message = over_limit(spent_s, self._policy.timeout_s)
                self._end(entry, _ended(entry.job, JobStatus.TIMEOUT, message, spent_s, name))
                continue
            if cause.blames:
                entry.alone = True
                entry.tries += num_jobs == 1
            entry.losses += cause is Cause.PLACE
            if entry.tries >= self._policy.max_tries or entry.losses >= MAX_LOSSES:
                times = entry.tries or entry.losses
                message = f"given up: its worker was lost {times} times; the last {why}"
                self._end(entry, _ended(entry.job, JobStatus.KILLED, message, spent_s, name))
            elif not entry.batches:
                self.ledger.retried(name, entry.name, why)
                self._enqueue(entry)
        for entry in behind:
            self._enqueue(entry)

    def excuse(self, name: str, left_s: float) -> None:
        """A worker that was overdue is at a job that has `left_s` of its time left."""
        if name in self._workers:
            self._workers[name].excused_until = self._clock() + left_s

    def close(self) -> None:
        """No worker is any more; what they were at was for nothing."""
        for worker in self._workers.values():
            if worker.batches and self._live(worker.batches[0]):
                self.ledger.wasted(self._clock() - worker.head_since)
            self.ledger.gone(worker.name)
        for held in (self._workers, self._entries, self._batches, self._idle, self._roomy):
            held.clear()
        for waiting in (self._queue, self._outbox, self._results, self._untaken):
            waiting.clear()

    # ------------------------------------------------------------------ what to do

    def assign(self) -> list[Batch]:
        """The batches to send now."""
        batches, self._outbox = self._outbox, []
        depth, size = self._depth(), self._batch_size()
        while self._queue and self._idle:
            batches.append(self._hand(next(iter(self._idle)), self._take(size, idle=True)))
        while self._queue and self._roomy:
            name, _ = self._roomy.popitem(last=False)
            held = self._workers[name].batches
            if len(held) >= depth or any(entry.alone for entry in self._live(held[0])):
                continue  # It has room again when a batch is back.
            if not (jobs := self._take(size, idle=False)):
                self._roomy[name] = None  # The oldest job must be alone: it waits for an idle one.
                break
            batches.append(self._hand(name, jobs))
        return batches

    def overdue(self) -> list[str]:
        """Workers at work for longer than any job may take; the back end asks what they are at."""
        now, found = self._clock(), []
        for worker in self._workers.values():
            if not worker.batches or now < worker.excused_until:
                continue
            limit_s = self._policy.timeout_s or math.inf
            if not self._live(worker.batches[0]):
                # On for nothing: its jobs ended elsewhere. It gets as long again, then goes.
                limit_s = min(limit_s, 2 * self._straggler_s())
            if now - worker.head_since > limit_s:
                found.append(worker.name)
        return found

    def rebalance(self) -> list[Batch]:
        """With nothing queued and workers idle: take back what waits, hand out stragglers twice.

        Returns:
            Batches that their workers should forget if they have not begun; `assign` says who gets
            the work instead.
        """
        if self._queue or not self._idle:
            return []
        now, num_idle = self._clock(), len(self._idle)
        patience_s = max(MIN_STEAL_S, 1.5 * (self.ledger.mean_s or 0.0))
        straggler_s = self._straggler_s()
        forgotten: list[Batch] = []
        busy = [worker for worker in self._workers.values() if worker.batches]
        for worker in sorted(busy, key=lambda worker: worker.head_since):
            spent_s = now - worker.head_since
            if len(worker.batches) > 1 and spent_s > patience_s and num_idle > 0:
                num_idle -= 1
                batch = worker.batches[-1]
                forgotten.append(batch)
                entries = self._live(batch)
                self._drop(batch)
                for entry in entries:
                    self._enqueue(entry)
            head = worker.batches[0]
            if spent_s > straggler_s * len(head.jobs):
                for entry in self._live(head):
                    if num_idle > 0 and not (entry.reissued or entry.alone):
                        num_idle -= 1
                        entry.reissued = True
                        name = next(iter(self._idle))
                        self._outbox.append(self._hand(name, [entry.job]))
                        self.ledger.reissued(name, entry.name, spent_s)
        return forgotten

    def pop_result(self) -> JobResult | None:
        """The next result, None if there is none yet."""
        if not self._results:
            return None
        result = self._results.popleft()
        self._untaken.discard(result.id)
        return result

    def running(self, name: str) -> Batch | None:
        """What a worker is at."""
        worker = self._workers.get(name)
        return worker.batches[0] if worker is not None and worker.batches else None

    # ------------------------------------------------------------------ within

    def _enqueue(self, entry: _Entry) -> None:
        if not entry.batches:
            heapq.heappush(self._queue, (entry.sequence, entry.job.id))

    def _take(self, size: int, *, idle: bool) -> list[Job]:
        """Jobs for one batch, oldest first; one that must be alone only for an idle worker."""
        share = max(1, len(self._queue) // (2 * len(self._workers)))
        jobs: list[Job] = []
        while self._queue and len(jobs) < min(size, share):
            entry = self._entries[self._queue[0][1]]
            if entry.alone and (jobs or not idle):
                break
            heapq.heappop(self._queue)
            jobs.append(entry.job)
            if entry.alone:
                break
        return jobs

    def _hand(self, name: str, jobs: Iterable[Job]) -> Batch:
        batch = Batch(self._num_batches, name, tuple(jobs))
        self._num_batches += 1
        self._batches[batch.id] = batch
        for job in batch.jobs:
            self._entries[job.id].batches.add(batch.id)
        worker = self._workers[name]
        if not worker.batches:
            worker.head_since, worker.excused_until = self._clock(), 0.0
            del self._idle[name]
            self._roomy[name] = None
        worker.batches.append(batch)
        return batch

    def _drop(self, batch: Batch) -> None:
        """A live worker has a batch no more."""
        for entry in self._live(batch):
            entry.batches.discard(batch.id)
        del self._batches[batch.id]
        worker = self._workers[batch.worker]
        if worker.batches[0].id == batch.id:
            worker.head_since, worker.excused_until = self._clock(), 0.0
        worker.batches.remove(batch)
        home = self._roomy if worker.batches else self._idle
        self._roomy.pop(worker.name, None)
        home[worker.name] = None

    def _end(self, entry: _Entry, result: JobResult) -> None:
        """A job's first result is its result."""
        del self._entries[result.id]
        self.ledger.ended(result, entry.name)
        self._results.append(result)
        self._untaken.add(result.id)

    def _live(self, batch: Batch) -> list[_Entry]:
        """The jobs of a batch that still wait for its results."""
        found = [self._entries.get(job.id) for job in batch.jobs]
        return [entry for entry in found if entry is not None and batch.id in entry.batches]

    def _batch_size(self) -> int:
        mean_s = self.ledger.mean_s
        if not mean_s or not self.overhead_s:
            return 1
        size = math.ceil(self.overhead_s / (self._policy.overhead_share * mean_s))
        if self._policy.timeout_s is not None:
            size = min(size, int(self._policy.timeout_s / (4 * mean_s)))
        return max(1, min(size, MAX_BATCH))

    def _depth(self) -> int:
        mean_s = self.ledger.mean_s
        return 2 if mean_s is not None and mean_s * self._batch_size() < LONG_BATCH_S else 1

    def _straggler_s(self) -> float:
        """From when on a job is one; infinity where too few are known or none may be."""
        if self._policy.straggler_factor is None or self.ledger.usual_s is None:
            return math.inf
        return max(MIN_STRAGGLER_S, self._policy.straggler_factor * self.ledger.usual_s)


def _ended(job: Job, status: JobStatus, message: str, wall_s: float, worker: str) -> JobResult:
    return JobResult(job.id, status, None, message, wall_s, worker, job.label)
