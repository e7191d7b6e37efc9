"""What a report tells of a run, read from its store in one snapshot.

The store is opened for reading alone, so a report can be written while the search goes on. Every
value is checked to be of the kind that it should be: rows that no search wrote are an error here
and never text in a page.
"""

import bisect
import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

from veldt.search import finals, objectives, work
from veldt.search import survival as survival_lib
from veldt.search.config import FinalsConfig, FounderConfig, SearchConfig
from veldt.search.errors import StoreError
from veldt.search.evaluator import ProxyConfig
from veldt.search.finals import Entry
from veldt.search.program import Program
from veldt.search.store import Store
from veldt.search.survival import Survival
from veldt.search.tally import Tally
from veldt.search.work import Work

# Beyond this a number is no score and no learning rate, and a figure of it shows nothing.
_MAX_NUMBER: Final = 1e12
# What reading rows that no search wrote can raise; a `SearchError` says it better and passes.
_NOT_A_RUN: Final = (
    sqlite3.Error,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
PURPOSES: Final = ("fitness", "fresh", "meta", "select", "tuning", "final", "meta-final")


@final
@dataclass(frozen=True, slots=True)
class Trained:
    """A distinct program that was trained: the how-manieth, what it got, what became of it."""

    number: int
    candidate: int
    fitness: float | None
    status: str


@final
@dataclass(frozen=True, slots=True)
class Reign:
    """An incumbent's time.

    Attributes:
      candidate: its id in the store.
      since: programs trained when it became the incumbent.
      proposal: the proposal that it came by; -1 for the initial rule.
      length: live instructions.
      fitness: on the search's seeds.
      fresh: mean log loss on all fresh seeds that it met; None where it met none or failed on one.
      num_fresh: how many fresh seeds those were.
      meta: on the meta-validation tasks.
    """

    candidate: int
    since: int
    proposal: int
    length: int
    fitness: float
    fresh: float | None
    num_fresh: int
    meta: float | None


@final
@dataclass(frozen=True, slots=True)
class Ancestor:
    """A proposal on the way from the initial rule to the winner."""

    proposal: int
    mutation: str
    candidate: int
    status: str
    fitness: float | None
    learning_rate: float
    program: Program


@final
@dataclass(frozen=True, slots=True)
class Duel:
    """A candidate's challenge of the incumbent, on fresh seeds.

    Attributes:
      difference: mean log loss, its own less the incumbent's; None where one of them failed.
      standard_error: of the difference.
      won: whether it became the incumbent.
    """

    difference: float | None
    standard_error: float | None
    won: bool


@final
@dataclass(frozen=True, slots=True)
class Spent:
    """What one kind of evaluation took: runs, training steps, seconds of training."""

    purpose: str
    num_runs: int
    num_steps: int
    wall_s: float


@final
@dataclass(frozen=True, slots=True)
class RunData:
    """A run as a report tells it.

    Attributes:
      config: the resolved config, as plain data.
      settings: those of it that a report reads, checked.
      rate_range: lowest and highest learning rate of the finals.
      entries: the finals' table; empty before they have been played.
      trained: the distinct programs trained, in order.
      reigns: the incumbents, the initial rule first.
      subject: whom the report is about: the winner, before the finals the incumbent.
      program: the subject's.
      learning_rate: the subject's.
      initial_program: the initial rule's.
      initial_learning_rate: the initial rule's.
      lineage: from the initial rule's child to the subject; empty where they are the same.
      duels: by candidate, those on the lineage that challenged an incumbent.
      meta_runs: log losses of incumbents on meta-validation, by candidate, then by task and seed.
      survival: what became of the ops.
      tally: counts of the search.
      num_won: challenges won.
      spent: by purpose.
      search_s: seconds of search.
      errors: the commonest messages of failed candidates and how often each came.
      seed_scores: per-seed mean log losses on the final seeds, by candidate.
      work: who worked on it, and what that cost.
      schema_version: of the store.
      versions: of Python and the packages that the run was made with.
    """

    config: Mapping[str, Any]
    settings: SearchConfig
    rate_range: tuple[float, float]
    entries: tuple[Entry, ...]
    trained: tuple[Trained, ...]
    reigns: tuple[Reign, ...]
    subject: int
    program: Program
    learning_rate: float
    initial_program: Program
    initial_learning_rate: float
    lineage: tuple[Ancestor, ...]
    duels: Mapping[int, Duel]
    meta_runs: Mapping[int, Mapping[tuple[str, int], float]]
    survival: Survival
    tally: Tally
    num_won: int
    spent: tuple[Spent, ...]
    search_s: float
    errors: tuple[tuple[str, int], ...]
    seed_scores: Mapping[int, Mapping[int, float]]
    work: Work
    schema_version: str
    versions: Mapping[str, str]

    @property
    def initial_rule(self) -> str:
        """What the search started from, as its config names it."""
        return self.settings.initial_rule

    @property
    def finished(self) -> bool:
        """Whether the finals have been played."""
        return bool(self.entries)


def read_run(run_dir: Path) -> RunData:
    """Reads a run directory's store.

    Raises:
      StoreError: there is no run, it has scored nothing yet, or its store is damaged.
    """
    with Store.open(run_dir, read_only=True) as store:
        try:
            store.execute("BEGIN")  # One snapshot, though a search may be writing.
            return _read(store, run_dir)
        except _NOT_A_RUN as error:
            raise StoreError(
                f"{run_dir}: the store holds what no search writes ({error}); "
                "restore it from a copy"
            ) from error


def _read(store: Store, run_dir: Path) -> RunData:
    meta = store.meta()
    if "hurdle" not in meta:
        raise StoreError(
            f"{run_dir} holds a search that has not scored its initial rule yet; there is nothing "
            "to report"
        )
    config = dict(json.loads(meta["config"]))
    settings = _settings(config)
    finals_ = settings.finals
    highest = finals_.lowest_rate * finals_.rate_factor ** (finals_.num_rates - 1)
    entries = tuple(_checked(entry) for entry in finals.read_entries(store))
    trained = _trained(store)
    reigns = _reigns(store)
    winner = next((entry for entry in entries if entry.winner), None)
    if winner is not None and winner.learning_rate is not None:
        subject, program, rate = winner.candidate, winner.program, winner.learning_rate
    else:
        subject = reigns[-1].candidate
        program, rate = _candidate(store, subject)
    initial_program, initial_rate = _candidate(store, 0)
    lineage = _lineage(store, subject)
    return RunData(
        config=config,
        settings=settings,
        rate_range=(finals_.lowest_rate, highest),
        entries=entries,
        trained=trained,
        reigns=reigns,
        subject=subject,
        program=program,
        learning_rate=rate,
        initial_program=initial_program,
        initial_learning_rate=initial_rate,
        lineage=lineage,
        duels=_duels(store, {one.candidate for one in lineage}),
        meta_runs=_meta_runs(store, reigns),
        survival=survival_lib.survival(
            store,
            settings.population_size,
            (entry.program for entry in entries if entry.candidate >= 0),
        ),
        tally=_tally(store, settings.max_evaluations),
        num_won=sum(1 for reign in reigns if reign.proposal >= 0),
        spent=_spent(store),
        search_s=float(store.rows("SELECT COALESCE(MAX(told_s), 0) AS s FROM proposal")[0]["s"]),
        errors=_errors(store),
        seed_scores=_seed_scores(store, entries),
        work=work.read_work(store),
        schema_version=meta["schema_version"],
        versions={str(k): str(v) for k, v in dict(json.loads(meta["versions"])).items()},
    )


def _settings(config: Mapping[str, Any]) -> SearchConfig:
    return SearchConfig(
        tasks=tuple(ProxyConfig(**proxy) for proxy in config["tasks"]),
        meta_validation=tuple(ProxyConfig(**proxy) for proxy in config["meta_validation"]),
        # Stores of earlier versions have no objective and no founders.
        objective=str(config.get("objective", objectives.DEFAULT)),
        seed=int(config["seed"]),
        initial_rule=str(config["initial_rule"]),
        founders=tuple(FounderConfig(str(one["rule"])) for one in config.get("founders", ())),
        max_evaluations=int(config["max_evaluations"]),
        population_size=int(config["population_size"]),
        meta_seeds=int(config["meta_seeds"]),
        finals=FinalsConfig.from_plain(config["finals"]),
    )


def _optional(value: Any) -> float | None:
    return None if value is None else _number(value)


def _number(value: Any) -> float:
    number = float(value)
    if not abs(number) < _MAX_NUMBER:
        raise ValueError(f"{number} stands where a score or a rate should")
    return number


def _checked(entry: Entry) -> Entry:
    return replace(
        entry,
        label=str(entry.label),
        candidate=int(entry.candidate),
        length=int(entry.length),
        learning_rate=_optional(entry.learning_rate),
        search_fitness=_optional(entry.search_fitness),
        select=_optional(entry.select),
        final=_optional(entry.final),
        final_error=_optional(entry.final_error),
        meta=_optional(entry.meta),
    )


def _candidate(store: Store, candidate: int) -> tuple[Program, float]:
    query = "SELECT program, learning_rate FROM candidate WHERE id = ?"
    row = store.rows(query, (candidate,))[0]
    return Program.parse(row["program"]), _number(row["learning_rate"])


def _trained(store: Store) -> tuple[Trained, ...]:
    rows = store.rows(
        "SELECT p.candidate, c.fitness, c.status FROM proposal p JOIN candidate c "
        "ON c.id = p.candidate WHERE p.source = 'evaluated' ORDER BY p.id"
    )
    return tuple(
        Trained(i, int(row["candidate"]), _optional(row["fitness"]), str(row["status"]))
        for i, row in enumerate(rows, 1)
    )


def _reigns(store: Store) -> tuple[Reign, ...]:
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
        "SELECT h.challenger, h.proposal, h.meta_fitness, c.length, c.fitness FROM challenge h "
        "JOIN candidate c ON c.id = h.challenger WHERE h.won = 1 ORDER BY h.id"
    )
    reigns = []
    for row in rows:
        met = fresh.get(row["challenger"], {"mean": None, "seeds": 0, "failed": 0})
        reigns.append(
            Reign(
                candidate=int(row["challenger"]),
                since=bisect.bisect_right(proposals, int(row["proposal"])),
                proposal=int(row["proposal"]),
                length=int(row["length"]),
                fitness=_number(row["fitness"]),
                fresh=None if met["failed"] else _optional(met["mean"]),
                num_fresh=int(met["seeds"]),
                meta=_optional(row["meta_fitness"]),
            )
        )
    if not reigns or reigns[0].candidate != 0:
        raise ValueError("the first incumbent is not the initial rule")
    return tuple(reigns)


