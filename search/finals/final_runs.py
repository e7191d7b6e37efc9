"""Training runs and metagradients of the finals, each made once and then read from the store.

Interrupted finals continue where they stopped, and no run is made twice: the finals name the runs
they want (rule, constants, purpose, learning rate, tasks and seeds), and only those that the store
lacks are made.

The store has one row of the table `gradient` for each task of a metagradient. The status is ok if
the metagradient is trusted. As steps, it counts as `finals_config.PRICE` runs on each seed.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np

from veldt.search.config import finals_config
from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation.constant_gradients import Gradient, GradientJob
from veldt.search.evaluation.genotype import Genotype, constants_text
from veldt.search.evaluation.jobs import EvalJob, Outcome, ProxyRun, Status
from veldt.search.evolution import job_records
from veldt.search.language import dataflow
from veldt.search.program import Program
from veldt.search.storage import stored_runs
from veldt.search.storage.store import Store
from veldt.search.storage.stored_runs import StoredRuns
from veldt.tasks.pool import driver
from veldt.tasks.pool.base import JobResult


@final
@dataclass(frozen=True, slots=True)
class Contender:
    """A rule on its way through the finals.

    Attributes:
      candidate: Id in the store; below 0 for a baseline.
      label: Name of the rule in the table.
      program: Program with the present constants.
      search_fitness: Fitness in the search.
      learning_rate: Best learning rate so far; None where every one failed.
      select: Mean log loss on the selection seeds.
      meta_rate: Learning rate on the meta-validation tasks; None where every one failed.
      meta_select: Mean log loss on these, on the selection seeds; None where nothing is chosen by
        it.
      stages: Number of stages of the funnel passed.
      tuned: Whether the constants differ from the candidate's own.
    """

    candidate: int
    label: str
    program: Program
    search_fitness: float | None = None
    learning_rate: float | None = None
    select: float | None = None
    meta_rate: float | None = None
    meta_select: float | None = None
    stages: int = 0
    tuned: bool = False

    @property
    def length(self) -> int:
        """The number of live instructions."""
        return len(dataflow.lower(self.program, fold=True).live_nodes)


@final
@dataclass(frozen=True, slots=True)
class Wanted:
    """Training runs of one rule, at one learning rate, for one purpose.

    Attributes:
      contender: Rule that is trained.
      learning_rate: Learning rate of the runs.
      purpose: Purpose of the runs, as the store names it.
      runs: Tasks and seeds, in order.
    """

    contender: Contender
    learning_rate: float
    purpose: str
    runs: tuple[ProxyRun, ...]

    def job(self, runs: tuple[ProxyRun, ...]) -> EvalJob:
        """Return a job that makes some of the runs."""
        each = self.contender
        return EvalJob(
            Genotype(each.program, self.learning_rate),
            runs,
            candidate=each.candidate,
            purpose=self.purpose,
            tuned=each.tuned,
        )


class Score(NamedTuple):
    """The mean log loss of runs and its standard error over seeds; None where a run failed."""

    mean: float | None
    error: float | None


@final
class Runs:
    """The runs of one search's finals."""

    def __init__(self, config: SearchConfig, store: Store, run_now: job_records.RunNow):
        """Set up runs that are kept in `store` and made by `run_now`."""
        self._config = config
        self._store = store
        self._run_now = run_now
        # Older versions stored no constants: the learning rate distinguished runs of tuned rules.
        # That holds with CMA-ES, but not with gradients, whose steps may keep a learning rate.
        self._rates_tell = config.finals.tuning.method == "cma_es"

    def complete(self, wanted: Iterable[Wanted], report: Callable[[int, int], None]) -> None:
        """Make the runs not stored yet; a rule's runs at one rate stop at the first that fails."""
        jobs: list[EvalJob] = []
        named: list[driver.NamedJob] = []
        for each in dict.fromkeys(wanted):
            if missing := self._missing(each):
                jobs.append(each.job(missing))
                label, rate = each.contender.label, each.learning_rate
                name = f"{each.purpose}, {label} at learning rate {rate:.3g}"
                named.append(job_records.named_job(self._config, jobs[-1], name))
        report(0, len(jobs))
        results = self._run_now(named)
        for done, (job, result) in enumerate(zip(jobs, results, strict=True), 1):
            with self._store.transaction():
                job_records.insert(self._store, self._config, job_records.records_of(job, result))
            report(done, len(jobs))

    def _missing(self, wanted: Wanted) -> tuple[ProxyRun, ...]:
        """Return the runs still to be made: none after one that failed."""
        made = self._stored(wanted)
        if any(row["status"] != Status.OK for row in made.values()):
            return ()
        return tuple(run for run in wanted.runs if self._task_and_seed(run) not in made)

    def _stored(self, wanted: Wanted) -> StoredRuns:
        job = wanted.job(wanted.runs)
        return stored_runs.read(
            self._store,
            job.candidate,
            job.purpose,
            job.genotype.learning_rate,
            job.constants,
            unnamed=self._rates_tell,
        )

    def _task_and_seed(self, run: ProxyRun) -> tuple[str, int]:
        return self._config.proxies[run.proxy].task, run.seed

    def gradient(
        self, each: Contender, start: Program, genotype: Genotype, runs: Sequence[ProxyRun]
    ) -> tuple[float, ...] | None:
        """Return the gradient of the mean score of runs by the coordinates of a rule's numbers.

        Args:
          each: Rule to differentiate.
          start: Program with the constants that tuning began with.
          genotype: Point at which the gradient is taken.
          runs: Tasks by seeds, all of equal weight.

        Returns:
          The gradient by number, the learning rate first; None where that of a task is not trusted.
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
            driver.NamedJob(job, f"gradient, {each.label}: {config.proxies[job.proxy].task}")
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

    def best_rate(self, tried: Sequence[Wanted]) -> tuple[float | None, float | None]:
        """Return the best of the learning rates tried and its score; None where each one failed."""
        scores = [
            (score, each.learning_rate)
            for each in tried
            if (score := self.score(each).mean) is not None
        ]
        if not scores:
            return None, None
        score, rate = min(scores)
        return rate, score

    def score(self, wanted: Wanted) -> Score:
        """Return the score of runs that were made."""
        stored = self._stored(wanted)
        per_seed: dict[int, list[float]] = {}
        for run in wanted.runs:
            row = stored.get(self._task_and_seed(run))
            if row is None or row["log_loss"] is None:
                return Score(None, None)
            per_seed.setdefault(run.seed, []).append(row["log_loss"])
        means = [float(np.mean(losses)) for losses in per_seed.values()]
        error = float(np.std(means, ddof=1) / math.sqrt(len(means))) if len(means) > 1 else None
        return Score(float(np.mean(means)), error)


def stored_gradient(
    store: Store, config: SearchConfig, job: GradientJob
) -> Gradient | Outcome | None:
    """Return a job's stored result: an `Outcome` if its worker failed, None if not made yet."""
    query = (
        "SELECT status, score, gradient, message FROM gradient WHERE candidate = ? "
        "AND constants = ? AND task = ? AND seeds = ? AND learning_rate = ?"
    )
    rows = store.rows(query, tuple(_gradient_key(config, job).values()))
    if not rows:
        return None
    (row,) = rows
    status, message = Status(row["status"]), row["message"]
    if status is Status.REJECTED:
        return Gradient(None, None, message)
    if status is not Status.OK:
        return Outcome(status, None, message=message)
    values = tuple(float(x) for x in json.loads(row["gradient"]))
    return Gradient(values, row["score"], message)


