"""Replay: a search is found again from its stored results, however it went, and no other is."""

import collections
import dataclasses
import json
import sqlite3

import pytest

from tests.search import fakes, older_stores, rerun
from veldt.search.config import search_config
from veldt.search.config.evolution_config import MutationConfig, RacingConfig
from veldt.search.config.finals_config import FinalsConfig
from veldt.search.errors import StoreError
from veldt.search.evaluation.jobs import Outcome, Status
from veldt.search.run import run_search
from veldt.search.storage import checksums
from veldt.search.storage.store import FILE_NAME, Store
from veldt.tasks.pool.config import PoolConfig

ONE = PoolConfig(num_workers=1)


def search(directory, *, worker=fakes.TroubledWorker, resume=False, view=None, **changes):
    config = fakes.small_config(**{"pool": ONE, **changes})
    run_search.run_search(config, directory, resume=resume, view=view, factory=worker)
    return directory


def query(directory, statement):
    connection = sqlite3.connect(directory / FILE_NAME)
    try:
        found = connection.execute(statement).fetchall()
        if checksums.has(connection):
            checksums.begin(connection)
        connection.commit()
    finally:
        connection.close()
    return found


class RacedWorker:
    """Scores like `TroubledWorker`, and stops where the race's level is."""

    def __init__(self):
        self.worker = fakes.TroubledWorker()

    def __call__(self, payload):
        outcome = self.worker(payload)
        ended = 0.0
        for position, run_ in enumerate(outcome.runs):
            limits = payload.limits(position, ended) if payload.race else ()
            if run_.log_losses and limits and run_.log_losses[0] > limits[0]:
                last = dataclasses.replace(run_, status=Status.REJECTED)
                return Outcome.of([*outcome.runs[:position], last])
            ended += run_.log_losses[-1] if run_.log_losses else 0.0
        return outcome


class Stop(fakes.View):
    """Presses Ctrl-C after so many results, or so many runs of the finals."""

    def __init__(self, results=10**9, finals=10**9):
        super().__init__()
        self.results, self.finals = results, finals

    def update(self, evolution):
        if evolution.counts.num_told == self.results:
            raise KeyboardInterrupt

    def phase(self, text, done=0, total=0):
        if total and done == self.finals:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def troubled(tmp_path_factory):
    """A search in which jobs went wrong in every way."""
    return search(tmp_path_factory.mktemp("troubled"))


def test_a_search_with_every_kind_of_result_is_found_again(troubled, tmp_path):
    statuses = collections.defaultdict(set)
    for purpose, status in query(troubled, "SELECT DISTINCT purpose, status FROM evaluation"):
        statuses[purpose].add(status)
    assert {"ok", "rejected", "diverged", "timeout", "killed", "error"} == statuses["fitness"]
    assert statuses["fresh"] - {"ok"} and statuses["select"] - {"ok"}
    before = (troubled / FILE_NAME).read_bytes()
    assert rerun.replay(troubled, tmp_path / "again") == []
    assert (troubled / FILE_NAME).read_bytes() == before
    for table in ("candidate", "proposal", "evaluation", "challenge", "hall_of_fame", "finals"):
        count = f"SELECT COUNT(*) FROM {table}"
        assert query(tmp_path / "again", count) == query(troubled, count) != [(0,)]


@pytest.mark.parametrize("num_told", [1, 30])
def test_a_search_that_was_stopped_is_found_as_far_as_it_got(tmp_path, num_told):
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "run", view=Stop(results=num_told))
    assert rerun.replay(tmp_path / "run", tmp_path / "again") == []
    assert query(tmp_path / "again", "SELECT COUNT(*) FROM proposal") == [(num_told,)]


def test_a_search_that_was_stopped_resumed_and_grown_is_found_again(tmp_path):
    directory = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        search(directory, view=Stop(results=7), max_evaluations=15)
    search(directory, max_evaluations=15, resume=True)
    assert rerun.replay(directory, tmp_path / "first") == []
    more = FinalsConfig(num_rates=4, select_seeds=1, final_seeds=2)
    with pytest.raises(KeyboardInterrupt):
        search(directory, max_evaluations=20, finals=more, resume=True, view=Stop(finals=2))
    assert query(directory, "SELECT COUNT(*) FROM hall_of_fame") == [(0,)]
    assert rerun.replay(directory, tmp_path / "cut short") == []
    search(directory, max_evaluations=25, resume=True)
    assert len(query(directory, "SELECT * FROM finals")) == 3
    assert rerun.replay(directory, tmp_path / "second") == []


