"""The pool's back end on Ray: workers as actors, on this machine or on a cluster.

Ray starts processes, carries payloads and reports deaths. `dispatch.Dispatcher` decides what
follows: Ray's own retries are off, since they know neither time limits nor the causes of deaths.
Each worker is an actor in a process of its own that keeps its compiled loops; it is never restarted
but replaced by another, under a new name.

Completed calls arrive by callback in a queue, so the cost of a result does not grow with the number
of workers.
"""

import dataclasses
import functools
import queue
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, final

from veldt.tasks.pool import dispatch, ray_cluster, ray_metrics
from veldt.tasks.pool.base import (
    POLL_S,
    EventKind,
    Job,
    JobResult,
    Pool,
    PoolError,
    PoolEvent,
    PoolStats,
    WorkerFactory,
)
from veldt.tasks.pool.config import PoolConfig

if TYPE_CHECKING:
    from veldt.tasks.pool import ray_host

# Time for a worker to say what it is doing; after that it counts as stuck.
PROBE_S: Final = 5.0
# Every worker is asked this often, and replaced if it has not answered for so long: without a limit
# of time, one that is stuck as a whole would hold its job for ever.
ASK_S: Final = 30.0
STUCK_S: Final = 300.0
# Time for a worker to be made and warmed up, from the start of its process.
START_S: Final = 900.0
TEND_S: Final = 0.1
METRICS_S: Final = 2.0
GROW_S: Final = 10.0
NO_ROOM_S: Final = 30.0
MAX_FAILED_STARTS: Final = 3
MAX_BACKOFF_S: Final = 30.0
NUM_PINGS: Final = 10
PING_S: Final = 1.0  # Longest wait for an answer, in which nothing else of the pool goes on.
MAX_REASON_CHARS: Final = 300
GOLDEN_RATIO: Final = 0.618  # Its multiples are spread evenly over [0, 1).


@dataclasses.dataclass(slots=True)
class _Slot:
    """One actor, from its request to its end."""

    actor: Any
    since: float
    place: "ray_host.Place | None" = None
    ready: bool = False
    ran: bool = False
    probed: float | None = None  # By a question since its job is overdue.
    heard: float = 0.0  # From its place on, by regular questions.
    asked: float | None = None


