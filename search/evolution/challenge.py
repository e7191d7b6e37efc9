"""Replacing the incumbent: a challenger is compared with it on seeds new to both.

The search's own score favours luck: thousands of candidates are trained on the same seeds. So a
candidate that beats the incumbent there must beat it again, on seeds that are new each time, by
more than one standard error of the paired difference. Each new best is then scored on the
meta-validation tasks, which decide nothing.

A search makes these runs beside its proposals (`side_work.py`). Searches begun by versions of the
store before 7 keep to what these did: everything waits while a challenge is made (`Arena`).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, final

import numpy as np

from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.jobs import EvalJob, ProxyRun
from veldt.search.evolution import job_records
from veldt.search.evolution.job_records import Record
from veldt.search.evolution.selection.population import Place
from veldt.tasks.pool import driver
from veldt.tasks.pool.base import JobResult


@final
@dataclass(frozen=True, slots=True)
class Incumbent:
    """The best so far.

    Attributes:
      candidate: Id in the store.
      place: Place in the population, past or present.
      genotype: Live program and learning rate.
      fresh: Mean log loss over all fresh seeds so far; None before the first challenge.
      meta: Score on the meta-validation tasks; None where it failed there or there are none.
      meta_pending: Whether the score on the meta-validation tasks is still to come.
    """

    candidate: int
    place: Place
    genotype: Genotype
    fresh: float | None
    meta: float | None
    meta_pending: bool = False

    @property
    def fitness(self) -> float:
        """The score on the search's seeds."""
        return self.place.member.fitness


@final
@dataclass(frozen=True, slots=True)
class Challenge:
    """The result of a challenge.

    Attributes:
      difference: Mean over fresh seeds of the challenger's log loss less the incumbent's; None
        where one of them failed.
      standard_error: Standard error of that mean; 0 where one seed decided.
      won: Whether the challenger is the new incumbent.
      meta: Mean log loss of a new incumbent on the meta-validation tasks; None where it failed on
        one, there are none, it did not win, or it is to be scored there later.
      runs: Training runs made, those of meta-validation included.
    """

    difference: float | None
    standard_error: float | None
    won: bool
    meta: float | None
    runs: tuple[Record, ...]


class Verdict(NamedTuple):
    """The result of a part of a challenge.

    Attributes:
      difference: Mean of the paired differences so far; None where one of the two failed.
      standard_error: Standard error of the mean; 0 where one seed decided.
      won: Whether the challenger has won; None where the rest of the seeds decides.
      differences: Paired differences so far, challenger less incumbent.
    """

    difference: float | None
    standard_error: float | None
    won: bool | None
    differences: tuple[float, ...]


def judge(
    ours: Sequence[float], theirs: Sequence[float], before: Sequence[float], *, last: bool
) -> Verdict:
    """Return what a part of a challenge shows, with what parts before it have shown.

    Args:
      ours: Log losses of the challenger by seed, infinite where it failed.
      theirs: Those of the incumbent.
      before: Paired differences of the parts before.
      last: Whether there are no more parts.
    """
    if not np.isfinite(ours).all():
        return Verdict(None, None, False, ())
    if not np.isfinite(theirs).all():
        return Verdict(None, None, True, ())
    differences = (*before, *(a - b for a, b in zip(ours, theirs, strict=True)))
    paired = np.array(differences)
    mean = float(paired.mean())
    error = float(paired.std(ddof=1) / math.sqrt(len(paired))) if len(paired) > 1 else 0.0
    won = False if not mean < 0 else (mean + error < 0 if last else None)
    return Verdict(mean, error, won, differences)


FIRST: Final = "first"
REST: Final = "rest"
META: Final = "meta"
"""Stages of a comparison: the first quarter of the seeds decides most challenges, then the rest;
then meta-validation of a new incumbent."""


