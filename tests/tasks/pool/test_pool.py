"""The pool: exactly one result per job, failures as data, clean stops."""

import itertools
import os
import pickle
import signal
import threading
import time

import hypothesis
import pytest
from hypothesis import strategies as st

from veldt.tasks.common import errors
from veldt.tasks.pool import base, config, inline, pools

NUM_WORKERS = pytest.mark.parametrize("num_workers", [1, 3])


class Arithmetic:
    """Squares numbers; a string payload makes it raise, sleep or quit."""

    def __call__(self, payload):
        match payload:
            case "raise":
                raise ValueError("three is a crowd")
            case "exit":
                raise SystemExit(3)
            case ("sleep", seconds):
                time.sleep(seconds)
                return seconds
            case number:
                return number * number


@NUM_WORKERS
def test_every_job_yields_one_result(num_workers):
    with inline.InlinePool(Arithmetic, num_workers) as pool:
        for i in range(20):
            pool.submit(base.Job(i, i))
        assert pool.in_flight == 20
        results = list(pool.results())
        assert pool.in_flight == 0
    assert {r.id: r.value for r in results} == {i: i * i for i in range(20)}
    assert len(results) == 20
    assert {r.status for r in results} == {base.JobStatus.OK}
    assert all(r.message == "" and r.wall_s >= 0 for r in results)


@hypothesis.given(
    st.integers(1, 4),
    st.lists(st.one_of(st.integers(-9, 9), st.sampled_from(["raise", "exit"])), max_size=12),
    st.integers(1, 5),
)
def test_results_match_a_plain_loop(num_workers, payloads, burst):
    """Submitting in bursts and collecting between them loses and repeats nothing."""
    collected = []
    with inline.InlinePool(Arithmetic, num_workers) as pool:
        jobs = iter(enumerate(payloads))
        while (some := list(itertools.islice(jobs, burst))) or pool.in_flight:
            for i, payload in some:
                pool.submit(base.Job(i, payload))
            collected.append(pool.next_result())
    assert sorted(r.id for r in collected) == list(range(len(payloads)))
    for result in collected:
        payload = payloads[result.id]
        if isinstance(payload, int):
            assert (result.status, result.value) == ("ok", payload**2)
        else:
            assert (result.status, result.value) == ("error", None)


@NUM_WORKERS
def test_a_raising_worker_gives_a_message_with_its_frame(num_workers):
    with inline.InlinePool(Arithmetic, num_workers) as pool:
        pool.submit(base.Job(7, "raise"))
        result = pool.next_result()
        assert result.status is base.JobStatus.ERROR
        assert result.value is None
        lines = result.message.splitlines()
        assert lines[0].startswith(f"ValueError: three is a crowd ({__file__}, line ")
        assert "in __call__" in result.message
        pool.submit(base.Job(8, 3))  # The worker is as good as new.
        assert pool.next_result().value == 9


def test_messages_are_bounded():
    try:
        raise ValueError("x" * 100_000)
    except ValueError as error:
        assert len(base.describe_error(error)) < 3 * base.MAX_MESSAGE_CHARS


@NUM_WORKERS
def test_a_job_over_the_limit_is_a_timeout_without_value(num_workers):
    with inline.InlinePool(Arithmetic, num_workers, timeout_s=0.02) as pool:
        pool.submit(base.Job(0, ("sleep", 0.1)))
        result = pool.next_result()
    assert (result.status, result.value) == ("timeout", None)
    assert result.wall_s >= 0.1
    assert "limit is 0.02 s" in result.message


def test_one_worker_runs_in_the_callers_thread_in_order_when_asked():
    seen = []

    def worker(payload):
        seen.append((payload, threading.get_ident()))

    with inline.InlinePool(lambda: worker) as pool:
        for i in range(3):
            pool.submit(base.Job(i, i))
        assert seen == []
        assert pool.next_result().id == 0
        assert seen == [(0, threading.get_ident())]
        assert [r.id for r in pool.results()] == [1, 2]


def test_each_thread_makes_and_keeps_its_own_worker():
    made = []
    together = threading.Barrier(3)

    def factory():
        home = threading.get_ident()
        made.append(home)

        def worker(payload):
            together.wait(timeout=30)  # Three jobs at once, so each thread has one.
            assert threading.get_ident() == home

        return worker

    with inline.InlinePool(factory, 3) as pool:
        for i in range(6):
            pool.submit(base.Job(i, None))
        results = list(pool.results())
    assert {r.status for r in results} == {"ok"}
    assert len(set(made)) == len(made) == 3
    assert {r.worker for r in results} == {"inline-0", "inline-1", "inline-2"}


