"""The line on a pool's work, against accounts done by hand and a pool that really worked."""

import dataclasses
import time

from veldt.tasks.pool import base, inline, work_line

FIRST = base.PoolStats(
    "ray", 4, 4, 0, 0, num_done=30, num_retries=2, num_lost_workers=1, busy_s=60.0, wasted_s=10.0,
    alive_s=100.0,
)  # fmt: skip
SECOND = base.PoolStats("ray", 1, 1, 0, 0, num_done=3, busy_s=30.0, alive_s=100.0)


def test_shares_are_of_all_pools_together():
    assert work_line.shares([FIRST]) == "60% busy, 10% wasted, 30% idle"
    assert work_line.shares([FIRST, SECOND]) == "45% busy, 5% wasted, 50% idle"
    # Seconds that are counted when a job ends may exceed those that a worker was there.
    assert work_line.shares([dataclasses.replace(SECOND, busy_s=101.0)]) == (
        "100% busy, 0% wasted, 0% idle"
    )


def test_the_line_says_what_went_wrong_and_else_nothing_of_it():
    assert work_line.line([FIRST, SECOND]) == (
        "33 jobs on 4 workers; 45% busy, 5% wasted, 50% idle; 1 workers lost, 2 retries"
    )
    assert work_line.line([SECOND]) == "3 jobs on 1 worker; 30% busy, 0% wasted, 70% idle"
    assert work_line.line([]) == work_line.line([base.PoolStats("ray", 4, 0, 0, 0)]) == ""


def test_a_pool_that_slept_was_busy():
    with inline.InlinePool(lambda: lambda seconds: time.sleep(seconds)) as pool:
        for number in range(3):
            pool.submit(base.Job(number, 0.02))
        assert [result.status for result in pool.results()] == ["ok"] * 3
    line = work_line.line([pool.stats()])
    assert line.startswith("3 jobs on 1 worker; ") and " 0% wasted" in line
    assert pool.stats().busy_s >= 0.06
