"""A cache of what a search has proposed before, kept in its store.

A candidate is known by its behaviour on the probe (unique in the store), and a proposal also by its
structure, which saves the probe. The store's indexes are the cache: a query takes a few
microseconds, and memory holds only the proposals asked and not yet told, however many there were.
"""

from typing import final

from veldt.search.evolution.challenge import rank
from veldt.search.storage.store import Store


@final
class Seen:
    """The structures and behaviours that a search has asked so far, and their candidates."""

    def __init__(self, store: Store, initial_structure: str):
        """Set up the cache of a store.

        Args:
          store: Store of the run.
          initial_structure: Structure of the initial rule, which is candidate 0 and no proposal.
        """
        self._store = store
        self._initial_structure = initial_structure
        self._structures: dict[str, int] = {}  # of proposals asked and not yet told
        self._behaviours: dict[str, int] = {}  # of candidates asked and not yet told

    @property
    def num_pending(self) -> int:
        """The number of candidates asked and not yet told."""
        return len(self._behaviours)

    def by_structure(self, structure: str) -> int | None:
        """Return the candidate of the first proposal with this structure."""
        if structure == self._initial_structure:
            return 0
        if (pending := self._structures.get(structure)) is not None:
            return pending
        query = "SELECT candidate FROM proposal WHERE structure = ? LIMIT 1"
        return self._store.first(query, (structure,))

    def by_behaviour(self, behaviour: str) -> int | None:
        """Return the candidate with this behaviour."""
        if (pending := self._behaviours.get(behaviour)) is not None:
            return pending
        return self._store.first("SELECT id FROM candidate WHERE behaviour = ?", (behaviour,))

    def fitness(self, candidate: int) -> float:
        """Return a recorded candidate's fitness; infinity where it has none."""
        return rank(self._store.first("SELECT fitness FROM candidate WHERE id = ?", (candidate,)))

    def ask(self, structure: str, candidate: int, new_behaviour: str) -> None:
        """Add a proposal asked; `new_behaviour` is empty where a cache had its candidate."""
        self._structures.setdefault(structure, candidate)
        if new_behaviour:
            self._behaviours[new_behaviour] = candidate

    def tell(self, structure: str, new_behaviour: str) -> None:
        """Forget a proposal that has been stored since."""
        self._structures.pop(structure, None)
        if new_behaviour:
            del self._behaviours[new_behaviour]
