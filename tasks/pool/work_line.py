"""What a pool's work took, on one line for people: workers, their time, what went wrong."""

from collections.abc import Sequence

from veldt.tasks.pool.base import PoolStats


def shares(stats: Sequence[PoolStats]) -> str:
    """Return how workers' time was spent, in per cent of the time that they were there."""
    alive_s = sum(one.alive_s for one in stats)
    if not alive_s > 0:
        return ""
    busy = min(sum(one.busy_s for one in stats) / alive_s, 1.0)
    wasted = min(sum(one.wasted_s for one in stats) / alive_s, 1.0)
    return f"{busy:.0%} busy, {wasted:.0%} wasted, {max(1 - busy - wasted, 0.0):.0%} idle"


def trouble(stats: Sequence[PoolStats]) -> str:
    """Return what went wrong so far; empty if nothing did."""
    counts = {
        "workers lost": sum(one.num_lost_workers for one in stats),
        "retries": sum(one.num_retries for one in stats),
        "time-outs": sum(one.num_timeouts for one in stats),
        "quarantined": sum(one.num_killed for one in stats),
    }
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)


def line(stats: Sequence[PoolStats]) -> str:
    """Return what the pools of a session did: jobs, workers, shares of their time, and trouble.

    Args:
      stats: Figures of each pool at its end; empty if there was nothing to do.
    """
    if not (spent := shares(stats)):
        return ""
    workers = max(one.num_workers for one in stats)
    jobs = sum(one.num_done for one in stats)
    parts = [f"{jobs:,} jobs on {workers:,} {'worker' if workers == 1 else 'workers'}", spent]
    return "; ".join([*parts, *filter(None, [trouble(stats)])])
