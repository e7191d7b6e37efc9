"""Regularized evolution over update programs.

Lion (arXiv 2302.06675), section 2.2; Real et al. (arXiv 1802.01548).

A population of fixed size, warm-started as the initial rule (and further founders, if the config
names any); each child is a mutation of the best of a random tournament; the oldest dies. Before any
training a child is looked up twice
(`seen.py`): by its structural hash, then by what it does on a probe (`fingerprint.py`). Only new
behaviour is trained, and only past the hurdle, and the race if there is one (`racing.py`), to the
end.

The search's own score favours luck: thousands of candidates meet the same seeds. So a candidate
that beats the incumbent there must beat it again, on seeds that are new each time, by more than one
standard error of the paired difference. Each new best is also scored on meta-validation tasks that
decide nothing.

**Determinism and resuming.** Proposal `i` is a function of the seed, `i`, and the proposals up to
`i - window`; results are told in order (`tasks.driver`). Population, caches and incumbent are
functions of the store's rows, so `Evolution` can be rebuilt from the store alone and goes on
exactly as if it had never stopped. Memory holds the population and what has been asked and not yet
told, however long the search is.
"""

import collections
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np

from veldt.search import simplify
from veldt.search.config.search_config import SearchConfig
from veldt.search.errors import SearchError
from veldt.search.evaluation import fingerprint, probe
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.jobs import EvalJob, Outcome, Run, Status
from veldt.search.evolution import challenge as challenge_lib
from veldt.search.evolution import founders as founders_lib
from veldt.search.evolution import job_records, mutation, niches, racing, step_size
from veldt.search.evolution.challenge import Arena, Challenge, Incumbent
from veldt.search.evolution.job_records import Record
from veldt.search.evolution.population import INITIAL, Member, Population
from veldt.search.evolution.proposal_cache import Seen
from veldt.search.evolution.racing import Race, Role
from veldt.search.language import dataflow
from veldt.search.program import Program
from veldt.search.storage.store import Store
from veldt.tasks.pool import driver
from veldt.tasks.pool.base import JobResult

IGNORES_GRADIENT: Final = "its update does not depend on the gradient"
# A search that proposes this many children for each evaluation has nothing new left to find.
MAX_PROPOSALS_PER_EVALUATION: Final = 200


@final
@dataclass(frozen=True, slots=True)
class _Asked:
    """A proposal between ask and tell."""

    child: mutation.Child
    parent: int | None
    structure: str
    source: str
    candidate: int
    behaviour: str
    live: Genotype
    length: int
    job: EvalJob | None = None  # Where it is trained; made once, since the race's levels move on.
    role: Role = Role.RACED
    failed: Outcome | None = None  # What the probe has against it; then it is not trained.


