"""The entries of a hall of fame, as the finals store them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from veldt.search.config import objectives
from veldt.search.evaluation.genotype import constants_text
from veldt.search.evaluation.jobs import Status
from veldt.search.program import Program
from veldt.search.storage import stored_runs
from veldt.search.storage.store import Store
from veldt.tasks.inner_loop import hollow


@final
@dataclass(frozen=True, slots=True)
class End:
    """How the last runs of a rule ended, as far as scores do not show it.

    Attributes:
      failure: Reason of the first failed run on the final seeds; empty if none failed.
      at_floor: Tasks where at least half of those runs are at the floor, below which losses
        cannot be distinguished.
      meta_at_floor: Meta-validation tasks where at least half of the runs are at the floor.
    """

    failure: str = ""
    at_floor: tuple[str, ...] = ()
    meta_at_floor: tuple[str, ...] = ()

    @classmethod
    def read(
        cls, store: Store, candidate: int, program: Program, learning_rate: float | None
    ) -> "End":
        """Return how a rule's runs ended at the learning rate that it was judged at."""
        if learning_rate is None:
            return cls()

        constants = constants_text(program)

        def read(purpose: str, rate: float | None = None) -> Sequence[Mapping[str, Any]]:
            found = stored_runs.read(store, candidate, purpose, rate, constants)
            return tuple(found.values())

        rows = read("final", learning_rate)
        failures = [row for row in rows if row["status"] != Status.OK]
        failure = ""
        if failures:
            message = failures[0].get("message")
            failure = f"{failures[0]['status']} on {failures[0]['task']}" + (
                f": {message}" if message else ""
            )
        if not _has_floor(store):
            return cls(failure)
        # Older versions made these runs at several rates; now they have one, maybe another.
        meta = read("meta-final", learning_rate) or read("meta-final")
        return cls(failure, _at_floor(rows), _at_floor(meta))


def _has_floor(store: Store) -> bool:
    """Return whether scores are logarithms of losses, and not of a user's function."""
    config = json.loads(store.meta().get("config", "{}"))
    return config.get("objective", objectives.DEFAULT) in objectives.OBJECTIVES


def _at_floor(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the tasks where half of the runs or more are at the floor."""
    by_task: dict[str, list[bool]] = {}
    for row in rows:
        if row["log_loss"] is not None:
            by_task.setdefault(row["task"], []).append(hollow.at_floor(row["log_loss"]))
    return tuple(task for task, floored in by_task.items() if 2 * sum(floored) >= len(floored))


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the hall of fame.

    Attributes:
      label: Name of the rule in the table.
      candidate: Id in the store; below 0 for a baseline.
      program: Simplified rule; with tuned constants where the finals tune them.
      learning_rate: Best of the grid on the selection seeds; None where every one failed.
      length: Number of live instructions.
      search_fitness: Fitness in the search; None for a baseline.
      select: Mean log loss on the selection seeds, at that learning rate.
      final: Mean log loss on the final seeds; None where a run failed.
      final_error: Standard error of that mean over seeds.
      meta: Mean log loss on the meta-validation tasks; None where a run failed or there are none.
      winner: Whether it is the rule that the run returns.
      stages: Number of stages of the funnel that it passed; 0 for a baseline.
      end: End of the runs on the final seeds.
    """

    label: str
    candidate: int
    program: Program
    learning_rate: float | None
    length: int
    search_fitness: float | None
    select: float | None
    final: float | None
    final_error: float | None
    meta: float | None
    winner: bool = False
    stages: int = 0
    end: End = field(default_factory=End)


def read_entries(store: Store) -> list[Entry]:
    """Return the finals' result as stored; empty before the finals were played."""
    rows = store.rows(
        "SELECT h.*, COALESCE(h.program, c.program) AS source "
        "FROM hall_of_fame h JOIN candidate c ON c.id = h.candidate ORDER BY h.id"
    )
    programs = [Program.parse(row["source"]) for row in rows]
    return [
        Entry(
            label=row["label"],
            candidate=row["candidate"],
            program=program,
            learning_rate=row["learning_rate"],
            length=row["length"],
            search_fitness=row["search_fitness"],
            select=row["select_score"],
            final=row["final_score"],
            final_error=row["final_error"],
            meta=row["meta"],
            winner=bool(row["winner"]),
            stages=row["stages"],
            end=End.read(store, row["candidate"], program, row["learning_rate"]),
        )
        for row, program in zip(rows, programs, strict=True)
    ]
