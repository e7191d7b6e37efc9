"""Reading training runs from the store."""

from typing import Any, TypeAlias

from veldt.search.storage.store import Store

StoredRuns: TypeAlias = dict[tuple[str, int], dict[str, Any]]
"""Rows of the table `evaluation`, by task and seed."""


def read(
    store: Store,
    candidate: int,
    purpose: str,
    learning_rate: float | None,
    constants: str = "",
    *,
    unnamed: bool = True,
) -> StoredRuns:
    """Return a rule's training runs, in the order of tasks and seeds.

    Args:
      store: Store of a search.
      candidate: Id of the rule.
      purpose: Purpose of the runs, as the store names it.
      learning_rate: Exact learning rate of the runs; None where they have one and it is not known.
      constants: Tuned constants of the rule, as the store names them; see `EvalJob`.
      unnamed: Whether runs stored without constants count too. Versions before 6 stored none: the
        learning rate distinguished tuned rules.
    """
    query = (
        "SELECT * FROM evaluation WHERE candidate = ? AND purpose = ? "
        "AND (? IS NULL OR learning_rate = ?) AND constants IN (?, ?) "
        "ORDER BY task, seed, constants"  # Rows with constants come last.
    )
    other, rate = "" if unnamed else constants, learning_rate
    rows = store.iterate(query, (candidate, purpose, rate, rate, constants, other))
    return {(row["task"], row["seed"]): row for row in rows}