def fresh_seeds(config: SearchConfig, number: int, stage: str) -> range:
    """Return the seeds of a stage of a challenge.

    Args:
      config: Config of the search.
      number: Number of the challenge, from 1.
      stage: `FIRST` or `REST`.
    """
    first = job_records.FRESH_SEEDS + number * config.fresh_seeds
    seeds = range(first, first + config.fresh_seeds)
    num_first = max(config.fresh_seeds // 4, 1)
    return seeds[:num_first] if stage == FIRST else seeds[num_first:]


def fresh_jobs(
    config: SearchConfig, contenders: Iterable[tuple[int, Genotype]], number: int, stage: str
) -> list[EvalJob]:
    """Return the jobs of a stage of a challenge: for each seed, one for each contender.

    Args:
      config: Config of the search.
      contenders: Ids and genotypes of the two rules.
      number: Number of the challenge, from 1; picks the seeds.
      stage: `FIRST` or `REST`.
    """
    proxies = range(len(config.tasks))
    both = tuple(contenders)
    return [
        EvalJob(
            genotype,
            tuple(ProxyRun(proxy, seed) for proxy in proxies),
            candidate=candidate,
            purpose="fresh",
        )
        for seed in fresh_seeds(config, number, stage)
        for candidate, genotype in both
    ]


def meta_jobs(config: SearchConfig, candidate: int, genotype: Genotype) -> list[EvalJob]:
    """Return the jobs that score a candidate on the meta-validation tasks, one for each task."""
    first = len(config.tasks)
    return [
        EvalJob(
            genotype,
            tuple(ProxyRun(proxy, seed) for seed in range(config.meta_seeds)),
            candidate=candidate,
            purpose=META,
        )
        for proxy in range(first, first + len(config.meta_validation))
    ]


def named(config: SearchConfig, jobs: Iterable[EvalJob], number: int) -> list[driver.NamedJob]:
    """Return the jobs of a stage for the pool."""
    return [
        job_records.named_job(
            config,
            job,
            f"candidate {job.candidate}, meta-validation"
            if job.purpose == META
            else f"challenge {number}, candidate {job.candidate}, fresh seeds",
        )
        for job in jobs
    ]


def fitnesses(results: Iterable[JobResult]) -> list[float]:
    """Return the mean log loss of each job's runs, infinite where one failed."""
    return [rank(job_records.outcome_of(result).fitness) for result in results]


def meta_score(results: Iterable[JobResult]) -> float | None:
    """Return the mean log loss over the meta-validation tasks; None where one failed or none is."""
    scores = fitnesses(results)
    return float(np.mean(scores)) if scores and np.isfinite(scores).all() else None


@final
class Arena:
    """Makes challenges at once, on the pool's workers, while everything else waits."""

    def __init__(self, config: SearchConfig, run_now: job_records.RunNow):
        self._config = config
        self._run_now = run_now

    def compare(
        self, challenger: tuple[int, Genotype], incumbent: Incumbent, number: int
    ) -> Challenge:
        """Compare two rules on new seeds.

        Args:
          challenger: Id and genotype of the challenger.
          incumbent: Rule that it challenges.
          number: Number of the challenge, from 1; picks the seeds.
        """
        contenders = (challenger, (incumbent.candidate, incumbent.genotype))
        runs: list[Record] = []
        verdict = Verdict(None, None, None, ())
        for stage in (FIRST, REST):
            jobs = fresh_jobs(self._config, contenders, number, stage)
            results, more = self._run(jobs, number)
            runs += more
            scores = fitnesses(results)
            verdict = judge(scores[::2], scores[1::2], verdict.differences, last=stage == REST)
            if verdict.won is not None:
                break
        meta, more = self.meta(*challenger) if verdict.won else (None, ())
        found, error = verdict.difference, verdict.standard_error
        return Challenge(found, error, bool(verdict.won), meta, (*runs, *more))

    def meta(self, candidate: int, genotype: Genotype) -> tuple[float | None, tuple[Record, ...]]:
        """Score a candidate on the meta-validation tasks.

        Returns:
          The mean log loss, None where it failed or there are no such tasks; and the training runs.
        """
        results, runs = self._run(meta_jobs(self._config, candidate, genotype), 0)
        return meta_score(results), runs

    def _run(
        self, jobs: Sequence[EvalJob], number: int
    ) -> tuple[list[JobResult], tuple[Record, ...]]:
        results = list(self._run_now(named(self._config, jobs, number)))
        return results, job_records.records_of_all(jobs, results)


def rank(fitness: float | None) -> float:
    """Return a fitness for comparing: infinity where there is none."""
    return math.inf if fitness is None else fitness
