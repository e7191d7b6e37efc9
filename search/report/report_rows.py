"""Rows of a store as a report needs them, checked and with names.

Every value is checked to be of the right kind: a row that no search wrote raises an error, which
`report_data.read_run` puts into words.
"""

import bisect
import math
import statistics
from dataclasses import dataclass
from typing import Any, Final, final

from veldt.search.evaluation.genotype import constants_text
from veldt.search.evolution import search_rows
from veldt.search.program import Program
from veldt.search.storage import stored_runs
from veldt.search.storage.hall_entries import Entry
from veldt.search.storage.store import Store

# A larger number is no score and no learning rate, and a figure of it would show nothing.
_MAX_NUMBER: Final = 1e12
PURPOSES: Final = (
    "fitness",
    "fresh",
    "meta",
    "select",
    "tuning",
    "gradient",
    "meta-select",
    "final",
    "meta-final",
)
"""The purposes of runs, in the order of the search; stages of the funnel come last."""


@final
@dataclass(frozen=True, slots=True)
class Trained:
    """A distinct program that was trained: its number in order, its fitness and its status."""

    number: int
    candidate: int
    fitness: float | None
    status: str


@final
@dataclass(frozen=True, slots=True)
class Incumbent:
    """A rule that was the best so far for a time.

    Attributes:
      candidate: Id in the store.
      since: Number of programs trained when it became the incumbent.
      proposal: Proposal that introduced it; -1 for the initial rule.
      length: Number of live instructions.
      fitness: Mean log loss on the search's seeds.
      fresh: Mean log loss on all fresh seeds so far; None without any or with a failure on one.
      num_fresh: Number of fresh seeds.
      meta: Mean log loss on the meta-validation tasks.
      meta_pending: Whether the score on the meta-validation tasks is still to come.
    """

    candidate: int
    since: int
    proposal: int
    length: int
    fitness: float
    fresh: float | None
    num_fresh: int
    meta: float | None
    meta_pending: bool = False


@final
@dataclass(frozen=True, slots=True)
class Ancestor:
    """A proposal on the way from the initial rule to the winner.

    Attributes:
      proposal: Number of the proposal.
      mutation: Names of the mutations.
      candidate: Id in the store.
      status: Status of the candidate.
      fitness: Mean log loss; None unless the status is ok.
      learning_rate: Learning rate.
      program: Program.
      idea: Idea behind the program in the words of the language model that proposed it; empty
        where none did.
    """

    proposal: int
    mutation: str
    candidate: int
    status: str
    fitness: float | None
    learning_rate: float
    program: Program
    idea: str = ""


@final
@dataclass(frozen=True, slots=True)
class FreshComparison:
    """A candidate's challenge of the incumbent, on fresh seeds.

    Attributes:
      difference: Mean log loss less that of the incumbent; None where one of them failed.
      standard_error: Standard error of the difference.
      won: Whether the candidate became the incumbent.
    """

    difference: float | None
    standard_error: float | None
    won: bool


@final
@dataclass(frozen=True, slots=True)
class Spent:
    """The cost of the runs of one purpose: runs, training steps, seconds of training."""

    purpose: str
    num_runs: int
    num_steps: int
    wall_s: float


def optional(value: Any) -> float | None:
    """Return a value that may be missing as a number; see `number`."""
    return None if value is None else number(value)


def number(value: Any) -> float:
    """Return a score or a rate as a number of ordinary size; raise an error for anything else."""
    number = float(value)
    if not abs(number) < _MAX_NUMBER:
        raise ValueError(f"{number} is no possible score or learning rate")
    return number


def candidate(store: Store, candidate: int) -> tuple[Program, float]:
    """Return a candidate's program and learning rate."""
    query = "SELECT program, learning_rate FROM candidate WHERE id = ?"
    row = store.rows(query, (candidate,))[0]
    return Program.parse(row["program"]), number(row["learning_rate"])


def trained(store: Store) -> tuple[Trained, ...]:
    """Return the distinct programs trained, in order."""
    rows = store.rows(
        "SELECT p.candidate, c.fitness, c.status FROM proposal p JOIN candidate c "
        "ON c.id = p.candidate WHERE p.source = 'evaluated' ORDER BY p.id"
    )
    return tuple(
        Trained(i, int(row["candidate"]), optional(row["fitness"]), str(row["status"]))
        for i, row in enumerate(rows, 1)
    )


