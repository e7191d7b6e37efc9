"""The ordered driver: one fixed order of asks and tells, whatever the workers do."""

import collections
import contextlib
import os
import random
import signal
import threading
import time

import hypothesis
import pytest
from hypothesis import strategies as st

from veldt.tasks.common import stopping
from veldt.tasks.pool import base, inline
from veldt.tasks.pool import driver as driver_lib


class Dawdler:
    """Takes as long as the payload says, so that results come out of order."""

    def __call__(self, payload):
        value, sleep_s = payload
        time.sleep(sleep_s)
        if value % 7 == 3:
            raise ValueError(f"bad {value}")
        return value * 10


class Engine:
    """Proposes from a state that every tell changes, so any change of order changes the run."""

    def __init__(self, seed, num_proposals, run_now=None):
        self.state = seed
        self.num_proposals = num_proposals
        self.run_now = run_now
        self.sleeps = random.Random(seed + 1)
        self.log = []

    def ask(self, index):
        self.log.append(("ask", index, self.state))
        if index >= self.num_proposals:
            return driver_lib.Stop()
        if self.state % 4 == 0:
            return driver_lib.Ready(self.state)
        return driver_lib.NamedJob((self.state % 1000, self.sleeps.random() * 2e-3))

    def tell(self, index, outcome):
        if isinstance(outcome, driver_lib.Ready):
            told = ("ready", outcome.value)
        else:
            told = (outcome.status.value, outcome.value, outcome.message.split("\n")[0])
        if self.run_now is not None and index % 3 == 0:
            payloads = [(self.state % 10 * 7, 1e-3), (7, 0.0)]
            extra = self.run_now([driver_lib.NamedJob(payload) for payload in payloads])
            told += tuple(r.value for r in extra)
        self.log.append(("tell", index, told))
        # Python's own hash of a tuple of strings is salted per process; this is not.
        self.state = (self.state * 31 + sum(map(ord, repr(told)))) % 100_003


def run(num_workers, window, seed, num_proposals, *, extra):
    with inline.InlinePool(Dawdler, num_workers) as pool:
        driver = driver_lib.OrderedDriver(pool, window=window)
        engine = Engine(seed, num_proposals, driver.run_now if extra else None)
        driver.run(engine.ask, engine.tell)
        assert (driver.num_asked, driver.num_told) == (num_proposals, num_proposals)
        assert pool.in_flight == 0
    return engine.log


@hypothesis.settings(max_examples=25)
@hypothesis.given(
    window=st.integers(1, 9),
    seed=st.integers(0, 10_000),
    num_proposals=st.integers(0, 25),
    extra=st.booleans(),
)
def test_the_run_does_not_depend_on_the_number_of_workers(window, seed, num_proposals, extra):
    alone = run(1, window, seed, num_proposals, extra=extra)
    assert run(2, window, seed, num_proposals, extra=extra) == alone
    assert run(5, window, seed, num_proposals, extra=extra) == alone
    told = [entry[1] for entry in alone if entry[0] == "tell"]
    assert told == list(range(num_proposals))


def test_the_interleaving_is_the_documented_one():
    log = [f"{verb} {index}" for verb, index, _ in run(2, 3, seed=5, num_proposals=5, extra=False)]
    assert log == [
        *("ask 0", "ask 1", "ask 2", "tell 0", "ask 3", "tell 1", "ask 4", "tell 2"),
        *("ask 5", "tell 3", "tell 4"),  # Proposal 5 was Stop.
    ]


def test_numbers_go_on_from_start():
    asked, told = [], []

    def ask(index):
        asked.append(index)
        return driver_lib.Stop() if index == 13 else driver_lib.NamedJob((index, 0.0))

    with inline.InlinePool(Dawdler) as pool:
        driver = driver_lib.OrderedDriver(pool, window=2, start=11)
        driver.run(ask, lambda index, outcome: told.append((index, outcome.value)))
    assert asked == [11, 12, 13]
    assert told == [(11, 110), (12, 120)]


