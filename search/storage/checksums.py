"""One checksum for each table of a store, which shows whether the rows are those written.

SQLite finds a damaged page where its structure breaks, but not a changed digit of a fitness. So
each row has a hash, and a table's checksum is the sum of the hashes of its rows, in any order: a
row costs one hash when it is written, and nothing is read again. A transaction writes the checksums
of what it changes. They are verified when a store is opened. Not covered: where a write-ahead log
is damaged, SQLite drops the rest of it, as after a power cut; what remains is whole.

The hashes are no secret: this is for damage, not against forgery.
"""

import hashlib
import re
import sqlite3
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, final

TABLE: Final = "checksum"
_MODULUS: Final = 1 << 64
_SCHEMA: Final = "sqlite_master"
_NUM_READ: Final = 1000  # rows at a time
# The table that a statement changes.
_CHANGED: Final = re.compile(
    r"\s*(?:INSERT\s+(?:OR\s+\w+\s+)?INTO|UPDATE|DELETE\s+FROM)\s+(\w+)", re.IGNORECASE
)


class _Column(NamedTuple):
    """A column: the declared type, and the value in a row that names none."""

    type: str
    default: Any

    def stored(self, value: Any) -> Any:
        """Return a value as SQLite returns it: NaN as NULL, numbers of the column's type."""
        if not isinstance(value, int | float):
            return value
        if value != value:
            return None
        if self.type == "REAL":
            return float(value) + 0.0  # -0.0 comes back as 0.0
        is_whole = isinstance(value, int) or (self.type == "INTEGER" and value.is_integer())
        return int(value) if is_whole else float(value)


class _Mark(NamedTuple):
    """A place in a transaction."""

    added: dict[str, int]  # Number of rows by table.
    exchanged: dict[str, int]
    changed: set[str]


@final
class Checksums:
    """Keeps the checksums of a store that is written to, by one writer."""

    def __init__(self, connection: sqlite3.Connection):
        self._connection = connection
        self._columns = {table: _columns(connection, table) for table in _tables(connection)}
        self._totals: dict[str, tuple[int, int]] = {}
        self._added: dict[str, list[int]] = {}
        self._exchanged: dict[str, int] = {}  # Sum of the changes of the rows that were updated.
        self._changed: set[str] = set()

    def added(self, table: str, values: Mapping[str, Any], row_id: int) -> None:
        """Record that a row was inserted; columns that are not named have their defaults."""
        row: list[Any] = []
        for name, column in self._columns[table].items():
            value = values.get(name, column.default)
            if value is None:
                row.append(row_id if name == "id" else None)
            elif type(value) is str or (type(value) is int and column.type == "INTEGER"):
                row.append(value)  # As most are.
            else:
                row.append(column.stored(value))
        self._added.setdefault(table, []).append(_hash(tuple(row)))

    def updated(self, table: str, before: tuple[Any, ...], after: tuple[Any, ...]) -> None:
        """Record that a row was changed."""
        self._exchanged[table] = self._exchanged.get(table, 0) + _hash(after) - _hash(before)

    def ran(self, statement: str) -> None:
        """Record a statement that may have changed rows; the table is read again at the end."""
        if found := _CHANGED.match(statement):
            self._changed.add(found.group(1))

    def mark(self) -> "_Mark":
        """Return what the transaction has changed so far."""
        numbers = {table: len(hashes) for table, hashes in self._added.items()}
        return _Mark(numbers, dict(self._exchanged), set(self._changed))

    def back_to(self, mark: "_Mark") -> None:
        """Forget what was recorded since, which was rolled back."""
        self._added = {table: self._added[table][:end] for table, end in mark.added.items()}
        self._exchanged, self._changed = mark.exchanged, mark.changed

    def write(self) -> None:
        """Write the checksums that a transaction changed, inside it."""
        if not self._added and not self._exchanged and not self._changed:
            return
        if not self._totals:
            self._totals = _stored(self._connection)
        new = {table: _sum(self._connection, table) for table in self._changed}
        for table in (self._added.keys() | self._exchanged.keys()) - self._changed:
            num_rows, total = self._totals[table]
            hashes = self._added.get(table, [])
            total += sum(hashes) + self._exchanged.get(table, 0)
            new[table] = num_rows + len(hashes), total % _MODULUS
        _set(self._connection, new)
        self._totals |= new

    def forget(self, *, written: bool) -> None:
        """End the transaction, which was committed or rolled back."""
        self._added.clear()
        self._exchanged.clear()
        self._changed.clear()
        if not written:
            self._totals.clear()


def begin(connection: sqlite3.Connection) -> None:
    """Write the checksums of all tables as they are now."""
    connection.execute(f"DELETE FROM {TABLE}")
    tables = (*_tables(connection), _SCHEMA)
    _set(connection, {table: _sum(connection, table) for table in tables})


def has(connection: sqlite3.Connection) -> bool:
    """Return whether a store has checksums; stores of older versions have none."""
    query = f"SELECT 1 FROM {_SCHEMA} WHERE name = ?"
    return connection.execute(query, (TABLE,)).fetchone() is not None


def wrong(connection: sqlite3.Connection) -> str:
    """Return what is wrong with a store that has checksums; empty if nothing is wrong.

    Raises:
      sqlite3.DatabaseError: The store cannot be read.
    """
    connection.execute("BEGIN")  # One snapshot, though a search may be writing.
    try:
        stored = _stored(connection)
        tables = [*_tables(connection), _SCHEMA]
        if set(stored) != set(tables):
            return "tables or checksums are missing"
        for table in tables:
            if _sum(connection, table) != stored[table]:
                return f"what the table {table} holds is not what was written"
        return ""
    finally:
        connection.execute("ROLLBACK")


def _tables(connection: sqlite3.Connection) -> list[str]:
    query = f"SELECT name FROM {_SCHEMA} WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return sorted(name for (name,) in connection.execute(query) if name != TABLE)


def _columns(connection: sqlite3.Connection, table: str) -> dict[str, _Column]:
    """Return the columns of a table, in order."""
    query = "SELECT name, type, dflt_value FROM pragma_table_info(?)"
    rows = connection.execute(query, (table,)).fetchall()
    return {
        name: _Column(type_, default and connection.execute(f"SELECT {default}").fetchone()[0])
        for name, type_, default in rows
    }


def _stored(connection: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    rows = connection.execute(f"SELECT name, num_rows, total FROM {TABLE}")
    return {name: (int(num_rows), int(total, 16)) for name, num_rows, total in rows}


def _set(connection: sqlite3.Connection, sums: Mapping[str, tuple[int, int]]) -> None:
    connection.executemany(
        f"INSERT OR REPLACE INTO {TABLE} VALUES (?, ?, ?)",
        [(table, num_rows, f"{total:016x}") for table, (num_rows, total) in sums.items()],
    )


def _sum(connection: sqlite3.Connection, table: str) -> tuple[int, int]:
    """Return the number of rows of a table, and the sum of their hashes."""
    what = "type, name, tbl_name, sql" if table == _SCHEMA else "*"
    cursor = connection.execute(f"SELECT {what} FROM {table}")
    num_rows = total = 0
    while rows := cursor.fetchmany(_NUM_READ):
        num_rows += len(rows)
        total += sum(map(_hash, rows))
    return num_rows, total % _MODULUS


def _hash(row: tuple[Any, ...]) -> int:
    text = repr(row).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
