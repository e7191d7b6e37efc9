"""What each kind of mutation yields: how many of its children are new, and how many are better.

A search spends its time on children that are trained. A kind whose children are mostly duplicates
costs little and brings little; one whose children are mostly stopped early costs more. So for each
kind this counts proposals, what became of them, and by how much trained children were better than
their parent, by the fitness that the store holds at the end.

Children of several mutations at once stand in one row of their own, since no single kind made
them. Founders and copies are left out.
"""

import collections
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np

from veldt.search.evaluation.jobs import Status
from veldt.search.storage.store import Store

SEVERAL: Final = "several"
"""The name of the row of children of several mutations at once."""
MARGINS: Final = (0.02, 0.05)
"""The gains in log loss by which better children are counted too."""
_DUPLICATE: Final = ("structure", "behaviour")


@final
@dataclass(frozen=True, slots=True)
class Yield:
    """What one kind of mutation yielded in a search.

    Attributes:
      kind: Name of the mutation, or `SEVERAL`.
      proposals: Number of children.
      duplicates: Number of children that behaved as a program before them.
      refused: Number of new children that the probe rejected before any training.
      trained: Number of children trained.
      stopped: Number of trained children without a fitness: stopped early, diverged or failed.
      better: Number of trained children better than their parent.
      better_by: Number of trained children better by each of `MARGINS`, in that order.
      median_gain: Median gain in log loss of the children that were better; None if none was.
      incumbents: Number of children that became the incumbent.
    """

    kind: str
    proposals: int
    duplicates: int
    refused: int
    trained: int
    stopped: int
    better: int
    better_by: tuple[int, ...]
    median_gain: float | None
    incumbents: int


def yields(store: Store) -> tuple[Yield, ...]:
    """Return what each kind of mutation yielded in a run, by the number of children, largest first.

    Args:
      store: Store of the run.
    """
    rows: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for row in _children(store):
        rows[SEVERAL if "+" in row["mutation"] else row["mutation"]].append(row)
    found = [_yield(kind, children) for kind, children in rows.items()]
    return tuple(sorted(found, key=lambda one: (one.kind == SEVERAL, -one.proposals, one.kind)))


def _children(store: Store) -> Iterator[dict[str, Any]]:
    """Yield the proposals with their own fitness and status, and the fitness of their parent."""
    query = (
        "SELECT p.id, p.mutation, p.source, c.status, c.fitness, parent.fitness AS of_parent "
        "FROM proposal p JOIN candidate c ON c.id = p.candidate "
        "LEFT JOIN proposal q ON q.id = p.parent "
        "JOIN candidate parent ON parent.id = COALESCE(q.candidate, 0) ORDER BY p.id"
    )
    won = {row["proposal"] for row in store.rows("SELECT proposal FROM challenge WHERE won = 1")}
    for row in store.iterate(query):
        mutation = str(row["mutation"])
        if not mutation.startswith("founder ") and mutation != "copy":
            yield {**row, "mutation": mutation, "won": row["id"] in won}


def _yield(kind: str, children: list[dict[str, Any]]) -> Yield:
    trained = [row for row in children if row["source"] == "evaluated"]
    duplicates = sum(row["source"] in _DUPLICATE for row in children)
    scored = [row for row in trained if row["status"] == Status.OK]
    # A parent without a fitness failed: any child with one is better, by no number.
    gains = np.array([
        np.inf if row["of_parent"] is None else row["of_parent"] - row["fitness"]
        for row in scored
    ])  # fmt: skip
    better = gains[gains > 0]
    return Yield(
        kind=kind,
        proposals=len(children),
        duplicates=duplicates,
        refused=len(children) - len(trained) - duplicates,
        trained=len(trained),
        stopped=len(trained) - len(scored),
        better=len(better),
        better_by=tuple(int((gains >= margin).sum()) for margin in MARGINS),
        median_gain=float(np.median(better)) if len(better) else None,
        incumbents=sum(row["won"] for row in children),
    )
