"""The work's figures in words: every number is the pool's, and none divides by zero."""

import pytest

from tests.search import fakes
from veldt.search.storage import usage
from veldt.tasks.pool.base import EventKind, PoolEvent, PoolStats, WorkerStats


def test_the_figures_are_the_pool_s():
    shown = usage.figures(fakes.pool_stats())
    assert shown["workers"] == "2 of 2 ready, 1 jobs running, 3 queued"
    assert shown["worker time"] == "60% busy, 10% wasted, 30% idle"
    assert shown["trouble"] == "8 workers lost, 4 retries, 6 time-outs, 7 quarantined"
    assert shown["per worker"] == "1.0, 2.0 jobs/s"


def test_a_pool_that_has_done_nothing_divides_by_nothing():
    stats = fakes.pool_stats(0, num_workers=5, alive_s=0.0, busy_s=0.0, wasted_s=0.0)
    shown = usage.figures(stats)
    assert "worker time" not in shown and "per worker" not in shown
    assert shown["workers"].startswith("0 of 5 ready")


@pytest.mark.parametrize(
    ("jobs", "alive_s", "expected"),
    [
        ([50, 100], 10.0, "5.0, 10.0 jobs/s"),
        ([5, 6, 9], 10.0, "30.0, 36.0, 54.0 jobs/min"),
        ([1], 720.0, "5.0 jobs/h"),
        ([0], 100.0, "0.0 jobs/h"),
        (range(10, 110, 10), 10.0, "min 1.0, median 5.5, max 10.0 jobs/s"),
    ],
)
def test_throughput_is_of_each_worker_or_how_they_spread(jobs, alive_s, expected):
    workers = [WorkerStats(f"w{i}", "", n, 0.0, alive_s) for i, n in enumerate(jobs)]
    assert usage.throughput(workers) == expected


def test_an_event_is_a_line():
    event = PoolEvent(0.0, EventKind.WORKER_LOST, "w3", "", "the node went away\ntraceback")
    assert usage.event_line(event) == "worker lost: w3: the node went away"
    event = PoolEvent(0.0, EventKind.QUARANTINE, "", "candidate 8: digits_mlp", "3 workers died")
    assert usage.event_line(event) == "quarantine: candidate 8: digits_mlp: 3 workers died"


def test_the_cost_is_summed_over_sessions():
    rows = [
        usage.StoredSession("h", "2026", "done", 3.0, fakes.pool_stats(alive_s=alive_s))
        for alive_s in (100.0, 50.0)
    ]
    assert usage.cost_line(usage.Work((rows[0],), ())) == (
        "cost: 109.5 worker-seconds, of them 60.0 used and 10.0 wasted; 8 workers lost"
    )
    assert usage.cost_line(usage.Work(tuple(rows), ())).startswith(
        "cost: 169.0 worker-seconds in 2 sessions, of them 120.0 used and 20.0 wasted; 16 workers"
    )


def test_what_did_not_happen_is_not_shown():
    calm = PoolStats("ray", 4, 0, 3, 0)
    assert usage.figures(calm) == {"workers": "0 of 4 ready, 0 jobs running, 3 queued"}
