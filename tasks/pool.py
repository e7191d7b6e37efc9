"""The task pool: the one interface through which every engine hands out work.

Search, meta-training, tuning and the benchmark all do the same thing: many independent jobs, each a
payload for a worker that keeps its compiled loops warm. `Pool` is that seam and knows nothing of
programs. A back end decides where workers live; `InlinePool` keeps them in this process, which is
enough for one machine, because JAX releases the interpreter lock while a compiled loop runs
(two threads on two cores: 1.9 times one).

The shape follows `concurrent.futures` with one departure: a failing job is data (`JobStatus`) and
never an exception in the driver, because a search meets thousands of programs that fail.
"""

import abc
import collections
import dataclasses
import enum
import os
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Literal, Protocol, Self, final

from veldt.tasks import errors

POLL_S = 0.1  # How long a wait sleeps between looks at Ctrl-C and at dead workers.
MAX_MESSAGE_CHARS = 2000


class PoolError(errors.TaskError):
    """The pool itself cannot go on: closed, misused, or unable to make a worker."""


class JobStatus(enum.StrEnum):
    """How a job ended."""

    OK = "ok"
    ERROR = "error"  # The worker raised or died; the message says how.
    TIMEOUT = "timeout"  # It took longer than the pool's `timeout_s`; its value is dropped.


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """One piece of work.

    Attributes:
        id: The submitter's name for it, unique among the jobs in flight.
        payload: What the worker is called with. Plain and picklable, so that it can travel.
    """

    id: int
    payload: object


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
    """

    id: int
    status: JobStatus
    value: object
    message: str
    wall_s: float
    worker: str


class Worker(Protocol):
    """Runs jobs, one at a time, and may keep state (compiled loops, data) between them."""

    def __call__(self, payload: object, /) -> object:
        """Return the job's value: plain and picklable, a pure function of the payload."""
        ...


# Makes a worker where the worker will live. Picklable by reference (a module's function or a frozen
# dataclass with `__call__`), so that a back end can ship it to another process.
WorkerFactory = Callable[[], Worker]


class Pool(abc.ABC):
    """Workers behind one queue.

    Guarantees, which every back end keeps:

    * Each submitted job yields exactly one `JobResult`, in no promised order.
    * What a worker raises, and the death of a worker, become results with status `error`; nothing
      a payload does is raised in the caller. Only when no worker can be made (the factory raised)
      does `next_result` raise `PoolError`, since then no job can ever run.
    * `next_result` can be interrupted (Ctrl-C on the main thread) while it waits.
    * `close` drops jobs that have not started, and returns soon after the running ones end.
    * A pool serves one driver: all methods are called from one thread. Workers run anywhere.
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
    def close(self) -> None:
        """Give the workers back. May be called twice."""

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
        self.close()


@final
class InlinePool(Pool):
    """Workers in this process.

    With one worker each job runs in the caller's thread, inside `next_result`, in the order of
    submission: a debugger stops where one expects. With more, each worker is made and kept by a
    thread of its own. JAX's context managers (`jax.enable_x64`, `jax.default_device`) are
    per thread: enter them in the worker, not around the pool.

    A thread cannot be killed, so `timeout_s` interrupts nothing here: a job that took longer runs
    to its end and is then reported as `timeout`.
    """

    def __init__(
        self, factory: WorkerFactory, num_workers: int = 1, *, timeout_s: float | None = None
    ):
        """Start the workers; they are made by the first job.

        Args:
            factory: Called once per worker, in the worker's thread.
            num_workers: At least 1.
            timeout_s: A job's limit in seconds; None sets none.
        """
        if num_workers < 1:
            raise ValueError(f"num_workers is {num_workers}; it must be at least 1")
        self._factory = factory
        self._num_workers = num_workers
        self._timeout_s = timeout_s
        self._closed = False
        self._in_flight: set[int] = set()
        # One worker: jobs wait here, and the worker is made by the first `next_result`.
        self._waiting: collections.deque[Job] = collections.deque()
        self._worker: Worker | None = None
        # More: threads take jobs from one queue and leave results in another.
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[JobResult | BaseException] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, args=(f"inline-{i}",), daemon=True)
            for i in range(num_workers if num_workers > 1 else 0)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def num_workers(self) -> int:
        return self._num_workers

    @property
    def capacity(self) -> int:
        # One spare per thread: it starts on that while the driver digests its last result.
        return 2 * self._num_workers if self._threads else 1

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    def submit(self, job: Job) -> None:
        if self._closed:
            raise PoolError(f"job {job.id} was submitted to a closed pool")
        if job.id in self._in_flight:
            raise PoolError(f"a job with id {job.id} is already in flight")
        self._in_flight.add(job.id)
        if self._threads:
            self._jobs.put(job)
        else:
            self._waiting.append(job)

    def next_result(self, timeout_s: float | None = None) -> JobResult:
        if self._closed:
            raise PoolError("a closed pool has no results")
        if not self._in_flight:
            raise PoolError("no job is in flight, so no result will come")
        result = self._wait(timeout_s) if self._threads else self._run_first()
        self._in_flight.remove(result.id)
        return result

    def close(self) -> None:
        self._closed = True
        self._in_flight.clear()
        self._waiting.clear()
        self._worker = None
        while not self._jobs.empty():
            try:
                self._jobs.get_nowait()
            except queue.Empty:  # A thread took it first.
                break
        for _ in self._threads:
            self._jobs.put(None)
        # A second Ctrl-C may cut this short; the threads are daemons, so the process still ends.
        for thread in self._threads:
            thread.join()

    def _run_first(self) -> JobResult:
        if self._worker is None:
            try:
                self._worker = self._factory()
            except Exception as error:
                raise _cannot_make_worker(error) from error
        # Popped only when done: an interrupted job is still in flight and can be run again.
        result = run_job(self._worker, self._waiting[0], timeout_s=self._timeout_s, name="inline-0")
        self._waiting.popleft()
        return result

    def _wait(self, timeout_s: float | None) -> JobResult:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = POLL_S if deadline is None else min(POLL_S, deadline - time.monotonic())
            try:
                item = self._done.get(timeout=max(left_s, 0.0))
            except queue.Empty:
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError(f"no job completed within {timeout_s} s") from None
                continue
            if isinstance(item, BaseException):
                self._done.put(item)  # For the next caller: the pool will not recover.
                raise _cannot_make_worker(item) from item
            return item

    def _serve(self, name: str) -> None:
        """A thread's life: make a worker, run jobs until told to stop."""
        try:
            worker = self._factory()
            while (job := self._jobs.get()) is not None:
                self._done.put(run_job(worker, job, timeout_s=self._timeout_s, name=name))
        except BaseException as error:
            # The factory failed, or a worker raised what `run_job` lets through.
            self._done.put(error)