def test_workers_are_kept_busy_beyond_a_slow_head():
    """While proposal 0 runs, the rest of the window is run by the other worker."""
    ran = collections.Counter()
    others_done = threading.Event()

    def worker(index):
        if index == 0:
            assert others_done.wait(timeout=30)
        ran[index] += 1
        if sum(ran.values()) == 7:
            others_done.set()

    told = []
    with inline.InlinePool(lambda: worker, 2) as pool:
        driver = driver_lib.OrderedDriver(pool, window=8)
        driver.run(
            lambda index: driver_lib.NamedJob(index) if index < 8 else driver_lib.Stop(),
            lambda index, outcome: told.append((index, outcome.status.value)),
        )
    assert told == [(i, "ok") for i in range(8)]
    assert ran == dict.fromkeys(range(8), 1)


def test_run_now_keeps_the_order_of_its_payloads():
    with inline.InlinePool(Dawdler, 4) as pool:
        driver = driver_lib.OrderedDriver(pool, window=1)
        payloads = [(i, 0.004 - i * 1e-3) for i in range(4)]
        results = list(driver.run_now([driver_lib.NamedJob(payload) for payload in payloads]))
        assert list(driver.run_now([])) == []
    assert [r.value for r in results] == [0, 10, 20, None]
    assert results[3].message.startswith("ValueError: bad 3")


class Counting(base.Pool):
    """Finishes the job that was submitted last; says what it was given."""

    num_workers, capacity, in_flight = 1, 0, 0

    def __init__(self, capacity, late=0):
        self.capacity = capacity
        self.late = late  # How many waits are in vain before each result.
        self.waits = 0
        self.open, self.jobs, self.most = [], [], 0

    def submit(self, job):
        self.open.append(job)
        self.jobs.append(job)
        self.most = max(self.most, len(self.open))

    def next_result(self, timeout_s=None):
        self.waits += 1
        if self.waits % (self.late + 1):
            raise TimeoutError
        job = self.open.pop()
        return base.JobResult(job.id, base.JobStatus.OK, job.payload, "", 0.0, "w")

    def stats(self): ...
    def take_events(self): ...
    def close(self): ...


@pytest.mark.parametrize("capacity", [0, 1, 5, 99])
def test_extra_jobs_never_flood_the_pool(capacity):
    pool = Counting(capacity)
    driver = driver_lib.OrderedDriver(pool, window=3)
    taken = []
    for result in driver.run_now([driver_lib.NamedJob(i) for i in range(20)]):
        # Of those not needed yet, some may have been done before their turn.
        assert len(pool.open) <= max(capacity, 1)
        taken.append(result.value)
    assert taken == list(range(20))
    assert pool.most == min(max(capacity, 1), 20)


def test_the_window_s_jobs_do_not_count_against_extra_ones():
    pool = Counting(2)
    driver = driver_lib.OrderedDriver(pool, window=3)
    told = []

    def tell(index, outcome):
        told.append((index, outcome.value))
        if index == 0:
            assert [
                r.value for r in driver.run_now([driver_lib.NamedJob(10 + i) for i in range(6)])
            ] == [*range(10, 16)]

    driver.run(lambda i: driver_lib.NamedJob(i) if i < 5 else driver_lib.Stop(), tell)
    assert told == [(i, i) for i in range(5)]
    assert pool.most <= 3 + 2


def test_labels_travel_with_the_jobs():
    pool = Counting(2)
    driver = driver_lib.OrderedDriver(pool, window=2)
    asked = iter([driver_lib.NamedJob(1, "candidate 1"), driver_lib.Stop()])
    driver.run(lambda index: next(asked), lambda index, outcome: None)
    list(driver.run_now([driver_lib.NamedJob(2, "final: lion")]))
    assert [job.label for job in pool.jobs] == ["candidate 1", "final: lion"]


