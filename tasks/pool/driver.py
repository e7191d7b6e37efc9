"""Waiting for a pool's results in an order that timing cannot change; ask/tell above that.

All engines wait for results by `PoolJobs`: one by one as they are needed, or as they come.
`OrderedDriver` is ask/tell on top of it: the same run with any timing and number of workers.

An engine proposes (`ask`) and learns (`tell`). With several workers, results come back in an order
that depends on the machine, so an engine that learnt from them as they come could never repeat a
run. `OrderedDriver` fixes the order of all calls beforehand. Proposals are numbered 0, 1, 2, ...
With a window of 3 the calls are, always,

    ask 0, ask 1, ask 2, tell 0, ask 3, tell 1, ask 4, tell 2, ...

so proposal `i` knows the results up to `i - window` and no other, and a result that arrives
early waits for its turn. Workers stay busy while `window` is some multiple of their number: the
window is part of an experiment's definition, the number of workers is not.

Where an engine has proposals prepared beside it, a few asks may lag behind (`lag`): results that
are there are told first. Tells stay in order, and so do asks; a lagging `ask` finds an engine that
knows more than it may use, as after a session that was killed.

A third kind of call is for *side work*: jobs that a `tell` begins beside the proposals, such as a
comparison of the best with a challenger. With them comes the number of the proposal before which
their results are due. The jobs run among all others, asking and telling go on, and right before
that proposal is told the engine gets all results at once (`settle`), which may begin further side
work. So when they are learnt depends on what was recorded and not on timing: with work of proposal
0 that is due before proposal 2,

    ask 0, ask 1, ask 2, tell 0, ask 3, tell 1, ask 4, settle, tell 2, ...

Once all proposals are told, the side work that is left is settled in the order in which it is due.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeAlias, final

from veldt.tasks.common import stopping
from veldt.tasks.pool import base

WAIT_S = 0.05  # Seconds until a proposal that was not there yet is asked for again.
WATCH_S = 0.5  # Seconds between calls of `watch` while a result is awaited.
MAX_STRETCH = 64  # Asks and tells that are made without looking for further results.


@final
@dataclasses.dataclass(frozen=True, slots=True)
class NamedJob:
    """Work for a worker: of a proposal, or an extra job.

    Attributes:
      payload: Argument of the worker.
      label: Description for people, in logs and events.
    """

    payload: object
    label: str = ""


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Ready:
    """A proposal whose result is known without a worker: a cache hit, an invalid program.

    It takes its place in the order like any other.
    """

    value: object


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Stop:
    """The end of proposals: no more are asked for, and the results of those in flight are told."""


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Wait:
    """No proposal yet, since it needs something that comes from elsewhere: ask for it again soon.

    Nothing is told meanwhile, so what a proposal knows does not depend on how long it took.
    """


Proposal: TypeAlias = NamedJob | Ready | Stop | Wait


@final
@dataclasses.dataclass(frozen=True, slots=True)
class SideWork:
    """Jobs beside the proposals, whose results are learnt together at a fixed moment.

    Attributes:
      id: Name among the side work of the engine.
      jobs: Jobs, in the order in which their results are given.
      due: Number of the proposal before which the results are learnt. What is due before the same
        proposal is settled in the order of `id`.
    """

    id: int
    jobs: tuple[NamedJob, ...]
    due: int


class AskFn(Protocol):
    """Proposes."""

    def __call__(self, index: int, /) -> Proposal:
        """Return proposal `index`, knowing the results told so far."""
        ...


class TellFn(Protocol):
    """Learns."""

    def __call__(self, index: int, outcome: base.JobResult | Ready, /) -> Sequence[SideWork] | None:
        """Learn the result of proposal `index`: that of its job, or the `Ready` it was.

        Returns:
          The side work that it begins, if any.
        """
        ...


class SettleFn(Protocol):
    """Learns what side work has found."""

    def __call__(
        self, work: int, results: Sequence[base.JobResult], /
    ) -> Sequence[SideWork] | None:
        """Learn the results of side work, in the order of its jobs.

        Returns:
          The side work that it begins, if any.
        """
        ...


@final
class PoolJobs:
    """Jobs given to one pool, and their results, in whatever order they are needed.

    Jobs are numbered from 0 in the order in which they were submitted. A result that arrives before
    it is asked for is kept.
    """

    def __init__(
        self, pool: base.Pool, *, arrived: Callable[[base.JobResult], None] = lambda result: None
    ):
        """Submit jobs to `pool`, which no one else may use meanwhile.

        Args:
          pool: Pool that runs the jobs.
          arrived: Function that gets each result as it comes; an exception of it passes through.
        """
        self._pool = pool
        self._arrived = arrived
        self._num_submitted = 0
        self._results: dict[int, base.JobResult] = {}  # By job, until they are taken.

    def submit(self, job: NamedJob) -> int:
        """Submit a job and return its number."""
        number = self._num_submitted
        self._num_submitted += 1
        self._pool.submit(base.Job(number, job.payload, job.label))
        return number

    def has(self, job: int) -> bool:
        """Return whether a job's result has arrived and was not taken yet."""
        return job in self._results

    def take(self, job: int, watch: Callable[[], None] = lambda: None) -> base.JobResult:
        """Wait for a job's result and return it; it is then forgotten here.

        Args:
          job: Number of the job.
          watch: Function that is called repeatedly while the result is awaited.
        """
        while job not in self._results:
            self.receive(watch)
        return self._results.pop(job)

    def receive(self, watch: Callable[[], None] = lambda: None) -> int:
        """Wait for any job's result, keep it, and return the job's number."""
        while True:
            try:
                result = self._pool.next_result(WATCH_S)
            except TimeoutError:
                watch()
                continue
            self._arrived(result)
            self._results[result.id] = result
            return result.id

    def tend(self, wait_s: float) -> None:
        """Let the pool work for a moment, and keep a result that arrives meanwhile."""
        if not self._pool.in_flight:
            time.sleep(wait_s)
            return
        with contextlib.suppress(TimeoutError):
            result = self._pool.next_result(wait_s)
            self._arrived(result)
            self._results[result.id] = result

    def receive_ready(self) -> None:
        """Keep the results that are there already, without waiting."""
        with contextlib.suppress(TimeoutError):
            while self._pool.in_flight:
                result = self._pool.next_result(0.0)
                self._arrived(result)
                self._results[result.id] = result

    def as_completed(self) -> Iterator[base.JobResult]:
        """Yield results as they come, until nothing is in flight."""
        while self._pool.in_flight:
            yield self._results.pop(self.receive())


