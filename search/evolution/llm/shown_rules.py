"""What a prompt shows of a search, from its rows: losses by task, and what failed lately and why.

Only recorded rows are read, so a prompt is a function of them. A model learns most from its own
failures, so these come first, then programs that training rejected.
"""

from typing import Any, Final

from veldt.search.llm_text.prompt_data import Shown
from veldt.search.storage.store import Store

NUM_FAILED: Final = 3
_RECENT: Final = 500
"""Number of the last proposals among which failures are looked for."""

_WORDS: Final = {
    "rejected": "rejected at a check on",
    "diverged": "diverges on",
    "hollow": "a low loss that training did not earn, on",
    "timeout": "out of time on",
    "killed": "killed its worker on",
    "error": "an error on",
}


def by_task(store: Store, candidate: int) -> tuple[tuple[str, float], ...]:
    """Return the mean log loss of a candidate on each proxy task, in the order of the names."""
    rows = store.rows(
        "SELECT task, AVG(log_loss) AS mean FROM evaluation WHERE candidate = ? "
        "AND purpose IN ('fitness', 'sample') AND log_loss IS NOT NULL GROUP BY task ORDER BY task",
        (candidate,),
    )
    return tuple((row["task"], float(row["mean"])) for row in rows)


def failed(store: Store) -> tuple[Shown, ...]:
    """Return the last failures, those of models first, each with its reason."""
    rows = store.rows(
        "SELECT p.id, p.program, p.learning_rate, p.source, p.candidate, c.status, c.message "
        "FROM proposal p JOIN candidate c ON c.id = p.candidate "
        "WHERE p.id >= (SELECT MAX(id) FROM proposal) - ? AND CASE WHEN p.mutation LIKE 'llm %' "
        "THEN p.source <> 'sample' AND (p.source <> 'evaluated' OR c.status <> 'ok') "
        "ELSE p.source = 'evaluated' AND c.status <> 'ok' END "
        "ORDER BY p.mutation LIKE 'llm %' DESC, p.id DESC LIMIT ?",
        (_RECENT, NUM_FAILED),
    )
    return tuple(
        Shown(row["id"], row["program"], row["learning_rate"], None, (), _reason(store, row))
        for row in rows
    )


def _reason(store: Store, row: dict[str, Any]) -> str:
    """Return why a proposal failed."""
    if row["source"] in ("structure", "behaviour"):
        query = "SELECT MIN(id) FROM proposal WHERE candidate = ?"
        first = store.first(query, (row["candidate"],))
        if row["candidate"] == 0:
            return "same behaviour as the initial rule"
        return f"same behaviour as #{first}"
    if row["source"] == "probe":
        return "not finite on a few steps with random gradients"
    if row["source"] == "hollow":
        return str(row["message"])
    query = (
        "SELECT task FROM evaluation WHERE candidate = ? AND purpose = 'fitness' AND status = ? "
        "ORDER BY task, seed LIMIT 1"
    )
    task = store.first(query, (row["candidate"], row["status"]))
    where = f" {task}" if task else ""
    return f"{_WORDS.get(row['status'], row['status'])}{where}"
