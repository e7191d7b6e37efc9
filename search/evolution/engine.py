"""Regularized evolution over update programs.

Lion (arXiv 2302.06675), section 2.2; Real et al. (arXiv 1802.01548).

A population of fixed size begins with copies of the initial rule (and of further founders, if the
config names any). Each child is a mutation of the best of a random tournament; the oldest dies.
Before any training a child is searched for twice in the cache (`proposal_cache.py`): by its
structural hash, then by its behaviour on a probe (`fingerprint.py`). Only new behaviour is trained,
and only a candidate that passes the hurdle, and the race if there is one (`racing.py`), is trained
to the end.

One evaluation is noise as much as it is merit. With `samples` above 1, evaluations have seeds of
their own and the mean over them ranks members (`samples.py`). With 1, which favours luck, a
candidate that beats the incumbent must beat it again on fresh seeds (`challenge.py`). That, and
meta-validation of each new best, which decides nothing, is side work (`side_work.py`).

**Determinism and resuming.** Proposal `i` is a function of the seed, `i`, and the proposals up to
`i - window`, with side work that was settled by then; results are recorded in order
(`tasks.pool.driver`). Population, caches, incumbent and the side work under way are functions of
the store's rows, so `Evolution` is made from the store alone and continues exactly as if it had
never stopped. Memory holds the population, the proposals asked and not yet told and the side work
under way, however long the search is. What is told meanwhile changes no proposal, so children may
be made by processes beside the driver (`children.py`).
"""

import contextlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, final

from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.individual import IGNORES_GRADIENT, Individual
from veldt.search.evaluation.jobs import EvalJob, Outcome, ProxyRun, Status
from veldt.search.evolution import challenge as challenge_lib
from veldt.search.evolution import founders as founders_lib
from veldt.search.evolution import (
    initial_rule,
    job_records,
    migration,
    search_rows,
    side_work,
    step_budget,
    suggestions,
)
from veldt.search.evolution.challenge import Arena, Challenge, Incumbent
from veldt.search.evolution.children import (
    COPIED,
    SAMPLE,
    Asked,
    Helpers,
    Proposed,
    Proposer,
    Told,
)
from veldt.search.evolution.job_records import Record
from veldt.search.evolution.llm.answer_source import AnswerSource
from veldt.search.evolution.proposal_cache import Seen
from veldt.search.evolution.selection import racing, samples
from veldt.search.evolution.selection.population import INITIAL, Member, Place, Population
from veldt.search.evolution.selection.racing import Race, Role
from veldt.search.evolution.side_work import Contender
from veldt.search.storage.counts import Counts
from veldt.search.storage.mail import Letter, Mail
from veldt.search.storage.store import Store
from veldt.tasks.pool import driver
from veldt.tasks.pool.base import JobResult

# A search that proposes this many children for each evaluation has nothing new left to find.
MAX_PROPOSALS_PER_EVALUATION: Final = 200


