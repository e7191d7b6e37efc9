"""A session: what the store, the log and the view are given of a pool, and when."""

import logging
import os
import socket
from dataclasses import replace

import pytest

from tests.search import fakes
from veldt.search.errors import StoreError
from veldt.search.storage import session, usage
from veldt.search.storage.session import Session
from veldt.search.storage.store import Store
from veldt.tasks.pool.base import EventKind, PoolEvent


class Pool:
    """Has the figures and events that a test gives it."""

    def __init__(self):
        self.current = fakes.pool_stats()
        self.events = []

    def stats(self):
        return self.current

    def take_events(self):
        taken, self.events = self.events, []
        return taken


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(session.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def store(tmp_path):
    with Store.create(tmp_path) as made:
        yield made


def event(number, kind=EventKind.RETRY):
    return PoolEvent(1e9 + number, kind, f"w{number}", f"candidate {number}: digits_mlp", "why")


def test_the_record_is_the_pool_s_figures(store, clock):
    pool, view = Pool(), fakes.View()
    with Session(store, pool, view.work) as watched:
        (row,) = store.rows("SELECT * FROM session")
        assert (row["host"], row["pid"]) == (socket.gethostname(), os.getpid())
        assert row["state"] == "working" and row["began"].endswith("+00:00")
        assert row["elapsed_s"] == 0.0
        pool.events = [event(1), event(2, EventKind.WORKER_LOST)]
        clock[0] += 7.0
        watched.watch()
        found = usage.read_work(store)
        ready = {"num_ready": 0, "num_queued": 0, "num_running": 0}  # Of no interest later.
        assert found.sessions[0].stats == replace(pool.current, **ready)
        assert found.sessions[0].elapsed_s == 7.0 and found.sessions[0].state == "working"
        assert found.events == (event(1), event(2, EventKind.WORKER_LOST)) == tuple(view.events)
        # One worker was lost and another came: both are kept.
        new = replace(pool.current.workers[0], name="w9", num_jobs=1)
        pool.current = replace(pool.current, num_done=99, workers=(new,))
        pool.events = [event(3)]
        clock[0] += 1.0
    found = usage.read_work(store)
    (row,) = found.sessions
    assert (row.state, row.elapsed_s, row.stats.num_done) == ("done", 8.0, 99)
    assert [one.name for one in row.stats.workers] == ["w0", "w1", "w9"]
    assert found.events[-1] == view.events[-1] == event(3) and len(found.events) == 3


def test_it_checks_seldom_and_writes_more_seldom(store, clock):
    pool, view, written = Pool(), fakes.View(), []
    with Session(store, pool, view.work) as watched:
        for _ in range(3000):
            clock[0] += 0.01
            before = store.rows("SELECT elapsed_s FROM session")
            watched.watch()
            written += [1] * (store.rows("SELECT elapsed_s FROM session") != before)
    assert 50 <= len(view.stats) <= 61 and 4 <= len(written) <= 6


@pytest.mark.parametrize(
    ("error", "state"), [(KeyboardInterrupt, "stopped"), (ValueError, "failed")]
)
def test_the_end_is_recorded_however_it_comes(store, error, state):
    pool = Pool()
    with pytest.raises(error), Session(store, pool):
        pool.current = replace(pool.current, num_done=77)
        pool.events = [event(1)]
        raise error
    found = usage.read_work(store)
    assert (found.sessions[0].state, found.sessions[0].stats.num_done) == (state, 77)
    assert found.events == (event(1),)


def test_each_process_has_its_own_row(store):
    for _ in range(2):
        with Session(store, Pool()):
            pass
    assert store.rows("SELECT id, state FROM session") == [
        {"id": 1, "state": "done"},
        {"id": 2, "state": "done"},
    ]
    assert store.first("SELECT COUNT(*) FROM worker") == 4


def test_the_oldest_events_are_dropped(store, clock, monkeypatch):
    monkeypatch.setattr(session, "MAX_EVENTS", 10)
    pool = Pool()
    with Session(store, pool) as watched:
        for first in (0, 8, 16):
            pool.events = [event(first + i) for i in range(8)]
            clock[0] += 10
            watched.watch()
    assert [row["worker"] for row in store.rows("SELECT worker FROM pool_event ORDER BY id")] == [
        f"w{i}" for i in range(14, 24)
    ]


def test_events_are_logged_with_candidate_and_task(store, caplog):
    pool = Pool()
    with caplog.at_level(logging.INFO, "veldt.pool"), Session(store, pool):
        pool.events = [event(1), event(2, EventKind.WORKER_READY)]
    assert [(r.name, r.levelname, r.message) for r in caplog.records] == [
        ("veldt.pool", "WARNING", "retry: w1, candidate 1: digits_mlp: why"),
        ("veldt.pool", "INFO", "worker ready: w2, candidate 2: digits_mlp: why"),
    ]


def test_a_store_that_cannot_be_written_hides_no_other_error(store):
    with pytest.raises(ValueError, match="first"), Session(store, Pool()):
        store.execute("PRAGMA query_only = 1")  # A disk that went read-only.
        raise ValueError("first")


def test_a_full_disk_at_the_end_is_an_error(store):
    pool = Pool()
    with pytest.raises(StoreError, match="cannot be written"), Session(store, pool):
        pages = store.first("PRAGMA page_count")
        store.rows(f"PRAGMA max_page_count = {pages}")
        pool.events = [event(i) for i in range(5000)]
