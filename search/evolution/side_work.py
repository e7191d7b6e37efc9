"""Comparisons of the best as side work: they run beside the proposals and hold nothing up.

A candidate that is fitter than the incumbent challenges it in stages (`challenge.py`): a quarter of
the fresh seeds, the rest, then meta-validation of a new incumbent. A stage that begins with
proposal `i`, or before it, is *due* before proposal `i + window`: there its results are learnt, in
whatever moment they came (`tasks.pool.driver`). Several may be under way, with stages of one
challenge one after the other.

The incumbent stays until a challenge against it is won, at the end of the rest of the seeds; its
score on meta-validation follows, since it decides nothing. So the incumbent may have changed when a
challenge against the former one ends. Who has lost then has lost: a worse rule was not beaten. Who
is ahead must be fitter than the new incumbent too, as for any challenge, and then challenges that
one on seeds that are new to both: the standard is the same for all, and no seed that a rule was
selected on counts again.

Each stage is a row of the store, written together with what began it. What is under way is a
function of the rows, so a search that was killed begins the same jobs again and settles them at the
same number. At the end of a search no proposal follows, and the stages left are settled in the
order in which they would have been. If the search then gets a larger budget, these *last* stages
are undone (`undo_last`), and the search goes on as if it had had that budget from the start. Their
training runs are kept under a name of their own.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, final

from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation.jobs import EvalJob
from veldt.search.evolution import challenge as challenge_lib
from veldt.search.evolution import job_records, search_rows
from veldt.search.evolution.challenge import FIRST, META, REST, Challenge, Incumbent, Verdict
from veldt.search.evolution.job_records import Record
from veldt.search.storage import schema
from veldt.search.storage.store import Store
from veldt.tasks.pool import driver
from veldt.tasks.pool.base import JobResult

UNDONE: Final = "undone"
"""First word of the purpose of runs whose stage was undone."""


@final
@dataclass(frozen=True, slots=True)
class Stage:
    """A stage that is under way.

    Attributes:
      id: Number among all stages.
      stage: `FIRST`, `REST` or `META`.
      number: Number of the challenge; picks the seeds.
      proposal: Proposal of the challenger or new incumbent.
      candidate: Candidate of that proposal.
      incumbent: Candidate that is challenged, or was.
      differences: Paired differences of the stage before.
      begun: Number of the proposal at or before which the stage began.
      due: Number of the proposal before which the stage is settled.
    """

    id: int
    stage: str
    number: int
    proposal: int
    candidate: int
    incumbent: int
    differences: tuple[float, ...]
    begun: int
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
        self._pending = {
            row["id"]: Stage(
                **{name: row[name] for name in row if name not in ("done", "differences")},
                differences=tuple(json.loads(row["differences"])),
            )
            for row in store.rows("SELECT * FROM side_work WHERE done = 0 ORDER BY id")
        }

    def works(self) -> tuple[driver.SideWork, ...]:
        """Return what is under way, for the driver."""
        return tuple(self._work(stage, self._jobs(stage)) for stage in self._pending.values())

    def awaits_meta(self, candidate: int) -> bool:
        """Return whether a candidate is being scored on meta-validation."""
        return any(s.stage == META and s.candidate == candidate for s in self._pending.values())

    def begin_challenge(
        self, proposal: int, candidate: int, incumbent: int, begun: int
    ) -> driver.SideWork:
        """Begin a challenge, inside the transaction that stores what brings it about."""
        self._last_number += 1
        return self._begin(FIRST, self._last_number, proposal, candidate, incumbent, (), begun)

    def begin_meta(
        self, number: int, proposal: int, candidate: int, incumbent: int, begun: int
    ) -> tuple[driver.SideWork, ...]:
        """Begin the meta-validation of a new incumbent, inside a transaction; none without tasks.

        Args:
          number: Number of the challenge that it won.
          proposal: Proposal of the new incumbent.
          candidate: New incumbent.
          incumbent: Incumbent before.
          begun: Number of the proposal at or before which it is begun.
        """
        if not self._config.meta_validation:
            return ()
        return (self._begin(META, number, proposal, candidate, incumbent, (), begun),)

    def candidate(self, work: int) -> int:
        """Return the candidate of a stage that is under way."""
        return self._pending[work].candidate

    def settle(
        self,
        work: int,
        results: Sequence[JobResult],
        incumbent: Incumbent,
        fitness: float,
        told_s: float,
    ) -> Settled:
        """End a stage, store what it has found and begin what follows, inside a transaction.

        Args:
          work: Id of the stage.
          results: Results of the jobs.
          incumbent: Present incumbent.
          fitness: Fitness of the candidate.
          told_s: Seconds of search.
        """
        stage = self._pending.pop(work)
        runs = job_records.records_of_all(self._jobs(stage), results)
        job_records.insert(self._store, self._config, runs)
        self._store.update("side_work", stage.id, done=1)
        challenge, begun = None, tuple[driver.SideWork, ...]()
        if stage.stage == META:
            score = challenge_lib.meta_score(results)
            for row_id in search_rows.wins(self._store, stage.candidate):
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
                challenger=stage.candidate,
                incumbent=stage.incumbent,
                settled=stage.due,
                told_s=told_s,
            )
        return Settled(stage, challenge, runs, begun)

    def _decide(
        self, stage: Stage, verdict: Verdict, incumbent: Incumbent, fitness: float
    ) -> tuple[Challenge | None, tuple[driver.SideWork, ...]]:
        """Return the result of a challenge, unless it goes on, and the stages that begin."""
        won, begun = False, tuple[driver.SideWork, ...]()
        ids = stage.proposal, stage.candidate
        if verdict.won is not False and stage.incumbent != incumbent.candidate:
            if fitness < incumbent.fitness:
                begun = (self.begin_challenge(*ids, incumbent.candidate, stage.due),)
        elif verdict.won is None:
            opponent, ahead = stage.incumbent, verdict.differences
            return None, (self._begin(REST, stage.number, *ids, opponent, ahead, stage.due),)
        elif verdict.won:
            won = True
            begun = self.begin_meta(stage.number, *ids, stage.incumbent, stage.due)
        return Challenge(verdict.difference, verdict.standard_error, won, None, ()), begun

    def _begin(
        self,
        stage: str,
        number: int,
        proposal: int,
        candidate: int,
        incumbent: int,
        differences: tuple[float, ...],
        begun: int,
    ) -> driver.SideWork:
        due = begun + self._config.window
        begins = Stage(
            self._num_stages, stage, number, proposal, candidate, incumbent, differences, begun, due
        )
        self._num_stages += 1
        self._pending[begins.id] = begins
        self._store.insert(
            "side_work",
            id=begins.id,
            stage=stage,
            number=number,
            proposal=proposal,
            candidate=candidate,
            incumbent=incumbent,
            differences=json.dumps(differences),
            begun=begun,
            due=due,
            done=0,
        )
        return self._work(begins, self._jobs(begins))

    def _jobs(self, stage: Stage) -> list[EvalJob]:
        both = [
            (candidate, search_rows.candidate_genotype(self._store, candidate))
            for candidate in (stage.candidate, stage.incumbent)
        ]
        if stage.stage == META:
            return challenge_lib.meta_jobs(self._config, *both[0])
        return challenge_lib.fresh_jobs(self._config, both, stage.number, stage.stage)

    def _work(self, stage: Stage, jobs: Sequence[EvalJob]) -> driver.SideWork:
        named = challenge_lib.named(self._config, jobs, stage.number)
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