@final
class Evolution:
    """The engine: `ask` proposes, `tell` learns and stores. One per run directory and process.

    Attributes:
      config: Config of the search.
      founders: Rules that the search starts from, the initial rule first.
      initial: Initial rule.
      incumbent: Best rule so far.
      counts: Counts of what was recorded.
      budget: Training steps made.
      mail: Letters from and to other drivers of the search.
      proposer: Maker of children.
      helpers: Processes that make children too; None where there are none.
      suggestions: Proposals of language models; None where there are none.
    """

    def __init__(
        self,
        config: SearchConfig,
        store: Store,
        run_now: job_records.RunNow,
        mail: Mail | None = None,
        source: AnswerSource | None = None,
    ):
        """Continue a search that has begun, from its store. `start` also begins one."""
        self.config = config
        self._store = store
        self.mail = Mail(store) if mail is None else mail
        self._arena = Arena(config, run_now)
        self._stages = side_work.Stages(config, store)
        self._waits = not side_work.is_used(store)
        self._has_ended = side_work.has_last(store)
        meta = store.meta()
        self._hurdle = json.loads(meta["hurdle"])
        self.founders = founders_lib.read(meta, config)
        initial = Individual.of(self.founders[0].genotype)
        self._seen = Seen(store, initial.structure)
        self.counts = Counts.read(store)
        self._samples = samples.Samples(config.window + 2)
        self._introduced: dict[int, int] = {}
        if config.samples > 1:
            self._introduced = search_rows.introduced(store)
            numbers, told = self.mail.numbers, self.counts.num_told
            search_rows.read_samples(store, config, self._samples, told, numbers.index)
        self.initial = Member(initial, self._fitness(0))
        self.budget = step_budget.StepBudget(config, store)
        self._population = self._read_population()
        self.proposer = Proposer(
            config, self.founders, self._population, self._samples, self.mail.numbers
        )
        self.helpers: Helpers | None = None
        self.incumbent = self._read_incumbent()
        self._stages.wait_again(self.incumbent)
        controls = racing.read_controls(store, config.racing.memory + config.window)
        self._race = Race(config.racing, config.window, controls)
        self._asked: dict[int, Asked] = {}
        self._num_in_training = 0
        before_s = store.first("SELECT COALESCE(MAX(told_s), 0.0) FROM proposal")
        self._began = time.monotonic() - before_s
        self.suggestions = suggestions.join(
            config, store, source, self.founders, self.proposer, initial, lambda: self.elapsed_s
        )

    @classmethod
    def start(
        cls,
        config: SearchConfig,
        store: Store,
        run_now: job_records.RunNow,
        mail: Mail | None = None,
        source: AnswerSource | None = None,
    ) -> "Evolution":
        """Begin a search by scoring the initial rule, or continue one that has begun.

        Raises:
          SearchError: The initial rule fails on a proxy task, so nothing can be measured against
            it.
        """
        if not initial_rule.is_scored(store):
            genotype = founders_lib.read(store.meta(), config)[0].genotype
            initial_rule.score(config, genotype, store, run_now)
        return cls(config, store, run_now, mail, source)

    # ------------------------------------------------------------------ what the store holds

    def _read_population(self) -> Population:
        population = Population(self.config, self.initial, len(self.founders))
        needed = population.needed_from(self.counts.num_told)
        # Earlier proposals matter for restarts, and founders where all children are theirs.
        is_short = self.config.restart_after is None and not population.keeps(0)
        first = needed if is_short else 0
        best, later = Place(INITIAL, self.initial), search_rows.new_incumbents(self._store)
        for stored in search_rows.proposals_since(self._store, first):
            while later and later[0][0] <= stored.index:
                _, *ids = later.pop(0)
                best = Place(ids[0], self._read_member(*ids))
            member = None
            if stored.index >= needed or population.keeps(stored.index):
                member = self._read_member(stored.index, stored.candidate)
            population.add(stored.index, member, trained=stored.trained, best=best)
        return population

    def _read_incumbent(self, before: Incumbent | None = None) -> Incumbent:
        """Return the incumbent of the store's rows; `before` is the one before, or the same."""
        store, won = self._store, search_rows.last_won(self._store)
        best = won.candidate
        if before is not None and won.proposal == before.place.proposal:
            place, genotype = before.place, before.genotype
        else:
            place = Place(won.proposal, self._read_member(won.proposal, best))
            genotype = search_rows.candidate_genotype(store, best)
        sampled = self.config.samples > 1  # Their mean stands for the score on fresh seeds.
        fresh = self._fitness(best) if sampled else search_rows.fresh_score(store, best)
        return Incumbent(best, place, genotype, fresh, won.meta, self._stages.awaits_meta(best))

    @property
    def begun(self) -> tuple[driver.SideWork, ...]:
        """The side work under way, for the driver of a search that is continued."""
        return self._stages.works()

    def _read_member(self, index: int, candidate: int) -> Member:
        if index == INITIAL:
            return self.initial
        genotype = search_rows.proposed(self._store, index)
        return Member(Individual.of(genotype), self._fitness(candidate), candidate)

    def _fitness(self, candidate: int) -> float:
        """Return the fitness of a candidate as it is known now."""
        if self.config.samples > 1:
            return self._samples.estimate(candidate).mean
        return self._seen.fitness(candidate)

    # ------------------------------------------------------------------ proposing

    def ask(self, index: int) -> driver.Proposal:
        """Return proposal `index`; see the module docstring for what it depends on."""
        config, begun = self.config, self.counts.num_evaluations + self._num_in_training
        if (
            self._has_ended
            or begun >= config.max_evaluations
            or (config.time_limit_s is not None and self.elapsed_s >= config.time_limit_s)
            or self.budget.has_ended(index)
            or index >= MAX_PROPOSALS_PER_EVALUATION * config.max_evaluations
        ):
            return driver.Stop()
        if self.mail.awaits(index) or (
            self.suggestions is not None and self.suggestions.calls.awaits(index)
        ):
            return driver.Wait()
        asked = self._look_up(self._child(index), index)
        self._asked[index] = asked
        if asked.job is not None and config.samples > 1:
            self._samples.ask(asked.candidate)
            self._introduced.setdefault(asked.candidate, index)
        self._seen.ask(asked.child.individual.structure, asked.candidate, asked.behaviour)
        if asked.job is None:
            return driver.Ready(asked.failed)
        self._num_in_training += 1
        return job_records.named_job(config, asked.job, f"candidate {asked.candidate}")

    def _child(self, index: int) -> Proposed:
        """Return the child of a proposal, made here or by a helper, or what came from elsewhere."""
        made = None if self.helpers is None else self.helpers.child(index)
        if (letter := self.mail.immigrant(index)) is not None:
            return migration.immigrant(letter)
        if self.suggestions is not None and (found := self.suggestions.child(index)) is not None:
            return found
        return made or self.proposer.child(index)

    def _may_lead(self, candidate: int, index: int) -> bool:
        """Return whether a known candidate might be better than all members."""
        others = [place.member.candidate for place in self._population.living(index)]
        return self._samples.may_lead(candidate, others, index - self.config.window)

    def _look_up(self, child: Proposed, index: int) -> Asked:
        """Search for a child by structure, then by behaviour; test a new one on the probe."""
        individual = child.individual
        if (known := self._seen.by_structure(individual.structure)) is not None:
            return self._known(child, "structure", known, index)
        digest, finite = individual.fingerprint()
        if (known := self._seen.by_behaviour(digest)) is not None:
            return self._known(child, "behaviour", known, index)
        candidate = self.counts.num_candidates + self._seen.num_pending
        if not finite:
            failed = Outcome(Status.DIVERGED, None)
            return Asked(child, "probe", candidate, digest, failed)
        if individual.lowered.ignores_gradient:
            failed = Outcome(Status.HOLLOW, None, message=IGNORES_GRADIENT)
            return Asked(child, "hollow", candidate, digest, failed)
        role, job = self._enter(individual.live, candidate, index)
        return Asked(child, "evaluated", candidate, digest, job=job, role=role)

    def _known(self, child: Proposed, source: str, candidate: int, index: int) -> Asked:
        """Return a further sample of a known candidate, or the answer of the cache."""
        newest, samples = index - self.config.window, self.config.samples
        is_copy = child.mutation == SAMPLE
        if (
            samples == 1
            or self._introduced.get(candidate, index) > newest
            or self._samples.num_asked(candidate) >= samples * (COPIED if is_copy else 1)
            or not math.isfinite(self._samples.estimate(candidate, newest).mean)
            or not (is_copy or self._may_lead(candidate, index))
        ):
            return Asked(child, source, candidate)
        live = child.individual.live
        if source == "behaviour":
            live = search_rows.candidate_genotype(self._store, candidate)
        job = EvalJob(live, self._runs(index), (), candidate, SAMPLE)
        return Asked(child, SAMPLE, candidate, job=job)

    def _enter(self, live: Genotype, candidate: int, index: int) -> tuple[Role, EvalJob]:
        """Return the role in the race of a proposal that is trained, and its job."""
        config, role = self.config, Role.RACED
        if index < len(self.founders) - 1:
            role = Role.FOUNDER
        elif config.racing.enabled:
            number = self.mail.numbers.of(index)
            role = racing.draw_role(config.racing, config.seed, number)
        levels = self._race.levels(index - config.window) if role is Role.RACED else ()
        job = EvalJob(live, self._runs(index), (), candidate, "fitness", levels)
        if role is Role.FOUNDER:  # Chosen by the user: a slow start is no reason to give it up.
            return role, job
        if config.hurdle_over == "mean":
            return role, replace(job, mean=tuple(self._hurdle))
        return role, replace(job, hurdle=tuple(map(tuple, self._hurdle)))

    def _runs(self, index: int) -> tuple[ProxyRun, ...]:
        """Return the training runs of a proposal's evaluation."""
        if self.config.samples == 1:
            return job_records.search_runs(self.config)
        number = self.mail.numbers.of(index)
        return samples.runs(len(self.config.tasks), self.config.seeds_per_task, number)

    # ------------------------------------------------------------------ learning

    @contextlib.contextmanager
    def stretch(self) -> Iterator[None]:
        """Hold a transaction for several asks and tells that wait for nothing."""
        # Where a search waits for challenges, a tell may wait for workers.
        with contextlib.nullcontext() if self._waits else self._store.stretch():
            yield
        self.tend()

    def tend(self) -> None:
        """Store what has come from language models, and send what they are asked."""
        if self.suggestions is not None:
            self.suggestions.tend()

    def tell(self, index: int, result: JobResult | driver.Ready) -> tuple[driver.SideWork, ...]:
        """Take a proposal's result; store it and all that follows from it, at once.

        Returns:
          The side work that begins.
        """
        asked = self._asked.pop(index)
        individual, runs = asked.child.individual, tuple[Record, ...]()
        if isinstance(result, JobResult):
            assert asked.job is not None
            outcome: Outcome | None = job_records.outcome_of(result)
            runs = job_records.records_of(asked.job, result)
            self._num_in_training -= 1
        else:
            outcome = result.value if isinstance(result.value, Outcome) else None
        challenge, score = None, None
        if self.config.samples > 1:
            if asked.job is not None and outcome is not None:
                score = challenge_lib.rank(outcome.fitness)
                self._samples.add(asked.candidate, index, score)
                challenge = self._overtake(asked)
            self._samples.end(index)
        elif self._waits and self._is_fitter(outcome):
            ours = asked.candidate, individual.live
            challenge = self._arena.compare(ours, self.incumbent, self.counts.num_challenges)
        begun = self._write(index, asked, outcome, runs, challenge)
        self._seen.tell(individual.structure, asked.behaviour)
        self.counts.add(
            asked.source,
            None if outcome is None or asked.source == SAMPLE else outcome.status,
            num_invalid=asked.child.invalid,
            num_statements=individual.lowered.num_statements,
            num_live=individual.lowered.length,
            challenged=challenge is not None,
        )
        member = Member(individual, self._fitness(asked.candidate), asked.candidate)
        if challenge is not None:
            self.incumbent = self._read_incumbent(self.incumbent)
        trained = asked.job is not None
        best = self.incumbent.place
        self._population.add(index, member, trained=trained, best=best)
        if self.helpers is not None:
            self.helpers.told(Told(index, member, trained, best, score))
        return begun

    def settle(self, work: int, results: Sequence[JobResult]) -> tuple[driver.SideWork, ...]:
        """Take the results of side work; store them and all that follows from them, at once.

        Returns:
          The side work that begins.
        """
        num_told, fitness = self.counts.num_told, self._fitness(self._stages.candidate(work))
        with self._store.transaction():
            settled = self._stages.settle(
                work, results, self.incumbent, fitness, num_told=num_told, told_s=self.elapsed_s
            )
            due = settled.stage.due
            self.budget.add(due, settled.runs, ended=due > num_told)
        self.counts.num_challenges += settled.challenge is not None
        self.incumbent = self._read_incumbent(self.incumbent)
        return settled.begun

    def _overtake(self, asked: Asked) -> Challenge | None:
        """Return the change of the incumbent, where the candidate sampled has overtaken it."""
        ours, theirs = asked.candidate, self.incumbent.candidate
        if not self._samples.beats(ours, theirs):
            return None
        difference, error = self._samples.difference(ours, theirs)
        before = search_rows.times_incumbent(self._store, ours)
        if before or not self._waits:  # If before, it was scored on meta-validation then.
            return Challenge(difference, error, True, before[-1] if before else None, ())
        meta, runs = self._arena.meta(ours, self._live(asked))
        return Challenge(difference, error, True, meta, runs)

    def _write(
        self,
        index: int,
        asked: Asked,
        outcome: Outcome | None,
        runs: tuple[Record, ...],
        challenge: Challenge | None,
    ) -> tuple[driver.SideWork, ...]:
        """Store a proposal and all that follows from it, in one transaction."""
        child, now, number = asked.child, self.elapsed_s, self.counts.num_challenges
        store, config, candidate = self._store, self.config, asked.candidate
        with store.transaction():
            if asked.source == SAMPLE:
                job_records.insert(store, config, runs)
            elif outcome is not None:
                search_rows.insert_candidate(
                    store, config, candidate, child.individual, asked.behaviour, outcome, runs
                )
            if challenge is not None:
                search_rows.insert_challenge(
                    store,
                    config,
                    challenge,
                    id=number,
                    number=number,
                    proposal=index,
                    challenger=candidate,
                    incumbent=self.incumbent.candidate,
                    settled=index,
                    told_s=now,
                )
            begun = self._begin(index, asked, outcome, challenge)
            search_rows.insert_proposal(
                store,
                index,
                child.individual,
                parent=child.parent,
                mutation=child.mutation,
                invalid=child.invalid,
                source=asked.source,
                candidate=candidate,
                told_s=now,
            )
            is_raced = asked.source == "evaluated" and self.config.racing.enabled
            if outcome is not None and asked.job is not None and is_raced:
                self._race.record(store, index, asked.role, asked.job.race, outcome)
            self.budget.add(index, (*runs, *(() if challenge is None else challenge.runs)))
            self.mail.put(index + 1, lambda number: self._letter(number, index))
            if self.suggestions is not None:
                self.suggestions.record(index, self.incumbent.place)
        return begun

    def _letter(self, number: int, index: int) -> Letter:
        """Return a letter to the next driver, after a proposal."""
        living, newest = self._population.living(index), index - self.config.window
        known = self._samples if self.config.samples > 1 else None
        return migration.emigrant(number, living, known, newest)

    def _begin(
        self, index: int, asked: Asked, outcome: Outcome | None, challenge: Challenge | None
    ) -> tuple[driver.SideWork, ...]:
        """Begin the side work that a proposal brings about, inside the transaction."""
        is_sampled = self.config.samples > 1
        if self._waits or not (challenge is not None if is_sampled else self._is_fitter(outcome)):
            return ()
        ours, theirs = Contender(asked.candidate, self._live(asked)), Contender.of(self.incumbent)
        if not is_sampled:
            self._stages.wait(index, ours, challenge_lib.rank(outcome and outcome.fitness))
            return self._stages.begin_waiting(theirs, self.incumbent.fitness, index)
        if len(search_rows.wins(self._store, asked.candidate)) > 1:
            return ()  # It was scored on meta-validation when it was the incumbent before.
        return self._stages.begin_meta(self.counts.num_challenges, index, ours, theirs, index)

    def _live(self, asked: Asked) -> Genotype:
        """Return the live program and learning rate of a proposal's candidate."""
        if asked.source == SAMPLE:
            return search_rows.candidate_genotype(self._store, asked.candidate)
        return asked.child.individual.live

    def _is_fitter(self, outcome: Outcome | None) -> bool:
        """Return whether a new candidate is fitter than the incumbent."""
        return outcome is not None and challenge_lib.rank(outcome.fitness) < self.incumbent.fitness

    @property
    def elapsed_s(self) -> float:
        """The seconds of search, over all sessions."""
        return time.monotonic() - self._began