def _gradient_key(config: SearchConfig, job: GradientJob) -> dict[str, Any]:
    """Return the key that a metagradient is stored under."""
    return {
        "candidate": job.candidate,
        "constants": constants_text(job.genotype.program),
        "task": config.proxies[job.proxy].task,
        "seeds": json.dumps(job.seeds),
        "learning_rate": job.genotype.learning_rate,
    }


def _insert_gradient(
    store: Store, config: SearchConfig, job: GradientJob, result: JobResult
) -> None:
    found, status = result.value, Status.OK
    if not isinstance(found, Gradient):  # The worker raised an error, took too long or died.
        outcome = job_records.outcome_of(result)
        found, status = Gradient(None, None, outcome.message), outcome.status
    elif found.values is None:
        status = Status.REJECTED
    num_steps = config.proxies[job.proxy].num_steps
    store.insert(
        "gradient",
        **_gradient_key(config, job),
        status=status.value,
        score=found.score,
        gradient=None if found.values is None else json.dumps(found.values),
        message=found.message,
        num_steps=finals_config.PRICE * num_steps * len(job.seeds),
        wall_s=result.wall_s,
    )


def each_seed(proxies: range, first_seed: int, num_seeds: int) -> tuple[ProxyRun, ...]:
    """Return a run of each proxy on each seed."""
    return tuple(ProxyRun(p, first_seed + s) for s in range(num_seeds) for p in proxies)
