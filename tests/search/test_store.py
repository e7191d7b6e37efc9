"""The store: whole transactions, one writer, refusals of what is damaged or foreign."""

import sqlite3

import pytest

from veldt.search import store as store_lib
from veldt.search.errors import StoreError
from veldt.search.store import FILE_NAME, Store

CANDIDATE = {
    "program": "p",
    "learning_rate": 0.1,
    "length": 1,
    "status": "ok",
    "fitness": -1.0,
    "num_steps": 10,
    "message": "",
}


def add(store, number):
    store.insert("candidate", id=number, behaviour=f"b{number}", **CANDIDATE)


def test_what_a_transaction_wrote_is_there_after_reopening(tmp_path):
    with Store.create(tmp_path) as store, store.transaction():
        add(store, 0)
        store.set_meta("config", "{}")
    with Store.open(tmp_path) as store:
        assert store.rows("SELECT id, behaviour FROM candidate") == [{"id": 0, "behaviour": "b0"}]
        assert store.meta()["config"] == "{}"


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
        with pytest.raises(StoreError, match="in use by another"):
            Store.open(tmp_path)
        with Store.open(tmp_path, read_only=True) as reader:
            assert reader.meta() == {"schema_version": str(store_lib.SCHEMA_VERSION)}
            with pytest.raises(StoreError, match="cannot be written"), reader.transaction():
                add(reader, 0)
    with Store.open(tmp_path):
        pass


def test_a_run_is_not_overwritten(tmp_path):
    Store.create(tmp_path).close()
    with pytest.raises(StoreError, match="--resume"):
        Store.create(tmp_path)


def test_an_empty_folder_holds_no_run(tmp_path):
    with pytest.raises(StoreError, match="holds no run"):
        Store.open(tmp_path)


@pytest.mark.parametrize("place", [0.0, 0.002, 0.5])
def test_damage_is_refused_and_nothing_is_written(tmp_path, place):
    with Store.create(tmp_path) as store, store.transaction():
        for number in range(200):
            add(store, number)
    path = tmp_path / FILE_NAME
    content = bytearray(path.read_bytes())
    offset = int(place * len(content))
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
        with pytest.raises(StoreError, match="what was told before is safe"), store.transaction():
            for number in range(1, 500):
                add(store, number)
        assert store.rows("SELECT COUNT(*) AS n FROM candidate") == [{"n": 1}]
