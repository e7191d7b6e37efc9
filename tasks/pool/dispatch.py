"""The decisions of a pool, who works on what, without any input or output of their own.

`Dispatcher` gets events (a job submitted, a worker ready, a batch back, a worker lost) and
returns actions (send this batch there, ask that worker what it is doing, forget that batch).
A back end carries them out: `ray_pool` with actors, a test or a simulation with a virtual clock.

Its rules:

* **Exactly one result per job**, whatever dies, whatever is done twice. The first result counts.
* **Blame is exact.** A batch or a worker with more than one job blames none of them: its jobs are
  tried again, each alone. A job that is alone on a worker that dies is to blame; after
  `max_tries` of these it ends as `killed`. A lost machine or a pre-emption blames no job (up to
  `MAX_LOSSES`, since some job may bring machines down).
* **Batches** hold as many jobs as it takes for the cost of handing one out to fall below
  `overhead_share` of its work, by measured durations, and no more than a fair share of the queue.
* **A second batch waits at each worker** while batches are short, so that no worker waits for the
  driver; it is taken back when another worker falls idle.
* **Stragglers**: with nothing queued, a job that takes `straggler_factor` times as long as nearly
  all others is given to an idle worker as well.

The retry rules follow what users of other systems ask for (pre-emption is no failure, a job that
kills workers ends): see `PoolConfig`. Exactly-once is kept here and not left to Ray, whose retries
of actor calls are at-most-once or at-least-once.
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

MAX_LOSSES: Final = 20  # Times that a job may lose its worker for other causes than itself.
MAX_BATCH: Final = 64
# A batch expected to take longer than this hides the driver's answer anyway: nothing waits behind.
LONG_BATCH_S: Final = 1.0
MIN_STRAGGLER_S: Final = 1.0
MIN_STEAL_S: Final = 0.1


@final
class Cause(enum.Enum):
    """The cause of a worker's loss."""

    DIED = "died"  # Its process ended: by memory, a crash, a signal.
    SILENT = "does not answer"  # Alive perhaps, but stuck as a whole; the back end has ended it.
    PLACE = "went away with its machine"  # A node or the network failed, or it was pre-empted.
    TIMEOUT = "was replaced"  # A job on it ran over the limit, or on for nothing.

    @property
    def blames(self) -> bool:
        """Whether the job that the worker had may be at fault."""
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
    """The rules of retries, giving up and second copies; see `PoolConfig` and the module."""

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
          policy: Rules and limits.
          clock: Function that returns seconds from any start; a simulation passes its own.
        """
        self.ledger = ledger_lib.Ledger(clock)
        self.overhead_s = 0.0  # The cost of handing out one batch; the back end measures it.
        self._policy = policy
        self._clock = clock
        self._entries: dict[int, _Entry] = {}
        self._queue: list[tuple[int, int]] = []  # A heap of (sequence, job): oldest first.
        self._workers: dict[str, _Worker] = {}
        # Idle workers, and workers that can take a second batch; in turn.
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
        """The number of workers that are ready."""
        return len(self._workers)

    @property
    def in_flight(self) -> int:
        """The number of submitted jobs whose results have not been taken."""
        return len(self._entries) + len(self._results)

    @property
    def num_running(self) -> int:
        """The number of jobs that a worker has."""
        return sum(bool(entry.batches) for entry in self._entries.values())

    @property
    def num_queued(self) -> int:
        """The number of jobs that no worker has."""
        return len(self._queue)

    def stats(self, backend: str, num_workers: int) -> PoolStats:
        """Return the figures so far, of a pool that wants `num_workers`."""
        return self.ledger.stats(backend, num_workers, self.num_queued, self.num_running)

    @property
    def capacity(self) -> int:
        """The number of jobs in flight that keep all workers busy."""
        return max(1, len(self._workers) * self._batch_size() * self._depth())

    # ------------------------------------------------------------------ events

    def submit(self, job: Job) -> None:
        """Record a submitted job.

        Raises:
          PoolError: A job with this id is in flight.
        """
        if job.id in self._entries or job.id in self._untaken:
            raise PoolError(f"a job with id {job.id} is already in flight")
        self._entries[job.id] = _Entry(job, self._num_submitted)
        self._num_submitted += 1
        self._enqueue(self._entries[job.id])

    def add_worker(self, name: str, place: str, starting_s: float = 0.0) -> None:
        """Record that a worker is ready, at `place`; making it took `starting_s`."""
        self._workers[name] = _Worker(name)
        self._idle[name] = None
        self.ledger.ready(name, place, starting_s)

    def returned(self, batch_id: int, results: Sequence[JobResult]) -> None:
        """Record a batch's return, with its jobs' results; jobs without one were not begun."""
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
        """Record that a batch could not be run or its results not be sent: part of it is bad.

        Args:
          batch_id: Number of the batch.
          message: Description of the failure.
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
        """Record the loss of a worker; its jobs are handed out again, or end.

        Args:
          name: Name of the worker.
          cause: Cause of the loss.
          reason: Details on one line.
          guilty: Job that ran over its limit, with `Cause.TIMEOUT`.
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

    def retired(self, name: str, why: str) -> None:
        """Record that a worker is at its end and runs nothing any more: no fault, no job lost.

        Args:
          name: Name of the worker.
          why: Reason on one line.
        """
        worker = self._workers.pop(name, None)
        if worker is None:
            return
        self.ledger.retired(name, why)
        self._idle.pop(name, None)
        self._roomy.pop(name, None)
        self._outbox = [batch for batch in self._outbox if batch.worker != name]
        for batch in worker.batches:  # They wait there, and none has begun.
            entries = self._live(batch)
            del self._batches[batch.id]
            for entry in entries:
                entry.batches.discard(batch.id)
                self._enqueue(entry)

    def excuse(self, name: str, left_s: float) -> None:
        """Record that an overdue worker has a job with `left_s` of its time left."""
        if name in self._workers:
            self._workers[name].excused_until = self._clock() + left_s

    def close(self) -> None:
        """Record the end of all workers; the work that they had is wasted."""
        for worker in self._workers.values():
            if worker.batches and self._live(worker.batches[0]):
                self.ledger.wasted(self._clock() - worker.head_since)
            self.ledger.gone(worker.name)
        for held in (self._workers, self._entries, self._batches, self._idle, self._roomy):
            held.clear()
        for waiting in (self._queue, self._outbox, self._results, self._untaken):
            waiting.clear()

    # ------------------------------------------------------------------ actions

    def assign(self) -> list[Batch]:
        """Return the batches to send now."""
        batches, self._outbox = self._outbox, []
        depth, size = self._depth(), self._batch_size()
        while self._queue and self._idle:
            batches.append(self._hand(next(iter(self._idle)), self._take(size, idle=True)))
        while self._queue and self._roomy:
            name, _ = self._roomy.popitem(last=False)
            held = self._workers[name].batches
            if len(held) >= depth or any(entry.alone for entry in self._live(held[0])):
                continue  # It can take another when a batch is back.
            if not (jobs := self._take(size, idle=False)):
                self._roomy[name] = None  # The oldest job must be alone: it waits for an idle one.
                break
            batches.append(self._hand(name, jobs))
        return batches

    def overdue(self) -> list[str]:
        """Return the workers that work longer than any job may take, to ask what they are doing."""
        now, found = self._clock(), []
        for worker in self._workers.values():
            if not worker.batches or now < worker.excused_until:
                continue
            limit_s = self._policy.timeout_s or math.inf
            if not self._live(worker.batches[0]):
                # Its jobs ended elsewhere. It gets as long again, then it is replaced.
                limit_s = min(limit_s, 2 * self._straggler_s())
            if now - worker.head_since > limit_s:
                found.append(worker.name)
        return found

    def rebalance(self) -> list[Batch]:
        """Use idle workers when nothing is queued: take back waiting batches, copy stragglers.

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
        """Return the next result, None if there is none yet."""
        if not self._results:
            return None
        result = self._results.popleft()
        self._untaken.discard(result.id)
        return result

    def running(self, name: str) -> Batch | None:
        """Return the batches that a worker has."""
        worker = self._workers.get(name)
        return worker.batches[0] if worker is not None and worker.batches else None

    # ------------------------------------------------------------------ internal

    def _enqueue(self, entry: _Entry) -> None:
        if not entry.batches:
            heapq.heappush(self._queue, (entry.sequence, entry.job.id))

    def _take(self, size: int, *, idle: bool) -> list[Job]:
        """Return a batch of jobs, oldest first; one that must be alone waits for an idle worker."""
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
        """Take a batch away from a live worker."""
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
        """Record a job's result, unless it has one already."""
        del self._entries[result.id]
        self.ledger.ended(result, entry.name)
        self._results.append(result)
        self._untaken.add(result.id)

    def _live(self, batch: Batch) -> list[_Entry]:
        """Return the jobs of a batch that still wait for their results."""
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
        """Return the time after which a job is a straggler; infinity if none can be."""
        if self._policy.straggler_factor is None or self.ledger.usual_s is None:
            return math.inf
        return max(MIN_STRAGGLER_S, self._policy.straggler_factor * self.ledger.usual_s)


def _ended(job: Job, status: JobStatus, message: str, wall_s: float, worker: str) -> JobResult:
    return JobResult(job.id, status, None, message, wall_s, worker, job.label)
