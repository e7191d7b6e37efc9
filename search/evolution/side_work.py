"""Comparisons of the best as side work: they run beside the proposals and hold nothing up.

A candidate that is fitter than the incumbent challenges it in stages (`challenge.py`): a quarter of
the fresh seeds, the rest, then meta-validation of a new incumbent. A stage that begins with
proposal `i`, or before it, is *due* before proposal `i + window`: there its results are learnt,
whenever they came (`tasks.pool.driver`).

Several challenges may be under way, one for each `PROPOSALS_PER_CHALLENGE` of the window, so that
their share of the work does not grow with the number of workers. Other candidates that are fitter
than the incumbent wait, and the fittest is next; when the incumbent changes, those that are not
fitter than the new one wait no more.

The incumbent stays until a challenge against it is won, at the end of the rest of the seeds; its
score on meta-validation follows, since it decides nothing. So the incumbent may have changed when a
challenge against the former one ends. Who has lost then has lost: a worse rule was not beaten. Who
is ahead must be fitter than the new incumbent too, as for any challenge, and then challenges that
one on seeds that are new to both: the standard is the same for all, and no seed that a rule was
selected on counts again.

Each stage is a row of the store, written together with what began it. What is under way is a
function of the rows, and so is who waits: a search that was killed begins the same jobs again and
settles them at the same number. At the end of a search no proposal follows, and the stages left are
settled in the order in which they would have been; none of those that wait begins. If the search
then gets a larger budget, these *last* stages are undone (`undo_last`), and it goes on as if it had
had that budget from the start. Their training runs are kept under a name of their own.
"""

import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, final

from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.jobs import EvalJob
from veldt.search.evolution import challenge as challenge_lib
from veldt.search.evolution import job_records, search_rows
from veldt.search.evolution.challenge import FIRST, META, REST, Challenge, Incumbent, Verdict
from veldt.search.evolution.job_records import Record
from veldt.search.storage import schema
from veldt.search.storage.store import Store
from veldt.tasks.pool import driver
from veldt.tasks.pool.base import JobResult

PROPOSALS_PER_CHALLENGE: Final = 16
UNDONE: Final = "undone"
"""First word of the purpose of runs whose stage was undone."""


class Contender(NamedTuple):
    """A rule that is compared: the id of its candidate, and its genotype."""

    candidate: int
    genotype: Genotype

    @classmethod
    def of(cls, incumbent: Incumbent) -> "Contender":
        """Return the incumbent as one of the two."""
        return cls(incumbent.candidate, incumbent.genotype)


@final
@dataclass(frozen=True, slots=True)
class Stage:
    """A stage that is under way.

    Attributes:
      id: Number among all stages.
      stage: `FIRST`, `REST` or `META`.
      number: Number of the challenge; picks the seeds.
      proposal: Proposal of the challenger or new incumbent.
      challenger: Candidate of that proposal.
      incumbent: Candidate that is challenged, or was.
      differences: Paired differences of the stage before.
      due: Number of the proposal before which the stage is settled.
    """

    id: int
    stage: str
    number: int
    proposal: int
    challenger: Contender
    incumbent: Contender
    differences: tuple[float, ...]
    due: int


class Settled(NamedTuple):
    """What a stage has led to.

    Attributes:
      stage: The stage.
      challenge: Result of the challenge; None where it goes on, or was decided before.
      runs: Training runs made.
      begun: Stages that begin.
    """

    stage: Stage
    challenge: Challenge | None
    runs: tuple[Record, ...]
    begun: tuple[driver.SideWork, ...]