@NUM_WORKERS
def test_a_factory_that_raises_is_an_error_of_the_pool(num_workers):
    def factory():
        raise errors.TaskError("no such data")

    with inline.InlinePool(factory, num_workers) as pool:
        for i in range(2):
            pool.submit(base.Job(i, i))
        for _ in range(2):
            with pytest.raises(base.PoolError, match=r"no worker can be made: .*no such data"):
                pool.next_result()


@NUM_WORKERS
def test_misuse_is_refused(num_workers):
    with inline.InlinePool(Arithmetic, num_workers) as pool:
        with pytest.raises(base.PoolError, match="no job is in flight"):
            pool.next_result()
        pool.submit(base.Job(1, ("sleep", 0.05)))
        with pytest.raises(base.PoolError, match="id 1 is already in flight"):
            pool.submit(base.Job(1, 1))
        pool.next_result()
        pool.submit(base.Job(1, 1))  # Free again once its result is out.
    with pytest.raises(base.PoolError, match="closed"):
        pool.submit(base.Job(2, 2))
    with pytest.raises(base.PoolError, match="closed"):
        pool.next_result()
    with pytest.raises(ValueError, match="at least 1"):
        inline.InlinePool(Arithmetic, 0)


def test_waiting_can_time_out_and_go_on():
    release = threading.Event()

    def worker(payload):
        release.wait(timeout=30)
        return payload

    with inline.InlinePool(lambda: worker, 2) as pool:
        pool.submit(base.Job(0, "late"))
        with pytest.raises(TimeoutError, match="no job completed"):
            pool.next_result(timeout_s=0.01)
        assert pool.in_flight == 1
        release.set()
        assert pool.next_result(timeout_s=30).value == "late"


def test_close_drops_what_has_not_started_and_ends_the_threads():
    started = threading.Event()
    release = threading.Event()
    ran = []

    def worker(payload):
        started.set()
        release.wait(timeout=30)
        ran.append(payload)

    before = threading.active_count()
    pool = inline.InlinePool(lambda: worker, 2)
    for i in range(50):
        pool.submit(base.Job(i, i))
    started.wait(timeout=30)
    threading.Timer(0.05, release.set).start()
    pool.close()
    pool.close()
    assert len(ran) <= 2
    assert pool.in_flight == 0
    assert threading.active_count() <= before + 1  # The timer's thread may be ending.


def test_ctrl_c_interrupts_the_wait():
    release = threading.Event()
    pool = inline.InlinePool(lambda: lambda _: release.wait(timeout=30), 2)
    pool.submit(base.Job(0, None))
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        pool.next_result()
    assert pool.in_flight == 1
    release.set()
    pool.close()


def test_an_interrupted_job_of_a_single_worker_is_not_lost():
    strikes = iter([True, False])

    def worker(payload):
        if next(strikes):
            raise KeyboardInterrupt
        return payload

    with inline.InlinePool(lambda: worker) as pool:
        pool.submit(base.Job(0, "again"))
        with pytest.raises(KeyboardInterrupt):
            pool.next_result()
        assert pool.next_result().value == "again"


def test_config_makes_the_pool_it_names():
    with pools.make_pool(config.PoolConfig(num_workers=2), Arithmetic) as pool:
        assert isinstance(pool, inline.InlinePool)
        assert (pool.num_workers, pool.capacity) == (2, 4)
    with pools.make_pool(config.PoolConfig(), Arithmetic) as pool:
        assert pool.num_workers == config.num_usable_cores() >= 1
    with pytest.raises(ValueError, match="num_workers is 0"):
        config.PoolConfig(num_workers=0)
    with pytest.raises(ValueError, match="timeout_s is -1"):
        config.PoolConfig(timeout_s=-1)


def test_jobs_and_results_travel():
    """A back end in other processes sends them; pickle is the wire here, never a file."""
    job = base.Job(1, {"program": "text"})
    result = base.JobResult(1, base.JobStatus.OK, [1.0], "", 0.5, "w")
    assert pickle.loads(pickle.dumps(job)) == job  # noqa: S301
    assert pickle.loads(pickle.dumps(result)) == result  # noqa: S301
