"""The pool's back end without set-up: workers as threads of this process.

JAX releases the interpreter lock while a compiled loop runs, so threads are enough for one machine
(two threads on two cores: 1.9 times one), and they share what they compile. Nothing here can be
killed: for time limits that are enforced, and workers that may die, use Ray.
"""

import collections
import os
import queue
import socket
import threading
import time
from typing import Final, final

from veldt.tasks.pool import ledger
from veldt.tasks.pool.base import (
    POLL_S,
    Job,
    JobResult,
    Pool,
    PoolError,
    PoolEvent,
    PoolStats,
    Worker,
    WorkerFactory,
    cannot_make_worker,
    run_job,
)

ABANDON_S: Final = 1.0


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
        """Start the workers; the first job makes them.

        Args:
          factory: Function that makes a worker, called once per worker, in the worker's thread.
          num_workers: Number of workers, at least 1.
          timeout_s: Time limit of a job in seconds; None for none.
        """
        if num_workers < 1:
            raise ValueError(f"num_workers is {num_workers}; it must be at least 1")
        self._factory = factory
        self._num_workers = num_workers
        self._timeout_s = timeout_s
        self._closed = False
        self._in_flight: set[int] = set()
        self._ledger = ledger.Ledger()
        self._names = tuple(f"inline-{i}" for i in range(num_workers))
        for name in self._names:
            self._ledger.ready(name, f"{socket.gethostname()}, process {os.getpid()}")
        self._ledger.take_events()  # Threads of this process are no news.
        # One worker: jobs wait here, and the worker is made by the first `next_result`.
        self._waiting: collections.deque[Job] = collections.deque()
        self._worker: Worker | None = None
        # More: threads take jobs from one queue and leave results in another.
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[JobResult | BaseException] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, args=(name,), daemon=True)
            for name in (self._names if num_workers > 1 else ())
        ]
        for thread in self._threads:
            thread.start()

    @property
    def num_workers(self) -> int:
        return self._num_workers

    @property
    def capacity(self) -> int:
        # One spare per thread: it starts on that while the driver processes its last result.
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
        result = self._wait(timeout_s) if self._threads else self._run_first(timeout_s)
        self._in_flight.remove(result.id)
        self._ledger.ran(result.worker, result.wall_s)
        self._ledger.ended(result, result.label or f"job {result.id}")
        return result

    def stats(self) -> PoolStats:
        running = min(self._num_workers, self.in_flight)
        return self._ledger.stats("inline", self._num_workers, self.in_flight - running, running)

    def take_events(self) -> list[PoolEvent]:
        return self._ledger.take_events()

    def close(self) -> None:
        self._drop()
        # A second Ctrl-C may cut this short; the threads are daemons, so the process still ends.
        for thread in self._threads:
            thread.join()

    def abandon(self) -> None:
        self._drop()
        # Jobs that can end by themselves do so; a thread that compiles is left alone.
        deadline = time.monotonic() + ABANDON_S
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))

    def _drop(self) -> None:
        if not self._closed:
            for name in self._names:
                self._ledger.gone(name)
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

    def _run_first(self, timeout_s: float | None) -> JobResult:
        if timeout_s == 0:
            raise TimeoutError("no job is complete: the one worker begins when a result is awaited")
        if self._worker is None:
            try:
                self._worker = self._factory()
            except Exception as error:
                raise cannot_make_worker(error) from error
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
                raise cannot_make_worker(item) from item
            return item

    def _serve(self, name: str) -> None:
        """Make a worker and run jobs until the pool closes: the life of one thread."""
        try:
            worker = self._factory()
            while (job := self._jobs.get()) is not None:
                self._done.put(run_job(worker, job, timeout_s=self._timeout_s, name=name))
        except BaseException as error:
            # The factory failed, or a worker raised what `run_job` lets through.
            self._done.put(error)
