"""The budget of training steps: counts what a search has trained, and sets where it ends.

All training before the finals counts: candidates, challenges and meta-validation. The search ends
with the proposals that were asked before the budget was spent, so it takes a little more. That
place is stored with the proposal that spent it, so a search that is killed and resumed ends at the
same proposal as one that was not.
"""

import json
from collections.abc import Iterable
from typing import Final, final

from veldt.search.config.search_config import SearchConfig
from veldt.search.evolution.job_records import Record
from veldt.search.storage.store import Store

_KEY: Final = "steps_spent"
_OF_FINALS: Final = ("shortlist", "select", "tuning", "meta-select", "final", "meta-final")


@final
class StepBudget:
    """The training steps of one search.

    Attributes:
      spent: Training steps recorded.
    """

    def __init__(self, config: SearchConfig, store: Store):
        """Read what a search has spent from its store."""
        self._max_steps = config.max_steps
        self._window = config.window
        self._store = store
        self.spent = steps_spent(store)
        self._end: int | None = None
        stored = json.loads(store.meta().get(_KEY, "{}"))
        if stored.get("max_steps") == self._max_steps:
            self._end = stored.get("end")
        elif self._is_spent:  # Less than what a search has trained that is resumed.
            self._end = 0

    @property
    def _is_spent(self) -> bool:
        return self._max_steps is not None and self.spent >= self._max_steps

    def has_ended(self, index: int) -> bool:
        """Return whether proposal `index` is beyond the budget."""
        return self._end is not None and index >= self._end

    def add(self, index: int, records: Iterable[Record], *, ended: bool = False) -> None:
        """Count the training that was told with proposal `index`, or right before it.

        Call it inside the transaction that stores the training.

        Args:
          index: Number of the proposal.
          records: Training runs.
          ended: Whether the search has ended, so that there is no such proposal.
        """
        self.spent += sum(record.run.num_steps for record in records)
        if self._end is None and self._is_spent and not ended:
            # The driver has asked for a whole window by now.
            self._end = index + self._window
            self._store.set_meta(_KEY, json.dumps({"max_steps": self._max_steps, "end": self._end}))


def steps_spent(store: Store) -> int:
    """Return the training steps of a search, its finals left out."""
    marks = ", ".join("?" * len(_OF_FINALS))
    query = (
        "SELECT COALESCE(SUM(num_steps), 0) FROM evaluation "
        f"WHERE purpose NOT IN ({marks}) AND purpose NOT LIKE 'stage %' "
        "AND purpose NOT LIKE 'undone %'"
    )
    return int(store.first(query, _OF_FINALS))