@final
class Stages:
    """The stages of one search that are under way, and their rows."""

    def __init__(self, config: SearchConfig, store: Store):
        """Read what is under way from the store."""
        self._config = config
        self._store = store
        self._num_stages = int(store.first("SELECT COUNT(*) FROM side_work"))
        last = "SELECT COALESCE(MAX(number), 0) FROM side_work"
        self._last_number = int(store.first(last))
        self._pending: dict[int, Stage] = {}
        for row in store.rows("SELECT * FROM side_work WHERE done = 0 ORDER BY id"):
            challenger, incumbent = (
                Contender(row[name], search_rows.candidate_genotype(store, row[name]))
                for name in ("candidate", "incumbent")
            )
            self._pending[row["id"]] = Stage(
                row["id"],
                row["stage"],
                row["number"],
                row["proposal"],
                challenger,
                incumbent,
                tuple(json.loads(row["differences"])),
                row["due"],
            )
        self._waiting: list[tuple[float, int, int, Contender]] = []

    def wait_again(self, incumbent: Incumbent) -> None:
        """Read from the store which candidates wait to challenge the incumbent."""
        if is_used(self._store) and self._config.samples == 1:
            for row in search_rows.unchallenged(self._store, incumbent.fitness):
                candidate, proposal = row["candidate"], row["proposal"]
                genotype = search_rows.candidate_genotype(self._store, candidate)
                self.wait(proposal, Contender(candidate, genotype), row["fitness"])

    def works(self) -> tuple[driver.SideWork, ...]:
        """Return what is under way, for the driver."""
        return tuple(map(self._work, self._pending.values()))

    def awaits_meta(self, candidate: int) -> bool:
        """Return whether a candidate is being scored on meta-validation."""
        pending = self._pending.values()
        return any(s.stage == META and s.challenger.candidate == candidate for s in pending)

    def wait(self, proposal: int, challenger: Contender, fitness: float) -> None:
        """Let a candidate wait that is fitter than the incumbent."""
        heapq.heappush(self._waiting, (fitness, challenger.candidate, proposal, challenger))

    def begin_waiting(
        self, incumbent: Contender, fitness: float, begun: int
    ) -> tuple[driver.SideWork, ...]:
        """Begin challenges of those that wait, as many as may be under way, in a transaction.

        Args:
          incumbent: Present incumbent.
          fitness: Fitness of the incumbent.
          begun: Number of the proposal at or before which they begin.
        """
        most = max(self._config.window // PROPOSALS_PER_CHALLENGE, 1)
        works: list[driver.SideWork] = []
        while self._waiting and sum(s.stage != META for s in self._pending.values()) < most:
            ours, _, proposal, challenger = heapq.heappop(self._waiting)
            if ours < fitness:
                works.append(self._begin_challenge(proposal, challenger, incumbent, begun))
            else:
                self._waiting.clear()  # All others are less fit.
        return tuple(works)

    def _begin_challenge(
        self, proposal: int, challenger: Contender, incumbent: Contender, begun: int
    ) -> driver.SideWork:
        self._last_number += 1
        number = self._last_number
        return self._begin(FIRST, number, proposal, challenger, incumbent, (), begun)

    def begin_meta(
        self, number: int, proposal: int, challenger: Contender, incumbent: Contender, begun: int
    ) -> tuple[driver.SideWork, ...]:
        """Begin the meta-validation of a new incumbent, inside a transaction; none without tasks.

        Args:
          number: Number of the challenge that it won.
          proposal: Proposal of the new incumbent.
          challenger: New incumbent.
          incumbent: Incumbent before.
          begun: Number of the proposal at or before which the stage begins.
        """
        if not self._config.meta_validation:
            return ()
        return (self._begin(META, number, proposal, challenger, incumbent, (), begun),)

    def candidate(self, work: int) -> int:
        """Return the candidate of a stage that is under way."""
        return self._pending[work].challenger.candidate

    def settle(
        self,
        work: int,
        results: Sequence[JobResult],
        incumbent: Incumbent,
        fitness: float,
        *,
        num_told: int,
        told_s: float,
    ) -> Settled:
        """End a stage, store what it has found and begin what follows, inside a transaction.

        Args:
          work: Id of the stage.
          results: Results of the jobs.
          incumbent: Present incumbent.
          fitness: Fitness of the candidate.
          num_told: Number of proposals recorded. If the stage is due before a later one, the search
            has ended, and none of those that wait begins.
          told_s: Seconds of search.
        """
        stage = self._pending.pop(work)
        runs = job_records.records_of_all(self._jobs(stage), results)
        job_records.insert(self._store, self._config, runs)
        self._store.update("side_work", stage.id, done=1)
        challenge, begun = None, tuple[driver.SideWork, ...]()
        if stage.stage == META:
            score = challenge_lib.meta_score(results)
            for row_id in search_rows.wins(self._store, stage.challenger.candidate):
                self._store.update("challenge", row_id, meta_fitness=score)
        else:
            scores, last = challenge_lib.fitnesses(results), stage.stage == REST
            verdict = challenge_lib.judge(scores[::2], scores[1::2], stage.differences, last=last)
            challenge, begun = self._decide(stage, verdict, incumbent, fitness)
        if challenge is not None:
            search_rows.insert_challenge(
                self._store,
                self._config,
                challenge,
                id=int(self._store.first("SELECT COUNT(*) FROM challenge")),
                number=stage.number,
                proposal=stage.proposal,
                challenger=stage.challenger.candidate,
                incumbent=stage.incumbent.candidate,
                settled=stage.due,
                told_s=told_s,
            )
            if challenge.won:
                best, best_fitness = stage.challenger, fitness
            else:
                best, best_fitness = Contender.of(incumbent), incumbent.fitness
            if stage.due <= num_told:
                begun = (*begun, *self.begin_waiting(best, best_fitness, stage.due))
        return Settled(stage, challenge, runs, begun)

    def _decide(
        self, stage: Stage, verdict: Verdict, incumbent: Incumbent, fitness: float
    ) -> tuple[Challenge | None, tuple[driver.SideWork, ...]]:
        """Return the result of a challenge, unless it goes on, and the stages that begin."""
        won, begun = False, tuple[driver.SideWork, ...]()
        both = stage.proposal, stage.challenger, stage.incumbent
        if verdict.won is not False and stage.incumbent.candidate != incumbent.candidate:
            if fitness < incumbent.fitness:
                new = Contender.of(incumbent)
                begun = (self._begin_challenge(*both[:2], new, stage.due),)
        elif verdict.won is None:
            ahead = verdict.differences
            return None, (self._begin(REST, stage.number, *both, ahead, stage.due),)
        elif verdict.won:
            won, begun = True, self.begin_meta(stage.number, *both, stage.due)
        return Challenge(verdict.difference, verdict.standard_error, won, None, ()), begun

    def _begin(
        self,
        stage: str,
        number: int,
        proposal: int,
        challenger: Contender,
        incumbent: Contender,
        differences: tuple[float, ...],
        begun: int,
    ) -> driver.SideWork:
        due = begun + self._config.window
        begins = Stage(
            self._num_stages, stage, number, proposal, challenger, incumbent, differences, due
        )
        self._num_stages += 1
        self._pending[begins.id] = begins
        self._store.insert(
            "side_work",
            id=begins.id,
            stage=stage,
            number=number,
            proposal=proposal,
            candidate=challenger.candidate,
            incumbent=incumbent.candidate,
            differences=json.dumps(differences),
            begun=begun,
            due=due,
            done=0,
        )
        return self._work(begins)

    def _jobs(self, stage: Stage) -> list[EvalJob]:
        if stage.stage == META:
            return challenge_lib.meta_jobs(self._config, *stage.challenger)
        both = stage.challenger, stage.incumbent
        return challenge_lib.fresh_jobs(self._config, both, stage.number, stage.stage)

    def _work(self, stage: Stage) -> driver.SideWork:
        named = challenge_lib.named(self._config, self._jobs(stage), stage.number)
        return driver.SideWork(stage.id, tuple(named), stage.due)


def is_used(store: Store) -> bool:
    """Return whether a search compares beside its proposals; older stores wait instead."""
    return store.meta().get(schema.CHALLENGES) != schema.AT_ONCE


def has_last(store: Store) -> bool:
    """Return whether stages were settled at the end of the search, before their proposal."""
    query = (
        "SELECT EXISTS (SELECT 1 FROM side_work WHERE done = 1 "
        "AND due > (SELECT COUNT(*) FROM proposal))"
    )
    return bool(store.first(query))


def undo_last(store: Store, config: SearchConfig) -> None:
    """Bring a search that has ended back to its last proposal, inside a transaction.

    What was under way there is so again. Call it when the search may go on.
    """
    if not has_last(store):
        return
    num_told = int(store.first("SELECT COUNT(*) FROM proposal"))
    name = f"{UNDONE} at {num_told}, "
    # The search may have ended here before, with the same runs.
    store.execute("DELETE FROM evaluation WHERE purpose LIKE ? || '%'", (name,))
    query = "SELECT * FROM side_work WHERE done = 1 AND due > ? ORDER BY id"
    for row in store.rows(query, (num_told,)):
        if row["stage"] == META:
            where, values = "purpose = 'meta' AND candidate = ?", [row["candidate"]]
            for number in search_rows.wins(store, row["candidate"]):
                store.update("challenge", number, meta_fitness=None)
        else:
            where = "purpose = 'fresh' AND candidate IN (?, ?) AND seed IN ("
            seeds = challenge_lib.fresh_seeds(config, row["number"], row["stage"])
            where += ", ".join(map(str, seeds)) + ")"
            values = [row["candidate"], row["incumbent"]]
        rename = f"UPDATE evaluation SET purpose = ? || purpose WHERE {where}"
        store.execute(rename, (name, *values))
        store.update("side_work", row["id"], done=0)
    store.execute("DELETE FROM side_work WHERE begun > ?", (num_told,))
    store.execute("DELETE FROM challenge WHERE settled > ?", (num_told,))
