"""Training runs and metagradients that the finals ask for: made once, looked up after that.

Finals that were interrupted go on where they stopped, and no run is made twice, because whoever
wants runs names them (whose, what for, at which learning rate, which tasks and seeds) and only
those that the store lacks are made.

A metagradient is stored among the runs, for it is made of runs: one row for each task, under the
last of its seeds and the learning rate that it was taken at. Its status is ok where it passed its
verdict; then its score is the runs' and its message holds it as JSON. As steps, it counts as
`constant_gradients.PRICE` runs on each seed; its seconds are with compiling.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np

from veldt.search.config import finals_config
from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation.constant_gradients import Gradient, GradientJob
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.jobs import EvalJob, Outcome, Run, Status
from veldt.search.evolution import job_records
from veldt.search.program import Program
from veldt.search.storage.store import Store
from veldt.tasks.pool import driver
from veldt.tasks.pool.base import JobResult

GRADIENT: Final = "gradient"
"""What the store calls metagradients."""


@final
@dataclass(frozen=True, slots=True)
class Contender:
    """A rule on its way through the finals.

    Attributes:
      candidate: its id in the store; below 0 for a baseline.
      label: how the table names it.
      program: with the constants that it has by now.
      search_fitness: the fitness that the search saw.
      learning_rate: the best by now; None where every one failed.
      select: its mean log loss on the selection seeds.
      stages: passed.
    """

    candidate: int
    label: str
    program: Program
    search_fitness: float | None = None
    learning_rate: float | None = None
    select: float | None = None
    stages: int = 0


@final
class Runs:
    """The runs of one search's finals."""

    def __init__(self, config: SearchConfig, store: Store, run_now: job_records.RunNow):
        """Runs kept in `store`, made by `run_now`."""
        self._config = config
        self._store = store
        self._run_now = run_now

    def complete(
        self,
        wanted: Sequence[tuple[Contender, float, str, Sequence[Run]]],
        report: Callable[[int, int], None],
    ) -> None:
        """Make the runs not stored yet; a rule's runs at one rate stop at the first that fails."""
        jobs: list[EvalJob] = []
        named: list[driver.Run] = []
        for each, rate, purpose, runs in wanted:
            if missing := self._missing(each.candidate, purpose, rate, runs):
                genotype = Genotype(each.program, rate)
                jobs.append(EvalJob(genotype, missing, candidate=each.candidate, purpose=purpose))
                name = f"{purpose}, {each.label} at learning rate {rate:.3g}"
                named.append(job_records.as_run(self._config, jobs[-1], name))
        report(0, len(jobs))
        results = self._run_now(named)
        for done, (job, result) in enumerate(zip(jobs, results, strict=True), 1):
            with self._store.transaction():
                job_records.insert(self._store, self._config, job_records.records_of(job, result))
            report(done, len(jobs))

    def _missing(
        self, candidate: int, purpose: str, rate: float, runs: Sequence[Run]
    ) -> tuple[Run, ...]:
        """The runs still to be made: none after one that failed."""
        rows = self._rows(candidate, purpose, rate)
        if any(row["status"] != Status.OK for row in rows):
            return ()
        proxies = self._config.proxies
        made = {(row["task"], row["seed"]) for row in rows}
        return tuple(run for run in runs if (proxies[run.proxy].task, run.seed) not in made)

    def _rows(self, candidate: int, purpose: str, rate: float) -> list[dict[str, object]]:
        query = "SELECT * FROM evaluation WHERE candidate = ? AND purpose = ? AND learning_rate = ?"
        return self._store.rows(query, (candidate, purpose, rate))

    def gradient(
        self, each: Contender, start: Program, genotype: Genotype, runs: Sequence[Run]
    ) -> tuple[float, ...] | None:
        """The gradient of the mean score of runs by the coordinates of a rule's numbers.

        Args:
          each: whose.
          start: the program with the constants that tuning began with.
          genotype: where it is taken.
          runs: tasks by seeds, all of them of one weight.

        Returns:
          By number, the learning rate first; None where the verdict on one task's is against it.
        """
        seeds: dict[int, list[int]] = {}
        for run in runs:
            seeds.setdefault(run.proxy, []).append(run.seed)
        jobs = [
            GradientJob(start, genotype, proxy, tuple(of), each.candidate)
            for proxy, of in seeds.items()
        ]
        config = self._config
        missing = [job for job in jobs if stored_gradient(self._store, config, job) is None]
        named = [
            driver.Run(job, f"{GRADIENT}, {each.label}: {config.proxies[job.proxy].task}")
            for job in missing
        ]
        for job, result in zip(missing, self._run_now(named), strict=True):
            with self._store.transaction():
                _insert_gradient(self._store, config, job, result)
        values = []
        for job in jobs:
            found = stored_gradient(self._store, config, job)
            if not isinstance(found, Gradient) or found.values is None:
                return None
            values.append(found.values)
        return tuple(float(x) for x in np.mean(values, axis=0))

    def best_rate(
        self, candidate: int, purpose: str, rates: Sequence[float], runs: Sequence[Run]
    ) -> tuple[float | None, float | None]:
        """The best of the learning rates tried, and its score; None where every one failed."""
        scores = [
            (score, rate)
            for rate in rates
            if (score := self.score(candidate, purpose, rate, runs)[0]) is not None
        ]
        if not scores:
            return None, None
        score, rate = min(scores)
        return rate, score

    def score(
        self, candidate: int, purpose: str, rate: float | None, runs: Sequence[Run]
    ) -> tuple[float | None, float | None]:
        """Mean log loss, and its standard error over seeds; None where a run failed."""
        if rate is None:
            return None, None
        proxies = self._config.proxies
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