@final
class RayPool(Pool):
    """Actors behind one queue; see `Pool` for the guarantees and `dispatch` for what faults do."""

    def __init__(self, factory: WorkerFactory, config: PoolConfig):
        """Connect, and ask for the workers; the first jobs wait for them.

        Args:
          factory: Function that makes a worker, called once in each worker's process. Picklable.
          config: Config of the pool; `config.ray` gives the cluster and each worker's resources.

        Raises:
          PoolError: The cluster cannot be reached, or can never run a single worker.
        """
        self._config = config
        self._cluster = ray_cluster.connect(config)
        try:
            import ray

            from veldt.tasks.pool import ray_host

            self._shape = self._cluster.shape()
            self._conditions = ray_host.Conditions(
                self._shape,
                config.timeout_s,
                config.ray.memory_limit_gib,
                self._cluster.session,
                config.ray.max_jobs,
                config.ray.max_growth_gib,
            )
            fitting = self._cluster.max_workers()
            if fitting < 1 and (self._cluster.local or config.num_workers is None):
                raise PoolError(_no_room(self._shape))
            self._num_workers = config.num_workers or fitting
            self._factory = ray.put(factory)
            self._actor_class = _actor_class(self._shape)
        except BaseException:
            self._cluster.close()
            raise
        self._dispatcher = dispatch.Dispatcher(
            dispatch.Policy(config.timeout_s, config.max_tries, config.straggler_factor)
        )
        self._metrics = ray_metrics.Metrics()
        self._slots: dict[str, _Slot] = {}
        # Functions to call here for events elsewhere.
        self._news: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._num_started = 0
        self._failed_starts = 0
        self._start_after = 0.0
        self._tended = self._grown = self._roomed = self._metered = time.monotonic()
        self._closed = False
        self._fill()

    @property
    def num_workers(self) -> int:
        return self._num_workers

    @property
    def capacity(self) -> int:
        return max(self._num_workers, self._dispatcher.capacity)

    @property
    def in_flight(self) -> int:
        return self._dispatcher.in_flight

    def submit(self, job: Job) -> None:
        if self._closed:
            raise PoolError(f"job {job.id} was submitted to a closed pool")
        self._dispatcher.submit(job)
        self._send()

    def next_result(self, timeout_s: float | None = None) -> JobResult:
        if self._closed:
            raise PoolError("a closed pool has no results")
        if not self.in_flight:
            raise PoolError("no job is in flight, so no result will come")
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._hear(0.0)
        while (result := self._dispatcher.pop_result()) is None:
            wait_s = POLL_S if deadline is None else min(POLL_S, deadline - time.monotonic())
            if wait_s <= 0 and deadline is not None:
                raise TimeoutError(f"no job completed within {timeout_s} s")
            self._hear(wait_s)
        return result

    def stats(self) -> PoolStats:
        return self._dispatcher.stats("ray", self._num_workers)

    def take_events(self) -> list[PoolEvent]:
        return self._dispatcher.ledger.take_events()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for name in list(self._slots):
            self._end(name)
        self._dispatcher.close()
        self._metrics.update(self.stats())
        self._cluster.close()

    # ------------------------------------------------------------------ events

    def _hear(self, wait_s: float) -> None:
        """Process the events so far, after a short wait for one; then act on them."""
        try:
            self._news.get(timeout=wait_s)() if wait_s > 0 else self._news.get_nowait()()
            while True:
                self._news.get_nowait()()
        except queue.Empty:
            pass
        if time.monotonic() - self._tended >= TEND_S:
            self._tend()
            self._tended = time.monotonic()
        self._send()

    def _call(self, ref: Any, then: Callable[..., None], *args: object) -> None:
        """Make `_hear` run `then(*args, value, error)` once a call is done."""

        def done(future: Any) -> None:
            error = future.exception()
            value = None if error is not None else future.result()
            self._news.put(functools.partial(then, *args, value, error))

        ref.future().add_done_callback(done)

    def _placed(self, name: str, place: "ray_host.Place | None", error: Exception | None) -> None:
        slot = self._slots.get(name)
        if slot is None:
            return
        if place is None:
            self._start_failed(name, error)
            return
        slot.place, slot.since = place, time.monotonic()
        slot.heard = slot.since
        self._call(slot.actor.start.remote(self._factory), self._started, name)

    def _started(self, name: str, took_s: float | None, error: Exception | None) -> None:
        slot = self._slots.get(name)
        if slot is None:
            return
        if took_s is None:
            self._start_failed(name, error)
            return
        slot.ready = True
        if not self._dispatcher.overhead_s:
            self._dispatcher.overhead_s = _round_trip_s(slot.actor)
        self._dispatcher.add_worker(name, str(slot.place), took_s)

    def _start_failed(self, name: str, error: Exception | None) -> None:
        slot = self._slots[name]
        cause, reason = self._cause(slot, error)
        self._end(name)
        self._note(EventKind.WORKER_LOST, name, f"while it was made: {reason}")
        if cause is not dispatch.Cause.PLACE:
            self._count_failed_start(reason)

    def _count_failed_start(self, reason: str) -> None:
        """Record that a worker could not start; raise an error where none can."""
        self._failed_starts += 1
        if self._failed_starts >= MAX_FAILED_STARTS and not self._dispatcher.num_workers:
            raise PoolError(f"no worker can be made: {reason}{self._limit_remark(reason)}")
        # A node that fails at once must not be tried in a tight loop.
        wait_s = min(2.0 ** (self._failed_starts - 1), MAX_BACKOFF_S)
        self._start_after = time.monotonic() + wait_s

    def _limit_remark(self, reason: str) -> str:
        """Return a hint at the memory limit, if a worker may have died of it without a message."""
        limit = self._config.ray.memory_limit_gib
        name = "pool.ray.memory_limit_gib"
        if limit is None or name in reason:
            return ""
        return f" ({name} is {limit:g}, which may be less than a worker needs to start)"

    def _ran(
        self, name: str, batch_id: int, ran: "ray_host.Ran | None", error: Exception | None
    ) -> None:
        import ray

        if ran is not None:
            self._failed_starts = 0
            if name in self._slots:
                self._slots[name].ran = True
            self._dispatcher.returned(batch_id, ran.results)
            if ran.spent and name in self._slots:
                self._end(name)
                self._dispatcher.retired(name, ran.spent)
        elif isinstance(error, ray.exceptions.RayError) and not isinstance(
            error, ray.exceptions.RayTaskError
        ):
            self._lose(name, *self._cause(self._slots.get(name), error))
        else:  # The payload or the result cannot be pickled.
            self._dispatcher.failed(batch_id, _one_line(error))

    def _answered(self, name: str, doing: "ray_host.Doing | None", error: Exception | None) -> None:
        """Record the answer of an overdue worker: the job that it is running."""
        slot = self._slots.get(name)
        if slot is None or doing is None:  # If it died, the result of its batch shows it.
            return
        slot.probed = None
        batch, limit_s = self._dispatcher.running(name), self._config.timeout_s
        if batch is None:
            return
        on_it = any(job.id == doing.job for job in batch.jobs)
        if on_it and limit_s is not None and doing.spent_s <= limit_s:
            self._dispatcher.excuse(name, limit_s - doing.spent_s)
        elif on_it:
            self._lose(name, dispatch.Cause.TIMEOUT, "a job ran over the limit", guilty=doing.job)
        else:  # Between jobs, or its answer is under way.
            self._dispatcher.excuse(name, PROBE_S)

    def _spoke(self, name: str, words: str | None, error: Exception | None) -> None:
        """Record the end of a worker, at once, also where it had no work."""
        slot = self._slots.get(name)
        if slot is None:
            return
        if words is not None and not slot.ready:
            self._start_failed(name, MemoryError(words))
        elif words is not None:
            self._lose(name, dispatch.Cause.DIED, words)
        elif slot.ready:  # Else the result of its start shows it.
            self._lose(name, *self._cause(slot, error))

    # ------------------------------------------------------------------ actions

    def _send(self) -> None:
        for batch in self._dispatcher.assign():
            slot = self._slots[batch.worker]
            try:
                ref = slot.actor.run.remote(batch.id, batch.jobs)
            except Exception as error:  # A payload that cannot be pickled.
                self._dispatcher.failed(batch.id, _one_line(error))
            else:
                self._call(ref, self._ran, batch.worker, batch.id)

    def _tend(self) -> None:
        """Do what is needed from time to time: limits, stragglers, the cluster, new workers."""
        if news := self._cluster.check_head():
            self._note(EventKind.POOL, "", news)
        if self._cluster.head_is_away:
            return  # Ray's calls would wait for it.
        now = time.monotonic()
        for name in self._dispatcher.overdue():
            slot = self._slots[name]
            if slot.probed is None:
                slot.probed = now
                self._call(slot.actor.doing.remote(), self._answered, name)
            elif now - slot.probed > PROBE_S:
                self._lose(name, dispatch.Cause.SILENT, f"for {PROBE_S:.0f} s")
        for name, slot in list(self._slots.items()):
            if slot.place is not None and not slot.ready and now - slot.since > START_S:
                self._start_failed(name, TimeoutError(f"not ready within {START_S:.0f} s"))
            elif slot.place is not None:
                self._ask(name, slot, now)
        for batch in self._dispatcher.rebalance():
            self._slots[batch.worker].actor.forget.remote(batch.id)
        self._grow(now)
        self._fill()
        if now - self._metered >= METRICS_S:
            self._metered = now
            self._metrics.update(self.stats())

    def _ask(self, name: str, slot: _Slot, now: float) -> None:
        """Ask a worker from time to time, and replace one that does not answer."""
        if slot.asked is None:
            if now - slot.heard >= ASK_S:
                slot.asked = now
                self._call(slot.actor.doing.remote(), self._heard, name)
        elif now - slot.asked > STUCK_S:
            if slot.ready:
                self._lose(name, dispatch.Cause.SILENT, f"for {STUCK_S:.0f} s")
            else:
                self._start_failed(name, TimeoutError(f"no answer for {STUCK_S:.0f} s"))

    def _heard(self, name: str, doing: "ray_host.Doing | None", error: Exception | None) -> None:
        """Record the answer of a worker, or nothing if it died: other calls show that."""
        slot = self._slots.get(name)
        if slot is not None and doing is not None:
            slot.asked, slot.heard = None, time.monotonic()

    def _grow(self, now: float) -> None:
        """Adjust the number of workers to the size of the cluster, where that decides it."""
        if now - self._grown < GROW_S:
            return
        self._grown = now
        if self._config.num_workers is None:
            placed = {name for name, slot in self._slots.items() if slot.place is not None}
            self._num_workers = max(self._cluster.max_workers(), len(placed), 1)
            for name in sorted(self._slots.keys() - placed)[self._num_workers - len(placed) :]:
                self._end(name)
        if any(slot.place is not None for slot in self._slots.values()):
            self._roomed = now  # Some have a place, though they may still be compiling.
        elif now - self._roomed > NO_ROOM_S:
            self._roomed = now
            self._note(EventKind.POOL, "", f"no worker yet. {_no_room(self._shape)}")

    def _fill(self) -> None:
        """Ask for as many workers as are missing."""
        if time.monotonic() < self._start_after:
            return
        while len(self._slots) < self._num_workers:
            number = self._num_started
            name = f"worker-{number}"
            self._num_started += 1
            conditions = self._conditions._replace(max_jobs=_staggered(self._config, number))
            actor = self._actor_class.remote(name, conditions)
            self._slots[name] = _Slot(actor, time.monotonic())
            self._call(actor.where.remote(), self._placed, name)
            self._call(actor.last_words.remote(), self._spoke, name)

    def _lose(
        self, name: str, cause: dispatch.Cause, reason: str, *, guilty: int | None = None
    ) -> None:
        if name not in self._slots:
            return
        idle_since_start = not self._slots[name].ran and self._dispatcher.running(name) is None
        self._end(name)
        self._dispatcher.lost(name, cause, reason, guilty=guilty)
        if idle_since_start and cause.blames:  # No job can be to blame.
            self._count_failed_start(reason)

    def _end(self, name: str) -> None:
        """End an actor, whatever state it is in, and forget it."""
        import ray

        slot = self._slots.pop(name)
        if not self._cluster.head_is_away:
            ray.kill(slot.actor)

    def _cause(self, slot: _Slot | None, error: Exception | None) -> tuple[dispatch.Cause, str]:
        """Return the cause of a death, as far as Ray and the list of nodes show it."""
        import ray

        reason = _one_line(error)
        if isinstance(error, MemoryError):  # The reason that it gave.
            return dispatch.Cause.DIED, str(error)
        if isinstance(error, ray.exceptions.RayTaskError | TimeoutError):  # The job's exception.
            return dispatch.Cause.DIED, reason
        if not isinstance(error, ray.exceptions.ActorDiedError):  # Out of reach, results lost.
            return dispatch.Cause.PLACE, reason
        if error.preempted:
            return dispatch.Cause.PLACE, "pre-empted"
        if "because its node has died" in str(error):
            return dispatch.Cause.PLACE, "its node died"
        if (
            slot is not None
            and slot.place is not None
            and not self._cluster.has_node(slot.place.node)
        ):
            return dispatch.Cause.PLACE, f"{slot.place.host} is no more"
        return dispatch.Cause.DIED, reason

    def _note(self, kind: EventKind, worker: str, message: str) -> None:
        self._dispatcher.ledger.note(kind, worker, message=message)