def _lineage(store: Store, candidate: int) -> tuple[Ancestor, ...]:
    """From the first proposal with this candidate back to the initial rule, told forwards."""
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
                fitness=_optional(row["fitness"]),
                learning_rate=_number(row["learning_rate"]),
                program=Program.parse(row["program"]),
            )
        )
        if row["parent"] is not None and not row["parent"] < proposal:
            raise ValueError(f"proposal {proposal} descends from a later one")
        proposal = row["parent"]
    return tuple(reversed(lineage))


def _duels(store: Store, candidates: set[int]) -> dict[int, Duel]:
    rows = store.rows("SELECT * FROM challenge WHERE proposal >= 0 ORDER BY id")
    return {
        int(row["challenger"]): Duel(
            _optional(row["difference"]), _optional(row["standard_error"]), bool(row["won"])
        )
        for row in rows
        if row["challenger"] in candidates
    }


def _meta_runs(store: Store, reigns: tuple[Reign, ...]) -> dict[int, dict[tuple[str, int], float]]:
    query = (
        "SELECT task, seed, log_loss FROM evaluation WHERE candidate = ? AND purpose = 'meta' "
        "AND log_loss IS NOT NULL"
    )
    return {
        reign.candidate: {
            (str(row["task"]), int(row["seed"])): _number(row["log_loss"])
            for row in store.rows(query, (reign.candidate,))
        }
        for reign in reigns
    }


