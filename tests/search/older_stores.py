"""Stores as older versions of veldt left them, made from present ones, a version at a time."""

import json
import sqlite3

from veldt.search.storage import checksums, schema
from veldt.search.storage.store import FILE_NAME, Store

RUN = (
    "candidate, purpose, task, seed, learning_rate, status, loss, log_loss, num_steps, wall_s, "
    "message"
)


def keep_challenges(directory):
    """Make a search that has just begun one of before version 7, which challenges at once."""
    with Store.open(directory) as store, store.transaction():
        assert store.first("SELECT COUNT(*) FROM side_work") == 0
        store.set_meta(schema.CHALLENGES, schema.AT_ONCE)


def downgrade(directory, version):
    """Make the store of a run directory one of an older version.

    What version 7 added is lost: for a store that a search goes on with, `keep_challenges` first.
    """
    connection = sqlite3.connect(directory / FILE_NAME)
    for present in range(schema.SCHEMA_VERSION, version, -1):
        _STEPS[present](connection)
    connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (str(version),))
    if checksums.has(connection):
        checksums.begin(connection)
    connection.commit()
    connection.close()


def _to_8(connection):
    for table in ("llm_answer", "llm_call"):
        connection.execute(f"DROP TABLE {table}")


def _to_7(connection):
    connection.execute("DROP TABLE mail")
    connection.execute("ALTER TABLE challenge DROP COLUMN driver")


def _to_6(connection):
    connection.execute("DROP TABLE side_work")
    for column in ("number", "settled"):
        connection.execute(f"ALTER TABLE challenge DROP COLUMN {column}")
    connection.execute("DELETE FROM meta WHERE key = ?", (schema.CHALLENGES,))


def _to_5(connection):
    """Key runs by the learning rate alone, put metagradients among them, and rename a table."""
    for table in ("worker", "pool_event"):
        connection.execute(f"ALTER TABLE {table} RENAME COLUMN session TO sitting")
    connection.execute("ALTER TABLE session RENAME TO sitting")
    connection.execute(f"CREATE TABLE runs AS SELECT {RUN} FROM evaluation")
    gradients = connection.execute(
        "SELECT candidate, 'gradient', task, seeds, learning_rate, status, NULL, score, num_steps, "
        "wall_s, message, gradient FROM gradient"
    ).fetchall()
    connection.execute("DROP TABLE gradient")
    connection.execute("DROP TABLE evaluation")
    connection.execute(
        "CREATE TABLE evaluation (candidate INTEGER NOT NULL REFERENCES candidate(id), "
        "purpose TEXT NOT NULL, task TEXT NOT NULL, seed INTEGER NOT NULL, "
        "learning_rate REAL NOT NULL, status TEXT NOT NULL, loss REAL, log_loss REAL, "
        "num_steps INTEGER NOT NULL, wall_s REAL NOT NULL, message TEXT NOT NULL DEFAULT '', "
        "PRIMARY KEY (candidate, purpose, task, seed, learning_rate)) WITHOUT ROWID"
    )
    connection.execute("INSERT INTO evaluation SELECT * FROM runs")
    connection.execute("DROP TABLE runs")
    for *row, message, gradient in gradients:
        row[3] = json.loads(row[3])[-1]
        if gradient:
            message = json.dumps({"gradient": json.loads(gradient), "verdict": message})
        connection.execute(f"INSERT INTO evaluation VALUES ({'?, ' * 10}?)", (*row, message))


def _to_4(connection):
    connection.execute("DROP TABLE checksum")


def _to_3(connection):
    connection.execute("DROP TABLE race")


def _to_2(connection):
    for table, column in (
        ("candidate", "slots"),
        ("hall_of_fame", "program"),
        ("hall_of_fame", "stages"),
    ):
        connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")


def _to_1(connection):
    for table in ("worker", "pool_event", "sitting", "finals"):
        connection.execute(f"DROP TABLE {table}")
    connection.execute("DROP INDEX proposal_structure")
    connection.execute("ALTER TABLE evaluation DROP COLUMN message")


_STEPS = {9: _to_8, 8: _to_7, 7: _to_6, 6: _to_5, 5: _to_4, 4: _to_3, 3: _to_2, 2: _to_1}
