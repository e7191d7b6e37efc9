"""Jobs with names, results as outcomes, and runs as rows, for the engine and the finals."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, final

from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation.jobs import EvalJob, Outcome, ProxyRun, RunResult, Status
from veldt.search.storage.store import Store
from veldt.tasks.pool import driver
from veldt.tasks.pool.base import JobResult, JobStatus

RunNow: TypeAlias = Callable[[Sequence[driver.NamedJob]], Iterable[JobResult]]
"""Function that runs extra jobs on the pool's workers; results are in the order of the jobs."""

# Ranges of seeds: nothing is scored on seeds that it was selected on.
FRESH_SEEDS: Final = 1_000_000
SELECT_SEEDS: Final = 2_000_000
FINAL_SEEDS: Final = 3_000_000
STAGE_SEEDS: Final = 4_000_000
SHORTLIST_SEEDS: Final = 5_000_000

_FAILURES: Final = {
    JobStatus.TIMEOUT: Status.TIMEOUT,
    JobStatus.KILLED: Status.KILLED,
    JobStatus.ERROR: Status.ERROR,
}


@final
@dataclass(frozen=True, slots=True)
class Record:
    """A training run to be stored: candidate and purpose, result, and what went wrong."""

    job: EvalJob
    run: RunResult
    message: str = ""


def search_runs(config: SearchConfig) -> tuple[ProxyRun, ...]:
    """Return the training runs that a fitness is the mean of."""
    proxies, seeds = range(len(config.tasks)), range(config.seeds_per_task)
    return tuple(ProxyRun(proxy, seed) for seed in seeds for proxy in proxies)


def named_job(config: SearchConfig, job: EvalJob, name: str) -> driver.NamedJob:
    """Return a job for the pool, named with its tasks: "candidate 8: digits_mlp"."""
    proxies = config.proxies
    tasks = ", ".join(dict.fromkeys(proxies[run.proxy].task for run in job.runs))
    num_seeds = len({run.seed for run in job.runs})
    seeds = f" x{num_seeds} seeds" if num_seeds > 1 else ""
    return driver.NamedJob(job, f"{name}: {tasks}{seeds}")


def outcome_of(result: JobResult) -> Outcome:
    """Return a pool's result as an outcome; an exception, time-out or death is a status too."""
    if result.status is JobStatus.OK and isinstance(result.value, Outcome):
        return result.value
    status = _FAILURES.get(result.status, Status.ERROR)
    return Outcome(status, None, message=result.message.split("\n", 1)[0])


def records_of(job: EvalJob, result: JobResult) -> tuple[Record, ...]:
    """Return a job's result as records: its runs, or its first run with what went wrong."""
    outcome = outcome_of(result)
    if outcome.runs:
        return tuple(Record(job, run, run.message) for run in outcome.runs)
    failed = RunResult(job.runs[0], outcome.status, None, (), 0, result.wall_s)
    return (Record(job, failed, outcome.message),)


def records_of_all(jobs: Sequence[EvalJob], results: Sequence[JobResult]) -> tuple[Record, ...]:
    """Return the results of several jobs as records."""
    pairs = zip(jobs, results, strict=True)
    return tuple(record for job, result in pairs for record in records_of(job, result))


def insert(store: Store, config: SearchConfig, records: Iterable[Record]) -> None:
    """Store training runs, inside a transaction."""
    for record in records:
        job, run = record.job, record.run
        store.insert(
            "evaluation",
            candidate=job.candidate,
            purpose=job.purpose,
            constants=job.constants,
            task=config.proxies[run.run.proxy].task,
            seed=run.run.seed,
            learning_rate=job.genotype.learning_rate,
            status=run.status.value,
            loss=run.loss,
            log_loss=run.log_losses[-1] if run.status is Status.OK else None,
            num_steps=run.num_steps,
            wall_s=run.wall_s,
            message=record.message,
        )
