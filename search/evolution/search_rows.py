"""Writing and reading the rows of a search: candidates, proposals and challenges."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.individual import Individual
from veldt.search.evaluation.jobs import Outcome
from veldt.search.evolution import job_records
from veldt.search.evolution.challenge import Challenge
from veldt.search.evolution.job_records import Record
from veldt.search.evolution.selection.samples import Samples, proposal_of
from veldt.search.program import Program
from veldt.search.storage.store import Store


@final
@dataclass(frozen=True, slots=True)
class StoredProposal:
    """A proposal that has been recorded, as far as its place in the population needs it.

    Attributes:
      index: Number of the proposal.
      candidate: Id of the candidate.
      trained: Whether the proposal was a new program that was trained.
    """

    index: int
    candidate: int
    trained: bool


@final
@dataclass(frozen=True, slots=True)
class Won:
    """The last challenge that was won, by which the present incumbent became that.

    Attributes:
      candidate: Id of the incumbent.
      proposal: Proposal of the incumbent; -1 for the initial rule.
      meta: Score of the incumbent on the meta-validation tasks.
    """

    candidate: int
    proposal: int
    meta: float | None


def insert_candidate(
    store: Store,
    config: SearchConfig,
    candidate: int,
    individual: Individual,
    behaviour: str,
    outcome: Outcome,
    runs: Sequence[Record],
) -> None:
    """Store a distinct behaviour and its training runs, inside a transaction.

    Args:
      store: Store of the search.
      config: Config of the search.
      candidate: New id.
      individual: First individual with this behaviour.
      behaviour: Fingerprint of the individual.
      outcome: Outcome of the training.
      runs: Training runs made.
    """
    lowered = individual.lowered
    store.insert(
        "candidate",
        id=candidate,
        behaviour=behaviour,
        slots=len(lowered.live.slots),
        program=lowered.live_text,
        learning_rate=individual.learning_rate,
        length=lowered.length,
        status=outcome.status.value,
        fitness=outcome.fitness,
        num_steps=sum(run.num_steps for run in outcome.runs),
        message=outcome.message,
    )
    job_records.insert(store, config, runs)


def insert_challenge(
    store: Store,
    config: SearchConfig,
    challenge: Challenge,
    *,
    id: int,
    number: int,
    proposal: int,
    challenger: int,
    incumbent: int,
    settled: int,
    told_s: float,
) -> None:
    """Store a challenge and its training runs, inside a transaction."""
    store.insert(
        "challenge",
        id=id,
        number=number,
        settled=settled,
        proposal=proposal,
        challenger=challenger,
        incumbent=incumbent,
        difference=challenge.difference,
        standard_error=challenge.standard_error,
        won=int(challenge.won),
        meta_fitness=challenge.meta,
        told_s=told_s,
    )
    job_records.insert(store, config, challenge.runs)


def insert_proposal(
    store: Store,
    index: int,
    individual: Individual,
    *,
    parent: int | None,
    mutation: str,
    invalid: int,
    source: str,
    candidate: int,
    told_s: float,
) -> None:
    """Store a proposal, inside a transaction."""
    store.insert(
        "proposal",
        id=index,
        parent=parent,
        mutation=mutation,
        program=individual.lowered.text,
        learning_rate=individual.learning_rate,
        structure=individual.structure,
        statements=individual.lowered.num_statements,
        live=individual.lowered.length,
        invalid=invalid,
        source=source,
        candidate=candidate,
        told_s=told_s,
    )


def proposals_since(store: Store, first: int) -> Iterator[StoredProposal]:
    """Yield the proposals recorded, from a number on."""
    query = "SELECT id, source, candidate FROM proposal WHERE id >= ? ORDER BY id"
    for row in store.iterate(query, (first,)):
        trained = row["source"] in ("evaluated", "sample")
        yield StoredProposal(row["id"], row["candidate"], trained=trained)


def proposed(store: Store, index: int) -> Genotype:
    """Return the genotype of a recorded proposal, dead statements included."""
    return _genotype(store, "proposal", index)


def last_won(store: Store) -> Won:
    """Return the last challenge won, by which the present incumbent became that."""
    query = (
        "SELECT challenger, proposal, meta_fitness FROM challenge WHERE won = 1 "
        "ORDER BY id DESC LIMIT 1"
    )
    row = store.rows(query)[0]
    return Won(row["challenger"], row["proposal"], row["meta_fitness"])


def best_of_drivers(store: Store) -> tuple[int, int]:
    """Return the driver with the best incumbent, and its candidate; driver 0 where there is one.

    What counts is the mean over all evaluations of each.
    """
    query = (
        "SELECT h.driver, h.challenger FROM challenge h JOIN evaluation e "
        "ON e.candidate = h.challenger AND e.purpose IN ('fitness', 'sample') "
        "WHERE h.id IN (SELECT MAX(id) FROM challenge WHERE won = 1 GROUP BY driver) "
        "GROUP BY h.id ORDER BY AVG(e.log_loss), h.driver LIMIT 1"
    )
    row = store.rows(query)[0]
    return int(row["driver"]), int(row["challenger"])


def new_incumbents(store: Store) -> list[tuple[int, int, int]]:
    """Return by what each incumbent was first known, its proposal and its candidate, in order.

    The first is the first proposal that was recorded with that incumbent. The initial rule is left
    out.
    """
    query = (
        "SELECT settled, proposal, challenger FROM challenge WHERE won = 1 AND id > 0 ORDER BY id"
    )
    return [(row["settled"], row["proposal"], row["challenger"]) for row in store.rows(query)]


def unchallenged(store: Store, fitness: float) -> list[dict[str, Any]]:
    """Return the candidates fitter than that which have never challenged an incumbent.

    Returns:
      Rows of candidate, proposal that introduced it, and fitness.
    """
    return store.rows(
        "SELECT p.candidate, p.id AS proposal, c.fitness FROM proposal p "
        "JOIN candidate c ON c.id = p.candidate WHERE p.source = 'evaluated' AND c.fitness < ? "
        "AND p.candidate NOT IN (SELECT candidate FROM side_work) ORDER BY p.id",
        (fitness,),
    )


def wins(store: Store, candidate: int) -> list[int]:
    """Return the ids of the challenges by which a candidate became the incumbent."""
    query = "SELECT id FROM challenge WHERE challenger = ? AND won = 1 ORDER BY id"
    return [row["id"] for row in store.rows(query, (candidate,))]


def fresh_score(store: Store, candidate: int) -> float | None:
    """Return the mean log loss over all fresh seeds of a candidate.

    Returns:
      The mean; None where the candidate has no fresh seeds, or failed on one.
    """
    query = (
        "SELECT AVG(log_loss) AS mean, COUNT(*) - COUNT(log_loss) AS failed FROM evaluation "
        "WHERE candidate = ? AND purpose = 'fresh'"
    )
    row = store.rows(query, (candidate,))[0]
    return None if row["mean"] is None or row["failed"] else float(row["mean"])


def candidate_genotype(store: Store, candidate: int) -> Genotype:
    """Return the live program and learning rate of a candidate."""
    return _genotype(store, "candidate", candidate)


def times_incumbent(store: Store, candidate: int) -> list[float | None]:
    """Return the meta-validation score at each time that a candidate became the incumbent."""
    query = "SELECT meta_fitness FROM challenge WHERE challenger = ? AND won = 1 ORDER BY id"
    return [row["meta_fitness"] for row in store.rows(query, (candidate,))]


def introduced(store: Store) -> dict[int, int]:
    """Return the proposal that introduced each candidate; -1 for the initial rule."""
    query = (
        "SELECT candidate, MIN(id) AS id FROM proposal "
        "WHERE source NOT IN ('structure', 'behaviour', 'sample') GROUP BY candidate"
    )
    return {0: -1, **{int(row["candidate"]): int(row["id"]) for row in store.iterate(query, ())}}


def read_samples(
    store: Store,
    config: SearchConfig,
    into: Samples,
    num_told: int,
    index: Callable[[int], int] = lambda number: number,
) -> None:
    """Read the samples of a search, in the order in which they were recorded.

    Args:
      store: Store of the search.
      config: Config of the search.
      into: Samples, empty.
      num_told: Number of proposals recorded.
      index: Function from the number that chose a sample's seeds to the proposal.
    """
    order = {proxy.task: number for number, proxy in enumerate(config.tasks)}
    found: dict[int, tuple[int, list[tuple[int, int, float | None]]]] = {}
    query = (
        "SELECT candidate, task, seed, log_loss FROM evaluation "
        "WHERE purpose IN ('fitness', 'sample') AND candidate >= 0"
    )
    for row in store.iterate(query, ()):
        proposal = index(proposal_of(row["seed"], config.seeds_per_task))
        run = row["seed"], order[row["task"]], row["log_loss"]
        found.setdefault(proposal, (row["candidate"], []))[1].append(run)
    ended = iter(range(num_told))
    has_begun = False
    for proposal in sorted(found):
        candidate, runs = found[proposal]
        if proposal < 0:
            into.ask(candidate)
            into.add(candidate, -1, _score(runs, config))
            continue
        if not has_begun:
            into.end(-1)
            has_begun = True
        for earlier in ended:
            if earlier == proposal:
                break
            into.end(earlier)
        into.ask(candidate)
        into.add(candidate, proposal, _score(runs, config))
        into.end(proposal)
    if not has_begun:
        into.end(-1)
    for later in ended:
        into.end(later)


def _score(runs: list[tuple[int, int, float | None]], config: SearchConfig) -> float:
    """Return the mean log loss of a sample's runs; infinity if one failed or is missing."""
    ordered = sorted(runs, key=lambda run: run[:2])
    losses = [loss for _, _, loss in ordered if loss is not None]
    if len(losses) < len(config.tasks) * config.seeds_per_task:
        return math.inf
    return float(np.mean(losses))


def _genotype(store: Store, table: str, row_id: int) -> Genotype:
    row = store.rows(f"SELECT program, learning_rate FROM {table} WHERE id = ?", (row_id,))[0]
    return Genotype(Program.parse(row["program"]), row["learning_rate"])
