"""One store made from those of several drivers, for all that reads a search.

Finals, reports, `RUN#ID` and exports know one store with one search in it. So the stores of the
drivers are *merged*: their proposals in turn, the first of each driver, then the second of each,
numbered anew, with candidates, training runs and challenges to match. The result is a function of
the drivers' stores alone. It is written once, when all drivers have ended, and the finals are
played in it; before that a reader gets one that is made in memory.

* A behaviour that several drivers found is a candidate of each: none knew of the other's runs. The
  text of its behaviour names the driver. The initial rule is the exception: all drivers begin with
  it and the same runs, and it is candidate 0. The runs of it that the first driver made too are
  named after their driver, so that all training is counted.
* An immigrant's parent is the proposal of the rule in the letter, with its sender.
* Each challenge names its driver: every driver has an incumbent of its own.
* Side work and mail are left out; they are about how each driver went on.
"""

import heapq
import json
import sqlite3
from array import array
from collections.abc import Iterator, Mapping
from typing import Any, Final, final

from veldt.search.storage import checksums, schema
from veldt.search.storage.numbers import letter_of, sender

_NOT_MERGED: Final = ("schema_version", "steps_spent")
Row = dict[str, Any]


def merge(parts: Mapping[int, sqlite3.Connection], into: sqlite3.Connection) -> None:
    """Write the stores of drivers into a new one, in a transaction.

    Args:
      parts: Stores, by the number of the driver; those of drivers that have not begun may lack.
      into: Store without any rows but its version.
    """
    into.execute("BEGIN")
    into.execute("PRAGMA defer_foreign_keys = ON")  # Until the end of the transaction.
    for part in parts.values():
        part.execute("BEGIN")  # One snapshot of each, though its driver may be writing.
    try:
        begun = {driver: part for driver, part in parts.items() if _has_begun(part)}
        first = next(iter(begun or parts))
        for key, value in parts[first].execute("SELECT key, value FROM meta ORDER BY key"):
            if key not in _NOT_MERGED:
                into.execute("INSERT INTO meta VALUES (?, ?)", (key, value))
        if begun:
            _Merger(begun, into).run()
        checksums.begin(into)
        into.execute("COMMIT")
    finally:
        for part in parts.values():
            part.execute("ROLLBACK")


def in_memory(parts: Mapping[int, sqlite3.Connection]) -> sqlite3.Connection:
    """Return a store in memory, merged from those of drivers; nobody writes to it."""
    into = sqlite3.connect(":memory:", isolation_level=None)
    schema.create(into)
    merge(parts, into)
    into.execute("PRAGMA query_only = ON")
    return into