@final
class Evolution:
    """The engine: `ask` proposes, `tell` learns and stores. One per run directory and process."""

    def __init__(self, config: SearchConfig, store: Store, run_now: job_records.RunNow):
        self.config = config
        self._store = store
        self._run_now = run_now
        self._arena = Arena(config, run_now)
        self.founders = founders_lib.read(store.meta(), config)
        self.initial = Member(self.founders[0].genotype, math.inf)
        self._population: Population
        self._asked: dict[int, _Asked] = {}
        self._seen: Seen
        self._hurdle: tuple[tuple[float, ...], ...] = ()
        self._race: Race
        self._runs = tuple(
            Run(proxy, seed)
            for seed in range(config.seeds_per_task)
            for proxy in range(len(config.tasks))
        )
        self.num_told = 0
        self.num_asked_evaluations = 0
        self.num_challenges = 0
        self.sources: collections.Counter[str] = collections.Counter()
        self.statuses: collections.Counter[str] = collections.Counter()
        self.num_invalid = 0
        self.num_statements = 0
        self.num_live = 0
        self.seconds_before = 0.0
        self._began = time.monotonic()
        self.incumbent: Incumbent

    # ------------------------------------------------------------------ starting and resuming

    def start(self) -> None:
        """Scores the initial rule and stores it, or rebuilds everything from the store.

        Raises:
          SearchError: the initial rule fails on a proxy task, so nothing can be measured against
            it.
        """
        if "hurdle" in self._store.meta():
            self._rebuild()
        else:
            self._begin()
        self._began = time.monotonic()

    def _begin(self) -> None:
        genotype = self.initial.genotype
        if probe.ignores_gradient(dataflow.lower(genotype.program, fold=True)):
            raise SearchError(
                f"the initial rule {self.config.initial_rule} trains nothing: {IGNORES_GRADIENT}"
            )
        # One job per proxy, so that the loops compile side by side.
        jobs = [
            EvalJob(genotype, tuple(r for r in self._runs if r.proxy == p))
            for p in range(len(self.config.tasks))
        ]
        name = f"initial rule {self.config.initial_rule}"
        named = [job_records.as_run(self.config, job, name) for job in jobs]
        made: dict[Run, Record] = {}
        for proxy, job, result in zip(self.config.tasks, jobs, self._run_now(named), strict=True):
            outcome = job_records.outcome_of(result)
            if outcome.status is not Status.OK:
                raise SearchError(
                    f"the initial rule {self.config.initial_rule} at learning rate "
                    f"{genotype.learning_rate:g} "
                    f"fails on {proxy.task}: {outcome.status} {outcome.message}".rstrip()
                )
            made |= {record.run.run: record for record in job_records.records_of(job, result)}
        runs = tuple(made[run] for run in self._runs)
        outcome = Outcome.of([record.run for record in runs])
        curves = [record.run.log_losses for record in runs]
        hurdle = [[loss + self.config.hurdle for loss in curve] for curve in curves]
        meta, meta_runs = self._arena.meta(0, genotype)
        flow = dataflow.lower(genotype.program, fold=True)
        behaviour = fingerprint.fingerprint(flow, genotype.learning_rate).digest
        live = _live(genotype)
        with self._store.transaction():
            self._insert_candidate(0, behaviour, live, len(flow.live_nodes), outcome, runs)
            self._insert_challenge(-1, 0, 0, Challenge(None, None, True, meta, meta_runs), 0.0)
            self._store.set_meta("initial_curves", json.dumps(curves))
            self._store.set_meta("hurdle", json.dumps(hurdle))
        self._rebuild()

    def _rebuild(self) -> None:
        store = self._store
        self._hurdle = tuple(tuple(row) for row in json.loads(store.meta()["hurdle"]))
        self._seen = Seen(store, _structure(self.initial.genotype))
        self.initial = self._member(self.initial.genotype, self._seen.fitness(0))
        self.statuses.clear()
        query = "SELECT status, COUNT(*) AS n FROM candidate WHERE id > 0 GROUP BY status"
        for row in store.rows(query):
            self.statuses[row["status"]] = row["n"]
        self.sources.clear()
        for row in store.rows("SELECT source, COUNT(*) AS n FROM proposal GROUP BY source"):
            self.sources[row["source"]] = row["n"]
        sums = store.rows(
            "SELECT COUNT(*) AS told, COALESCE(SUM(invalid), 0) AS invalid, COALESCE(SUM(live), 0) "
            "AS live, COALESCE(SUM(statements), 0) AS statements, COALESCE(MAX(told_s), 0.0) "
            "AS seconds FROM proposal"
        )[0]
        self.num_told = sums["told"]
        self.num_invalid, self.num_statements = sums["invalid"], sums["statements"]
        self.num_live, self.seconds_before = sums["live"], sums["seconds"]
        self._rebuild_population()
        most = self.config.racing.memory + self.config.window
        self._race = Race(self.config.racing, self.config.window, racing.read_controls(store, most))
        self.num_asked_evaluations = self.sources["evaluated"]
        won = store.rows(
            "SELECT challenger, meta_fitness FROM challenge WHERE won = 1 ORDER BY id DESC LIMIT 1"
        )[0]
        self.num_challenges = store.rows("SELECT COUNT(*) AS n FROM challenge")[0]["n"]
        row = store.rows(
            "SELECT program, learning_rate FROM candidate WHERE id = ?", (won["challenger"],)
        )[0]
        genotype = Genotype(Program.parse(row["program"]), row["learning_rate"])
        candidate = won["challenger"]
        self.incumbent = Incumbent(
            candidate=candidate,
            genotype=genotype,
            fitness=self._seen.fitness(candidate),
            fresh=self._fresh(candidate),
            meta=won["meta_fitness"],
        )

    def _rebuild_population(self) -> None:
        self._population = Population(self.config, self.initial, len(self.founders))
        needed = self._population.needed_from(self.num_told)
        # What was before matters for restarts alone.
        first = needed if self.config.restart_after is None else 0
        query = (
            "SELECT p.id, p.source, p.candidate, COALESCE(h.won, 0) AS won FROM proposal p "
            "LEFT JOIN challenge h ON h.proposal = p.id WHERE p.id >= ? ORDER BY p.id"
        )
        for row in self._store.iterate(query, (first,)):
            member = None
            if row["id"] >= needed or row["won"]:
                fitness = self._seen.fitness(row["candidate"])
                member = self._member(self._proposed(row["id"]), fitness)
            trained = row["source"] == "evaluated"
            self._population.add(row["id"], member, trained=trained, best=bool(row["won"]))

    def _member(self, genotype: Genotype, fitness: float) -> Member:
        # Looking at the probe again takes as long as all else here, and no niche matters otherwise.
        if self.config.niche_size is None or not math.isfinite(fitness):
            return Member(genotype, fitness)
        flow = dataflow.lower(genotype.program, fold=True)
        return Member(genotype, fitness, niches.niche(flow))

    def _proposed(self, index: int) -> Genotype:
        query = "SELECT program, learning_rate FROM proposal WHERE id = ?"
        row = self._store.rows(query, (index,))[0]
        return Genotype(Program.parse(row["program"]), row["learning_rate"])

    # ------------------------------------------------------------------ proposing

    def ask(self, index: int) -> driver.Proposal:
        """Proposal `index`; see the module docstring for what it depends on."""
        config = self.config
        if self.num_asked_evaluations >= config.max_evaluations:
            return driver.Stop()
        if config.time_limit_s is not None and self.elapsed_s >= config.time_limit_s:
            return driver.Stop()
        if index >= MAX_PROPOSALS_PER_EVALUATION * config.max_evaluations:
            return driver.Stop()
        parent, child = self._child(index)
        asked = self._look_up(child, parent if parent >= 0 else None)
        if asked.source == "evaluated":
            asked = self._enter(asked, index)
        self._asked[index] = asked
        self._seen.ask(asked.structure, asked.candidate, asked.behaviour)
        if asked.job is None:
            return driver.Ready(asked.failed)
        self.num_asked_evaluations += 1
        return job_records.as_run(config, asked.job, f"candidate {asked.candidate}")

    def _enter(self, asked: _Asked, index: int) -> _Asked:
        """A proposal that is trained, with its job and its role in the race."""
        config, role = self.config, Role.RACED
        if index < len(self.founders) - 1:
            role = Role.FOUNDER
        elif config.racing.enabled:
            role = racing.draw_role(config.racing, config.seed, index)
        levels = self._race.levels(index - config.window) if role is Role.RACED else ()
        job = EvalJob(asked.live, self._runs, self._hurdle, asked.candidate, "fitness", levels)
        return replace(asked, job=job, role=role)

    def _child(self, index: int) -> tuple[int, mutation.Child]:
        """A proposal's parent and what is proposed: a mutation of it, or one of the founders."""
        if index < len(self.founders) - 1:
            founder = self.founders[index + 1]
            return INITIAL, mutation.Child(founder.genotype, f"founder {founder.name}", 0)
        rng = np.random.default_rng((self.config.seed, index))
        parent, genotype = self._population.draw(rng, index)
        child = mutation.mutate(rng, genotype, self.config.mutation)
        if self.config.mutation.match_steps:
            child = step_size.matched(genotype, child)
        return parent, child

    def _look_up(self, child: mutation.Child, parent: int | None) -> _Asked:
        """Looks a child up by structure, then by behaviour."""
        genotype = child.genotype
        flow = dataflow.lower(genotype.program, fold=True)
        structure = f"{flow.structural_hash}:{genotype.learning_rate!r}"
        length = len(flow.live_nodes)

        def asked(
            source: str,
            candidate: int,
            behaviour: str,
            live: Genotype,
            failed: Outcome | None = None,
        ) -> _Asked:
            return _Asked(
                child,
                parent,
                structure,
                source,
                candidate,
                behaviour,
                live,
                length,
                failed=failed,
            )

        if (known := self._seen.by_structure(structure)) is not None:
            return asked("structure", known, "", genotype)
        print_ = fingerprint.fingerprint(flow, genotype.learning_rate)
        if (known := self._seen.by_behaviour(print_.digest)) is not None:
            return asked("behaviour", known, "", genotype)
        source, failed = "evaluated", None
        if not print_.finite:
            source, failed = "probe", Outcome(Status.DIVERGED, None)
        elif probe.ignores_gradient(flow):
            source, failed = "hollow", Outcome(Status.HOLLOW, None, message=IGNORES_GRADIENT)
        return asked(source, self._seen.num_candidates, print_.digest, _live(genotype), failed)

    # ------------------------------------------------------------------ learning

    def tell(self, index: int, result: JobResult | driver.Ready) -> None:
        """Take in a proposal's result; store it and all that follows from it, at once."""
        asked = self._asked.pop(index)
        source, runs = asked.source, tuple[Record, ...]()
        if isinstance(result, JobResult):
            assert asked.job is not None
            outcome: Outcome | None = job_records.outcome_of(result)
            runs = job_records.records_of(asked.job, result)
        else:
            outcome = result.value if isinstance(result.value, Outcome) else None
        challenge: Challenge | None = None
        if (
            outcome is not None
            and outcome.fitness is not None
            and outcome.fitness < self.incumbent.fitness
        ):
            challenge = self._arena.compare(
                (asked.candidate, asked.live), self.incumbent, self.num_challenges
            )
        now = self.elapsed_s
        with self._store.transaction():
            if outcome is not None:
                self._insert_candidate(
                    asked.candidate, asked.behaviour, asked.live, asked.length, outcome, runs
                )
            if challenge is not None:
                self._insert_challenge(
                    index, asked.candidate, self.incumbent.candidate, challenge, now
                )
            self._store.insert(
                "proposal",
                id=index,
                parent=asked.parent,
                mutation=asked.child.mutation,
                program=str(asked.child.genotype.program),
                learning_rate=asked.child.genotype.learning_rate,
                structure=asked.structure,
                statements=len(asked.child.genotype.program.statements),
                live=asked.length,
                invalid=asked.child.invalid,
                source=source,
                candidate=asked.candidate,
                told_s=now,
            )
            if outcome is not None and asked.job is not None and self.config.racing.enabled:
                self._tell_race(index, asked.role, asked.job, outcome)
        self._seen.tell(asked.structure, asked.behaviour)
        if outcome is not None:
            self.statuses[outcome.status.value] += 1
            fitness = challenge_lib.rank(outcome.fitness)
        else:
            fitness = self._seen.fitness(asked.candidate)
        self._population.add(
            index,
            self._member(asked.child.genotype, fitness),
            trained=source == "evaluated",
            best=challenge is not None and challenge.won,
        )
        self.sources[source] += 1
        self.num_invalid += asked.child.invalid
        self.num_statements += len(asked.child.genotype.program.statements)
        self.num_live += asked.length
        self.num_told = index + 1
        if challenge is not None:
            self.num_challenges += 1
            if challenge.won:
                self.incumbent = Incumbent(
                    asked.candidate, asked.live, fitness, None, challenge.meta
                )
            fresh = self._fresh(self.incumbent.candidate)
            self.incumbent = replace(self.incumbent, fresh=fresh)

    # ------------------------------------------------------------------ storing

    def _tell_race(self, index: int, role: Role, job: EvalJob, outcome: Outcome) -> None:
        curves = tuple(run.log_losses for run in outcome.runs)
        rejected = outcome.status is Status.REJECTED
        dropped_at = racing.where_dropped(job.race, curves) if rejected else None
        racing.insert(self._store, index, role, curves, dropped_at=dropped_at)
        if role.is_control:
            fitness = challenge_lib.rank(outcome.fitness)
            self._race.add(racing.Control(index, role, fitness, curves))

    def _insert_candidate(
        self,
        candidate: int,
        behaviour: str,
        live: Genotype,
        length: int,
        outcome: Outcome,
        runs: Sequence[Record],
    ) -> None:
        self._store.insert(
            "candidate",
            id=candidate,
            behaviour=behaviour,
            slots=len(live.program.slots),
            program=str(live.program),
            learning_rate=live.learning_rate,
            length=length,
            status=outcome.status.value,
            fitness=outcome.fitness,
            num_steps=sum(run.num_steps for run in outcome.runs),
            message=outcome.message,
        )
        job_records.insert(self._store, self.config, runs)

    def _insert_challenge(
        self, proposal: int, challenger: int, incumbent: int, challenge: Challenge, now: float
    ) -> None:
        self._store.insert(
            "challenge",
            id=self.num_challenges,
            proposal=proposal,
            challenger=challenger,
            incumbent=incumbent,
            difference=challenge.difference,
            standard_error=challenge.standard_error,
            won=int(challenge.won),
            meta_fitness=challenge.meta,
            told_s=now,
        )
        job_records.insert(self._store, self.config, challenge.runs)

    def _fresh(self, candidate: int) -> float | None:
        """Mean log loss over the fresh seeds that a candidate has met; None if it failed on one."""
        query = (
            "SELECT AVG(log_loss) AS mean, COUNT(*) - COUNT(log_loss) AS failed FROM evaluation "
            "WHERE candidate = ? AND purpose = 'fresh'"
        )
        row = self._store.rows(query, (candidate,))[0]
        return None if row["mean"] is None or row["failed"] else float(row["mean"])

    @property
    def elapsed_s(self) -> float:
        """Seconds of search, over all sittings."""
        return self.seconds_before + time.monotonic() - self._began


def _live(genotype: Genotype) -> Genotype:
    return replace(genotype, program=simplify.prune(genotype.program))


def _structure(genotype: Genotype) -> str:
    return (
        f"{dataflow.lower(genotype.program, fold=True).structural_hash}:{genotype.learning_rate!r}"
    )
