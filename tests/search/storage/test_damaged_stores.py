"""A search's files with single bytes changed, or cut short: found, or without consequence."""

import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.damage import damaged
from tests.search import fakes
from veldt.search.errors import StoreError
from veldt.search.report import search_report
from veldt.search.run import run_search
from veldt.search.storage import checksums
from veldt.search.storage.store import FILE_NAME, Store
from veldt.tasks.pool.config import PoolConfig


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made")
    config = fakes.small_config(pool=PoolConfig(num_workers=1), max_evaluations=30)
    run_search.run_search(config, directory, factory=fakes.TroubledWorker)
    return directory


def contents(directory: Path) -> Any:
    """All rows of all tables, by both ways of opening; what a reader could see."""
    with Store.open(directory, read_only=True) as store:
        names = store.rows("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")
        rows = {name: store.rows(f"SELECT * FROM {name}") for row in names for name in row.values()}
        # Through the indexes too, which may be what is damaged.
        by_index = [
            store.first("SELECT id FROM candidate WHERE behaviour = ?", (row["behaviour"],))
            for row in rows["candidate"]
        ]
        structures = [
            store.first("SELECT COUNT(*) FROM proposal WHERE structure = ?", (row["structure"],))
            for row in rows["proposal"]
        ]
        return rows, by_index, structures


def check(made: Path, folder: Path, num_flips: int) -> None:
    content = (made / FILE_NAME).read_bytes()
    expected = contents(made)
    path = folder / FILE_NAME
    num_found = 0
    for broken in damaged(content, num_flips):
        path.write_bytes(broken)
        try:
            found = contents(folder)
        except StoreError as error:
            assert str(path) in str(error)
            num_found += 1
            continue
        assert found == expected
    assert num_found > num_flips // 3  # Much of a small store is empty.


def test_a_damaged_store_is_found_or_reads_the_same(made: Path, tmp_path: Path):
    check(made, tmp_path, 30)


@pytest.mark.slow
def test_a_damaged_store_is_found_or_reads_the_same_often(made: Path, tmp_path: Path):
    check(made, tmp_path, 2000)


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("candidate", "fitness", -1e3),
        ("evaluation", "wall_s", 9.0),
        ("proposal", "program", "def p(w, g):\n    return w\n"),
        ("meta", "value", "{}"),
        ("session", "busy_s", 1.0),
        ("worker", "jobs", 99),
        ("hall_of_fame", "label", "a better one"),
        ("checksum", "total", "0123456789abcdef"),
    ],
)
def test_values_that_are_sound_to_sqlite_are_found(
    made: Path, tmp_path: Path, table: str, column: str, value: Any
):
    """Of every kind of table: those of the search, of machines, and the checksums themselves."""
    path = tmp_path / FILE_NAME
    path.write_bytes((made / FILE_NAME).read_bytes())
    connection = sqlite3.connect(path)
    limit = " WHERE key = 'hurdle'" if table == "meta" else ""
    assert connection.execute(f"UPDATE {table} SET {column} = ?{limit}", (value,)).rowcount > 0
    connection.commit()
    connection.close()
    expected = rf"{re.escape(str(path))} is damaged .*(table {table}|what was written)"
    for read_only in (True, False):
        with pytest.raises(StoreError, match=expected):
            Store.open(tmp_path, read_only=read_only)
    with pytest.raises(StoreError, match="is damaged"):
        search_report.write_report(tmp_path)


def test_rows_that_are_missing_or_repeated_are_found(made: Path, tmp_path: Path):
    path = tmp_path / FILE_NAME
    for change in (
        "DELETE FROM proposal WHERE id = (SELECT MAX(id) FROM proposal)",
        "INSERT INTO challenge SELECT id + 100, proposal, challenger, incumbent, difference, "
        "standard_error, won, meta_fitness, told_s, number, settled, driver FROM challenge LIMIT 1",
        "DROP INDEX proposal_structure",
        "DELETE FROM checksum WHERE name = 'race'",
        "UPDATE meta SET value = '4' WHERE key = 'schema_version'",
    ):
        path.write_bytes((made / FILE_NAME).read_bytes())
        connection = sqlite3.connect(path)
        connection.execute(change)
        connection.commit()
        connection.close()
        with pytest.raises(StoreError, match="is damaged"):
            Store.open(tmp_path, read_only=True)


def test_every_way_to_write_keeps_the_checksums(tmp_path: Path):
    """Numbers that SQLite stores as others, defaults, ids that it chooses, changes and removals."""
    candidate = {"program": "p", "learning_rate": 1, "length": True, "status": "ok"}
    candidate |= {"fitness": float("nan"), "num_steps": 2**40, "message": "\u00e4 \U0001f600"}
    with Store.create(tmp_path) as store:
        with store.transaction():
            for number in range(3):
                store.insert("candidate", behaviour=f"b{number}", **candidate)
            store.insert(
                "evaluation",
                candidate=1,
                purpose="fitness",
                task="t",
                seed=0,
                status="ok",
                learning_rate=-0.0,
                loss=1e300,
                num_steps=1.0,
                wall_s=0,
            )
            store.set_meta("a", "1")
            store.set_meta("a", "2")
        with store.transaction():
            store.execute("UPDATE candidate SET message = ? WHERE id = 1", ("other",))
            store.insert("candidate", behaviour="b9", **candidate)
            store.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [("a", "3"), ("b", "")])
            store.execute("DELETE FROM candidate WHERE id = 3")
        with pytest.raises(ZeroDivisionError), store.transaction():
            store.insert("candidate", behaviour="lost", **candidate)
            raise ZeroDivisionError
        with store.transaction():
            store.insert("candidate", id=50, behaviour="kept", **candidate)
        with Store.open(tmp_path, read_only=True) as reader:  # While it is being written.
            assert reader.first("SELECT COUNT(*) FROM candidate") == 4
    with Store.open(tmp_path) as store:
        assert checksums.wrong(store._connection) == ""
