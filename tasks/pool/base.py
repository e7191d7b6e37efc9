"""The task pool: the one interface through which every engine hands out work.

Search, meta-training, tuning and the benchmark all do the same thing: many independent jobs, each a
payload for a worker that keeps its compiled loops warm. `Pool` is that seam and knows nothing of
programs. A back end decides where workers live: threads of this process (`inline_pool`), or actors
of a Ray cluster on this machine or many (`ray_pool`). `pool_config` chooses between them.

The shape follows `concurrent.futures` with one departure: a failing job is data (`JobStatus`) and
never an exception in the driver, because a search meets thousands of programs that fail.
"""

import abc
import dataclasses
import enum
import time
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self, final, runtime_checkable

from veldt.tasks.common import error_origin, errors

POLL_S = 0.1  # How long a wait sleeps between looks at Ctrl-C and at dead workers.
MAX_MESSAGE_CHARS = 2000


class PoolError(errors.TaskError):
    """The pool itself cannot go on: closed, misused, or unable to make a worker."""


class JobStatus(enum.StrEnum):
    """How a job ended."""

    OK = "ok"
    ERROR = "error"  # The worker raised; the message says what.
    TIMEOUT = "timeout"  # It took longer than the pool's `timeout_s`; its value is dropped.
    KILLED = "killed"  # Its workers died under it, as often as the pool tries: quarantined.


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """One piece of work.

    Attributes:
        id: The submitter's name for it, unique among the jobs in flight.
        payload: What the worker is called with. Plain and picklable, so that it can travel.
        label: What it is, for people: logs and events name it.
    """

    id: int
    payload: object
    label: str = ""


@final
@dataclasses.dataclass(frozen=True, slots=True)
class JobResult:
    """What became of one job.

    Attributes:
        id: The job's.
        status: How it ended.
        value: What the worker returned; None unless the status is ok.
        message: Empty when ok; else one line that says what happened, then the traceback's tail.
        wall_s: Seconds from the worker's start on it to its end.
        worker: The name of the worker that ran it. For people: no result may depend on it.
        label: The job's.
    """

    id: int
    status: JobStatus
    value: object
    message: str
    wall_s: float
    worker: str
    label: str = ""


@final
@dataclasses.dataclass(frozen=True, slots=True)
class WorkerStats:
    """One live worker.

    Attributes:
        name: The pool's name for it, never used again for another.
        place: Where it lives: host and process id.
        num_jobs: Jobs that it ended.
        busy_s: Seconds that it worked on them.
        alive_s: Seconds since it was ready.
    """

    name: str
    place: str
    num_jobs: int
    busy_s: float
    alive_s: float


@final
@dataclasses.dataclass(frozen=True, slots=True)
class PoolStats:
    """What a pool did so far and is doing now. Seconds are worker-seconds.

    Attributes:
        backend: "inline" or "ray".
        num_workers: Workers wanted.
        num_ready: Workers alive and able to work.
        num_queued: Jobs that no worker has yet.
        num_running: Jobs that a worker has.
        num_done: Jobs that ended, whatever their status.
        num_retries: Times that a job was handed out again because its worker went away.
        num_reissued: Times that a straggler was handed to a second worker as well.
        num_timeouts: Jobs ended by the time limit.
        num_killed: Jobs quarantined.
        num_lost_workers: Workers that died or were given up, by whatever cause.
        busy_s: Spent on work whose result was used.
        wasted_s: Spent on work whose result was not: lost, over the limit, done twice.
        starting_s: Spent on making workers, compiling included where they warm up first.
        alive_s: From ready to now or to their end; what is neither busy nor wasted was idle.
        workers: The live ones.
    """

    backend: str
    num_workers: int
    num_ready: int
    num_queued: int
    num_running: int
    num_done: int = 0
    num_retries: int = 0
    num_reissued: int = 0
    num_timeouts: int = 0
    num_killed: int = 0
    num_lost_workers: int = 0
    busy_s: float = 0.0
    wasted_s: float = 0.0
    starting_s: float = 0.0
    alive_s: float = 0.0
    workers: tuple[WorkerStats, ...] = ()


class EventKind(enum.StrEnum):
    """What can happen to workers and jobs apart from ordinary results."""

    WORKER_READY = "worker-ready"
    WORKER_LOST = "worker-lost"
    RETRY = "retry"
    REISSUE = "reissue"
    TIMEOUT = "timeout"
    QUARANTINE = "quarantine"
    POOL = "pool"  # The pool as a whole: no room for workers, the cluster's head away or back.


@final
@dataclasses.dataclass(frozen=True, slots=True)
class PoolEvent:
    """One thing that happened, for logs and for the store.

    Attributes:
        time_s: When, in seconds since the epoch.
        kind: What.
        worker: Its name; empty where no worker is meant.
        job: The job's label; empty where no job is meant.
        message: One line more.
    """

    time_s: float
    kind: EventKind
    worker: str = ""
    job: str = ""
    message: str = ""


