"""The tables of a run's store, and how those of an older version become these.

Two kinds of tables: what was searched, which a killed and resumed run has exactly as one left alone
(but for columns named `*_s`, which hold times), and what happened on machines, `MACHINE_TABLES`,
which no search ever reads and no two runs share.
"""

import json
import sqlite3
from typing import Final, NamedTuple

from veldt.search.storage import checksums

SCHEMA_VERSION: Final = 6
READABLE: Final = (1, 2, 3, 4, 5, 6)

MACHINE_TABLES: Final = ("session", "worker", "pool_event", checksums.TABLE)

_SEARCH: Final = """
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
  message TEXT NOT NULL,
  slots INTEGER                   -- live state slots; NULL in what older versions wrote
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
  -- evaluated | probe | hollow | capacity (by older versions), or the cache that had it:
  -- structure | behaviour
  source TEXT NOT NULL,
  candidate INTEGER NOT NULL REFERENCES candidate(id),
  told_s REAL NOT NULL            -- seconds of search when it was told
);
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
  winner INTEGER NOT NULL,
  program TEXT,                   -- with its constants tuned; NULL: the candidate's
  stages INTEGER NOT NULL DEFAULT 0  -- of the funnel, that it passed
);
"""
_EVALUATION: Final = """
-- One row per training run. A job that ended without any (its worker raised, took too long or
-- died) has one row, for the first run that it should have made.
CREATE TABLE evaluation (
  candidate INTEGER NOT NULL REFERENCES candidate(id),
  -- fitness | fresh | meta | select | tuning | stage NAME | final | meta-final
  purpose TEXT NOT NULL,
  task TEXT NOT NULL,
  seed INTEGER NOT NULL,
  learning_rate REAL NOT NULL,
  -- Of the program trained, where they were tuned, as JSON; empty for the candidate's own program,
  -- and in what versions before 6 wrote, where the learning rate alone told tuned programs apart.
  constants TEXT NOT NULL DEFAULT '',
  status TEXT NOT NULL,
  loss REAL,
  log_loss REAL,                  -- log normalised validation loss at the end
  num_steps INTEGER NOT NULL,
  wall_s REAL NOT NULL,
  message TEXT NOT NULL DEFAULT '',  -- of a job without runs, or why a run is hollow
  PRIMARY KEY (candidate, purpose, constants, task, seed, learning_rate)
) WITHOUT ROWID;
"""
_GRADIENT: Final = """
-- One row per metagradient of a rule's numbers: of the mean score of a task's runs.
CREATE TABLE gradient (
  candidate INTEGER NOT NULL REFERENCES candidate(id),
  constants TEXT NOT NULL,        -- as in evaluation
  task TEXT NOT NULL,
  seeds TEXT NOT NULL,            -- of the runs: JSON
  learning_rate REAL NOT NULL,
  status TEXT NOT NULL,           -- ok; rejected: it is not to be trusted; or what went wrong
  score REAL,                     -- mean of the runs'; NULL unless the status is ok
  gradient TEXT,                  -- by number, the learning rate first: JSON; NULL likewise
  message TEXT NOT NULL,          -- the verdict on it, or what went wrong
  num_steps INTEGER NOT NULL,     -- training steps that it counts as
  wall_s REAL NOT NULL,           -- with compiling
  PRIMARY KEY (candidate, constants, task, seeds, learning_rate)
) WITHOUT ROWID;
"""
_OF_VERSION_3: Final = (
    ("candidate", "slots INTEGER"),
    ("hall_of_fame", "program TEXT"),
    ("hall_of_fame", "stages INTEGER NOT NULL DEFAULT 0"),
)
# What version 2 added to those of version 1.
_PLAYED: Final = """
-- Finals begun: more than one where a budget grew or the finals' config changed.
CREATE TABLE finals (
  id INTEGER PRIMARY KEY,
  told INTEGER NOT NULL,          -- proposals told by then
  config TEXT NOT NULL            -- of the finals, as JSON
);
CREATE INDEX proposal_structure ON proposal(structure);
"""
# What version 4 added.
_RACE: Final = """
-- One row per program that was trained in a search that races (`racing.py`).
CREATE TABLE race (
  proposal INTEGER PRIMARY KEY REFERENCES proposal(id),
  role TEXT NOT NULL,             -- by lot: raced | calibrates | shapes; or founder
  dropped_at INTEGER,             -- rung, from 0 over all runs; NULL: the race dropped it not
  curves TEXT NOT NULL            -- by run, log losses at the checks made: JSON
);
"""
_MACHINES: Final = """
-- One row per process that worked on the run. Seconds are worker-seconds but for `elapsed_s`.
CREATE TABLE session (
  id INTEGER PRIMARY KEY,
  host TEXT NOT NULL,
  pid INTEGER NOT NULL,
  began TEXT NOT NULL,            -- UTC, ISO 8601
  state TEXT NOT NULL,            -- working (or killed) | done | stopped | failed
  backend TEXT NOT NULL,
  num_workers INTEGER NOT NULL,
  done INTEGER NOT NULL,
  retries INTEGER NOT NULL,
  reissued INTEGER NOT NULL,
  timeouts INTEGER NOT NULL,
  killed INTEGER NOT NULL,
  lost_workers INTEGER NOT NULL,
  busy_s REAL NOT NULL,
  wasted_s REAL NOT NULL,
  starting_s REAL NOT NULL,
  alive_s REAL NOT NULL,
  elapsed_s REAL NOT NULL
);
-- A session's workers, lost ones as they were last seen.
CREATE TABLE worker (
  session INTEGER NOT NULL REFERENCES session(id),
  name TEXT NOT NULL,
  place TEXT NOT NULL,
  jobs INTEGER NOT NULL,
  busy_s REAL NOT NULL,
  alive_s REAL NOT NULL,
  PRIMARY KEY (session, name)
) WITHOUT ROWID;
-- What happened to workers and jobs apart from results; the most recent ones.
CREATE TABLE pool_event (
  id INTEGER PRIMARY KEY,
  session INTEGER NOT NULL REFERENCES session(id),
  time_s REAL NOT NULL,           -- since the epoch
  kind TEXT NOT NULL,
  worker TEXT NOT NULL,
  job TEXT NOT NULL,
  message TEXT NOT NULL
);
"""
# What version 5 added; see `checksums.py`.
_CHECKSUMS: Final = f"""
CREATE TABLE {checksums.TABLE} (
  name TEXT PRIMARY KEY,          -- of a table
  num_rows INTEGER NOT NULL,
  total TEXT NOT NULL             -- of its rows' hashes, in hexadecimal
) WITHOUT ROWID;
"""


