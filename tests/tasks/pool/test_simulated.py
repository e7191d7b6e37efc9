"""The simulated cluster: its clock against sums done by hand, and the guarantees under faults."""

import collections
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from veldt.tasks.pool import dispatch, driver, simulated
from veldt.tasks.pool.base import EventKind, Job, JobStatus, PoolError
from veldt.tasks.pool.simulated import Cluster, End

RETURNS, DIES, HANGS, STUCK = End.RETURNS, End.DIES, End.HANGS, End.STUCK


def square(payload):
    if payload == 13:
        raise ValueError("unlucky")
    return payload * payload


def takes(seconds, ends=None):
    """Each job takes `seconds`; those in `ends` end as it says, at every worker."""
    ends = ends or {}
    return lambda job, rng: (seconds, ends.get(job.id, RETURNS))


def make(fate, num_workers=2, *, seed=0, driver_time=False, cluster=None, **policy):
    cluster = {"overhead_s": 0.0, **(cluster or {})}
    return simulated.SimulatedPool(
        square,
        Cluster(num_workers, **cluster),
        fate,
        policy=dispatch.Policy(**policy),
        seed=seed,
        driver_time=driver_time,
    )


def run(pool, count):
    for i in range(count):
        pool.submit(Job(i, i, f"candidate {i}"))
    results = {result.id: result for result in pool.results()}
    assert sorted(results) == list(range(count))
    assert pool.stats().num_done == count
    return results


def test_values_are_the_workers_and_time_is_that_of_the_jobs():
    with make(takes(3.0), 4) as pool:
        results = run(pool, 20)
        stats = pool.stats()
        # 20 jobs of 3 s at 4 workers: 5 rounds.
        assert pool.now == pytest.approx(15.0)
    assert [results[i].value for i in (0, 1, 12, 19)] == [0, 1, 144, 361]
    assert results[13].status is JobStatus.ERROR
    assert results[13].message.startswith("ValueError: unlucky")
    assert all(result.wall_s == 3.0 for result in results.values())
    assert stats.busy_s == pytest.approx(60.0)
    assert stats.alive_s == pytest.approx(60.0)
    assert {worker.num_jobs for worker in stats.workers} == {5}


def test_a_batch_costs_its_way_there_and_back_and_short_jobs_share_it():
    alone = make(takes(1e-3), 1, cluster={"overhead_s": 1.0}, overhead_share=math.inf)
    with alone as pool:
        run(pool, 10)
        # Each job waits at the worker while the one before it is under way: half a second there,
        # the jobs, half a second back; then what could only be sent when that was known.
        one_by_one = pool.now
    with make(takes(1e-3), 1, cluster={"overhead_s": 1.0}) as pool:
        run(pool, 10)
        batched = pool.now
    assert 1.0 < batched < one_by_one < 10 * 1.001


def test_workers_start_late_and_jobs_wait_for_them():
    with make(takes(1.0), 2, cluster={"start_s": 60.0}) as pool:
        pool.submit(Job(0, 5))
        with pytest.raises(TimeoutError):
            pool.next_result(10.0)
        assert pool.now == pytest.approx(10.0)
        assert pool.stats().num_ready == 0
        assert pool.next_result().value == 25
        assert pool.now == pytest.approx(61.0)
        assert pool.stats().starting_s == pytest.approx(120.0)


def test_a_job_over_the_limit_ends_and_its_worker_is_replaced():
    ends = {3: HANGS, 5: STUCK}
    with make(takes(1.0, ends), 2, timeout_s=4.0, max_tries=2) as pool:
        results = run(pool, 8)
        stats = pool.stats()
    assert results[3].status is JobStatus.TIMEOUT
    # A worker that does not answer cannot say what it is at: its job is tried again, then given up.
    assert results[5].status is JobStatus.KILLED
    others = [result.status for i, result in results.items() if i not in ends]
    assert set(others) == {JobStatus.OK}
    assert (stats.num_timeouts, stats.num_killed) == (1, 1)
    assert stats.num_lost_workers == 3
    assert stats.num_ready >= 1  # The last replacement may not have come yet.


def test_a_job_that_kills_workers_is_given_up_and_no_other():
    with make(takes(0.5, {4: DIES}), 3, max_tries=3) as pool:
        results = run(pool, 30)
        events = collections.Counter(event.kind for event in pool.take_events())
    statuses = collections.Counter(result.status for result in results.values())
    assert results[4].status is JobStatus.KILLED
    assert statuses == {JobStatus.OK: 28, JobStatus.ERROR: 1, JobStatus.KILLED: 1}
    # Three deaths alone, and one more if it went down in company first.
    assert events[EventKind.WORKER_LOST] in (3, 4)
    assert events[EventKind.QUARANTINE] == 1