def test_any_number_of_workers_and_any_window_is_found_again(tmp_path):
    search(tmp_path / "run", window=7, pool=PoolConfig(num_workers=3), worker=fakes.FakeWorker)
    assert rerun.replay(tmp_path / "run", tmp_path / "again") == []


@pytest.mark.parametrize(
    ("change", "table"),
    [
        ("UPDATE candidate SET fitness = fitness - 1 WHERE id = (SELECT MAX(id) FROM candidate "
         "WHERE status = 'ok')", "candidate"),
        ("UPDATE evaluation SET log_loss = log_loss + 3 WHERE purpose = 'fitness' AND "
         "candidate = (SELECT challenger FROM challenge WHERE id = 1)", "challenge"),
        ("UPDATE challenge SET won = 1 - won WHERE id = 1", "challenge"),
        ("UPDATE proposal SET parent = parent - 1 WHERE id = 70", "proposal"),
        ("UPDATE proposal SET program = replace(program, 'w', 'g') WHERE id = 3", "proposal"),
        ("UPDATE hall_of_fame SET winner = 1 - winner", "hall_of_fame"),
    ],
)  # fmt: skip
def test_what_does_not_follow_from_the_results_is_found_out(troubled, tmp_path, change, table):
    directory = tmp_path / "run"
    directory.mkdir()
    with sqlite3.connect(troubled / FILE_NAME) as old, sqlite3.connect(directory / FILE_NAME) as to:
        old.backup(to)
    old.close(), to.close()
    query(directory, change)
    found = rerun.replay(directory, tmp_path / "again")
    assert [problem for problem in found if problem.startswith(f"{table}: ")]


def test_what_holds_too_little_is_refused(tmp_path, troubled):
    Store.create(tmp_path).close()
    with pytest.raises(StoreError, match="cannot be replayed"):
        rerun.replay(tmp_path, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    with pytest.raises(StoreError, match="already holds a run"):
        rerun.replay(troubled, troubled)


def test_a_stored_config_is_the_config(tmp_path):
    config = fakes.small_config(
        mutation=MutationConfig(ops=("sign", "exp")), finals=FinalsConfig(baselines=("sgd",))
    )
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    assert search_config.read_stored(plain, "store") == config


@pytest.fixture(scope="module")
def troubled_before(tmp_path_factory):
    """The same, but with challenges made at once, as before version 7 of the store."""
    directory = tmp_path_factory.mktemp("before")
    with pytest.raises(KeyboardInterrupt):
        search(directory, view=Stop(results=1))
    older_stores.keep_challenges(directory)
    return search(directory, resume=True)


@pytest.mark.parametrize("version", [3, 5, 6])
def test_a_run_of_an_older_store_version_is_found_again(troubled_before, tmp_path, version):
    directory = tmp_path / "run"
    directory.mkdir()
    before = troubled_before / FILE_NAME
    with sqlite3.connect(before) as old, sqlite3.connect(directory / FILE_NAME) as to:
        old.backup(to)
    old.close(), to.close()
    older_stores.downgrade(directory, version)
    assert rerun.replay(directory, tmp_path / "again") == []


def test_a_race_is_found_again(tmp_path):
    """One check of two runs each: raced at the first one."""
    racing = RacingConfig(chance=0.4, control=0.6, top=0.6, memory=40)
    search(tmp_path / "run", worker=lambda: RacedWorker(), racing=racing, max_evaluations=90)
    statement = "SELECT role, COUNT(*) FROM race WHERE dropped_at IS NOT NULL GROUP BY role"
    ((role, count),) = query(tmp_path / "run", statement)
    assert role == "raced" and count > 2
    assert rerun.replay(tmp_path / "run", tmp_path / "again") == []
    query(tmp_path / "run", "UPDATE race SET role = 'calibrates' WHERE role = 'raced'")
    assert [text for text in rerun.replay(tmp_path / "run", tmp_path / "other") if "race" in text]


def test_a_search_that_trained_is_found_again(finished_run, tmp_path):
    """Real runs have several checks each, and the initial rule's make the hurdle."""
    assert rerun.replay(finished_run, tmp_path / "again") == []
