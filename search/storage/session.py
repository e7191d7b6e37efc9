"""One process's work on a run: watches the pool and records it in the store.

The record is about machines and not about the search: workers, seconds used and wasted, what went
wrong. It is written every few seconds and at the end, in whatever way the run ends; a process that
was killed leaves its last record. Events also go to the logger "veldt.pool".
"""

import datetime
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self, final

from veldt.search.errors import StoreError
from veldt.search.storage import usage
from veldt.search.storage.store import Store
from veldt.tasks.pool.base import Pool, PoolEvent, PoolStats

CHECK_S: Final = 0.5  # Between checks of the pool.
STORE_S: Final = 5.0  # Between records in the store.
MAX_EVENTS: Final = 10_000  # Kept in the store, of all sessions together.

_LOG: Final = logging.getLogger("veldt.pool")
_LOG.addHandler(logging.NullHandler())  # Silent unless the caller sets logging up.

Show = Callable[[PoolStats, Sequence[PoolEvent]], None]


@final
class Session:
    """Watches a pool while the block runs. The pool still belongs to the caller."""

    def __init__(self, store: Store, pool: Pool, show: Show = lambda *_: None):
        """Record that this process works on the run.

        Args:
          store: Store of the run, open for writing.
          pool: Pool to watch and to take events from.
          show: Called with the pool's figures and new events, every `CHECK_S` at most.

        Raises:
          StoreError: The store cannot be written.
        """
        self._store = store
        self._pool = pool
        self._show = show
        self._began = time.monotonic()
        self._checked = self._stored = self._began
        self._events: list[PoolEvent] = []  # Not stored yet.
        began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with store.transaction():
            self._id = store.insert(
                "session",
                host=socket.gethostname(),
                pid=os.getpid(),
                began=began,
                state="working",
                **self._figures(pool.stats()),
            )

    def watch(self) -> None:
        """Check the pool where it is time to. Cheap: call it often, outside transactions."""
        now = time.monotonic()
        if now - self._checked >= CHECK_S:
            self._checked = now
            stats = self._check()
            if now - self._stored >= STORE_S:
                self._stored = now
                self._record(stats, "working")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        state = "failed"
        if kind is None:
            state = "done"
        elif issubclass(kind, KeyboardInterrupt):
            state = "stopped"
        try:
            self._record(self._check(), state)
        except StoreError:
            if kind is None:  # Else the error that ended the search is the one to raise.
                raise

    def _check(self) -> PoolStats:
        stats, events = self._pool.stats(), self._pool.take_events()
        for event in events:
            level = logging.WARNING if event.kind in usage.TROUBLE else logging.INFO
            _LOG.log(level, "%s", usage.event_line(event))
        self._events += events
        self._show(stats, events)
        return stats

    def _record(self, stats: PoolStats, state: str) -> None:
        figures = {"state": state, **self._figures(stats)}
        names = ", ".join(f"{name} = ?" for name in figures)
        with self._store.transaction():
            self._store.execute(
                f"UPDATE session SET {names} WHERE id = ?", (*figures.values(), self._id)
            )
            self._store.executemany(
                "INSERT OR REPLACE INTO worker VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (self._id, one.name, one.place, one.num_jobs, one.busy_s, one.alive_s)
                    for one in stats.workers
                ),
            )
            self._store.executemany(
                "INSERT INTO pool_event (session, time_s, kind, worker, job, message) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (self._id, one.time_s, one.kind.value, one.worker, one.job, one.message)
                    for one in self._events
                ),
            )
            if self._events:
                last = self._store.first("SELECT MAX(id) FROM pool_event")
                self._store.execute("DELETE FROM pool_event WHERE id <= ?", (last - MAX_EVENTS,))
        self._events.clear()

    def _figures(self, stats: PoolStats) -> dict[str, str | int | float]:
        return {
            "backend": stats.backend,
            "num_workers": stats.num_workers,
            "done": stats.num_done,
            "retries": stats.num_retries,
            "reissued": stats.num_reissued,
            "timeouts": stats.num_timeouts,
            "killed": stats.num_killed,
            "lost_workers": stats.num_lost_workers,
            "busy_s": stats.busy_s,
            "wasted_s": stats.wasted_s,
            "starting_s": stats.starting_s,
            "alive_s": stats.alive_s,
            "elapsed_s": time.monotonic() - self._began,
        }
