"""The finals: hall of fame and baselines on equal terms, on seeds never used before.

What a search found was selected thousands of times on the search's seeds, learning rate included;
its fitness there flatters it. So at the end the best rule of each length, the incumbent, and the
baselines (AdamW and Lion) are treated alike: every learning rate of one grid is tried on the
selection seeds, the best is kept, and the figures shown come from further seeds. The winner is
chosen on the selection seeds too. Meta-validation tasks are scored at the learning rate chosen on
the proxies.

Every run is looked up in the store first, so that finals that were interrupted go on where they
stopped.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import final

import numpy as np

from veldt.search import dataflow, records, rules, simplify
from veldt.search.config import SearchConfig
from veldt.search.evaluator import EvalJob, Run, Status
from veldt.search.mutation import Genotype
from veldt.search.program import Program
from veldt.search.store import Store
from veldt.tasks import driver


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the hall of fame.

    Attributes:
      label: how the table names it.
      candidate: its id in the store; below 0 for a baseline.
      program: the rule, simplified.
      learning_rate: the best of the grid on the selection seeds; None where every one failed.
      length: live instructions.
      search_fitness: the fitness that the search saw; None for a baseline.
      select: mean log loss on the selection seeds, at that learning rate.
      final: mean log loss on the final seeds; None where a run failed.
      final_error: standard error of that mean over seeds.
      meta: mean log loss on the meta-validation tasks; None where a run failed or there are none.
      winner: True for the one that the run hands over.
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


def hall_of_fame(store: Store, config: SearchConfig, incumbent: int) -> list[int]:
    """Choose finalists: the best of each length that beats every shorter one, and the incumbent.

    Returns:
      Their ids, shortest first; at most `config.finals.max_entries`, the fittest kept.
    """
    rows = store.rows(
        "SELECT id, length, MIN(fitness) AS fitness FROM candidate "
        "WHERE id >= 0 AND status = 'ok' GROUP BY length ORDER BY length"
    )
    front: list[tuple[float, int, int]] = []
    for row in rows:
        if all(row["fitness"] < fitness for fitness, _, _ in front):
            front.append((row["fitness"], row["length"], row["id"]))
    front = sorted(sorted(front)[: config.finals.max_entries], key=lambda entry: entry[1])
    chosen = [candidate for _, _, candidate in front]
    if incumbent not in chosen:
        if len(chosen) == config.finals.max_entries:
            chosen.remove(max(front)[2])
        chosen.append(incumbent)
    return chosen


@final
class Finals:
    """Runs the finals of one search."""

    def __init__(self, config: SearchConfig, incumbent: int, store: Store, run_now: records.RunNow):
        """Prepares the finals of a search.

        Args:
          config: the search's.
          incumbent: the best candidate in the end.
          store: the search's; keeps every run.
          run_now: makes them.
        """
        self._config = config
        self._incumbent = incumbent
        self._store = store
        self._run_now = run_now

    def run(self, report: Callable[[str, int, int], None] = lambda *_: None) -> list[Entry]:
        """Plays the finals. Returns the entries, shortest first, baselines last.

        Args:
          report: called with what is being done, how many of how many runs are done.
        """
        config = self._config
        contenders: list[tuple[int, str, Program, float | None]] = []
        for candidate in hall_of_fame(self._store, config, self._incumbent):
            row = self._store.rows("SELECT * FROM candidate WHERE id = ?", (candidate,))[0]
            label = f"#{candidate}" if candidate else f"{config.initial_rule} (initial)"
            contenders.append((candidate, label, Program.parse(row["program"]), row["fitness"]))
        for name in config.finals.baselines:
            contenders.append((*self._baseline(name), None))

        proxies = range(len(config.tasks))
        metas = range(len(config.tasks), len(config.evaluator.proxies))
        select = [
            Run(p, records.SELECT_SEEDS + s)
            for s in range(config.finals.select_seeds)
            for p in proxies
        ]
        final_ = [
            Run(p, records.FINAL_SEEDS + s)
            for s in range(config.finals.final_seeds)
            for p in proxies
        ]
        meta = [Run(p, records.FINAL_SEEDS + s) for s in range(config.meta_seeds) for p in metas]

        self._note()
        wanted = [
            (c, label, program, rate, "select", select)
            for c, label, program, _ in contenders
            for rate in config.finals.rates
        ]
        self._complete(wanted, lambda done, total: report("learning rates", done, total))
        best = {c: self._best_rate(c, select) for c, _, _, _ in contenders}
        wanted = [
            (c, label, program, rate, "final", final_)
            for c, label, program, _ in contenders
            if (rate := best[c][0]) is not None
        ]
        wanted += [
            (c, label, program, rate, "meta-final", meta)
            for c, label, program, rate, _, _ in wanted
            if meta
        ]
        self._complete(wanted, lambda done, total: report("final seeds", done, total))

        entries = []
        for candidate, label, program, fitness in contenders:
            rate, score = best[candidate]
            final_score, error = self._score(candidate, "final", rate, final_)
            entries.append(
                Entry(
                    label=label,
                    candidate=candidate,
                    program=program,
                    learning_rate=rate,
                    length=len(dataflow.lower(program, fold=True).live_nodes),
                    search_fitness=fitness,
                    select=score,
                    final=final_score,
                    final_error=error,
                    meta=self._score(candidate, "meta-final", rate, meta)[0] if meta else None,
                )
            )
        found = [entry for entry in entries if entry.candidate >= 0 and entry.select is not None]
        winner = min(found, key=lambda entry: (entry.select, entry.length), default=None)
        entries = [replace(entry, winner=entry is winner) for entry in entries]
        self._store_entries(entries)
        return entries

    def _baseline(self, name: str) -> tuple[int, str, Program]:
        """Store a baseline, once. Returns its id (below 0), its name and its program."""
        program = simplify.simplify(rules.load_rule(name))
        flow = dataflow.lower(program, fold=True)
        behaviour = f"baseline {name} {flow.structural_hash}"
        rows = self._store.rows("SELECT id FROM candidate WHERE behaviour = ?", (behaviour,))
        if rows:
            return rows[0]["id"], name, program
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
            )
        return candidate, name, program

    def _note(self) -> None:
        """Store that finals are played of this search, where they are not those begun before."""
        told = self._store.first("SELECT COUNT(*) FROM proposal")
        config = json.dumps(asdict(self._config.finals))
        last = self._store.rows("SELECT told, config FROM finals ORDER BY id DESC LIMIT 1")
        if last != [{"told": told, "config": config}]:
            with self._store.transaction():
                self._store.insert("finals", told=told, config=config)
                self._store.execute("DELETE FROM hall_of_fame")

    def _complete(
        self,
        wanted: Sequence[tuple[int, str, Program, float, str, Sequence[Run]]],
        report: Callable[[int, int], None],
    ) -> None:
        """Make the runs not stored yet; a rule's runs at one rate stop at the first that fails."""
        jobs: list[EvalJob] = []
        named: list[driver.Run] = []
        for candidate, label, program, rate, purpose, runs in wanted:
            if missing := self._missing(candidate, purpose, rate, runs):
                genotype = Genotype(program, rate)
                jobs.append(EvalJob(genotype, missing, candidate=candidate, purpose=purpose))
                name = f"{purpose}, {label} at learning rate {rate:.3g}"
                named.append(records.as_run(self._config, jobs[-1], name))
        report(0, len(jobs))
        results = self._run_now(named)
        for done, (job, result) in enumerate(zip(jobs, results, strict=True), 1):
            with self._store.transaction():
                records.insert(self._store, self._config, records.records_of(job, result))
            report(done, len(jobs))

    def _missing(
        self, candidate: int, purpose: str, rate: float, runs: Sequence[Run]
    ) -> tuple[Run, ...]:
        """The runs still to be made: none after one that failed."""
        rows = self._rows(candidate, purpose, rate)
        if any(row["status"] != Status.OK for row in rows):
            return ()
        proxies = self._config.evaluator.proxies
        made = {(row["task"], row["seed"]) for row in rows}
        return tuple(run for run in runs if (proxies[run.proxy].task, run.seed) not in made)

    def _rows(self, candidate: int, purpose: str, rate: float) -> list[dict[str, object]]:
        query = "SELECT * FROM evaluation WHERE candidate = ? AND purpose = ? AND learning_rate = ?"
        return self._store.rows(query, (candidate, purpose, rate))

    def _best_rate(self, candidate: int, runs: Sequence[Run]) -> tuple[float | None, float | None]:
        scores = [
            (score, rate)
            for rate in self._config.finals.rates
            if (score := self._score(candidate, "select", rate, runs)[0]) is not None
        ]
        if not scores:
            return None, None
        score, rate = min(scores)
        return rate, score

    def _score(
        self, candidate: int, purpose: str, rate: float | None, runs: Sequence[Run]
    ) -> tuple[float | None, float | None]:
        """Mean log loss, and its standard error over seeds; None where a run failed."""
        if rate is None:
            return None, None
        proxies = self._config.evaluator.proxies
        by_run = {
            (row["task"], row["seed"]): row["log_loss"]
            for row in self._rows(candidate, purpose, rate)
        }
        per_seed: dict[int, list[float]] = {}
        for run in runs:
            loss = by_run.get((proxies[run.proxy].task, run.seed))
            if not isinstance(loss, float):
                return None, None
            per_seed.setdefault(run.seed, []).append(loss)
        means = [float(np.mean(losses)) for losses in per_seed.values()]
        error = float(np.std(means, ddof=1) / math.sqrt(len(means))) if len(means) > 1 else None
        return float(np.mean(means)), error

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
                )


def read_entries(store: Store) -> list[Entry]:
    """The finals' result as stored; empty before the finals have been played."""
    rows = store.rows(
        "SELECT h.*, c.program FROM hall_of_fame h JOIN candidate c ON c.id = h.candidate "
        "ORDER BY h.id"
    )
    return [
        Entry(
            label=row["label"],
            candidate=row["candidate"],
            program=Program.parse(row["program"]),
            learning_rate=row["learning_rate"],
            length=row["length"],
            search_fitness=row["search_fitness"],
            select=row["select_score"],
            final=row["final_score"],
            final_error=row["final_error"],
            meta=row["meta"],
            winner=bool(row["winner"]),
        )
        for row in rows
    ]
