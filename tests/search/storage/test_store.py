"""The store: whole transactions, one writer, refusals of what is damaged or foreign."""

import os
import re
import shutil
import socket
import sqlite3

import pytest

from tests.search import older_stores
from veldt.search.errors import StoreError
from veldt.search.storage import checksums, schema
from veldt.search.storage.store import FILE_NAME, Store
from veldt.tasks.common.errors import FileError

CANDIDATE = {
    "program": "p",
    "learning_rate": 0.1,
    "length": 1,
    "status": "ok",
    "fitness": -1.0,
    "num_steps": 10,
    "message": "",
}


RUN = {
    "candidate": 0,
    "purpose": "fitness",
    "task": "digits_mlp",
    "status": "ok",
    "loss": 0.5,
    "log_loss": -1.0,
    "num_steps": 10,
    "wall_s": 0.1,
}

# The tables as version 1 made them.
VERSION_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
-- One row per distinct behaviour (program and learning rate); ids below 0: the finals' baselines.
CREATE TABLE candidate (
  id INTEGER PRIMARY KEY,
  behaviour TEXT NOT NULL UNIQUE,
  program TEXT NOT NULL,          -- live statements only
  learning_rate REAL NOT NULL,
  length INTEGER NOT NULL,        -- live instructions
  status TEXT NOT NULL,
  fitness REAL,                   -- NULL unless the status is ok
  num_steps INTEGER NOT NULL,     -- training steps spent on its fitness
  message TEXT NOT NULL
);
-- One row per child proposed, in the order told.
CREATE TABLE proposal (
  id INTEGER PRIMARY KEY,
  parent INTEGER,                 -- proposal; NULL for a child of the initial rule
  mutation TEXT NOT NULL,
  program TEXT NOT NULL,          -- the genotype, dead statements included
  learning_rate REAL NOT NULL,
  structure TEXT NOT NULL,        -- structural hash with the learning rate
  statements INTEGER NOT NULL,    -- of the genotype
  live INTEGER NOT NULL,          -- of them, those that matter
  invalid INTEGER NOT NULL,       -- draws thrown away before it
  -- evaluated | probe | capacity, or the cache that had it: structure | behaviour
  source TEXT NOT NULL,
  candidate INTEGER NOT NULL REFERENCES candidate(id),
  told_s REAL NOT NULL            -- seconds of search when it was told
);
CREATE TABLE evaluation (
  candidate INTEGER NOT NULL REFERENCES candidate(id),
  purpose TEXT NOT NULL,          -- fitness | fresh | meta | select | final | meta-final
  task TEXT NOT NULL,
  seed INTEGER NOT NULL,
  learning_rate REAL NOT NULL,
  status TEXT NOT NULL,
  loss REAL,
  log_loss REAL,                  -- log normalised validation loss at the end
  num_steps INTEGER NOT NULL,
  wall_s REAL NOT NULL,
  PRIMARY KEY (candidate, purpose, task, seed, learning_rate)
) WITHOUT ROWID;
-- One row per challenge of the incumbent, won or lost.
CREATE TABLE challenge (
  id INTEGER PRIMARY KEY,
  proposal INTEGER NOT NULL,
  challenger INTEGER NOT NULL REFERENCES candidate(id),
  incumbent INTEGER NOT NULL REFERENCES candidate(id),
  difference REAL,                -- mean log loss, challenger less incumbent; NULL: one failed
  standard_error REAL,
  won INTEGER NOT NULL,
  meta_fitness REAL,              -- of a new incumbent
  told_s REAL NOT NULL
);
-- The finals' table, in the order shown.
CREATE TABLE hall_of_fame (
  id INTEGER PRIMARY KEY,
  label TEXT NOT NULL,
  candidate INTEGER NOT NULL REFERENCES candidate(id),
  learning_rate REAL,
  length INTEGER NOT NULL,
  search_fitness REAL,
  select_score REAL,
  final_score REAL,
  final_error REAL,
  meta REAL,
  winner INTEGER NOT NULL
);
"""


def add(store, number):
    store.insert("candidate", id=number, behaviour=f"b{number}", **CANDIDATE)


def test_what_a_transaction_wrote_is_there_after_reopening(tmp_path):
    with Store.create(tmp_path) as store, store.transaction():
        add(store, 0)
        store.set_meta("config", "{}")
    with Store.open(tmp_path) as store:
        assert store.rows("SELECT id, behaviour FROM candidate") == [{"id": 0, "behaviour": "b0"}]
        assert store.meta()["config"] == "{}"


def test_a_row_that_is_changed_has_its_checksum(tmp_path):
    with Store.create(tmp_path) as store:
        with store.transaction():
            for number in range(3):
                add(store, number)
            store.update("candidate", 2, fitness=-7.0)
        with store.transaction():
            store.update("candidate", 0, fitness=-3.5, message="changed")
            store.update("candidate", 0, fitness=None)
            add(store, 3)
        with pytest.raises(ValueError, match="no"), store.transaction():
            store.update("candidate", 1, fitness=9.0)
            raise ValueError("no")
        with store.transaction():
            store.update("candidate", 1, length=5)
    with Store.open(tmp_path) as store:  # It verifies the checksums.
        found = store.rows("SELECT id, fitness, message, length FROM candidate ORDER BY id")
        assert [tuple(row.values()) for row in found] == [
            *((0, None, "changed", 1), (1, -1.0, "", 5), (2, -7.0, "", 1), (3, -1.0, "", 1)),
        ]
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("UPDATE candidate SET length = 6 WHERE id = 1")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="candidate holds is not what was written"):
        Store.open(tmp_path)


def test_challenges_of_version_6_are_known_where_they_were_made(tmp_path):
    with Store.create(tmp_path) as store, store.transaction():
        add(store, 0)
        for number, proposal in ((0, -1), (1, 7)):
            told = {"proposal": proposal, "challenger": 0, "incumbent": 0, "won": 1, "told_s": 0}
            store.insert("challenge", id=number, number=9, settled=9, **told)
    older_stores.downgrade(tmp_path, 6)
    with Store.open(tmp_path) as store:
        found = store.rows("SELECT number, settled FROM challenge ORDER BY id")
        assert [tuple(row.values()) for row in found] == [(0, -1), (1, 7)]
        assert store.meta()[schema.CHALLENGES] == schema.AT_ONCE


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failing_transaction_leaves_nothing(tmp_path, error):
    with Store.create(tmp_path) as store:
        with pytest.raises(error), store.transaction():
            add(store, 0)
            raise error
        with store.transaction():
            add(store, 1)
        assert [row["id"] for row in store.rows("SELECT id FROM candidate")] == [1]


def test_a_behaviour_cannot_be_counted_twice(tmp_path):
    with Store.create(tmp_path) as store:
        with store.transaction():
            add(store, 0)
        with pytest.raises(sqlite3.IntegrityError), store.transaction():
            store.insert("candidate", id=1, behaviour="b0", **CANDIDATE)
        assert store.rows("SELECT COUNT(*) AS n FROM candidate") == [{"n": 1}]


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path):
    with Store.create(tmp_path):
        with pytest.raises(FileError, match="in use by another"):
            Store.open(tmp_path)
        with Store.open(tmp_path, read_only=True) as reader:
            assert reader.meta() == {"schema_version": str(schema.SCHEMA_VERSION)}
            with pytest.raises(StoreError, match="cannot be written"), reader.transaction():
                add(reader, 0)
    with Store.open(tmp_path):
        pass


def test_a_run_is_not_overwritten(tmp_path):
    with Store.create(tmp_path) as store, store.transaction():
        add(store, 0)
    with pytest.raises(StoreError, match="--resume"):
        Store.create(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(b"what this is nobody knows" * 100)
    with pytest.raises(StoreError, match="--resume"):
        Store.create(tmp_path)


def test_a_run_that_was_killed_before_its_first_result_is_begun_anew(tmp_path):
    old = Store.create(tmp_path)
    with old.transaction():
        old.set_meta("config", "of the first try")
    # As `kill -9` leaves it: the log is there, and not in the file yet.
    left = tmp_path / "left"
    shutil.copytree(tmp_path, left, ignore=shutil.ignore_patterns("left"))
    old.close()
    assert (left / f"{FILE_NAME}-wal").stat().st_size > 0
    with Store.create(left) as store, store.transaction():
        assert "config" not in store.meta()
        add(store, 7)
    with Store.open(left) as store:
        assert [row["id"] for row in store.rows("SELECT id FROM candidate")] == [7]


def test_an_empty_folder_holds_no_run(tmp_path):
    with pytest.raises(StoreError, match="holds no run"):
        Store.open(tmp_path)


@pytest.mark.parametrize("offset", [0, 100, 40_000])
def test_damage_is_refused_and_nothing_is_written(tmp_path, offset):
    with Store.create(tmp_path) as store, store.transaction():
        for number in range(200):
            add(store, number)
    path = tmp_path / FILE_NAME
    content = bytearray(path.read_bytes())
    content[offset : offset + 2000] = b"\xa5" * 2000
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"damaged|another version"):
        Store.open(tmp_path)
    assert path.read_bytes() == bytes(content)


def test_a_truncated_store_is_refused(tmp_path):
    with Store.create(tmp_path) as store, store.transaction():
        for number in range(200):
            add(store, number)
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(StoreError, match="damaged"):
        Store.open(tmp_path)


def test_another_version_is_refused(tmp_path):
    with Store.create(tmp_path) as store, store.transaction():
        store.set_meta("schema_version", "99")
    with pytest.raises(StoreError, match=r"another version.*99"):
        Store.open(tmp_path)


def test_half_made_stores_are_not_runs(tmp_path):
    (tmp_path / (FILE_NAME + ".new")).write_bytes(b"half of a database")
    with Store.create(tmp_path) as store:
        assert store.rows("SELECT COUNT(*) AS n FROM proposal") == [{"n": 0}]


def test_a_full_disk_loses_only_the_transaction(tmp_path):
    with Store.create(tmp_path) as store:
        with store.transaction():
            add(store, 0)
        (pages,) = store.rows("PRAGMA page_count")[0].values()
        store.rows(f"PRAGMA max_page_count = {pages}")
        expected = (
            rf"{re.escape(str(tmp_path / FILE_NAME))} cannot be .*what was recorded before is safe"
        )
        with pytest.raises(StoreError, match=expected), store.transaction():
            for number in range(1, 500):
                add(store, number)
        assert store.rows("SELECT COUNT(*) AS n FROM candidate") == [{"n": 1}]


# ------------------------------------------------------------------------------ older versions


@pytest.fixture
def version_1(tmp_path):
    """A store as version 1 left it."""
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(VERSION_1)
    connection.execute("INSERT INTO meta VALUES ('schema_version', '1')")
    values = tuple(CANDIDATE.values())
    connection.execute("INSERT INTO candidate VALUES (0, 'b0', ?, ?, ?, ?, ?, ?, ?)", values)
    connection.execute(
        "INSERT INTO evaluation VALUES (0, 'fitness', 'digits_mlp', 0, 0.1, 'ok', 0.5, -1, 10, 0.1)"
    )
    connection.commit()
    connection.close()
    return tmp_path


def shape(store):
    """All that tables and indexes are made of."""
    tables = store.rows("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    indexes = store.rows("SELECT name, tbl_name FROM sqlite_master WHERE type = 'index' ORDER BY 1")
    columns = {
        row["name"]: store.rows("SELECT * FROM pragma_table_info(?)", (row["name"],))
        for row in tables
    }
    return columns, indexes


def test_a_store_of_version_1_is_brought_up_to_date_when_opened_for_writing(version_1, tmp_path):
    with Store.open(version_1) as store:
        assert store.version == schema.SCHEMA_VERSION
        assert store.meta()["schema_version"] == str(schema.SCHEMA_VERSION)
        assert store.rows("SELECT loss, message FROM evaluation") == [{"loss": 0.5, "message": ""}]
        with store.transaction():
            add(store, 1)
        (tmp_path / "new").mkdir()
        with Store.create(tmp_path / "new") as new:
            assert shape(store) == shape(new)
    with Store.open(version_1) as store:
        assert store.first("SELECT COUNT(*) FROM candidate") == 2


@pytest.mark.parametrize("version", range(1, schema.SCHEMA_VERSION))
def test_a_store_of_an_older_version_is_brought_up_to_date(tmp_path, version):
    runs = [RUN | {"seed": seed, "learning_rate": 0.1 * seed} for seed in range(3)]
    with Store.create(tmp_path) as store, store.transaction():
        new = shape(store)
        add(store, 0)
        for run in runs:
            store.insert("evaluation", **run)
    older_stores.downgrade(tmp_path, version)
    for read_only in (True, False):
        with Store.open(tmp_path, read_only=read_only) as store:
            assert store.version == (version if read_only else schema.SCHEMA_VERSION)
            assert shape(store) == new
            assert store.first("SELECT fitness FROM candidate") == -1.0
            assert [run | row for run, row in zip(runs, evaluations(store), strict=True)] == runs
    with Store.open(tmp_path) as store:
        assert checksums.wrong(store._connection) == ""


def evaluations(store):
    return store.rows("SELECT candidate, purpose, seed, learning_rate, log_loss FROM evaluation")


def test_metagradients_of_version_5_get_a_table_of_their_own(tmp_path):
    gradient = {"candidate": 0, "constants": "", "task": "digits_mlp", "learning_rate": 0.1}
    gradient |= {"num_steps": 7, "wall_s": 0.5}
    taken = {"seeds": "[2000000, 2000001]", "status": "ok", "score": -1.5}
    taken |= {"gradient": "[0.5, -2.0]", "message": "fine"}
    refused = {"seeds": "[2000000]", "status": "rejected", "score": None}
    refused |= {"gradient": None, "message": "rough"}
    late = refused | {"learning_rate": 0.2, "status": "timeout", "message": "late"}
    with Store.create(tmp_path) as store, store.transaction():
        add(store, 0)
        for each in (taken, refused, late):
            store.insert("gradient", **(gradient | each))
        wanted = store.rows("SELECT * FROM gradient")
    older_stores.downgrade(tmp_path, 5)
    with Store.open(tmp_path) as store:
        assert store.rows("SELECT * FROM gradient") == wanted
        assert evaluations(store) == []


def test_an_older_store_that_is_read_stays_as_it_is(version_1):
    before = (version_1 / FILE_NAME).read_bytes()
    with Store.open(version_1, read_only=True) as store:
        assert store.version == 1
        assert store.first("SELECT fitness FROM candidate") == -1.0
        assert store.rows("SELECT loss, message FROM evaluation") == [{"loss": 0.5, "message": ""}]
        with pytest.raises(StoreError, match="cannot be written"), store.transaction():
            add(store, 1)
    assert (version_1 / FILE_NAME).read_bytes() == before


def test_an_older_store_that_cannot_be_brought_up_to_date_is_refused(version_1):
    connection = sqlite3.connect(version_1 / FILE_NAME)
    gradient = "(0, 'gradient', 'digits_mlp', 0, 0.1, 'ok', NULL, -1, 10, 0.1)"
    connection.execute(f"INSERT INTO evaluation VALUES {gradient}")
    connection.commit()
    connection.close()
    before = (version_1 / FILE_NAME).read_bytes()
    for read_only in (True, False):
        with pytest.raises(StoreError, match="what version 1 did not write"):
            Store.open(version_1, read_only=read_only)
    assert (version_1 / FILE_NAME).read_bytes() == before


def test_a_migration_that_is_cut_short_leaves_version_1(version_1, monkeypatch):
    monkeypatch.setattr(schema, "_MACHINES", schema._MACHINES + "CREATE TABLE meta (x);\n")
    with pytest.raises(StoreError, match="cannot be written"):
        Store.open(version_1)
    monkeypatch.undo()
    connection = sqlite3.connect(version_1 / FILE_NAME)
    assert connection.execute("SELECT value FROM meta").fetchall() == [("1",)]
    columns = connection.execute("SELECT name FROM pragma_table_info('evaluation')").fetchall()
    connection.close()
    assert ("message",) not in columns
    Store.open(version_1).close()


# ------------------------------------------------------------------------------ disk and lock


def test_an_error_names_the_process_that_holds_a_run(tmp_path):
    with Store.create(tmp_path):
        host, pid = re.escape(socket.gethostname()), os.getpid()
        with pytest.raises(FileError, match=rf"in use .*host {host}, process {pid}, since 20\d\d-"):
            Store.open(tmp_path)
        with pytest.raises(FileError, match=f"process {pid}"):  # The first refusal erased nothing.
            Store.create(tmp_path)


def test_too_little_disk_is_an_error_before_anything_is_made(tmp_path, monkeypatch):
    Store.create(tmp_path / ".").close()
    usage = shutil.disk_usage(tmp_path)._replace(free=20 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    (tmp_path / "new").mkdir()
    with pytest.raises(StoreError, match=r"new: only 20 MiB .* at least 64 MiB"):
        Store.create(tmp_path / "new")
    assert not (tmp_path / "new" / FILE_NAME).exists()
    with pytest.raises(StoreError, match="only 20 MiB"):
        Store.open(tmp_path)
    Store.open(tmp_path, read_only=True).close()


def test_a_store_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / (FILE_NAME + ".new")).mkdir()
    with pytest.raises(StoreError, match=rf"{FILE_NAME} cannot be made"):
        Store.create(tmp_path)


def test_a_stretch_keeps_whole_transactions_whatever_ends_it(tmp_path):
    with Store.create(tmp_path) as store, pytest.raises(KeyboardInterrupt), store.stretch():
        with store.transaction():
            store.set_meta("first", "1")
            add(store, 1)
        other = Store.open(tmp_path, read_only=True)
        assert "first" not in other.meta()  # Nothing is committed yet.
        other.close()
        with pytest.raises(ZeroDivisionError), store.transaction():
            add(store, 2)
            store.set_meta("second", "1")
            raise ZeroDivisionError
        with store.transaction():
            store.set_meta("third", "1")
        raise KeyboardInterrupt
    with Store.open(tmp_path, read_only=True) as store:  # Its checksums are verified.
        assert {"first", "third"} == {"first", "second", "third"} & store.meta().keys()
        assert store.rows("SELECT id FROM candidate") == [{"id": 1}]
