"""The task pool: the one interface through which every engine hands out work.

Search, meta-training, tuning and the benchmark all do the same: many independent jobs, each a
payload for a worker that keeps its compiled loops. `Pool` is their common interface and knows
nothing of programs. A back end decides where workers live: threads of this process
(`inline_pool`), or actors of a Ray cluster on this machine or many (`ray_pool`). `pool_config`
chooses between them.

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

from veldt.tasks.common import errors
from veldt.tasks.common.user_code import error_origin

POLL_S = 0.1  # Time between two checks for Ctrl-C and dead workers during a wait.
MAX_MESSAGE_CHARS = 2000


class PoolError(errors.TaskError):
    """The pool cannot go on: closed, misused, or unable to make a worker."""


class JobStatus(enum.StrEnum):
    """The ways in which a job ends."""

    OK = "ok"
    ERROR = "error"  # The worker raised; the message says what.
    TIMEOUT = "timeout"  # It took longer than the pool's `timeout_s`; its value is dropped.
    KILLED = "killed"  # Its workers died of it, as often as the pool tries: quarantined.


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """One piece of work.

    Attributes:
      id: Identifier by the submitter, unique among the jobs in flight.
      payload: Argument of the worker, plain and picklable, so that it can travel.
      label: Description for people, in logs and events.
    """

    id: int
    payload: object
    label: str = ""


@final
@dataclasses.dataclass(frozen=True, slots=True)
class JobResult:
    """The result of one job.

    Attributes:
      id: Identifier of the job.
      status: Way in which the job ended.
      value: Value that the worker returned; None unless the status is ok.
      message: Empty when ok; else one line that says what happened, then the traceback's end.
      wall_s: Seconds from the worker's start on the job to the end.
      worker: Name of the worker that ran the job. For people: no result may depend on it.
      label: Description of the job.
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
    """Figures of one live worker.

    Attributes:
      name: Name within the pool, never used again for another worker.
      place: Host and process id.
      num_jobs: Number of jobs that the worker ended.
      busy_s: Seconds of work on jobs.
      alive_s: Seconds since the worker was ready.
    """

    name: str
    place: str
    num_jobs: int
    busy_s: float
    alive_s: float


@final
@dataclasses.dataclass(frozen=True, slots=True)
class PoolStats:
    """Figures of a pool, so far and at present. Seconds are worker-seconds.

    Attributes:
      backend: "inline" or "ray".
      num_workers: Number of workers wanted.
      num_ready: Number of workers alive and able to work.
      num_queued: Number of jobs that no worker has yet.
      num_running: Number of jobs that a worker has.
      num_done: Number of jobs that ended, with any status.
      num_retries: Number of times that a job was handed out again because its worker was lost.
      num_reissued: Number of times that a straggler was handed to a second worker as well.
      num_timeouts: Number of jobs ended by the time limit.
      num_killed: Number of jobs quarantined.
      num_lost_workers: Number of workers that died or were given up, for any cause.
      busy_s: Seconds of work with a result that was used.
      wasted_s: Seconds of work without a used result: lost, over the limit, done twice.
      starting_s: Seconds of making workers, with compiling where they warm up first.
      alive_s: Seconds from ready to now or to the end; the time neither busy nor wasted was idle.
      workers: Live workers.
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
    """The kinds of events of workers and jobs apart from ordinary results."""

    WORKER_READY = "worker-ready"
    WORKER_LOST = "worker-lost"
    WORKER_RETIRED = "worker-retired"  # Between jobs, to give its memory back: no fault.
    RETRY = "retry"
    REISSUE = "reissue"
    TIMEOUT = "timeout"
    QUARANTINE = "quarantine"
    POOL = "pool"  # The pool as a whole: no room for workers, the cluster's head away or back.


@final
@dataclasses.dataclass(frozen=True, slots=True)
class PoolEvent:
    """One event, for logs and for the store.

    Attributes:
      time_s: Time of the event, in seconds since the epoch.
      kind: Kind of the event.
      worker: Name of the worker; empty if the event is of none.
      job: Label of the job; empty if the event is of none.
      message: Further details on one line.
    """

    time_s: float
    kind: EventKind
    worker: str = ""
    job: str = ""
    message: str = ""


class Worker(Protocol):
    """A worker runs jobs, one at a time, and may keep state (compiled loops, data) between them."""

    def __call__(self, payload: object, /) -> object:
        """Return the job's value: plain and picklable, a pure function of the payload."""
        ...


@runtime_checkable
class WarmWorker(Worker, Protocol):
    """A worker with work to do before its first job, in the time of no job.

    Back ends that can enforce time limits call `warm_up` once, before the first job.
    """

    def warm_up(self) -> None:
        """Compile and load; called once."""
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
        """The number of jobs that can run at the same time."""

    @property
    @abc.abstractmethod
    def capacity(self) -> int:
        """The number of jobs to keep in flight so that no worker waits for the driver."""

    @property
    @abc.abstractmethod
    def in_flight(self) -> int:
        """The number of submitted jobs that `next_result` has not returned yet."""

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
          timeout_s: Longest time to wait; None for no limit.

        Raises:
          TimeoutError: Nothing completed in that time.
          PoolError: Nothing is in flight, the pool is closed, or no worker can be made.
        """

    @abc.abstractmethod
    def stats(self) -> PoolStats:
        """Return the pool's figures so far and at present; also after `close`."""

    @abc.abstractmethod
    def take_events(self) -> list[PoolEvent]:
        """Return the events since the last call, oldest first; at most the most recent ones."""

    @abc.abstractmethod
    def close(self) -> None:
        """Stop the workers. May be called twice."""

    def abandon(self) -> None:
        """Stop the workers without waiting for jobs whose results no one will take."""
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
    """Run one job to its end and return its result; all back ends use this.

    Ctrl-C is the only exception let through.

    Args:
      worker: Worker that gets the job's payload.
      job: Job to run.
      timeout_s: Time limit; a job that took longer has the status `timeout` and no value.
      name: Name of the worker, for the result.
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
    """Return the message of a time-out."""
    return f"took {wall_s:.1f} s; the limit is {timeout_s:g} s"


def describe_error(error: BaseException) -> str:
    """Return one line about an error, cut to a bounded length, and where it was raised.

    That is the place in the user's file, if it was raised there; else the last frames follow.
    """
    if (theirs := error_origin.describe(error)) is not None:
        return theirs[:MAX_MESSAGE_CHARS]
    if isinstance(error, errors.TaskError):  # The message is complete.
        return f"{type(error).__name__}: {error}"[:MAX_MESSAGE_CHARS]
    frames = "".join(traceback.format_tb(error.__traceback__, limit=-3))
    text = f"{type(error).__name__}: {error}"
    return f"{text[:MAX_MESSAGE_CHARS]}\n{frames[-MAX_MESSAGE_CHARS:]}".rstrip()


def cannot_make_worker(error: BaseException) -> PoolError:
    """Return the error of a pool whose factory raised."""
    return PoolError(f"no worker can be made: {type(error).__name__}: {error}")