def test_the_pool_is_watched_while_a_result_is_awaited():
    pool, seen = Counting(1, late=3), []
    driver = driver_lib.OrderedDriver(pool, window=1, watch=lambda: seen.append(pool.waits))
    driver.run(
        lambda i: driver_lib.NamedJob(i) if i < 2 else driver_lib.Stop(), lambda i, outcome: None
    )
    list(driver.run_now([driver_lib.NamedJob(2)]))
    assert seen == [1, 2, 3, 5, 6, 7, 9, 10, 11]


def test_results_are_taken_in_any_order_and_seen_as_they_come():
    pool, seen, watched = Counting(9, late=1), [], []
    jobs = driver_lib.PoolJobs(pool, arrived=lambda result: seen.append(result.value))
    numbers = [jobs.submit(driver_lib.NamedJob(10 + i, f"job {i}")) for i in range(4)]
    assert numbers == [0, 1, 2, 3] and pool.jobs[2].label == "job 2"
    assert jobs.take(1, lambda: watched.append(pool.waits)).value == 11
    assert seen == [13, 12, 11] and watched == [1, 3, 5]  # The pool ends the last one first.
    assert jobs.has(2) and jobs.has(3) and not jobs.has(0) and not jobs.has(1)
    assert [jobs.take(number).value for number in (3, 0, 2)] == [13, 10, 12]
    assert not pool.open and not any(map(jobs.has, numbers))


def test_what_is_raised_at_an_arrival_comes_through():
    def refuse(result):
        raise RuntimeError(f"not {result.value}")

    jobs = driver_lib.PoolJobs(Counting(9), arrived=refuse)
    first = jobs.submit(driver_lib.NamedJob("a"))
    jobs.submit(driver_lib.NamedJob("b"))
    with pytest.raises(RuntimeError, match="not b"):
        jobs.take(first)


def test_results_come_as_they_are_done_until_there_are_no_more():
    with inline.InlinePool(Dawdler, 3) as pool:
        jobs = driver_lib.PoolJobs(pool)
        for i in range(6):
            jobs.submit(driver_lib.NamedJob((i, 0.01 if i == 0 else 0.0)))
        found = {result.id: result.value for result in jobs.as_completed()}
    assert found == {0: 0, 1: 10, 2: 20, 3: None, 4: 40, 5: 50}


def test_errors_of_the_engine_come_through():
    def tell(index, outcome):
        raise RuntimeError(f"engine broke at {index}")

    with inline.InlinePool(Dawdler, 2) as pool:
        driver = driver_lib.OrderedDriver(pool, window=4)
        with pytest.raises(RuntimeError, match="engine broke at 0"):
            driver.run(lambda index: driver_lib.NamedJob((index, 0.0)), tell)
        assert driver.num_told == 0
    with inline.InlinePool(Dawdler) as pool:
        driver = driver_lib.OrderedDriver(pool, window=4)
        with pytest.raises(TypeError, match="expected NamedJob, Ready, Wait or Stop"):
            driver.run(lambda index: index, tell)
        with pytest.raises(ValueError, match="window is 0"):
            driver_lib.OrderedDriver(pool, window=0)


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("where", ["ask", "tell", "run_now"])
def test_ctrl_c_never_leaves_a_half_told_result(num_workers, where):
    asked, told = [], []

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)

    def ask(index):
        if where == "ask" and index == 4:
            interrupt()
        asked.append(index)
        return driver_lib.NamedJob((index, 0.0))

    def tell(index, outcome):
        if index == 3 and where == "tell":
            interrupt()
        if index == 3 and where == "run_now":
            timer = threading.Timer(0.01, interrupt)
            timer.start()
            (result,) = driver.run_now([driver_lib.NamedJob((20, 0.05))])
            assert result.value == 200
            timer.join()
        told.append(index)

    handler = signal.getsignal(signal.SIGINT)
    with inline.InlinePool(Dawdler, num_workers) as pool:
        driver = driver_lib.OrderedDriver(pool, window=2)
        with pytest.raises(KeyboardInterrupt):
            driver.run(ask, tell)
    assert signal.getsignal(signal.SIGINT) is handler
    assert told == list(range(driver.num_told))
    assert asked == list(range(driver.num_asked))
    assert driver.num_told == {"ask": 3, "tell": 4, "run_now": 4}[where]
    assert driver.num_asked == 5