def test_machines_that_go_away_cost_time_and_no_job():
    with make(takes(1.0), 20, cluster={"life_s": 20.0, "start_s": 1.0}) as pool:
        results = run(pool, 1000)
        stats = pool.stats()
    assert {result.status for i, result in results.items() if i != 13} == {JobStatus.OK}
    # A machine's mean life is 20 s, and 1,000 jobs of 1 s keep 20 workers busy for over 50 s.
    expected = stats.alive_s / 20.0
    assert stats.num_lost_workers == pytest.approx(expected, abs=5 * math.sqrt(expected))
    assert stats.num_killed == 0
    assert 0 < stats.wasted_s < stats.busy_s
    assert stats.busy_s + stats.wasted_s <= stats.alive_s * (1 + 1e-9)


@pytest.mark.parametrize("factor", [4.0, None])
def test_a_straggler_is_done_by_another(factor):
    tries = collections.Counter()

    def fate(job, rng):
        tries[job.id] += 1
        slow = job.id == 50 and tries[50] == 1
        return (1000.0 if slow else 1.0), RETURNS

    with make(fate, 4, straggler_factor=factor) as pool:
        results = run(pool, 60)
        stats = pool.stats()
        took = pool.now
    assert results[50].value == 2500
    if factor is None:
        assert took > 1000.0 and stats.num_reissued == 0 and tries[50] == 1
    else:
        # 15 s of work for all; from 4 s on it is a straggler; then a second again.
        assert took < 25.0 and stats.num_reissued == 1 and tries[50] == 2


def test_the_drivers_own_time_passes_on_the_simulated_clock(monkeypatch):
    real = iter(np.arange(0.0, 1e6, 7.0))
    monkeypatch.setattr(simulated.time, "perf_counter", lambda: float(next(real)))
    with make(takes(1.0), 1, driver_time=True) as pool:
        pool.submit(Job(0, 2))
        pool.next_result()
        # Two calls, each begun one tick of 7 s after what came before it; the job ran meanwhile.
        assert pool.now >= 14.0


def test_a_closed_pool_and_an_empty_one_refuse():
    pool = make(takes(1.0))
    with pytest.raises(PoolError, match="no job is in flight"):
        pool.next_result()
    pool.submit(Job(0, 1))
    with pytest.raises(PoolError, match="already in flight"):
        pool.submit(Job(0, 1))
    pool.close()
    pool.close()
    with pytest.raises(PoolError, match="closed"):
        pool.submit(Job(1, 1))
    assert pool.stats().num_ready == 0


@hypothesis.settings(max_examples=25)
@hypothesis.given(
    seed=st.integers(0, 2**16),
    num_workers=st.integers(1, 12),
    shares=st.tuples(*[st.floats(0.0, 0.15)] * 3),
    life_s=st.sampled_from([math.inf, 5.0, 50.0]),
)
def test_every_job_has_one_result_whatever_happens_and_seeds_repeat(
    seed, num_workers, shares, life_s
):
    def fate(job, rng):
        luck = rng.random()
        end = RETURNS
        for share, bad in zip(np.cumsum(shares), (DIES, HANGS, STUCK), strict=True):
            if luck < share:
                end = bad
                break
        return float(rng.lognormal(-1.0, 1.0)), end

    def once():
        cluster = {"life_s": life_s, "start_s": 0.5, "overhead_s": 0.01}
        with make(fate, num_workers, seed=seed, cluster=cluster, timeout_s=3.0) as pool:
            results = run(pool, 120)
            stats = pool.stats()
            return [(i, r.status, r.value, r.worker) for i, r in results.items()], pool.now, stats

    results, now, stats = once()
    for i, status, value, _ in results:
        assert value == (i * i if status is JobStatus.OK else None)
    assert stats.num_queued == stats.num_running == 0
    # Finite numbers of seconds, each counted once.
    assert 0 <= stats.busy_s + stats.wasted_s <= stats.alive_s * (1 + 1e-9) + 1e-6
    assert stats.alive_s <= num_workers * now + 1e-6
    assert once() == (results, now, stats)


def test_a_thousand_workers_tell_the_same_as_one():
    """The ordered driver above: what is told, and when in the order, does not depend on workers."""

    def told_with(num_workers, seed):
        def fate(job, rng):
            return float(rng.lognormal(0.0, 1.0)), (DIES if rng.random() < 0.02 else RETURNS)

        known, told = [0], []

        def ask(index):
            # Depends on all that has been told: an order that changed would change the payloads.
            if index == 3000:
                return driver.Stop()
            return driver.NamedJob((sum(known[-3:]) * 31 + index) % 1009)

        def tell(index, result):
            known.append(result.value or 0)
            told.append((index, result.value))

        with make(fate, num_workers, seed=seed, max_tries=20) as pool:
            driver.OrderedDriver(pool, window=2000).run(ask, tell)
            return told, pool.stats()

    told, stats = told_with(1000, 0)
    again, alone = told_with(1, 1)
    assert told == again and len(told) == 3000
    assert stats.num_lost_workers > 0 and alone.num_lost_workers > 0
