"""The code of a Ray worker process: one veldt worker, kept warm, that answers questions.

An actor has threads beside the one that runs batches. One (`control`) answers questions meanwhile,
so the driver can distinguish a slow job from a stuck worker, and name the slow job.
One (`watch`) waits with the reason, should this process have to end itself.

The one module that imports Ray at once: `ray_pool` imports it when a cluster is connected.
"""

import logging
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, final

import ray

from veldt.tasks.common import compiling, errors
from veldt.tasks.pool import devices
from veldt.tasks.pool.base import (
    Job,
    JobResult,
    JobStatus,
    WarmWorker,
    Worker,
    WorkerFactory,
    run_job,
)

LOGGER: Final = logging.getLogger("veldt.pool")
MEMORY_CHECK_S: Final = 0.1
_END_PROCESS: Final = os._exit  # It is replaced while a user's code runs (`imports.no_exit`).
MAX_FORGOTTEN: Final = 256
LAST_WORDS_S: Final = 0.3  # For the reason to reach the driver, which ends this process at once.


class Place(NamedTuple):
    """The host and process of a worker."""

    node: str
    host: str
    pid: int

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}"


class Conditions(NamedTuple):
    """The conditions of a worker.

    Attributes:
      shape: Resources by Ray's names.
      timeout_s: Time limit of a job; the driver enforces it, this side reports it.
      memory_limit_gib: Memory above which the process ends itself; None for no limit.
      session: Name of the cluster's session; empty if it is not known.
      max_jobs: Number of jobs after which the worker is spent; None for no limit.
      max_growth_gib: Growth since the start at which the worker is spent; None for no limit.
    """

    shape: Mapping[str, float]
    timeout_s: float | None = None
    memory_limit_gib: float | None = None
    session: str = ""
    max_jobs: int | None = None
    max_growth_gib: float | None = None


class Ran(NamedTuple):
    """The results of a batch, and why its worker does no more: empty if it goes on."""

    results: list[JobResult]
    spent: str = ""


class Doing(NamedTuple):
    """The job that a worker is running and for how many seconds, or none."""

    job: int | None
    spent_s: float


@final
class Host:
    """The class of the actor; `ray_pool` wraps it."""

    def __init__(self, name: str, conditions: Conditions):
        """Set up without a worker; `start` makes it.

        Args:
          name: Name of this worker in the pool.
          conditions: Limits, resources and session.
        """
        self._name = name
        self._conditions = conditions
        self._worker: Worker | None = None
        self._job: Job | None = None
        self._since = 0.0
        self._forgotten: dict[int, None] = {}
        self._ending = threading.Event()
        self._last_words = ""
        self._num_jobs = self._start_bytes = 0
        if conditions.memory_limit_gib is not None:
            limit = int(conditions.memory_limit_gib * 2**30)
            threading.Thread(target=self._watch_memory, args=(limit,), daemon=True).start()

    def __repr__(self) -> str:
        return self._name  # Ray puts this before every line that the process prints.

    def where(self) -> Place:
        """Return the host and id of this process."""
        return Place(ray.get_runtime_context().get_node_id(), socket.gethostname(), os.getpid())

    def start(self, factory: WorkerFactory) -> float:
        """Make the worker and warm it up; return the seconds that it took."""
        began = time.perf_counter()
        devices.prepare_worker(self._conditions.shape)
        session = self._conditions.session
        if session:
            # A new worker need not compile again what an earlier one of its node has compiled.
            try:
                compiling.keep_compiled_for(session)
            except errors.TaskError as error:
                LOGGER.error("%s: nothing compiled is kept: %s", self._name, error)
        self._worker = factory()
        if isinstance(self._worker, WarmWorker):
            # Those that start together would all compile the same at once.
            with compiling.once_a_node(session):
                self._worker.warm_up()
        self._start_bytes = resident_bytes()
        return time.perf_counter() - began

    def run(self, batch_id: int, jobs: Sequence[Job]) -> Ran:
        """Run jobs in order, until this worker is spent; none if the batch was forgotten."""
        results: list[JobResult] = []
        if self._forgotten.pop(batch_id, self) is None or self._worker is None:
            return Ran(results)
        timeout_s = self._conditions.timeout_s
        for job in jobs:
            if spent := self.spent():
                return Ran(results, spent)
            self._since, self._job = time.monotonic(), job
            result = run_job(self._worker, job, timeout_s=timeout_s, name=self._name)
            self._job = None
            if result.status is not JobStatus.OK:
                LOGGER.warning("%s: %s: %s: %s", self._name, job.label, *_failure(result))
            results.append(result)
            self._num_jobs += 1
        return Ran(results, self.spent())

    def spent(self) -> str:
        """Return why a new process should take this one's place; empty if none should."""
        limits = self._conditions
        if limits.max_jobs is not None and self._num_jobs >= limits.max_jobs:
            return f"after {self._num_jobs} jobs"
        if limits.max_growth_gib is not None and self._num_jobs:
            grown_gib = (resident_bytes() - self._start_bytes) / 2**30
            if grown_gib >= limits.max_growth_gib:
                return f"its memory grew by {grown_gib:.2f} GiB in {self._num_jobs} jobs"
        return ""

    @ray.method(concurrency_group="control")
    def doing(self) -> Doing:
        """Return the present job; answered beside `run`."""
        job, since = self._job, self._since
        return Doing(None, 0.0) if job is None else Doing(job.id, time.monotonic() - since)

    @ray.method(concurrency_group="control")
    def forget(self, batch_id: int) -> None:
        """Cancel a batch that is waiting here; answered beside `run`."""
        self._forgotten[batch_id] = None
        while len(self._forgotten) > MAX_FORGOTTEN:  # Those that had begun already.
            del self._forgotten[next(iter(self._forgotten))]

    @ray.method(concurrency_group="watch")
    def last_words(self) -> str:
        """Return the reason when this process has to end itself; answered beside `run`."""
        self._ending.wait()
        return self._last_words

    def _watch_memory(self, limit: int) -> None:
        while (used := resident_bytes()) <= limit:
            time.sleep(MEMORY_CHECK_S)
        self._last_words = (
            f"it held {used / 2**30:.2f} GiB; pool.ray.memory_limit_gib is {limit / 2**30:.2f}"
        )
        LOGGER.error("%s: %s: %s", self._name, self._job and self._job.label, self._last_words)
        self._ending.set()
        time.sleep(LAST_WORDS_S)
        _END_PROCESS(137)  # As by the system's own memory killer.


def resident_bytes() -> int:
    """Return the memory that this process holds; if the system does not say, the most it held."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return pages * resource.getpagesize()


def _failure(result: JobResult) -> tuple[str, str]:
    return result.status.value, result.message.split("\n", 1)[0]