@final
class _Merger:
    """One merge, of the stores of drivers that have begun."""

    def __init__(self, parts: Mapping[int, sqlite3.Connection], into: sqlite3.Connection):
        self._parts = parts
        self._into = into
        self._first = next(iter(parts))
        (text,) = parts[self._first].execute("SELECT value FROM meta WHERE key = 'config'")
        config = json.loads(text[0])
        self._drivers, self._every = int(config["drivers"]), int(config["migration_every"])
        # New numbers by the old ones, which begin at 0 and have no gaps.
        self._proposals = {driver: array("q") for driver in parts}
        self._candidates = {driver: array("q", [0]) for driver in parts}
        self._num_proposals, self._num_candidates = 0, 1

    def run(self) -> None:
        """Write all rows."""
        self._write_proposals()
        self._write_challenges()
        sessions = events = 0
        for driver, part in self._parts.items():
            self._write_candidates(driver, part)
            self._write_runs(driver, part)
            self._insert("race", self._races(driver, part))
            for table in ("session", "worker", "pool_event"):
                self._insert(table, self._of_machines(part, table, sessions, events))
            (sessions,) = self._into.execute("SELECT COALESCE(MAX(id), 0) FROM session").fetchone()
            (events,) = self._into.execute("SELECT COALESCE(MAX(id), 0) FROM pool_event").fetchone()

    def _write_proposals(self) -> None:
        query = "SELECT * FROM proposal ORDER BY id"
        self._insert("proposal", (self._proposal(*both) for both in self._in_turn(query, "id")))

    def _proposal(self, driver: int, row: Row) -> Row:
        proposals, candidates = self._proposals[driver], self._candidates[driver]
        number, self._num_proposals = self._num_proposals, self._num_proposals + 1
        if row["candidate"] == len(candidates):  # It introduces that.
            candidates.append(self._num_candidates)
            self._num_candidates += 1
        parent = row["parent"]
        if parent is not None:
            parent = proposals[parent]
        elif row["mutation"] == "immigrant":
            parent = self._sent(driver, row["id"])
        proposals.append(number)
        return {**row, "id": number, "parent": parent, "candidate": candidates[row["candidate"]]}

    def _sent(self, driver: int, index: int) -> int | None:
        """Return the proposal whose rule came by mail as a proposal; None for the initial rule."""
        by = sender(driver, self._drivers)
        if by not in self._parts:
            return None
        letter = letter_of(index, self._every)
        query = "SELECT proposal FROM mail WHERE id = ? AND proposal >= 0"
        found = self._parts[by].execute(query, (letter,)).fetchone()
        return None if found is None else self._proposals[by][found[0]]

    def _write_challenges(self) -> None:
        query = "SELECT * FROM challenge ORDER BY id"
        rows = (
            (driver, row)
            for driver, row in self._in_turn(query, "settled")
            if row["proposal"] >= 0 or driver == self._first
        )
        self._insert("challenge", (self._challenge(n, *both) for n, both in enumerate(rows)))

    def _challenge(self, number: int, driver: int, row: Row) -> Row:
        proposals, candidates = self._proposals[driver], self._candidates[driver]

        def at(proposal: int) -> int:
            if 0 <= proposal < len(proposals):
                return proposals[proposal]
            return min(proposal, self._num_proposals)  # The initial rule's, and after the last.

        return {
            **row,
            "id": number,
            "proposal": at(row["proposal"]),
            "settled": at(row["settled"]),
            "challenger": candidates[row["challenger"]],
            "incumbent": candidates[row["incumbent"]],
            "driver": driver,
        }

    def _write_candidates(self, driver: int, part: sqlite3.Connection) -> None:
        first = 0 if driver == self._first else 1
        rows = _rows(part, f"SELECT * FROM candidate WHERE id >= {first} ORDER BY id")
        mark = f", driver {driver}" if driver else ""
        self._insert(
            "candidate",
            (
                {
                    **row,
                    "id": self._candidates[driver][row["id"]],
                    "behaviour": f"{row['behaviour']}{mark if row['id'] else ''}",
                }
                for row in rows
            ),
        )

    def _write_runs(self, driver: int, part: sqlite3.Connection) -> None:
        def run(row: Row) -> Row:
            again = row["candidate"] == 0 and driver != self._first and row["purpose"] != "sample"
            purpose = f"driver {driver}, {row['purpose']}" if again else row["purpose"]
            new = self._candidates[driver][row["candidate"]]
            return {**row, "candidate": new, "purpose": purpose}

        rows = _rows(part, "SELECT * FROM evaluation WHERE candidate >= 0")
        self._insert("evaluation", map(run, rows))

    def _races(self, driver: int, part: sqlite3.Connection) -> Iterator[Row]:
        for row in _rows(part, "SELECT * FROM race ORDER BY proposal"):
            yield {**row, "proposal": self._proposals[driver][row["proposal"]]}

    @staticmethod
    def _of_machines(
        part: sqlite3.Connection, table: str, sessions: int, events: int
    ) -> Iterator[Row]:
        for row in _rows(part, f"SELECT * FROM {table}"):
            if table == "session":
                yield {**row, "id": sessions + row["id"]}
            else:
                own = {"id": events + row["id"]} if table == "pool_event" else {}
                yield {**row, **own, "session": sessions + row["session"]}

    def _in_turn(self, query: str, order: str) -> Iterator[tuple[int, Row]]:
        """Yield the rows of all drivers in turn, by a column with numbers of their proposals."""

        def of(driver: int) -> Iterator[tuple[int, Row]]:
            return ((driver, row) for row in _rows(self._parts[driver], query))

        return heapq.merge(*map(of, self._parts), key=lambda both: (both[1][order], both[0]))

    def _insert(self, table: str, rows: Iterator[Row]) -> None:
        first = next(rows, None)
        if first is None:
            return
        names, marks = ", ".join(first), ", ".join("?" * len(first))
        statement = f"INSERT INTO {table} ({names}) VALUES ({marks})"
        self._into.execute(statement, tuple(first.values()))
        self._into.executemany(statement, (tuple(row.values()) for row in rows))


def _rows(part: sqlite3.Connection, query: str) -> Iterator[Row]:
    cursor = part.execute(query)
    names = [column[0] for column in cursor.description]
    return (dict(zip(names, row, strict=True)) for row in cursor)


def _has_begun(part: sqlite3.Connection) -> bool:
    return part.execute("SELECT 1 FROM meta WHERE key = 'hurdle'").fetchone() is not None