class Worker(Protocol):
    """Runs jobs, one at a time, and may keep state (compiled loops, data) between them."""

    def __call__(self, payload: object, /) -> object:
        """Return the job's value: plain and picklable, a pure function of the payload."""
        ...


@runtime_checkable
class WarmWorker(Worker, Protocol):
    """A worker that has something to do before its first job, which no job's time should include.

    Back ends that can enforce time limits call `warm_up` once, before the first job.
    """

    def warm_up(self) -> None:
        """Compile, load; called once."""
        ...


# Makes a worker where the worker will live. Picklable by reference (a module's function or a frozen
# dataclass with `__call__`), so that a back end can ship it to another process.
WorkerFactory = Callable[[], Worker]


class Pool(abc.ABC):
    """Workers behind one queue.

    Guarantees, which every back end keeps:

    * Each submitted job yields exactly one `JobResult`, in no promised order.
    * What a worker raises, and the death of a worker, become results; nothing a payload does is
      raised in the caller. Only when no worker can be made (the factory raised) or workers cannot
      be reached any more does `next_result` raise `PoolError`, since then no job can ever run.
    * `next_result` can be interrupted (Ctrl-C on the main thread) while it waits.
    * `close` drops jobs that have not started, and returns soon after the running ones end; after a
      Ctrl-C a block that the pool was opened for does not wait for those.
    * A pool serves one driver: all methods are called from one thread. Workers run anywhere.
    * Memory is bounded by the jobs in flight and the workers, however many jobs there were.
    """

    @property
    @abc.abstractmethod
    def num_workers(self) -> int:
        """How many jobs can run at the same time."""

    @property
    @abc.abstractmethod
    def capacity(self) -> int:
        """How many jobs to keep in flight so that no worker waits for the driver."""

    @property
    @abc.abstractmethod
    def in_flight(self) -> int:
        """How many submitted jobs have not been returned by `next_result` yet."""

    @abc.abstractmethod
    def submit(self, job: Job) -> None:
        """Hand out a job; returns at once.

        Raises:
            PoolError: The pool is closed, or a job of that id is in flight.
        """

    @abc.abstractmethod
    def next_result(self, timeout_s: float | None = None) -> JobResult:
        """Wait for the next job that completes.

        Args:
            timeout_s: How long to wait; None waits for as long as it takes.

        Raises:
            TimeoutError: Nothing completed in that time.
            PoolError: Nothing is in flight, the pool is closed, or no worker can be made.
        """

    @abc.abstractmethod
    def stats(self) -> PoolStats:
        """What the pool did and is doing; also after `close`."""

    @abc.abstractmethod
    def take_events(self) -> list[PoolEvent]:
        """What happened since the last call, oldest first; bounded: the most recent."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give the workers back. May be called twice."""

    def abandon(self) -> None:
        """Give the workers back without waiting for jobs whose results no one will take."""
        self.close()

    @final
    def results(self) -> Iterator[JobResult]:
        """Yield results as they come, until nothing is in flight."""
        while self.in_flight:
            yield self.next_result()

    @final
    def __enter__(self) -> Self:
        return self

    @final
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.abandon()
        else:
            self.close()


def run_job(worker: Worker, job: Job, *, timeout_s: float | None, name: str) -> JobResult:
    """Run one job to its end and say what became of it; what back ends share.

    Ctrl-C is the only exception let through.

    Args:
        worker: Called with the job's payload.
        job: What to run.
        timeout_s: A job that took longer is reported as `timeout`, without its value.
        name: The worker's, for the result.
    """
    start_s = time.perf_counter()
    status, value, message = JobStatus.OK, None, ""
    try:
        value = worker(job.payload)
    except (Exception, SystemExit) as error:
        status, message = JobStatus.ERROR, describe_error(error)
    wall_s = time.perf_counter() - start_s
    if status is JobStatus.OK and timeout_s is not None and wall_s > timeout_s:
        status, value, message = JobStatus.TIMEOUT, None, over_limit(wall_s, timeout_s)
    return JobResult(job.id, status, value, message, wall_s, name, job.label)


def over_limit(wall_s: float, timeout_s: float) -> str:
    """The message of a time-out."""
    return f"took {wall_s:.1f} s; the limit is {timeout_s:g} s"


def describe_error(error: BaseException) -> str:
    """One line that says what was raised, cut to a bounded length.

    With the place in the user's file, where it was raised there; else followed by the last frames.
    """
    if (theirs := error_origin.describe(error)) is not None:
        return theirs[:MAX_MESSAGE_CHARS]
    if isinstance(error, errors.TaskError):  # It says all.
        return f"{type(error).__name__}: {error}"[:MAX_MESSAGE_CHARS]
    frames = "".join(traceback.format_tb(error.__traceback__, limit=-3))
    text = f"{type(error).__name__}: {error}"
    return f"{text[:MAX_MESSAGE_CHARS]}\n{frames[-MAX_MESSAGE_CHARS:]}".rstrip()


def cannot_make_worker(error: BaseException) -> PoolError:
    """The error of a pool whose factory raised."""
    return PoolError(f"no worker can be made: {type(error).__name__}: {error}")
