"""The run's store: one SQLite file that survives `kill -9`.

One writer, the driver, in write-ahead mode. A proposal, its program, its evaluations and what they
changed are told in one transaction: after a crash each is there whole or not at all, so nothing is
lost that was told and nothing is counted twice. There is no separate search state to
checkpoint: population, caches and incumbent are functions of the rows (`evolution.py` rebuilds
them), and random numbers of the seed and the proposal's number.

A run that was killed and resumed has the same rows as one left alone, up to the columns named
`*_s`, which hold times.
"""

import contextlib
import fcntl
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TextIO, final

from veldt.search.errors import StoreError

SCHEMA_VERSION: Final = 1
FILE_NAME: Final = "store.sqlite"

_SCHEMA: Final = """
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


@final
class Store:
    """A run's store, open for writing by this process alone.

    Guarantees: what `transaction` wrote is durable when it returns, as a whole; a second writer is
      refused; a damaged file or one of another
    version is refused before anything is written to it.
    """

    def __init__(self, connection: sqlite3.Connection, lock: TextIO | None):
        self._connection = connection
        self._lock = lock

    @classmethod
    def create(cls, directory: Path) -> "Store":
        """Makes the store of a new run.

        Raises:
          StoreError: there is one already, or the directory cannot be written.
        """
        path = directory / FILE_NAME
        with contextlib.ExitStack() as undo:
            lock = undo.enter_context(_lock(directory))
            if path.exists():
                raise StoreError(
                    f"{directory} already holds a run: continue it with --resume, or choose "
                    "another --run-dir"
                )
            # Built aside and renamed, so that a crash leaves no half-made store behind.
            draft = directory / (FILE_NAME + ".new")
            draft.unlink(missing_ok=True)
            with contextlib.closing(sqlite3.connect(draft)) as connection:
                connection.executescript(_SCHEMA)
                version = ("schema_version", str(SCHEMA_VERSION))
                connection.execute("INSERT INTO meta VALUES (?, ?)", version)
                connection.commit()
            draft.rename(path)
            store = cls(_connect(path), lock)
            undo.pop_all()
            return store

    @classmethod
    def open(cls, directory: Path, *, read_only: bool = False) -> "Store":
        """Opens the store of an existing run, checking it.

        Raises:
          StoreError: there is none, it is damaged, of another version, or open elsewhere.
        """
        path = directory / FILE_NAME
        if not path.is_file():
            raise StoreError(f"{directory} holds no run (there is no {FILE_NAME} in it)")
        with contextlib.ExitStack() as undo:
            lock = None if read_only else undo.enter_context(_lock(directory))
            try:
                connection = _connect(path, read_only=read_only)
                undo.callback(connection.close)
                verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                if verdict != "ok":
                    raise StoreError(f"{path} is damaged ({verdict}); restore it from a copy")
                found = dict(connection.execute("SELECT key, value FROM meta"))
            except sqlite3.DatabaseError as error:
                raise StoreError(
                    f"{path} is damaged or no run's store ({error}); restore it from a copy"
                ) from None
            version = found.get("schema_version")
            if version != str(SCHEMA_VERSION):
                raise StoreError(
                    f"{path} was written by another version of veldt (store version {version}, "
                    f"this one reads {SCHEMA_VERSION}); use the veldt that wrote it, or start a "
                    "new run"
                )
            undo.pop_all()
            return cls(connection, lock)

    def close(self) -> None:
        """Closes the file; further calls fail."""
        self._connection.close()
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inserted inside is committed together, or not at all.

        Raises:
          StoreError: the disk is full or the file cannot be written; nothing of the transaction is
            kept.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise StoreError(
                f"the run's store cannot be written ({error}); what was told before is safe"
            ) from error

    def insert(self, table: str, **values: Any) -> int:
        """Adds one row inside a transaction. Returns its row id.

        `table` and the names come from this package.
        """
        names = ", ".join(values)
        marks = ", ".join("?" * len(values))
        cursor = self._connection.execute(
            f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values())
        )
        return int(cursor.lastrowid or 0)

    def execute(self, statement: str) -> None:
        """Runs one statement inside a transaction."""
        self._connection.execute(statement)

    def set_meta(self, key: str, value: str) -> None:
        """Sets one named text, inside a transaction."""
        self._connection.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, value),
        )

    def meta(self) -> dict[str, str]:
        """All named texts."""
        return dict(self._connection.execute("SELECT key, value FROM meta"))

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Runs a SELECT. Returns one dict per row."""
        cursor = self._connection.execute(query, tuple(parameters))
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]


def _connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    uri = path.absolute().as_uri() + ("?mode=ro" if read_only else "?mode=rw")
    if read_only and not path.with_name(path.name + "-wal").exists():
        uri += "&immutable=1"  # nobody writes: no side files, and read-only folders will do
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30.0)
    if not read_only:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # With WAL, NORMAL survives a killed process; only a power cut can lose the last
            # transactions, and never half of one.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
        except sqlite3.DatabaseError:
            connection.close()
            raise
    return connection


def _lock(directory: Path) -> TextIO:
    """Take the run directory; the system gives it back when the process ends, however it ends."""
    try:
        handle = (directory / "lock").open("w")
    except OSError as error:
        raise StoreError(f"{directory} cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        raise StoreError(f"{directory} is in use by another veldt process") from None
    return handle
