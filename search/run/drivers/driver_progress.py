"""What is known of the drivers of a search while they work, of each and of all together."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evolution.engine import Evolution
from veldt.search.storage.counts import Counts
from veldt.search.storage.mail import Letter
from veldt.tasks.pool.base import PoolEvent, PoolStats


@final
@dataclass(frozen=True, slots=True)
class Best:
    """The incumbent of a driver, as `Incumbent`, without what only the engine needs."""

    candidate: int
    genotype: Genotype
    fitness: float
    fresh: float | None
    meta: float | None
    meta_pending: bool


@final
@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of one driver.

    Attributes:
      counts: Counts of what was recorded.
      incumbent: Best rule so far.
      initial_fitness: Fitness of the initial rule.
      elapsed_s: Seconds of search.
      num_steps: Training steps made.
    """

    counts: Counts
    incumbent: Best
    initial_fitness: float
    elapsed_s: float
    num_steps: int

    @classmethod
    def of(cls, evolution: Evolution) -> "Progress":
        """Return the progress of a driver's engine."""
        now = evolution.incumbent
        best = Best(now.candidate, now.genotype, now.fitness, now.fresh, now.meta, now.meta_pending)
        return cls(
            copy.deepcopy(evolution.counts),
            best,
            evolution.initial.fitness,
            evolution.elapsed_s,
            evolution.budget.spent,
        )


class Delivery(NamedTuple):
    """What a driver is handed: letters, and whether these and those before are all."""

    letters: list[Letter]
    ended: bool


@final
@dataclass(frozen=True, slots=True)
class Report:
    """What a driver tells when it is asked.

    Attributes:
      letters: Letters since the last time; at first all that its store has.
      has_ended: Whether the driver has ended, so that no more letters follow.
      failure: Exception that ended the driver before its time.
      progress: Progress of the search; None before it has begun.
      stats: Figures of the pool; None before there is one.
      events: Events of the pool since the last time.
    """

    letters: tuple[Letter, ...]
    has_ended: bool
    failure: BaseException | None
    progress: Progress | None
    stats: PoolStats | None
    events: tuple[PoolEvent, ...]


@final
@dataclass(frozen=True, slots=True)
class _Initial:
    fitness: float


@final
@dataclass(frozen=True, slots=True)
class _Budget:
    spent: int


@final
class AllDrivers:
    """The progress of all drivers as that of one search, with the names that `Evolution` has.

    Attributes:
      config: Config of the search.
      counts: Sums of the drivers' counts.
      best_driver: Driver with the best incumbent.
      incumbent: Incumbent of that driver.
      initial: Initial rule's fitness.
      budget: Training steps made.
      elapsed_s: Seconds of search of the driver that has worked longest.
    """

    def __init__(self, config: SearchConfig, progress: Mapping[int, Progress]):
        """Sum up the progress of the drivers that have begun, by number; at least one."""
        self.config = config
        self.best_driver = min(progress, key=lambda driver: progress[driver].incumbent.fitness)
        each = tuple(progress.values())
        self.counts = total([one.counts for one in each])
        self.incumbent = progress[self.best_driver].incumbent
        self.initial = _Initial(each[0].initial_fitness)
        self.budget = _Budget(sum(one.num_steps for one in each))
        self.elapsed_s = max(one.elapsed_s for one in each)


def total(each: Sequence[Counts]) -> Counts:
    """Return the sums of counts."""
    found = Counts()
    for one in each:
        found.num_told += one.num_told
        found.sources += one.sources
        found.statuses += one.statuses
        found.num_invalid += one.num_invalid
        found.num_statements += one.num_statements
        found.num_live += one.num_live
        found.num_challenges += one.num_challenges
    return found


def total_stats(each: Sequence[PoolStats]) -> PoolStats:
    """Return the sums of the figures of pools."""
    sums = {
        name: sum(getattr(one, name) for one in each)
        for name in PoolStats.__dataclass_fields__
        if name not in ("backend", "workers")
    }
    workers = tuple(worker for one in each for worker in one.workers)
    return PoolStats(backend=each[0].backend, workers=workers, **sums)