def _actor_class(shape: dict[str, float]) -> Any:
    import ray

    from veldt.tasks.pool import ray_host

    options: dict[str, Any] = {
        "num_cpus": shape.get("CPU", 0),
        "num_gpus": shape.get("GPU", 0),
        "resources": {k: amount for k, amount in shape.items() if k not in ("CPU", "GPU")},
        "max_restarts": 0,
        "max_task_retries": 0,
        "scheduling_strategy": "SPREAD",
        "concurrency_groups": {"control": 1, "watch": 1},
    }
    return ray.remote(**options)(ray_host.Host)


def _staggered(config: PoolConfig, number: int) -> int | None:
    """Return the limit of jobs of a worker: at most a quarter below the config's.

    Workers that started together would all be made anew at the same time.
    """
    limit = config.ray.max_jobs
    if limit is None:
        return None
    return limit - int(0.25 * limit * (number * GOLDEN_RATIO % 1.0))


def _round_trip_s(actor: Any) -> float:
    """Return the cost of a call, by calls that do nothing; the least, since others are starting.

    It is 0, not known, where the worker is lost or out of reach meanwhile.
    """
    import ray

    times = []
    for _ in range(NUM_PINGS):
        began = time.perf_counter()
        try:
            ray.get(actor.run.remote(-1, ()), timeout=PING_S)
        except ray.exceptions.RayError:  # What has happened to it comes as news of its own.
            break
        times.append(time.perf_counter() - began)
    return min(times, default=0.0)


def _no_room(shape: dict[str, float]) -> str:
    import ray

    has = ", ".join(
        f"{name} {amount:g}"
        for name, amount in sorted(ray.cluster_resources().items())
        if not name.startswith(("node:", "memory", "object_store_memory"))
    )
    wants = ", ".join(f"{name} {amount:g}" for name, amount in shape.items())
    return f"The Ray cluster has no node with room for a worker: each wants {wants}; it has {has}"


def _one_line(error: BaseException | None) -> str:
    """Return an error on one line, without the ids and addresses that Ray adds."""
    error = getattr(error, "cause", error)  # The original exception.
    text = str(error).strip()
    if (said := re.search(r"Worker exit detail: (.*?)( Some common|$)", text)) is not None:
        return said[1][:MAX_REASON_CHARS]
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:MAX_REASON_CHARS]}"