@final
@dataclasses.dataclass(frozen=True)
class PoolConfig:
    """Where work is done.

    Attributes:
        backend: "inline" runs workers as threads of this process.
        num_workers: How many jobs run at once; null takes the cores this process may use.
        timeout_s: A job's limit in seconds; null sets none.
    """

    backend: Literal["inline"] = "inline"
    num_workers: int | None = None
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        if self.num_workers is not None and self.num_workers < 1:
            raise ValueError(f"num_workers is {self.num_workers}; it must be at least 1")
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise ValueError(f"timeout_s is {self.timeout_s}; it must be above 0")


def make_pool(config: PoolConfig, factory: WorkerFactory) -> Pool:
    """Make the pool that a config names; use it as a context manager.

    Args:
        config: Back end, number of workers, limit.
        factory: Makes one worker, where that worker lives.
    """
    num_workers = config.num_workers or num_usable_cores()
    return _BACKENDS[config.backend](factory, num_workers, config.timeout_s)


def num_usable_cores() -> int:
    """How many cores this process may use: its affinity where the system tells it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
        status, value = JobStatus.TIMEOUT, None
        message = f"took {wall_s:.1f} s; the limit is {timeout_s:g} s"
    return JobResult(job.id, status, value, message, wall_s, name)


def describe_error(error: BaseException) -> str:
    """One line that says what was raised, then the last frames, cut to a bounded length."""
    frames = "".join(traceback.format_tb(error.__traceback__, limit=-3))
    text = f"{type(error).__name__}: {error}"
    return f"{text[:MAX_MESSAGE_CHARS]}\n{frames[-MAX_MESSAGE_CHARS:]}".rstrip()


def _cannot_make_worker(error: BaseException) -> PoolError:
    return PoolError(f"no worker can be made: {type(error).__name__}: {error}")


def _make_inline(factory: WorkerFactory, num_workers: int, timeout_s: float | None) -> Pool:
    return InlinePool(factory, num_workers, timeout_s=timeout_s)


_BACKENDS: dict[str, Callable[[WorkerFactory, int, float | None], Pool]] = {
    "inline": _make_inline,
}