def _tally(store: Store, max_evaluations: int) -> Tally:
    sources = store.rows("SELECT source AS name, COUNT(*) AS n FROM proposal GROUP BY source")
    statuses = store.rows(
        "SELECT status AS name, COUNT(*) AS n FROM candidate WHERE id > 0 GROUP BY status"
    )
    sums = store.rows(
        "SELECT COUNT(*) AS told, COALESCE(SUM(invalid), 0) AS invalid, "
        "COALESCE(SUM(statements), 0) AS statements, COALESCE(SUM(live), 0) AS live FROM proposal"
    )[0]
    challenges = store.rows("SELECT COUNT(*) AS n FROM challenge")[0]["n"]
    return Tally(
        num_told=int(sums["told"]),
        max_evaluations=max_evaluations,
        sources=Counter({str(row["name"]): int(row["n"]) for row in sources}),
        statuses=Counter({str(row["name"]): int(row["n"]) for row in statuses}),
        num_invalid=int(sums["invalid"]),
        num_statements=int(sums["statements"]),
        num_live=int(sums["live"]),
        num_challenges=int(challenges),
    )


def _spent(store: Store) -> tuple[Spent, ...]:
    rows = store.rows(
        "SELECT purpose, COUNT(*) AS runs, SUM(num_steps) AS steps, SUM(wall_s) AS wall_s "
        "FROM evaluation GROUP BY purpose"
    )
    spent = [
        Spent(str(r["purpose"]), int(r["runs"]), int(r["steps"]), float(r["wall_s"])) for r in rows
    ]
    order = {purpose: i for i, purpose in enumerate(PURPOSES)}
    return tuple(sorted(spent, key=lambda s: (order.get(s.purpose, len(order)), s.purpose)))


def _errors(store: Store) -> tuple[tuple[str, int], ...]:
    rows = store.rows(
        "SELECT message, COUNT(*) AS n FROM candidate WHERE message <> '' "
        "GROUP BY message ORDER BY n DESC, message LIMIT 5"
    )
    return tuple((str(row["message"]), int(row["n"])) for row in rows)


def _seed_scores(store: Store, entries: tuple[Entry, ...]) -> dict[int, dict[int, float]]:
    scores: dict[int, dict[int, float]] = {}
    for entry in entries:
        rows = store.rows(
            "SELECT seed, AVG(log_loss) AS mean FROM evaluation WHERE candidate = ? AND "
            "purpose = 'final' AND learning_rate = ? GROUP BY seed "
            "HAVING COUNT(*) = COUNT(log_loss)",
            (entry.candidate, entry.learning_rate),
        )
        scores[entry.candidate] = {int(row["seed"]): float(row["mean"]) for row in rows}
    return scores
