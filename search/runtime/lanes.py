"""Lanes: a population per call. Calls from many threads become one call of a vmapped function.

On an accelerator one small proxy task leaves the device idle, and the cost of a training step is
that of launching it. So candidates and seeds are trained side by side: the inline pool runs a job
in each of its threads, and all threads share the proxies' loops (`evaluator.py`). Where several
threads ask for the same thing at about the same time, `Coalescer` passes their arguments to one
compiled call, one lane for each. A lane holds a whole training run: program, learning rate, seed
and state; only the task is common to all.

A batch always has the same number of lanes: one program is compiled, and the arithmetic of a lane
is the same whatever the others hold. Where fewer callers come, the first one's arguments fill the
rest, so that a call costs as much as a full one. A run's report agrees with that of the run by
itself to float rounding and no further: matrix products of many lanes are summed in another order.
That it does not depend on the lane either, to the last bit, is tested on the CPU and assumed
elsewhere: a search repeats itself only where that holds. Seconds recorded for a run or a job are
those of the calls that it shared, and of waiting for them.

Runs stay on the device, stacked as they came from their last call; only the reports come to the
host, in one transfer. Where all runs that go on come from one call, nothing is copied. Else they
are gathered: one pass over a stack for each call that they come from. A stack is mostly register
files (lanes x rows x parameters x 4 bytes; 158 MB for 256 lanes of 2,410 parameters) and lives
until its last lane has gone on, so a few of them are there at once.

Candidates leave at different checks, and proxies have loops of their own: of threads that work on P
proxies, about one in P waits at each. More threads than lanes keep lanes full.
"""

import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar, final

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from veldt.search.runtime import lane_interpreter
from veldt.search.runtime.encode import Capacity, Encoded
from veldt.tasks.common import compiling

CallT = TypeVar("CallT")
ResultT = TypeVar("ResultT")

# Time that a batch that is not full waits for one more caller. Threads that come from the same
# batch arrive within it, unless one of them has a new candidate to encode, which takes about as
# long.
PATIENCE_S: Final = 0.005

_Function: TypeAlias = Callable[..., Any]


class _Runs(NamedTuple):
    """Training runs, one a lane: all leaves are [lanes, ...], on the device."""

    encoded: Encoded
    rate: jax.Array
    state: Any


class _Lane(NamedTuple):
    """One of several runs; other modules use it as the state of a run."""

    runs: _Runs
    place: int


class _Batch(Generic[CallT, ResultT]):
    """Calls that are answered together."""

    def __init__(self) -> None:
        self.calls: list[CallT] = []
        self.closed = threading.Event()  # No more callers.
        self.done = threading.Event()
        self.results: Sequence[ResultT] = ()
        self.error: BaseException | None = None


@final
class Coalescer(Generic[CallT, ResultT]):
    """A function of one call, which answers calls of several threads by one call of another.

    The first caller of a batch leads it: it waits until the batch is full, or until no batch is
    being computed and no caller has come for a while, and then computes it. The others wait for
    that. So no caller waits for a thread that has left.
    """

    def __init__(
        self,
        function: Callable[[Sequence[CallT]], Sequence[ResultT]],
        lanes: int,
        *,
        patience_s: float = PATIENCE_S,
    ):
        """Set up the function; nothing runs until it is called.

        Args:
          function: Function that answers exactly `lanes` calls, in their order; called in one of
            the callers' threads, and at times in two at once.
          lanes: Number of calls answered at once.
          patience_s: Seconds after the last arrival, or after the last batch ended, for which an
            incomplete batch waits.
        """
        if lanes < 1:
            raise ValueError(f"lanes is {lanes}; it must be at least 1")
        self._function = function
        self._lanes = lanes
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._forming: _Batch[CallT, ResultT] | None = None
        self._num_running = 0
        self._changed = 0.0  # Time when a caller came or a batch ended last.

    def __call__(self, call: CallT) -> ResultT:
        """Answer one call; blocks until its batch is answered.

        Raises:
          BaseException: The function raised it; it is raised in all callers of the batch.
        """
        with self._lock:
            leads = self._forming is None
            batch = self._forming = self._forming or _Batch()
            lane = len(batch.calls)
            batch.calls.append(call)
            self._changed = time.monotonic()
            if len(batch.calls) == self._lanes:
                self._close(batch)
        if leads:
            self._lead(batch)
        else:
            batch.done.wait()
        if batch.error is not None:
            raise batch.error
        return batch.results[lane]

    def _lead(self, batch: _Batch[CallT, ResultT]) -> None:
        try:
            while not batch.closed.wait(self._patience_s):
                with self._lock:
                    quiet_s = time.monotonic() - self._changed
                    if not self._num_running and quiet_s >= self._patience_s:
                        self._close(batch)
            batch.results = self._compute(batch.calls)
        except BaseException as error:
            # Any exception counts, Ctrl-C while waiting as well: the others would wait for ever.
            batch.error = error
            with self._lock:
                self._close(batch)
        finally:
            batch.done.set()

    def _close(self, batch: _Batch[CallT, ResultT]) -> None:
        if self._forming is batch:
            self._forming = None
        batch.closed.set()

    def _compute(self, calls: Sequence[CallT]) -> Sequence[ResultT]:
        with self._lock:
            self._num_running += 1
        try:
            return self._function([*calls, *[calls[0]] * (self._lanes - len(calls))])
        finally:
            with self._lock:
                self._num_running -= 1
                self._changed = time.monotonic()


