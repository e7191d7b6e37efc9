"""What the engine and the finals share: extra work done now, results as outcomes, runs as rows."""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from veldt.search.config import SearchConfig
from veldt.search.evaluator import Outcome, RunResult, Status
from veldt.search.store import Store
from veldt.tasks.pool import JobResult, JobStatus

RunNow: TypeAlias = Callable[[Sequence[object]], list[JobResult]]
"""Runs payloads on the pool's workers and waits for them, as `OrderedDriver.run_now` does."""

# Ranges of seeds: nothing is scored on what it was selected on.
FRESH_SEEDS: Final = 1_000_000
SELECT_SEEDS: Final = 2_000_000
FINAL_SEEDS: Final = 3_000_000


def outcome_of(result: JobResult) -> Outcome:
    """A pool's result as an outcome: an exception or a time-out in a worker is a status too."""
    if result.status is JobStatus.OK and isinstance(result.value, Outcome):
        return result.value
    status = Status.TIMEOUT if result.status is JobStatus.TIMEOUT else Status.ERROR
    return Outcome(status, None, message=result.message.split("\n", 1)[0])


def insert_run(
    store: Store,
    config: SearchConfig,
    candidate: int,
    purpose: str,
    learning_rate: float,
    run: RunResult,
) -> None:
    """Stores one training run, inside a transaction."""
    store.insert(
        "evaluation",
        candidate=candidate,
        purpose=purpose,
        task=config.evaluator.proxies[run.run.proxy].task,
        seed=run.run.seed,
        learning_rate=learning_rate,
        status=run.status.value,
        loss=run.loss,
        log_loss=run.log_losses[-1] if run.status is Status.OK else None,
        num_steps=run.num_steps,
        wall_s=run.wall_s,
    )
