"""The rows in which a search is stored: candidates, proposals and challenges, written and read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.jobs import Outcome
from veldt.search.evolution import job_records
from veldt.search.evolution.challenge import Challenge
from veldt.search.evolution.individual import Individual
from veldt.search.evolution.job_records import Record
from veldt.search.program import Program
from veldt.search.storage.store import Store


@final
@dataclass(frozen=True, slots=True)
class Told:
    """A proposal that has been told, as far as its place in the population goes.

    Attributes:
      index: the proposal's number.
      candidate: the proposal's, by id.
      trained: whether the proposal was a new program that was trained.
      won: whether the proposal became the incumbent.
    """

    index: int
    candidate: int
    trained: bool
    won: bool


@final
@dataclass(frozen=True, slots=True)
class Won:
    """The last challenge that was won: how the present incumbent became that.

    Attributes:
      candidate: the incumbent's id.
      proposal: the incumbent's proposal; -1 for the initial rule.
      genotype: the incumbent's live program and learning rate.
      meta: the incumbent's score on the meta-validation tasks.
    """

    candidate: int
    proposal: int
    genotype: Genotype
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
    """Store a distinct behaviour and the training runs that it had, inside a transaction.

    Args:
      store: the search's.
      config: the search's.
      candidate: the new id.
      individual: the first with this behaviour.
      behaviour: the individual's fingerprint.
      outcome: what became of the training.
      runs: the training runs made.
    """
    live = individual.live
    store.insert(
        "candidate",
        id=candidate,
        behaviour=behaviour,
        slots=len(live.program.slots),
        program=str(live.program),
        learning_rate=live.learning_rate,
        length=individual.lowered.length,
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
    number: int,
    proposal: int,
    challenger: int,
    incumbent: int,
    told_s: float,
) -> None:
    """Store a challenge and the training runs that it took, inside a transaction."""
    store.insert(
        "challenge",
        id=number,
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


def told_since(store: Store, first: int) -> Iterator[Told]:
    """Yield the proposals told, from a number on."""
    query = (
        "SELECT p.id, p.source, p.candidate, COALESCE(h.won, 0) AS won FROM proposal p "
        "LEFT JOIN challenge h ON h.proposal = p.id WHERE p.id >= ? ORDER BY p.id"
    )
    for row in store.iterate(query, (first,)):
        trained = row["source"] == "evaluated"
        yield Told(row["id"], row["candidate"], trained=trained, won=bool(row["won"]))


def proposed(store: Store, index: int) -> Genotype:
    """Return the genotype of a proposal told, dead statements included."""
    return _genotype(store, "proposal", index)


def last_won(store: Store) -> Won:
    """Return the last challenge won."""
    query = (
        "SELECT challenger, proposal, meta_fitness FROM challenge WHERE won = 1 "
        "ORDER BY id DESC LIMIT 1"
    )
    row = store.rows(query)[0]
    genotype = _genotype(store, "candidate", row["challenger"])
    return Won(row["challenger"], row["proposal"], genotype, row["meta_fitness"])


def fresh_score(store: Store, candidate: int) -> float | None:
    """Return the mean log loss over the fresh seeds that a candidate has met.

    Returns:
      None where the candidate has met none, or failed on one.
    """
    query = (
        "SELECT AVG(log_loss) AS mean, COUNT(*) - COUNT(log_loss) AS failed FROM evaluation "
        "WHERE candidate = ? AND purpose = 'fresh'"
    )
    row = store.rows(query, (candidate,))[0]
    return None if row["mean"] is None or row["failed"] else float(row["mean"])


def _genotype(store: Store, table: str, row_id: int) -> Genotype:
    row = store.rows(f"SELECT program, learning_rate FROM {table} WHERE id = ?", (row_id,))[0]
    return Genotype(Program.parse(row["program"]), row["learning_rate"])
