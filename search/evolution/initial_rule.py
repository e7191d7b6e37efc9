"""Scoring the initial rule, against which everything in a search is measured."""

import json
import statistics
from collections.abc import Sequence

import numpy as np

from veldt.search.config.search_config import SearchConfig
from veldt.search.errors import SearchError
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.individual import IGNORES_GRADIENT, Individual
from veldt.search.evaluation.jobs import EvalJob, Outcome, ProxyRun, Status
from veldt.search.evolution import job_records, search_rows
from veldt.search.evolution.challenge import Arena, Challenge
from veldt.search.evolution.job_records import Record
from veldt.search.evolution.selection import samples
from veldt.search.storage.store import Store


def is_scored(store: Store) -> bool:
    """Return whether a search has begun: the initial rule is scored and stored."""
    return "hurdle" in store.meta()


def score(
    config: SearchConfig, genotype: Genotype, store: Store, run_now: job_records.RunNow
) -> None:
    """Train the initial rule and store it: candidate 0, the first incumbent and the hurdle.

    Raises:
      SearchError: The initial rule fails on a proxy task, so nothing can be measured against it.
    """
    individual = Individual.of(genotype)
    if individual.lowered.ignores_gradient:
        raise SearchError(
            f"the initial rule {config.initial_rule} trains nothing: {IGNORES_GRADIENT}"
        )
    runs = _train(config, genotype, run_now)
    curves = [record.run.log_losses for record in runs]
    hurdle = _hurdle(config, mean_curves(config, curves))
    meta, meta_runs = Arena(config, run_now).meta(0, genotype)
    challenge = Challenge(None, None, True, meta, meta_runs)
    outcome = Outcome.of([record.run for record in runs])
    with store.transaction():
        behaviour = individual.fingerprint().digest
        search_rows.insert_candidate(store, config, 0, individual, behaviour, outcome, runs)
        search_rows.insert_challenge(
            store,
            config,
            challenge,
            id=0,
            number=0,
            proposal=-1,
            challenger=0,
            incumbent=0,
            settled=-1,
            told_s=0.0,
        )
        store.set_meta("initial_curves", json.dumps(curves))
        store.set_meta("hurdle", json.dumps(hurdle))


def _runs(config: SearchConfig) -> tuple[ProxyRun, ...]:
    """Return the runs that score the initial rule: of as many samples as a rule may have."""
    if config.samples == 1:
        return job_records.search_runs(config)
    of_samples = [
        samples.runs(len(config.tasks), config.seeds_per_task, -number)
        for number in range(config.samples, 0, -1)
    ]
    return tuple(run for one in of_samples for run in one)


def mean_curves(
    config: SearchConfig, curves: Sequence[Sequence[float]]
) -> Sequence[Sequence[float]]:
    """Return the curves that each run of an evaluation is compared with."""
    if config.samples == 1:
        return curves
    num_tasks = len(config.tasks)
    by_task = [np.mean(curves[task::num_tasks], axis=0).tolist() for task in range(num_tasks)]
    return by_task * config.seeds_per_task


def _hurdle(
    config: SearchConfig, curves: Sequence[Sequence[float]]
) -> list[list[float]] | list[float]:
    """Return the limits at the checks of each run, or of the mean over all runs."""
    if config.hurdle_over == "each_run":
        return [[loss + config.hurdle for loss in curve] for curve in curves]
    # A run that has fewer checks than others waits at its last one.
    rounds = range(max(map(len, curves)))
    at = [[curve[min(check, len(curve) - 1)] for curve in curves] for check in rounds]
    return [statistics.fmean(losses) + config.hurdle for losses in at]


def _train(
    config: SearchConfig, genotype: Genotype, run_now: job_records.RunNow
) -> tuple[Record, ...]:
    """Make the search's runs; one job per proxy, so that the loops compile in parallel."""
    runs = _runs(config)
    jobs = [
        EvalJob(genotype, tuple(run for run in runs if run.proxy == proxy))
        for proxy in range(len(config.tasks))
    ]
    name = f"initial rule {config.initial_rule}"
    named = [job_records.named_job(config, job, name) for job in jobs]
    made: dict[ProxyRun, Record] = {}
    for proxy, job, result in zip(config.tasks, jobs, run_now(named), strict=True):
        outcome = job_records.outcome_of(result)
        if outcome.status is not Status.OK:
            raise SearchError(
                f"the initial rule {config.initial_rule} at learning rate "
                f"{genotype.learning_rate:g} "
                f"fails on {proxy.task}: {outcome.status} {outcome.message}".rstrip()
            )
        made |= {record.run.run: record for record in job_records.records_of(job, result)}
    return tuple(made[run] for run in runs)