@final
class OrderedDriver:
    """A driver of one engine through one pool, in an order that timing cannot change.

    Ctrl-C, or a signal like it (`stopping`), while a result is awaited raises `KeyboardInterrupt`
    at once. During an `ask`, `tell` or `settle` it is held back until that call returns, so no
    result is ever half processed; a second request is not held back. Either way `num_asked` and
    `num_told` say how far the engine got. The pool still belongs to the caller, who closes it.
    """

    def __init__(
        self,
        pool: base.Pool,
        *,
        window: int,
        start: int = 0,
        watch: Callable[[], None] = lambda: None,
        lag: int = 0,
    ):
        """Drive `pool`, which no one else may use meanwhile.

        Args:
          pool: Pool that runs the jobs.
          window: Number of proposals that may be asked and not yet told, at least 1.
          start: Number of the first proposal; a resumed run continues the numbers.
          watch: Function that is called repeatedly while a result is awaited, to show the pool and
            to keep a record of it. It changes nothing of the run.
          lag: Number of asks, below the window, that may wait while results are told that are there
            already. An engine whose `ask` depends on results up to `i - window` alone, whatever
            else it was told, can have proposals prepared meanwhile.
        """
        if window < 1:
            raise ValueError(f"window is {window}; it must be at least 1")
        self._pool = pool
        self._window = window
        self._watch = watch
        self._lag = lag
        self._num_asked = start
        self._num_told = start
        self._jobs = PoolJobs(pool)
        self._job_of: dict[int, int] = {}  # Proposal to its job, until it is told.
        self._ready: dict[int, Ready] = {}  # Proposal to its result, until it is told.
        self._work: dict[int, tuple[SideWork, list[int]]] = {}  # By id, with the jobs' numbers.

    @property
    def num_asked(self) -> int:
        """The number of the next proposal to ask for."""
        return self._num_asked

    @property
    def num_told(self) -> int:
        """The number of the next proposal to tell."""
        return self._num_told

    def run(
        self,
        ask: AskFn,
        tell: TellFn,
        settle: SettleFn | None = None,
        begun: Sequence[SideWork] = (),
        stretch: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        """Ask and tell until `ask` returns `Stop`, all results are told and all work is settled.

        Args:
          ask: Function that proposes; called with consecutive numbers.
          tell: Function that learns; called with the same numbers in order. It may use `run_now`.
          settle: Function that learns what side work has found; None where there is none.
          begun: Side work that an earlier session began and did not settle.
          stretch: Maker of a context for asks and tells that follow each other without waiting, a
            few dozen at most, such as one transaction; it is left before anything is awaited.

        Raises:
          KeyboardInterrupt: Ctrl-C; the class says what then holds.
          PoolError: The pool cannot go on.
        """
        asking = True
        self._begin(begun)
        while asking or self._num_told < self._num_asked:
            if not self._may_ask(asking):
                if self._settles_next():
                    self._settle(settle)
                    continue
                self._await_next()
            waits = False
            with stopping.hold() as held, stretch():
                for _ in range(MAX_STRETCH):
                    if self._may_ask(asking) and not (self._may_wait() and self._may_tell()):
                        before = self._num_asked
                        asking = self._ask(ask)
                        waits = asking and self._num_asked == before
                        if waits:
                            break
                    elif self._may_tell():
                        if self._tell(tell):
                            break
                    else:
                        break
                    if held:
                        break
            if waits:
                self._jobs.tend(WAIT_S)
                self._watch()
        while self._work:
            self._settle(settle)

    def run_now(self, jobs: Sequence[NamedJob]) -> Iterator[base.JobResult]:
        """Run extra jobs, a few at a time; for use inside `tell`, or outside `run`.

        No more of them than the pool's capacity are in flight at any time, however many there are.
        Jobs are handed out as the results are taken, so take them all. Results of proposals that
        arrive meanwhile are kept for their turn.

        Args:
          jobs: Jobs to run.

        Yields:
          One result per job, in their order, each as soon as it and those before it are there.
        """
        numbers: list[int] = []
        in_flight: set[int] = set()
        for position in range(len(jobs)):
            while True:
                while len(numbers) < len(jobs) and len(in_flight) < max(self._pool.capacity, 1):
                    numbers.append(self._jobs.submit(jobs[len(numbers)]))
                    in_flight.add(numbers[-1])
                if self._jobs.has(numbers[position]):
                    break
                in_flight.discard(self._jobs.receive(self._watch))
            yield self._jobs.take(numbers[position])

    def _ask(self, ask: AskFn) -> bool:
        index = self._num_asked
        match ask(index):
            case NamedJob() as job:
                self._job_of[index] = self._jobs.submit(job)
            case Ready() as ready:
                self._ready[index] = ready
            case Stop():
                return False
            case Wait():
                return True
            case other:
                raise TypeError(
                    f"ask({index}) returned {other!r}; expected NamedJob, Ready, Wait or Stop"
                )
        self._num_asked += 1
        return True

    def _may_ask(self, asking: bool) -> bool:
        return asking and self._num_asked - self._num_told < self._window

    def _may_wait(self) -> bool:
        """Return whether the next `ask` may wait for a `tell`."""
        return self._window - (self._num_asked - self._num_told) <= self._lag

    def _settles_next(self) -> bool:
        """Return whether side work is due before the next proposal is told."""
        return bool(self._work) and self._next_due() <= self._num_told < self._num_asked

    def _may_tell(self) -> bool:
        """Return whether the next call, where it is no `ask`, is a `tell` whose result is there."""
        if self._num_told == self._num_asked or self._settles_next():
            return False
        job = self._job_of.get(self._num_told)
        return job is None or self._jobs.has(job)

    def _await_next(self) -> None:
        """Wait for the result that is told next; keep what others are there."""
        job = self._job_of.get(self._num_told)
        while job is not None and not self._jobs.has(job):
            self._jobs.receive(self._watch)
        self._jobs.receive_ready()

    def _tell(self, tell: TellFn) -> bool:
        """Tell the next result; return whether side work has begun."""
        index = self._num_told
        outcome: base.JobResult | Ready
        if index in self._ready:
            outcome = self._ready.pop(index)
        else:
            outcome = self._jobs.take(self._job_of.pop(index))
        begun = tell(index, outcome)
        self._num_told += 1
        self._begin(begun)
        return bool(begun)

    def _begin(self, works: Sequence[SideWork] | None) -> None:
        """Submit the jobs of side work."""
        for work in works or ():
            if work.due < self._num_told or work.id in self._work:
                raise ValueError(
                    f"side work {work.id} is due before proposal {work.due}, which is told "
                    "already, or is under way"
                )
            self._work[work.id] = work, [self._jobs.submit(job) for job in work.jobs]

    def _next_due(self) -> int:
        """Return the number of the proposal before which the next side work is due."""
        return min(work.due for work, _ in self._work.values())

    def _settle(self, settle: SettleFn | None) -> None:
        """Wait for the side work that is due next, and settle it."""
        if settle is None:
            raise TypeError("side work has begun, and there is no function that settles it")
        _, work_id = min((work.due, work.id) for work, _ in self._work.values())
        for job in self._work[work_id][1]:
            while not self._jobs.has(job):
                self._jobs.receive(self._watch)
        with stopping.hold():
            results = [self._jobs.take(job) for job in self._work.pop(work_id)[1]]
            self._begin(settle(work_id, results))