def stored_gradient(
    store: Store, config: SearchConfig, job: GradientJob
) -> Gradient | Outcome | None:
    """What a metagradient's job came to: an `Outcome` if its worker failed, None if it is to do."""
    query = (
        "SELECT * FROM evaluation WHERE candidate = ? AND purpose = ? AND task = ? AND seed = ? "
        "AND learning_rate = ?"
    )
    rows = store.rows(query, tuple(_gradient_key(config, job).values()))
    if not rows:
        return None
    status, message = Status(rows[0]["status"]), rows[0]["message"]
    if status is Status.REJECTED:
        return Gradient(None, None, message)
    if status is not Status.OK:
        return Outcome(status, None, message=message)
    told = json.loads(message)
    values = tuple(float(x) for x in told["gradient"])
    return Gradient(values, rows[0]["log_loss"], told["verdict"])


def _gradient_key(config: SearchConfig, job: GradientJob) -> dict[str, Any]:
    """What tells a stored metagradient from others. Seeds count up: the last says how many."""
    return {
        "candidate": job.candidate,
        "purpose": GRADIENT,
        "task": config.proxies[job.proxy].task,
        "seed": job.seeds[-1],
        "learning_rate": job.genotype.learning_rate,
    }


def _insert_gradient(
    store: Store, config: SearchConfig, job: GradientJob, result: JobResult
) -> None:
    found, status = result.value, Status.OK
    if not isinstance(found, Gradient):  # Its worker raised, took too long or died.
        outcome = job_records.outcome_of(result)
        found, status = Gradient(None, None, outcome.message), outcome.status
    elif found.values is None:
        status = Status.REJECTED
    told = {"gradient": found.values, "verdict": found.verdict}
    num_steps = config.proxies[job.proxy].num_steps
    store.insert(
        "evaluation",
        **_gradient_key(config, job),
        status=status.value,
        loss=None,
        log_loss=found.score,
        num_steps=finals_config.PRICE * num_steps * len(job.seeds),
        wall_s=result.wall_s,
        message=found.verdict if found.values is None else json.dumps(told),
    )


def each_seed(proxies: range, first_seed: int, num_seeds: int) -> tuple[Run, ...]:
    """Return a run of each proxy on each seed."""
    return tuple(Run(p, first_seed + s) for s in range(num_seeds) for p in proxies)