def test_a_second_ctrl_c_is_not_held_back(monkeypatch):
    monkeypatch.setattr(stopping, "AGAIN_S", 0.0)
    reached = []

    def tell(index, outcome):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0)  # A bytecode boundary, where Python runs handlers.
        reached.append(index)

    with inline.InlinePool(Dawdler) as pool:
        driver = driver_lib.OrderedDriver(pool, window=1)
        with pytest.raises(KeyboardInterrupt):
            driver.run(lambda index: driver_lib.NamedJob((index, 0.0)), tell)
    assert reached == []
    assert driver.num_told == 0


def test_ctrl_c_while_waiting_is_raised_at_once():
    release = threading.Event()
    told = []
    pool = inline.InlinePool(lambda: lambda _: release.wait(timeout=30), 2)
    driver = driver_lib.OrderedDriver(pool, window=2)
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        driver.run(driver_lib.NamedJob, lambda index, outcome: told.append(index))
    assert not release.is_set()
    assert (told, driver.num_asked, driver.num_told) == ([], 2, 0)
    release.set()
    pool.close()


def test_another_thread_than_the_main_one_may_drive():
    logs = []
    thread = threading.Thread(target=lambda: logs.append(run(2, 3, 1, 6, extra=True)))
    thread.start()
    thread.join()
    assert logs == [run(1, 3, 1, 6, extra=True)]


class _AllThere(base.Pool):
    """A pool whose jobs are done when they are submitted."""

    num_workers = capacity = 9

    def __init__(self):
        self.done = []

    @property
    def in_flight(self):
        return len(self.done)

    def submit(self, job):
        self.done.append(base.run_job(lambda value: value, job, timeout_s=None, name="w"))

    def next_result(self, timeout_s=None):
        return self.done.pop(0)

    def stats(self): ...

    def take_events(self):
        return []

    def close(self): ...


@hypothesis.given(
    window=st.integers(1, 9),
    lag=st.integers(0, 12),
    num_proposals=st.integers(0, 40),
    due_in=st.integers(1, 6),
    data=st.data(),
)
def test_lagging_asks_keep_to_their_order(window, lag, num_proposals, due_in, data):
    """No ask lags by more than it may, and none passes a settling; a stretch waits for nothing."""
    ready = data.draw(st.sets(st.integers(0, 40)))
    begins = data.draw(st.sets(st.integers(0, 40), max_size=4))
    log, inside = [], []

    def ask(index):
        if index >= num_proposals:
            return driver_lib.Stop()
        told = sum(kind == "tell" for kind, _ in log)
        assert index - window + 1 <= told <= min(index - window + 1 + lag, index) or told == 0
        log.append(("ask", index))
        return driver_lib.Ready(index) if index in ready else driver_lib.NamedJob(index)

    def tell(index, outcome):
        assert inside
        assert outcome.value == index
        log.append(("tell", index))
        if index not in begins:
            return ()
        return [driver_lib.SideWork(index, (driver_lib.NamedJob(index),), index + due_in)]

    def settle(work, results):
        assert [result.value for result in results] == [work]
        asked = sum(kind == "ask" for kind, _ in log)
        assert asked == min(work + due_in + window, num_proposals)
        log.append(("settle", work))

    @contextlib.contextmanager
    def stretch():
        inside.append(True)
        yield
        inside.pop()

    with _AllThere() as pool:
        driver = driver_lib.OrderedDriver(pool, window=window, lag=min(lag, window - 1))
        driver.run(ask, tell, settle, stretch=stretch)
    for kind in ("ask", "tell"):
        assert [number for one, number in log if one == kind] == list(range(num_proposals))
    if lag == 0:  # The documented order.
        first = [("ask", i) for i in range(min(window, num_proposals))]
        assert [entry for entry in log if entry[0] != "settle"][: len(first)] == first
