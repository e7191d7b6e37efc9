"""Replacing the incumbent: a challenger is compared with it on seeds new to both.

The search's own score favours luck: thousands of candidates are trained on the same seeds. So a
candidate that beats the incumbent there must beat it again, on seeds that are new each time, by
more than one standard error of the paired difference. Each new best is then scored on the
meta-validation tasks, which decide nothing.
"""

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.jobs import EvalJob, ProxyRun
from veldt.search.evolution import job_records
from veldt.search.evolution.job_records import Record
from veldt.search.evolution.population import Place


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
    """

    candidate: int
    place: Place
    genotype: Genotype
    fresh: float | None
    meta: float | None

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
        one, there are none, or it did not win.
      runs: Training runs made, those of meta-validation included.
    """

    difference: float | None
    standard_error: float | None
    won: bool
    meta: float | None
    runs: tuple[Record, ...]


@final
class Arena:
    """Compares challengers with incumbents; runs on the pool's workers."""

    def __init__(self, config: SearchConfig, run_now: job_records.RunNow):
        self._config = config
        self._run_now = run_now

    def compare(
        self, challenger: tuple[int, Genotype], incumbent: Incumbent, number: int
    ) -> Challenge:
        """Compare two rules on new seeds; the first quarter of the seeds decides most cases.

        Args:
          challenger: Id and genotype of the challenger.
          incumbent: Rule that it challenges.
          number: Number of the challenge, from 1; picks the seeds.
        """
        config = self._config
        first = job_records.FRESH_SEEDS + number * config.fresh_seeds
        seeds = range(first, first + config.fresh_seeds)
        first_part = max(config.fresh_seeds // 4, 1)
        contenders = (challenger, (incumbent.candidate, incumbent.genotype))
        scores: dict[int, list[float]] = {candidate: [] for candidate, _ in contenders}
        runs: list[Record] = []
        difference = error = math.nan
        for part in (seeds[:first_part], seeds[first_part:]):
            jobs = [
                EvalJob(genotype, self._runs(seed), candidate=candidate, purpose="fresh")
                for seed in part
                for candidate, genotype in contenders
            ]
            named = [
                job_records.named_job(
                    self._config, job, f"challenge {number}, candidate {job.candidate}, fresh seeds"
                )
                for job in jobs
            ]
            for job, result in zip(jobs, self._run_now(named), strict=True):
                scores[job.candidate].append(rank(job_records.outcome_of(result).fitness))
                runs += job_records.records_of(job, result)
            ours, theirs = (np.array(scores[candidate]) for candidate, _ in contenders)
            if not np.isfinite(ours).all():
                return Challenge(None, None, False, None, tuple(runs))
            if not np.isfinite(theirs).all():
                meta, more = self.meta(*challenger)
                return Challenge(None, None, True, meta, (*runs, *more))
            difference, error = _mean_and_error(ours - theirs)
            if not difference < 0:
                return Challenge(difference, error, False, None, tuple(runs))
        won = difference + error < 0
        meta, more = self.meta(*challenger) if won else (None, ())
        return Challenge(difference, error, won, meta, (*runs, *more))

    def meta(self, candidate: int, genotype: Genotype) -> tuple[float | None, tuple[Record, ...]]:
        """Score a candidate on the meta-validation tasks.

        Returns:
          The mean log loss, None where it failed or there are no such tasks; and the training runs.
        """
        first = len(self._config.tasks)
        proxies = range(first, first + len(self._config.meta_validation))
        seeds = range(self._config.meta_seeds)
        jobs = [
            EvalJob(
                genotype,
                tuple(ProxyRun(proxy, seed) for seed in seeds),
                candidate=candidate,
                purpose="meta",
            )
            for proxy in proxies
        ]
        name = f"candidate {candidate}, meta-validation"
        results = self._run_now([job_records.named_job(self._config, job, name) for job in jobs])
        scores: list[float | None] = []
        runs: list[Record] = []
        for job, result in zip(jobs, results, strict=True):
            scores.append(job_records.outcome_of(result).fitness)
            runs += job_records.records_of(job, result)
        known = [score for score in scores if score is not None]
        failed = not known or len(known) < len(scores)
        return None if failed else float(np.mean(known)), tuple(runs)

    def _runs(self, seed: int) -> tuple[ProxyRun, ...]:
        return tuple(ProxyRun(proxy, seed) for proxy in range(len(self._config.tasks)))


def rank(fitness: float | None) -> float:
    """Return a fitness for comparing: infinity where there is none."""
    return math.inf if fitness is None else fitness


def _mean_and_error(paired: NDArray[Any]) -> tuple[float, float]:
    error = float(paired.std(ddof=1) / math.sqrt(len(paired))) if len(paired) > 1 else 0.0
    return float(paired.mean()), error