def incumbents(store: Store) -> tuple[Incumbent, ...]:
    """Return the incumbents, the initial rule first; of the driver with the best, if several."""
    several = store.first("SELECT COUNT(DISTINCT driver) FROM challenge") > 1
    driver = search_rows.best_of_drivers(store)[0] if several else 0
    proposals = [
        int(row["id"])
        for row in store.rows("SELECT id FROM proposal WHERE source = 'evaluated' ORDER BY id")
    ]
    fresh = {
        row["candidate"]: row
        for row in store.rows(
            "SELECT candidate, AVG(log_loss) AS mean, COUNT(DISTINCT seed) AS seeds, "
            "COUNT(*) - COUNT(log_loss) AS failed FROM evaluation WHERE purpose = 'fresh' "
            "GROUP BY candidate"
        )
    }
    rows = store.rows(
        "SELECT h.challenger, h.proposal, h.settled, h.meta_fitness, c.length, c.fitness, "
        "EXISTS (SELECT 1 FROM side_work s WHERE s.stage = 'meta' AND s.done = 0 "
        "AND s.candidate = h.challenger) AS pending FROM challenge h "
        "JOIN candidate c ON c.id = h.challenger WHERE h.won = 1 "
        "AND (h.driver = ? OR h.proposal < 0) ORDER BY h.id",
        (driver,),
    )
    incumbents = []
    for row in rows:
        met = fresh.get(row["challenger"], {"mean": None, "seeds": 0, "failed": 0})
        incumbents.append(
            Incumbent(
                candidate=int(row["challenger"]),
                since=(
                    bisect.bisect_right(proposals, int(row["proposal"]))
                    if row["settled"] == row["proposal"]
                    else bisect.bisect_left(proposals, int(row["settled"]))
                ),
                proposal=int(row["proposal"]),
                length=int(row["length"]),
                fitness=number(row["fitness"]),
                fresh=None if met["failed"] else optional(met["mean"]),
                num_fresh=int(met["seeds"]),
                meta=optional(row["meta_fitness"]),
                meta_pending=bool(row["pending"]),
            )
        )
    if not incumbents or incumbents[0].candidate != 0:
        raise ValueError("the first incumbent is not the initial rule")
    return tuple(incumbents)


def lineage(store: Store, candidate: int) -> tuple[Ancestor, ...]:
    """Return the line from the initial rule's child to the first proposal with this candidate."""
    if candidate == 0:
        return ()
    first = "SELECT MIN(id) AS id FROM proposal WHERE candidate = ?"
    proposal = store.rows(first, (candidate,))[0]["id"]
    lineage: list[Ancestor] = []
    while proposal is not None:
        row = store.rows(
            "SELECT p.*, c.status, c.fitness FROM proposal p JOIN candidate c "
            "ON c.id = p.candidate WHERE p.id = ?",
            (proposal,),
        )[0]
        lineage.append(
            Ancestor(
                proposal=int(row["id"]),
                mutation=str(row["mutation"]),
                candidate=int(row["candidate"]),
                status=str(row["status"]),
                fitness=optional(row["fitness"]),
                learning_rate=number(row["learning_rate"]),
                program=Program.parse(row["program"]),
            )
        )
        if row["parent"] is not None and not row["parent"] < proposal:
            raise ValueError(f"proposal {proposal} descends from a later one")
        proposal = row["parent"]
    return tuple(reversed(lineage))


def comparisons(store: Store, candidates: set[int]) -> dict[int, FreshComparison]:
    """Return the challenges of the candidates given, by candidate."""
    rows = store.rows("SELECT * FROM challenge WHERE proposal >= 0 ORDER BY id")
    return {
        int(row["challenger"]): FreshComparison(
            optional(row["difference"]), optional(row["standard_error"]), bool(row["won"])
        )
        for row in rows
        if row["challenger"] in candidates
    }


def meta_runs(
    store: Store, incumbents: tuple[Incumbent, ...]
) -> dict[int, dict[tuple[str, int], float]]:
    """Return incumbents' log losses on meta-validation, by candidate, then by task and seed."""
    query = (
        "SELECT task, seed, log_loss FROM evaluation WHERE candidate = ? AND purpose = 'meta' "
        "AND log_loss IS NOT NULL"
    )
    return {
        incumbent.candidate: {
            (str(row["task"]), int(row["seed"])): number(row["log_loss"])
            for row in store.rows(query, (incumbent.candidate,))
        }
        for incumbent in incumbents
    }


def spent(store: Store) -> tuple[Spent, ...]:
    """Return what each purpose of runs cost, in the order of the search."""
    rows = store.rows(
        "SELECT purpose, COUNT(*) AS runs, SUM(num_steps) AS steps, SUM(wall_s) AS wall_s "
        "FROM evaluation GROUP BY purpose UNION ALL "
        "SELECT 'gradient', COUNT(*), SUM(num_steps), SUM(wall_s) FROM gradient HAVING COUNT(*) > 0"
    )
    spent = [
        Spent(str(r["purpose"]), int(r["runs"]), int(r["steps"]), float(r["wall_s"])) for r in rows
    ]
    order = {purpose: i for i, purpose in enumerate(PURPOSES)}
    return tuple(sorted(spent, key=lambda s: (order.get(s.purpose, len(order)), s.purpose)))


def errors(store: Store) -> tuple[tuple[str, int], ...]:
    """Return the commonest messages of failed candidates and how often each came."""
    rows = store.rows(
        "SELECT message, COUNT(*) AS n FROM candidate WHERE message <> '' "
        "GROUP BY message ORDER BY n DESC, message LIMIT 5"
    )
    return tuple((str(row["message"]), int(row["n"])) for row in rows)


def seed_scores(store: Store, entries: tuple[Entry, ...]) -> dict[int, dict[int, float]]:
    """Return mean log losses on the final seeds, by candidate, without seeds of failed runs."""
    return {entry.candidate: _seed_means(store, entry) for entry in entries}


def _seed_means(store: Store, entry: Entry) -> dict[int, float]:
    if entry.learning_rate is None:
        return {}
    constants = constants_text(entry.program)
    found = stored_runs.read(store, entry.candidate, "final", entry.learning_rate, constants)
    losses: dict[int, list[float]] = {}
    for (_, seed), row in found.items():
        loss = math.nan if row["log_loss"] is None else number(row["log_loss"])
        losses.setdefault(int(seed), []).append(loss)
    means = {seed: statistics.fmean(of_seed) for seed, of_seed in losses.items()}
    return {seed: mean for seed, mean in means.items() if not math.isnan(mean)}
