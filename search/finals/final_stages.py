"""The finals: hall of fame and baselines on equal terms, on seeds never used before.

Fitness on the search's seeds is too good, because rules and learning rates were selected on these
seeds thousands of times. So at the end the Pareto front of fitness, length and state (scored anew
where the config has a shortlist), the incumbent, and the baselines (AdamW and Lion) are treated
alike. Every learning rate of one grid is tried on the selection seeds, and the best is kept; where
the config asks for it, all constants are then tuned with one budget (`constant_tuning`). Then comes
the funnel (`funnel`): larger tasks, stage by stage, each passed only by rules that beat every
baseline there. Among the rules that passed the most stages the winner is chosen on the selection
seeds of the proxies or of the meta-validation tasks, as the config sets; the figures shown come
from further seeds. Meta-validation tasks are scored at the learning rate chosen on the proxies, or
at the best of several around it, if the config names such.

Every run is read from the store if it is there, so interrupted finals continue where they stopped.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import final

import numpy as np

from veldt.search import rule_sources, simplify
from veldt.search.config.finals_config import FinalsConfig
from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.jobs import ProxyRun
from veldt.search.evolution import job_records
from veldt.search.finals import constant_tuning, final_runs, funnel, shortlist
from veldt.search.finals.final_runs import Contender, Runs, Score, Wanted
from veldt.search.language import dataflow
from veldt.search.program import Program
from veldt.search.storage.hall_entries import End, Entry
from veldt.search.storage.store import Store
from veldt.tasks.common.config import codec, older_config


@final
class Finals:
    """Runs the finals of one search."""

    def __init__(
        self, config: SearchConfig, incumbent: int, store: Store, run_now: job_records.RunNow
    ):
        """Prepare the finals of a search.

        Args:
          config: Config of the search.
          incumbent: Best candidate at the end of the search.
          store: Store of the search, which keeps every run.
          run_now: Function that makes runs.
        """
        self._config = config
        self._incumbent = incumbent
        self._store = store
        self._runs = Runs(config, store, run_now)

    def run(self, report: Callable[[str, int, int], None] = lambda *_: None) -> list[Entry]:
        """Play the finals; return the entries, shortest first, baselines last.

        Args:
          report: Function called with the present step, the runs done and the runs in all.
        """
        config = self._config
        self._note()
        contenders = [self._finalist(candidate) for candidate in self._finalists(report)]
        contenders += [self._baseline(name) for name in config.finals.baselines]
        tasks = range(len(config.tasks))
        metas = range(len(config.tasks), len(config.tasks) + len(config.meta_validation))
        select = final_runs.each_seed(tasks, job_records.SELECT_SEEDS, config.finals.select_seeds)
        final_ = final_runs.each_seed(tasks, job_records.FINAL_SEEDS, config.finals.final_seeds)
        meta_select = final_runs.each_seed(metas, job_records.SELECT_SEEDS, config.meta_seeds)
        meta = final_runs.each_seed(metas, job_records.FINAL_SEEDS, config.meta_seeds)

        contenders = self._rate(contenders, select, report)
        contenders = [self._tune(each, select, report) for each in contenders]
        contenders = funnel.play(config, contenders, self._runs, report)
        contenders = self._rate_on_meta(contenders, meta_select, report)
        wanted = [
            Wanted(each, rate, purpose, runs)
            for purpose, runs in (("final", final_), ("meta-final", meta))
            for each in contenders
            if (rate := each.learning_rate if purpose == "final" else each.meta_rate) is not None
        ]
        self._runs.complete(wanted, lambda done, total: report("final seeds", done, total))
        winner = self._winner(contenders)
        entries = [
            replace(self._entry(each, final_, meta), winner=each is winner) for each in contenders
        ]
        self._store_entries(entries)
        return entries

    def _finalists(self, report: Callable[[str, int, int], None]) -> list[int]:
        """Return the ids of the finalists, shortest first."""
        config = self._config
        if config.finals.shortlist:
            return shortlist.choose(self._store, config, self._incumbent, self._runs, report)
        ranked = shortlist.ranked(self._store, config, self._incumbent)
        return shortlist.front(ranked, self._incumbent, config.finals.max_entries)

    def _rate(
        self,
        contenders: Sequence[Contender],
        select: tuple[ProxyRun, ...],
        report: Callable[[str, int, int], None],
    ) -> list[Contender]:
        """Give each contender the best of the learning rates tried for it."""
        tried = [
            [Wanted(each, rate, "select", select) for rate in self._rates_of(each)]
            for each in contenders
        ]
        self._runs.complete(
            itertools.chain.from_iterable(tried),
            lambda done, total: report("learning rates", done, total),
        )
        rated = []
        for each, of_each in zip(contenders, tried, strict=True):
            rate, score = self._runs.best_rate(of_each)
            rated.append(replace(each, learning_rate=rate, select=score))
        return rated

    def _rate_on_meta(
        self,
        contenders: Sequence[Contender],
        select: tuple[ProxyRun, ...],
        report: Callable[[str, int, int], None],
    ) -> list[Contender]:
        """Give each contender its learning rate, and its score, on the meta-validation tasks."""
        finals = self._config.finals
        if not select:
            return list(contenders)
        if not finals.selects_on_meta:
            return [replace(each, meta_rate=each.learning_rate) for each in contenders]
        tried = [
            [
                Wanted(each, each.learning_rate * factor, "meta-select", select)
                for factor in finals.meta_rate_factors
                if each.learning_rate is not None
            ]
            for each in contenders
        ]
        self._runs.complete(
            itertools.chain.from_iterable(tried),
            lambda done, total: report("meta-validation", done, total),
        )
        rated = [self._runs.best_rate(of_each) for of_each in tried]
        return [
            replace(each, meta_rate=rate, meta_select=score)
            for each, (rate, score) in zip(contenders, rated, strict=True)
        ]

    def _rates_of(self, each: Contender) -> tuple[float, ...]:
        """Return the learning rates tried for a contender, which has only its own so far."""
        finals = self._config.finals
        if finals.rates_of_finalists == "common" or each.learning_rate is None:
            return finals.rates
        return finals.rates_around(each.learning_rate)

    def _tune(
        self, each: Contender, select: tuple[ProxyRun, ...], report: Callable[[str, int, int], None]
    ) -> Contender:
        """Tune all constants of a contender, where the config asks for it."""
        config = self._config.finals.tuning
        if not config.budget or each.learning_rate is None:
            return each

        def score(genotypes: Sequence[Genotype]) -> list[float]:
            wanted = [
                Wanted(
                    replace(each, program=genotype.program, tuned=True),
                    genotype.learning_rate,
                    "tuning",
                    select,
                )
                for genotype in genotypes
            ]
            self._runs.complete(wanted, lambda *_: None)
            scores = (self._runs.score(each).mean for each in wanted)
            return [math.inf if value is None else value for value in scores]

        def differentiate(start: Program, genotype: Genotype) -> Sequence[float] | None:
            return self._runs.gradient(each, start, genotype, select)

        rng = np.random.default_rng((self._config.seed, each.candidate % (1 << 32)))
        tuned = constant_tuning.tune(
            Genotype(each.program, each.learning_rate),
            score,
            config,
            int(rng.integers(1 << 31)),
            lambda done, total: report(f"constants of {each.label}", done, total),
            differentiate,
        )
        if not math.isfinite(tuned.score):
            return each
        return replace(
            each,
            program=tuned.genotype.program,
            learning_rate=tuned.genotype.learning_rate,
            select=tuned.score,
            tuned=True,
        )

    def _entry(
        self, each: Contender, final_: tuple[ProxyRun, ...], meta: tuple[ProxyRun, ...]
    ) -> Entry:
        rate, score, meta_score = each.learning_rate, Score(None, None), Score(None, None)
        if rate is not None:
            score = self._runs.score(Wanted(each, rate, "final", final_))
        if each.meta_rate is not None:
            meta_score = self._runs.score(Wanted(each, each.meta_rate, "meta-final", meta))
        return Entry(
            label=each.label,
            candidate=each.candidate,
            program=each.program,
            learning_rate=rate,
            length=each.length,
            search_fitness=each.search_fitness,
            select=each.select,
            final=score.mean,
            final_error=score.error,
            meta=meta_score.mean,
            stages=each.stages,
            end=End.read(self._store, each.candidate, each.program, rate),
        )

    def _winner(self, contenders: Sequence[Contender]) -> Contender | None:
        """Return the best of those that passed the most stages; None if none could be trained."""
        found = [each for each in contenders if each.candidate >= 0 and each.select is not None]
        if not found:
            return None
        furthest = max(each.stages for each in found)

        def place(each: Contender) -> tuple[float, float, int]:
            select = math.inf if each.select is None else each.select
            if self._config.finals.choose_by == "proxies":
                return (select, 0.0, each.length)
            meta = math.inf if each.meta_select is None else each.meta_select
            return (meta, select, each.length)

        return min((each for each in found if each.stages == furthest), key=place)

    def _finalist(self, candidate: int) -> Contender:
        row = self._store.rows("SELECT * FROM candidate WHERE id = ?", (candidate,))[0]
        label = f"#{candidate}" if candidate else f"{self._config.initial_rule} (initial)"
        program, rate = Program.parse(row["program"]), row["learning_rate"]
        return Contender(candidate, label, program, row["fitness"], learning_rate=rate)

    def _baseline(self, name: str) -> Contender:
        """Store a baseline, once; its id is below 0."""
        program = simplify.prune(rule_sources.load_rule(name))
        flow = dataflow.lower(program, fold=True)
        behaviour = f"baseline {name} {flow.structural_hash}"
        rows = self._store.rows("SELECT id FROM candidate WHERE behaviour = ?", (behaviour,))
        if rows:
            return Contender(rows[0]["id"], name, program)
        lowest = self._store.rows("SELECT MIN(id) AS id FROM candidate")[0]["id"]
        candidate = min(int(lowest), 0) - 1
        with self._store.transaction():
            self._store.insert(
                "candidate",
                id=candidate,
                behaviour=behaviour,
                program=str(program),
                learning_rate=0.0,
                length=len(flow.live_nodes),
                status="baseline",
                fitness=None,
                num_steps=0,
                message="",
                slots=len(program.slots),
            )
        return Contender(candidate, name, program)

    def _note(self) -> None:
        """Store that finals of this search are played, unless the same finals were begun before."""
        num_told = self._store.first("SELECT COUNT(*) FROM proposal")
        config = self._config.finals
        last = self._store.rows("SELECT told, config FROM finals ORDER BY id DESC LIMIT 1")
        # Configs are compared, not their texts: those of older versions have fewer settings.
        if [
            (r["told"], older_config.fill(FinalsConfig, json.loads(r["config"]))) for r in last
        ] != [(num_told, codec.to_plain(config))]:
            with self._store.transaction():
                self._store.insert(
                    "finals", told=num_told, config=json.dumps(codec.to_plain(config))
                )
                self._store.execute("DELETE FROM hall_of_fame")

    def _store_entries(self, entries: Iterable[Entry]) -> None:
        with self._store.transaction():
            self._store.execute("DELETE FROM hall_of_fame")
            for position, entry in enumerate(entries):
                self._store.insert(
                    "hall_of_fame",
                    id=position,
                    label=entry.label,
                    candidate=entry.candidate,
                    learning_rate=entry.learning_rate,
                    length=entry.length,
                    search_fitness=entry.search_fitness,
                    select_score=entry.select,
                    final_score=entry.final,
                    final_error=entry.final_error,
                    meta=entry.meta,
                    winner=int(entry.winner),
                    program=str(entry.program),
                    stages=entry.stages,
                )
