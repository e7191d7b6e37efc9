"""The run's store: one SQLite file that survives `kill -9`.

One writer, the driver, in write-ahead mode. A proposal, its program, its evaluations and what they
changed are recorded in one transaction: after a crash it is there whole or not at all, so nothing
recorded is lost and nothing is counted twice. There is no separate search state to checkpoint:
population, caches and incumbent are functions of the rows (`engine.py` makes them), and random
numbers are functions of the seed and the proposal's number.

A run that was killed and resumed has the same rows as a run without a break, up to the columns
named `*_s`, which hold times, and the `MACHINE_TABLES`. The tables are in `schema.py`.
"""

import contextlib
import functools
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, final

from veldt.search.errors import StoreError
from veldt.search.storage import checksums, merging, numbers, schema
from veldt.tasks.common.disk.lock import DirectoryLock

FILE_NAME: Final = "store.sqlite"
MIN_FREE_BYTES: Final = 64 * 2**20  # A run of 10,000 proposals takes about 10 MiB.
# What happened on machines: left out where runs are compared.
MACHINE_TABLES: Final = schema.MACHINE_TABLES


@final
class Store:
    """A run's store, open for writing by this process alone.

    Guarantees: what `transaction` wrote is durable when it returns, as a whole; a second writer is
    refused; a damaged file or one of a newer version is refused before anything is written to it.
    """

    def __init__(
        self, path: Path, connection: sqlite3.Connection, lock: DirectoryLock | None, version: int
    ):
        self.path = path
        self.version = version  # Version of the file: below the present one only where read-only.
        self._connection = connection
        self._lock = lock
        self._checksums = checksums.Checksums(connection)

    @classmethod
    def create(cls, directory: Path, *, locked: bool = False) -> "Store":
        """Make the store of a new run; a store without any result is replaced.

        Args:
          directory: Directory of the run.
          locked: Whether the caller holds the directory already.

        Raises:
          StoreError: There is one already, or it cannot be made.
          FileError: Another process works there, or the directory cannot be written.
        """
        path = directory / FILE_NAME
        with contextlib.ExitStack() as undo:
            lock = None if locked else undo.enter_context(DirectoryLock(directory))
            if path.exists() and _holds_something(path):
                raise StoreError(
                    f"{directory} already holds a run: continue it with --resume "
                    "(resume=True in Python), or choose another --run-dir"
                )
            _check_space(directory)
            # Built aside and renamed, so that a crash leaves no half-made store behind.
            draft = directory / (FILE_NAME + ".new")
            try:
                draft.unlink(missing_ok=True)
                with contextlib.closing(sqlite3.connect(draft)) as connection:
                    schema.create(connection)
                # A process that was killed before its first record left a log, which would be
                # taken for the new store's.
                for suffix in ("-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
                draft.rename(path)
                store = cls(path, _connect(path), lock, schema.SCHEMA_VERSION)
            except (OSError, sqlite3.Error) as error:
                raise StoreError(f"{path} cannot be made: {error}") from None
            undo.pop_all()
            return store

    @classmethod
    def open(cls, directory: Path, *, read_only: bool = False, locked: bool = False) -> "Store":
        """Open the store of an existing run, and check it.

        A store of an older version is brought up to date: the file itself for writing, a copy in
        memory for reading. So all other modules know the present tables alone. Where a search of
        several drivers has not ended, a reader gets one made in memory from their stores.

        Args:
          directory: Directory of the run.
          read_only: Whether it is only read, which needs no lock.
          locked: Whether the caller holds the directory already.

        Raises:
          StoreError: There is none, it is damaged, or of another version.
          FileError: Another process works there, or the directory cannot be written.
        """
        path = directory / FILE_NAME
        if read_only and not path.is_file() and (parts := drivers_with_store(directory)):
            return cls(path, _merged(directory, parts), None, schema.SCHEMA_VERSION)
        if not path.is_file():
            raise StoreError(f"{directory} holds no run (there is no {FILE_NAME} in it)")
        with contextlib.ExitStack() as undo:
            free = not (read_only or locked)
            lock = undo.enter_context(DirectoryLock(directory)) if free else None
            try:
                connection = _connect(path, read_only=read_only)
                undo.callback(connection.close)
                damage = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
                if damage != "ok":
                    raise StoreError(f"{path} is damaged ({damage}); restore it from a copy")
                found = dict(connection.execute("SELECT key, value FROM meta"))
                version = str(found.get("schema_version"))
                # Older versions have no checksums, unless the version is what is damaged.
                if checksums.has(connection) or version == str(schema.SCHEMA_VERSION):
                    damage = checksums.wrong(connection)
            # Where SQLite or the checksums need a text or a number, others raise these two errors.
            except (sqlite3.Error, ValueError, TypeError) as error:
                raise StoreError(
                    f"{path} is damaged or no run's store ({error}); restore it from a copy"
                ) from None
            if version not in map(str, schema.READABLE):
                raise StoreError(
                    f"{path} was written by another version of veldt (store version {version}, "
                    f"this one reads {' and '.join(map(str, schema.READABLE))}); use the veldt "
                    "that wrote it, or start a new run"
                )
            if damage not in ("", "ok"):
                raise StoreError(f"{path} is damaged ({damage}); restore it from a copy")
            if not read_only:
                _check_space(directory)
            if int(version) == schema.SCHEMA_VERSION:
                store = cls(path, connection, lock, schema.SCHEMA_VERSION)
            elif read_only:
                copy = _migrated_copy(path, connection, int(version))
                connection.close()
                store = cls(path, copy, lock, int(version))
            else:
                with cls(path, connection, lock, int(version)).transaction():
                    _migrate(path, connection, int(version))
                store = cls(path, connection, lock, schema.SCHEMA_VERSION)
            undo.pop_all()
            return store

    @classmethod
    def merge(cls, run_dir: Path) -> None:
        """Make the store of a search of several drivers from theirs; they must have ended.

        Raises:
          StoreError: A driver's store cannot be read, or the new one cannot be written.
        """
        aside = run_dir / "merged"
        aside.mkdir(exist_ok=True)
        for file in aside.glob(f"{FILE_NAME}*"):  # Left by a process that died here.
            file.unlink()
        with contextlib.ExitStack() as close, cls.create(aside, locked=True) as made:
            parts = _parts(run_dir, drivers_with_store(run_dir), close)
            try:
                merging.merge(parts, made._connection)
            except sqlite3.DatabaseError as error:
                raise StoreError(f"{made.path} cannot be written ({error})") from error
        made.path.replace(run_dir / FILE_NAME)
        aside.rmdir()

    def close(self) -> None:
        """Close the file; further calls fail."""
        self._connection.close()
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything inserted inside together, or nothing.

        Inside a `stretch` it is committed with the others there.

        Raises:
          StoreError: The disk is full or the file cannot be written; nothing of the transaction
            is kept.
        """
        if self._connection.in_transaction:
            with self._part():
                yield
            return
        with self._committed():
            try:
                yield
            except BaseException:
                if self._connection.in_transaction:  # A full disk may have ended it already.
                    self._connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def stretch(self) -> Iterator[None]:
        """Commit the transactions inside at once, which costs less than one by one.

        What has been recorded when an exception passes through is committed too.

        Raises:
          StoreError: As for `transaction`; nothing of the stretch is kept.
        """
        error: BaseException | None = None
        with self._committed():
            try:
                yield
            except sqlite3.Error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            except BaseException as other:
                error = other
        if error is not None:
            raise error

    @contextlib.contextmanager
    def _part(self) -> Iterator[None]:
        """Keep everything inserted inside together, or nothing, in a transaction that is open."""
        mark = self._checksums.mark()
        self._connection.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK TO part")
                self._connection.execute("RELEASE part")
                self._checksums.back_to(mark)
            raise
        self._connection.execute("RELEASE part")

    @contextlib.contextmanager
    def _committed(self) -> Iterator[None]:
        """Open a transaction, and commit it with its checksums unless an exception comes out."""
        written = False
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._checksums.write()
            self._connection.execute("COMMIT")
            written = True
        except sqlite3.DatabaseError as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            # Other kinds are mistakes of the caller.
            if type(error) not in (sqlite3.OperationalError, sqlite3.DatabaseError):
                raise
            raise StoreError(
                f"{self.path} cannot be written ({error}); what was recorded before is safe. "
                "Once the cause is removed, --resume continues the run"
            ) from error
        finally:
            self._checksums.forget(written=written)

    def insert(self, table: str, **values: Any) -> int:
        """Add one row inside a transaction, and return its row id.

        `table` and the names must come from this package.
        """
        cursor = self._connection.execute(_insertion(table, tuple(values)), tuple(values.values()))
        row_id = int(cursor.lastrowid or 0)
        self._checksums.added(table, values, row_id)
        return row_id

    def update(self, table: str, row_id: int, **values: Any) -> None:
        """Change columns of the row with an id, inside a transaction.

        `table` and the names must come from this package.
        """
        query = f"SELECT * FROM {table} WHERE id = ?"
        before = self._connection.execute(query, (row_id,)).fetchone()
        marks = ", ".join(f"{name} = ?" for name in values)
        self._connection.execute(
            f"UPDATE {table} SET {marks} WHERE id = ?", (*values.values(), row_id)
        )
        after = self._connection.execute(query, (row_id,)).fetchone()
        self._checksums.updated(table, before, after)

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        """Run one statement inside a transaction."""
        self._connection.execute(statement, tuple(parameters))
        self._checksums.ran(statement)

    def executemany(self, statement: str, parameters: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row of parameters, inside a transaction."""
        self._connection.executemany(statement, parameters)
        self._checksums.ran(statement)

    def set_meta(self, key: str, value: str) -> None:
        """Set one named text, inside a transaction."""
        self.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, value),
        )

    def meta(self) -> dict[str, str]:
        """Return all named texts."""
        return dict(self._connection.execute("SELECT key, value FROM meta"))

    def first(self, query: str, parameters: Sequence[Any] = ()) -> Any:
        """Run a SELECT of one column; return its first value, or None where there is no row."""
        row = self._connection.execute(query, tuple(parameters)).fetchone()
        return None if row is None else row[0]

    def rows(self, query: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Run a SELECT; return one dict per row."""
        return list(self.iterate(query, parameters))

    def iterate(self, query: str, parameters: Sequence[Any] = ()) -> Iterator[dict[str, Any]]:
        """Run a SELECT; yield one dict per row, read as they are taken."""
        cursor = self._connection.execute(query, tuple(parameters))
        names = [column[0] for column in cursor.description]
        return (dict(zip(names, row, strict=True)) for row in cursor)


def drivers_with_store(run_dir: Path) -> list[int]:
    """Return the numbers of the drivers that have a store in the directory of a run."""
    found: list[int] = []
    while (numbers.folder(run_dir, len(found)) / FILE_NAME).is_file():
        found.append(len(found))
    return found


def _parts(
    run_dir: Path, drivers: Sequence[int], close: contextlib.ExitStack
) -> dict[int, sqlite3.Connection]:
    """Open the stores of drivers for reading, until `close` ends."""
    return {
        driver: close.enter_context(
            Store.open(numbers.folder(run_dir, driver), read_only=True)
        )._connection
        for driver in drivers
    }


def _merged(run_dir: Path, drivers: Sequence[int]) -> sqlite3.Connection:
    with contextlib.ExitStack() as close:
        return merging.in_memory(_parts(run_dir, drivers, close))


@functools.cache
def _insertion(table: str, names: tuple[str, ...]) -> str:
    marks = ", ".join("?" * len(names))
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})"


def _connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    uri = path.absolute().as_uri() + ("?mode=ro" if read_only else "?mode=rw")
    if read_only and not path.with_name(path.name + "-wal").exists():
        uri += "&immutable=1"  # Nobody writes: no side files are needed, so read-only folders work.
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


def _migrated_copy(path: Path, connection: sqlite3.Connection, version: int) -> sqlite3.Connection:
    """Return a copy in memory of an older store, with the present tables; nobody writes to it."""
    copy = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.backup(copy)
        _migrate(path, copy, version)
        copy.execute("PRAGMA query_only = ON")
    except sqlite3.Error as error:
        copy.close()
        raise StoreError(f"{path} is damaged ({error}); restore it from a copy") from None
    except BaseException:
        copy.close()
        raise
    return copy


def _migrate(path: Path, connection: sqlite3.Connection, version: int) -> None:
    try:
        schema.migrate(connection, version)
    except (ValueError, LookupError, TypeError) as error:  # For example, broken JSON.
        raise StoreError(
            f"{path} holds what version {version} did not write ({error}); restore it from a copy"
        ) from None


def _check_space(directory: Path) -> None:
    free = shutil.disk_usage(directory).free
    if free < MIN_FREE_BYTES:
        raise StoreError(
            f"{directory}: only {free / 2**20:.0f} MiB of disk are free; a run needs at least "
            f"{MIN_FREE_BYTES / 2**20:.0f} MiB. Free some space, or choose another --run-dir"
        )


def _holds_something(path: Path) -> bool:
    """Return whether a store has any result. A file that cannot be read may hold one."""
    try:
        with contextlib.closing(_connect(path)) as connection:
            return connection.execute("SELECT 1 FROM candidate LIMIT 1").fetchone() is not None
    except sqlite3.Error:
        return True
