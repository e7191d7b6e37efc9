"""What a run's work took, in figures for people: workers, seconds used and wasted, what went wrong.

The figures of a running search come from its pool (`PoolStats`), those of a stored run from the
sessions in its store. Both are put into words here.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from veldt.search.storage.store import Store
from veldt.tasks.pool import work_line
from veldt.tasks.pool.base import EventKind, PoolEvent, PoolStats, WorkerStats

MAX_EVENTS_READ: Final = 20
# Events that get a line of their own while the search runs.
TROUBLE: Final = frozenset(
    (
        EventKind.WORKER_LOST,
        EventKind.RETRY,
        EventKind.TIMEOUT,
        EventKind.QUARANTINE,
        EventKind.POOL,
    )
)
_YEAR_10000_S: Final = 253_402_300_800
_FEW_WORKERS: Final = 4
_UNITS: Final = (("s", 1), ("min", 60), ("h", 3600))


@final
@dataclass(frozen=True, slots=True)
class StoredSession:
    """One process's work on a run, as stored.

    Attributes:
      place: Host and process.
      began: Time of the start: UTC, ISO 8601.
      state: One of working (or killed), done, stopped and failed.
      elapsed_s: Seconds from start to end.
      stats: Figures of the pool when they were last stored.
    """

    place: str
    began: str
    state: str
    elapsed_s: float
    stats: PoolStats


@final
@dataclass(frozen=True, slots=True)
class Work:
    """All sessions of a run, in their order, and the last events of its pools, oldest first."""

    sessions: tuple[StoredSession, ...]
    events: tuple[PoolEvent, ...]


def read_work(store: Store) -> Work:
    """Return a run's record of its work; empty where an older version of veldt made its store.

    Raises:
      ValueError: A value is not of the kind that it should be.
    """
    sessions = []
    for row in store.rows("SELECT * FROM session ORDER BY id"):
        query = "SELECT * FROM worker WHERE session = ? ORDER BY name"
        workers = tuple(
            WorkerStats(
                str(worker["name"]),
                str(worker["place"]),
                int(worker["jobs"]),
                float(worker["busy_s"]),
                float(worker["alive_s"]),
            )
            for worker in store.rows(query, (row["id"],))
        )
        stats = PoolStats(
            backend=str(row["backend"]),
            num_workers=int(row["num_workers"]),
            num_ready=0,
            num_queued=0,
            num_running=0,
            num_done=int(row["done"]),
            num_retries=int(row["retries"]),
            num_reissued=int(row["reissued"]),
            num_timeouts=int(row["timeouts"]),
            num_killed=int(row["killed"]),
            num_lost_workers=int(row["lost_workers"]),
            busy_s=float(row["busy_s"]),
            wasted_s=float(row["wasted_s"]),
            starting_s=float(row["starting_s"]),
            alive_s=float(row["alive_s"]),
            workers=workers,
        )
        place = f"{row['host']}, process {int(row['pid'])}"
        began, state = str(row["began"]), str(row["state"])
        sessions.append(StoredSession(place, began, state, float(row["elapsed_s"]), stats))
    query = "SELECT * FROM pool_event ORDER BY id DESC LIMIT ?"
    events = [
        PoolEvent(
            _time(row["time_s"]),
            EventKind(row["kind"]),
            str(row["worker"]),
            str(row["job"]),
            str(row["message"]),
        )
        for row in reversed(store.rows(query, (MAX_EVENTS_READ,)))
    ]
    return Work(tuple(sessions), tuple(events))


def _time(value: object) -> float:
    time_s = float(str(value))
    if not 0 <= time_s < _YEAR_10000_S:
        raise ValueError(f"{time_s} is not a time in seconds")
    return time_s


def figures(stats: PoolStats) -> dict[str, str]:
    """Return a running pool's figures that are there, by the names under which they are shown."""
    found = {
        "workers": f"{stats.num_ready:,} of {stats.num_workers:,} ready, {stats.num_running:,} "
        f"jobs running, {stats.num_queued:,} queued",
        "per worker": throughput(stats.workers),
        "worker time": work_line.shares([stats]),
        "trouble": work_line.trouble([stats]),
    }
    return {name: figure for name, figure in found.items() if figure not in ("", "-")}


def throughput(workers: Sequence[WorkerStats]) -> str:
    """Return the jobs done per time: of each worker where there are few, else their spread."""
    rates = [worker.num_jobs / worker.alive_s for worker in workers if worker.alive_s > 0]
    if not rates:
        return "-"
    median = statistics.median(rates)
    unit, seconds = next(((u, s) for u, s in _UNITS if median * s >= 1), _UNITS[-1])
    if len(rates) <= _FEW_WORKERS:
        figures = ", ".join(f"{rate * seconds:.1f}" for rate in rates)
    else:
        low, middle, high = (x * seconds for x in (min(rates), median, max(rates)))
        figures = f"min {low:.1f}, median {middle:.1f}, max {high:.1f}"
    return f"{figures} jobs/{unit}"


def event_line(event: PoolEvent) -> str:
    """Return an event as one line."""
    subjects = ", ".join(part for part in (event.worker, event.job) if part)
    parts = (event.kind.value.replace("-", " "), subjects, event.message.split("\n", 1)[0])
    return ": ".join(part for part in parts if part)


def cost_line(work: Work) -> str:
    """Return the line that states what the run cost, over all its sessions."""
    all_stats = [session.stats for session in work.sessions]
    spent = sum(stats.alive_s + stats.starting_s for stats in all_stats)
    used = sum(stats.busy_s for stats in all_stats)
    wasted = sum(stats.wasted_s for stats in all_stats)
    lost = sum(stats.num_lost_workers for stats in all_stats)
    sessions = f" in {len(all_stats)} sessions" if len(all_stats) > 1 else ""
    return (
        f"cost: {spent:,.1f} worker-seconds{sessions}, of them {used:,.1f} used and {wasted:,.1f} "
        f"wasted; {lost:,} workers lost"
    )
