"""Reading any entry of a run's hall of fame, by its candidate's id: `runs/mine#64`."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from veldt.search.errors import SearchError, UnknownRuleError
from veldt.search.program import Program
from veldt.search.storage import best_rule
from veldt.search.storage.store import FILE_NAME, Store, drivers_with_store
from veldt.tasks.common import spelling

MARK: Final = "#"


def split(source: str | Path) -> tuple[Path, str] | None:
    """Return run directory and id of `RUN#ID`; None for a source that is not of this form.

    Raises:
      UnknownRuleError: The part before the mark is a path, and there is no such directory.
    """
    directory, mark, number = str(source).rpartition(MARK)
    if not mark or not directory:
        return None
    # `os.path`, because pathlib's own tests raise on names that the file system cannot have.
    if os.path.isdir(directory):
        return Path(directory), number
    if number.isdigit():
        raise UnknownRuleError(
            f"there is no run directory {directory!r} whose hall of fame could have {mark}{number}"
        )
    return None


def read_entry(directory: Path, number: str) -> best_rule.Best:
    """Read one entry of a run's hall of fame, as `best_rule.read_best` reads its best.

    Args:
      directory: Run directory.
      number: Id of the candidate, as the hall of fame shows it.

    Raises:
      UnknownRuleError: The hall of fame has no such entry; the message lists those there are.
      SearchError: The run cannot be read.
    """
    if not ((directory / FILE_NAME).is_file() or drivers_with_store(directory)):
        raise UnknownRuleError(f"{str(directory)!r} is no search's run directory (no {FILE_NAME})")
    with Store.open(directory, read_only=True) as store:
        rows = store.rows(
            "SELECT h.candidate, h.learning_rate, h.winner, COALESCE(h.program, c.program) AS "
            "program FROM hall_of_fame h JOIN candidate c ON c.id = h.candidate "
            "WHERE h.candidate >= 0 ORDER BY h.candidate"
        )
        config = json.loads(store.meta()["config"])
    ids = {str(row["candidate"]): row for row in rows}
    if number not in ids:
        raise UnknownRuleError(_unknown(directory, number, ids))
    row = ids[number]
    if row["learning_rate"] is None:
        raise SearchError(
            f"{directory}{MARK}{number} could be trained at no learning rate of the finals"
        )
    tasks = ((proxy["task"], proxy["num_steps"]) for proxy in config["tasks"])
    provenance = {
        "run": directory.resolve().name,
        "candidate": f"{number}, of the hall of fame",
        best_rule.TASKS: best_rule.describe_tasks(tasks),
    }
    return best_rule.make_best(
        Program.parse(row["program"]), row["learning_rate"], f"discovered_{number}", provenance
    )


def _unknown(directory: Path, number: str, ids: Mapping[str, Mapping[str, Any]]) -> str:
    if not ids:
        return (
            f"{str(directory)!r} has no hall of fame yet: its finals have not been played. "
            f"{str(directory)!r} alone stands for its best so far"
        )
    near = spelling.nearest(number, ids)
    hint = f" Did you mean {MARK}{near[0]}?" if near else ""
    known = (f"{MARK}{key}{' (the winner)' if row['winner'] else ''}" for key, row in ids.items())
    return (
        f"there is no {MARK}{number} in the hall of fame of {str(directory)!r}.{hint} There are: "
        f"{', '.join(known)}"
    )