_RUN: Final = (
    "candidate, purpose, task, seed, learning_rate, status, loss, log_loss, num_steps, wall_s, "
    "message"
)
_FIRST_SEED_5: Final = 2_000_000  # Of all metagradients; version 5 stored the last one alone.


class _Gradient5(NamedTuple):
    """A metagradient as version 5 stored it; `message` is JSON where the status is ok."""

    candidate: int
    task: str
    last_seed: int
    learning_rate: float
    status: str
    score: float | None
    message: str
    num_steps: int
    wall_s: float


def create(connection: sqlite3.Connection) -> None:
    """Makes the tables of a new store."""
    connection.executescript(
        _SEARCH + _EVALUATION + _GRADIENT + _PLAYED + _RACE + _MACHINES + _CHECKSUMS
    )
    connection.execute("INSERT INTO meta VALUES ('schema_version', ?)", (str(SCHEMA_VERSION),))
    checksums.begin(connection)
    connection.commit()


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring the tables of a store up to date, inside a transaction; no result is changed."""
    if version == 1:
        connection.execute("ALTER TABLE evaluation ADD COLUMN message TEXT NOT NULL DEFAULT ''")
        for statement in (_PLAYED + _MACHINES).split(";\n"):
            connection.execute(statement)
    else:
        _rename_sessions(connection)
    if version < 3:
        for table, column in _OF_VERSION_3:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
    if version < 4:
        connection.execute(_RACE)
    if version < 5:
        connection.execute(_CHECKSUMS)
    _key_runs_by_constants(connection)
    connection.execute(
        "UPDATE meta SET value = ? WHERE key = 'schema_version'", (str(SCHEMA_VERSION),)
    )
    checksums.begin(connection)


def _rename_sessions(connection: sqlite3.Connection) -> None:
    """Give the tables of sessions the names of version 6."""
    connection.execute("ALTER TABLE sitting RENAME TO session")
    for table in ("worker", "pool_event"):
        connection.execute(f"ALTER TABLE {table} RENAME COLUMN sitting TO session")


def _key_runs_by_constants(connection: sqlite3.Connection) -> None:
    """Make of version 5's table of runs, which had metagradients as well, the two of version 6."""
    connection.execute("ALTER TABLE evaluation RENAME TO of_version_5")
    connection.execute(_EVALUATION)
    connection.execute(_GRADIENT)
    connection.execute(
        f"INSERT INTO evaluation ({_RUN}) SELECT {_RUN} FROM of_version_5 "
        "WHERE purpose <> 'gradient'"
    )
    gradients = connection.execute(
        "SELECT candidate, task, seed, learning_rate, status, log_loss, message, num_steps, wall_s "
        "FROM of_version_5 WHERE purpose = 'gradient'"
    )
    for row in map(_Gradient5._make, gradients.fetchall()):
        told = json.loads(row.message) if row.status == "ok" else {"verdict": row.message}
        gradient = json.dumps(told["gradient"]) if row.status == "ok" else None
        connection.execute(
            "INSERT INTO gradient VALUES (?, '', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row.candidate,
                row.task,
                json.dumps(list(range(_FIRST_SEED_5, row.last_seed + 1))),
                row.learning_rate,
                row.status,
                row.score,
                gradient,
                told["verdict"],
                row.num_steps,
                row.wall_s,
            ),
        )
    connection.execute("DROP TABLE of_version_5")
