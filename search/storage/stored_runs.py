"""Training runs as the store has them, looked up by what they are."""

from typing import Any, TypeAlias

from veldt.search.storage.store import Store

StoredRuns: TypeAlias = dict[tuple[str, int], dict[str, Any]]
"""Rows of the table `evaluation`, by task and seed."""


def read(
    store: Store,
    candidate: int,
    purpose: str,
    learning_rate: float,
    constants: str = "",
    *,
    unnamed: bool = True,
) -> StoredRuns:
    """Return a rule's training runs at one learning rate, in the order of tasks and seeds.

    Args:
      store: a search's.
      candidate: the rule's id.
      purpose: what the runs are for, as the store names it.
      learning_rate: exactly that of the runs.
      constants: those of the rule, if they were tuned, as the store names them; see `EvalJob`.
      unnamed: whether runs count that are stored without constants. Versions before 6 stored none:
        a learning rate told tuned rules apart.
    """
    query = (
        "SELECT * FROM evaluation WHERE candidate = ? AND purpose = ? AND learning_rate = ? "
        "AND constants IN (?, ?) ORDER BY task, seed, constants"  # Those named come last.
    )
    other = "" if unnamed else constants
    rows = store.iterate(query, (candidate, purpose, learning_rate, constants, other))
    return {(row["task"], row["seed"]): row for row in rows}