def compile_loop(
    start: _Function,
    advance: _Function,
    task: Any,
    example: tuple[Any, Any, Any],
    *,
    lanes: int,
    capacity: Capacity,
) -> tuple[_Function, _Function]:
    """Compile a training loop for many lanes; return functions of one lane for many threads.

    Args:
      start: Function `start(task, (encoded, together), rate, seed) -> state` of one lane, where
        `together` is what `lane_interpreter.interpret` needs to know of all lanes.
      advance: Function `advance(task, (encoded, together), rate, state) -> (state, report)` of one
        lane.
      task: Task, common to all lanes.
      example: Encoded program, learning rate and seed: only shapes and dtypes count.
      lanes: Number of runs that a call advances.
      capacity: Capacity of the encoding.

    Returns:
      Functions `start(encoded, rate, seed) -> state` and `advance(encoded, rate, state) -> (state,
      report)`, where a report is a NumPy array.
    """

    def each(function: _Function, task: Any, encoded: Any, rate: Any, last: Any) -> Any:
        together = lane_interpreter.together(encoded, capacity)

        def one(encoded: Any, rate: Any, last: Any) -> Any:
            return function(task, (encoded, together), rate, last)

        return jax.vmap(one)(encoded, rate, last)

    options = compiling.options()
    stacked = _stack([example] * lanes)
    begin = jax.jit(functools.partial(each, start))
    started = begin.lower(task, *stacked).compile(options)
    states = jax.eval_shape(begin, task, *stacked)
    # No buffers are donated: other lanes of the same stack may still have to go on.
    go_on = jax.jit(functools.partial(each, advance))
    advanced = go_on.lower(task, *stacked[:2], states).compile(options)

    def start_all(calls: Sequence[tuple[Any, Any, Any]]) -> list[_Lane]:
        encoded, rate, seed = jax.device_put(_stack(calls))
        runs = _Runs(encoded, rate, started(task, encoded, rate, seed))
        return [_Lane(runs, place) for place in range(lanes)]

    def advance_all(calls: Sequence[_Lane]) -> list[tuple[_Lane, NDArray]]:
        runs, places = _gather(calls)
        states, reports = advanced(task, *runs)
        runs, reports = runs._replace(state=states), np.asarray(reports)
        return [(_Lane(runs, place), reports[place]) for place in places]

    start_one = Coalescer(start_all, lanes)
    advance_one = Coalescer(advance_all, lanes)
    # A lane knows the program and the learning rate of its run.
    return lambda *call: start_one(call), lambda encoded, rate, lane: advance_one(lane)


def _stack(trees: Sequence[Any]) -> Any:
    """Return trees of equal shapes as one, with leaves that are NumPy arrays [trees, ...]."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _gather(lanes: Sequence[_Lane]) -> tuple[_Runs, Sequence[int]]:
    """Return runs that hold those in these lanes, and the place of each of them there."""
    runs = lanes[0].runs
    if all(lane.runs is runs for lane in lanes):
        # Runs that have left are advanced too; their results are ignored.
        return runs, [lane.place for lane in lanes]
    for source in {id(lane.runs): lane.runs for lane in lanes}.values():
        places = [lane.place if lane.runs is source else -1 for lane in lanes]
        runs = _take(runs, source, np.array(places, np.int32))
    return runs, range(len(lanes))


@jax.jit
def _take(runs: _Runs, source: _Runs, places: jax.Array) -> _Runs:
    """Return `runs` with those of `source` at `places` [lanes], unchanged where that is -1."""

    def one(place: jax.Array, run: _Runs) -> _Runs:
        return jax.tree.map(lambda new, old: jnp.where(place < 0, old, new[place]), source, run)

    return jax.vmap(one)(places, runs)
