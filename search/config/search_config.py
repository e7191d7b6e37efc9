"""The config of a search: `SearchConfig`, from a YAML file in `configs/` or from the user."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, final

from veldt.search.config import objectives
from veldt.search.config.evolution_config import FounderConfig, MutationConfig, RacingConfig
from veldt.search.config.finals_config import FinalsConfig
from veldt.search.config.llm_config import LlmConfig
from veldt.search.config.proxy_config import EvaluatorConfig, ProxyConfig
from veldt.search.language.statements import MAX_SLOTS
from veldt.search.runtime.encode import Capacity
from veldt.tasks.common.config import bounds, codec
from veldt.tasks.pool.config import PoolConfig


@final
@dataclass(frozen=True, slots=True)
class SearchConfig:
    """A symbolic search for update rules.

    Attributes:
      tasks: Proxy tasks; the fitness is the mean over all of them and over `seeds_per_task` seeds.
      objective: Score of a training run, everywhere in the run: held_out_loss, train_loss,
        lr_robustness, or a function of yours as `module:function` (`objectives.py`).
      meta_validation: Other tasks, on which each new best is scored; they never decide anything
        during the search.
      seed: Seed of all random draws; the same seed and config give the same run.
      initial_rule: Rule that the population starts as: a shipped rule, a rule file or an export, a
        run directory (its best) or "RUN#ID", an entry of its hall of fame.
      learning_rate: Learning rate of the initial rule; null takes the one that a search found it
        with.
      founders: Further rules that the population starts as, in turn with the initial rule.
      num_slots: Number of state slots that programs may use; the initial rule gets unused ones up
        to this number.
      max_evaluations: Number of distinct programs to train before the search ends.
      max_steps: Number of training steps to make before the search ends, finals not included; what
        has been proposed by then is still trained. Null sets no limit.
      time_limit_s: Seconds of search, finals not included; null sets no limit.
      seeds_per_task: Number of seeds of each proxy task in the fitness.
      population_size: Size of the population of the regularized evolution; the oldest dies.
      tournament_size: Number of candidates drawn for each parent, the best of which becomes the
        parent; 1 drifts, which is evolution without selection.
      parents: Parents of the children: the winners of tournaments, or "initial", always the rules
        that the search starts from, for random search around them as far as `mutation.repeat` sets.
      islands: Number of independent populations in one search, taking turns; they share caches, the
        incumbent and `population_size`.
      migration: Probability that a tournament's candidate is drawn from all islands and not only
        from the child's island.
      drivers: Number of drivers, each with a population, a store and an incumbent of its own and an
        equal share of the budget and of the workers; part of the experiment, unlike the number of
        workers. For one process that cannot feed all workers. With Ray each is a process.
      migration_every: Number of proposals of a driver between two letters, in which it sends its
        best rule to the next driver, which proposes it as many proposals later; at least `window`.
      proposers: Number of processes beside each driver that make its children; 0 lets the driver
        make all. The result does not depend on it; it is worth it where workers end more than a few
        hundred trainings a second.
      niche_size: Number of members of one niche of behaviour that may be parents, the fittest of
        them; null sets no limit.
      restart_after: Number of programs trained without a new best after which the whole population
        becomes the best so far; null never restarts.
      hurdle: Log loss by which a candidate may be worse than the initial rule before it is
        rejected, founders excepted; .inf sets no limit.
      hurdle_over: Comparison with the hurdle: each_run, at any check of any run by itself, one run
        after the other, or mean, over all runs of the candidate, which then go on together.
      racing: Race that rejects further candidates, with a stated chance to lose a good one; none by
        default.
      samples: Largest number of evaluations of one behaviour that duplicates bring, each on seeds
        that no other has, whose mean ranks it (`samples.py`); with 1, all programs are trained
        once, on the same seeds, and the best is challenged on fresh ones.
      fresh_seeds: Number of seeds on which a challenger and the incumbent are compared before the
        best is replaced; new ones each time. Nothing waits for it (`side_work.py`).
      meta_seeds: Number of seeds of each meta-validation task.
      window: Number of proposals made before the result of the first of them is needed; part of the
        experiment, unlike the number of workers.
      lanes: Number of candidates trained side by side in one call, for accelerators (`lanes.py`),
        by as many threads or more of this process: `pool.num_workers` (by default as many as lanes)
        and `window` must be at least as large. Part of the experiment: last bits may differ. Null
        takes the largest power of two that fits into half of `lane_memory_gib`, 1 on a CPU; the
        run keeps the number.
      lane_memory_gib: Memory of the device that `lanes: null` counts with; null takes the device's
        own.
      mutation: Mutations that make children.
      llm: Language models that propose programs beside the mutations; null for none.
      finals: Comparison of finalists and baselines at the end.
      pool: Pool of workers that do the work.
    """

    tasks: tuple[ProxyConfig, ...]
    meta_validation: tuple[ProxyConfig, ...]
    objective: str = objectives.DEFAULT
    seed: int = 0
    initial_rule: str = "adamw"
    learning_rate: float | None = 3e-3
    founders: tuple[FounderConfig, ...] = ()
    num_slots: int = 2
    max_evaluations: int = 2000
    max_steps: int | None = None
    time_limit_s: float | None = None
    seeds_per_task: int = 1
    population_size: int = 100
    tournament_size: int = 2
    parents: Literal["tournament", "initial"] = "tournament"
    islands: int = 1
    migration: float = 0.0
    drivers: int = 1
    migration_every: int = 200
    proposers: int = 0
    niche_size: int | None = None
    restart_after: int | None = None
    hurdle: float = 0.5
    hurdle_over: Literal["each_run", "mean"] = "each_run"
    racing: RacingConfig = field(default_factory=RacingConfig)
    samples: int = 1
    fresh_seeds: int = 8
    meta_seeds: int = 2
    window: int = 16
    lanes: int | None = 1
    lane_memory_gib: float | None = None
    mutation: MutationConfig = field(default_factory=MutationConfig)
    llm: LlmConfig | None = None
    finals: FinalsConfig = field(default_factory=FinalsConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("tasks is empty; a search needs at least one proxy task")
        objectives.check_name(self.objective)
        self.finals.tuning.check_objective(self.objective)
        names = [proxy.task for proxy in (*self.tasks, *self.meta_validation)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"{twice[0]} is named twice among tasks and meta_validation; each may stand once"
            )
        bounds.at_least(
            self,
            1,
            "max_evaluations",
            "seeds_per_task",
            "population_size",
            "tournament_size",
            "islands",
            "drivers",
            "samples",
            "meta_seeds",
            "window",
            "lanes",
        )
        if self.population_size % self.islands:
            raise ValueError(
                f"a population of {self.population_size} cannot be split into {self.islands} equal "
                "islands"
            )
        self._check_lanes()
        self._check_drivers()
        self._check_llm()
        if not 0 <= self.migration <= 1:
            raise ValueError(f"migration is {self.migration}; it is a probability")
        if not 0 <= self.num_slots <= MAX_SLOTS:
            raise ValueError(f"num_slots is {self.num_slots}; it must be 0 to {MAX_SLOTS}")
        if self.fresh_seeds < 2:
            raise ValueError(f"fresh_seeds is {self.fresh_seeds}; a comparison needs at least 2")
        if not (self.learning_rate is None or self.learning_rate > 0) or not self.hurdle > 0:
            raise ValueError("learning_rate and hurdle must be above 0")
        num_checks = self.seeds_per_task * sum(proxy.num_chunks for proxy in self.tasks)
        if self.racing.enabled and self.hurdle_over == "mean":
            raise ValueError(
                "racing drops candidates while their runs are made one after the other, and a "
                "hurdle over their mean (hurdle_over: mean) makes them together; set one of the two"
            )
        if self.racing.enabled and num_checks == 1:
            raise ValueError(
                "racing needs more than one check before a candidate's end: more tasks, "
                "seeds_per_task or num_chunks"
            )
        bounds.at_least(self, 1, "niche_size", "restart_after", "max_steps")
        useless = (self.niche_size is not None, self.restart_after is not None)
        if self.parents == "initial" and any(useless):
            raise ValueError(
                "parents are always the rules that the search starts from (parents: initial): "
                "niche_size and restart_after have no part in that"
            )
        bounds.at_least(self, 0, "proposers")
        bounds.above(self, 0, "time_limit_s", "lane_memory_gib")

    def _check_lanes(self) -> None:
        if self.lanes == 1:
            return
        given = {"window": self.window, "pool.num_workers": self.pool.num_workers}
        for name, value in given.items():
            if value is not None and self.lanes is not None and value < self.lanes:
                raise ValueError(
                    f"{name} is {value}; with {self.lanes} lanes it must be at least that, or "
                    "lanes would stay empty"
                )
        if self.pool.backend == "ray" or self.pool.ray.address is not None:
            number = "null" if self.lanes is None else self.lanes
            raise ValueError(
                f"lanes is {number} and the pool is Ray's, whose workers have one job at a time; "
                "lanes need threads: take pool.backend: inline, or lanes: 1"
            )

    def _check_drivers(self) -> None:
        if self.drivers == 1:
            return
        if self.migration_every < self.window:
            raise ValueError(
                f"migration_every is {self.migration_every} and the window {self.window}; it must "
                "be at least that, or drivers would wait for each other's letters without end"
            )
        if self.lanes != 1:
            raise ValueError(
                f"drivers is {self.drivers} and lanes {self.lanes}; the lanes of a device belong "
                "to one driver. Take lanes: 1, or drivers: 1 with islands"
            )
        for name in ("max_evaluations", "max_steps"):
            value = getattr(self, name)
            if value is not None and value < self.drivers:
                raise ValueError(
                    f"{name} is {value}, too little to be shared by {self.drivers} drivers"
                )

    def _check_llm(self) -> None:
        if self.llm is None:
            return
        if self.drivers > 1:
            raise ValueError(
                f"drivers is {self.drivers}, and language models (llm) work with one driver alone"
            )
        if self.llm.lead_of(self.window) < self.window:
            raise ValueError(
                f"llm.lead is {self.llm.lead} and the window {self.window}; it must be at least "
                "that, or an answer would be needed before the call is made"
            )

    def share(self, driver: int, num_workers: int) -> "SearchConfig":
        """Return the config of one of the drivers: a search with its share of the budget.

        Args:
          driver: Number of the driver.
          num_workers: Number of workers of all drivers; each has at least one.
        """

        def part(whole: int) -> int:
            return whole // self.drivers + (driver < whole % self.drivers)

        return replace(
            self,
            drivers=1,
            max_evaluations=part(self.max_evaluations),
            max_steps=None if self.max_steps is None else part(self.max_steps),
            pool=replace(self.pool, num_workers=max(part(num_workers), 1)),
        )

    @property
    def workers(self) -> PoolConfig:
        """The pool that does the work: `pool`, or threads of this process for lanes.

        Where the number of lanes is not known yet, it has no number of workers either.
        """
        if self.lanes == 1:
            return self.pool
        num_workers = self.pool.num_workers or self.lanes
        return replace(self.pool, backend="inline", num_workers=num_workers)

    @property
    def proxies(self) -> tuple[ProxyConfig, ...]:
        """The tasks in the order of `ProxyRun.proxy`: proxies, meta-validation, stages."""
        stages = (proxy for stage in self.finals.stages for proxy in stage.tasks)
        return (*self.tasks, *self.meta_validation, *stages)

    @property
    def evaluator(self) -> EvaluatorConfig:
        """The settings that workers are built from."""
        return EvaluatorConfig(
            proxies=self.proxies,
            seed=self.seed,
            capacity=Capacity().with_ops(self.mutation.instructions),
            objective=self.objective,
            lanes=self.lanes or 1,
        )


def read_stored(plain: Mapping[str, Any], name: str) -> SearchConfig:
    """Return the config that a store holds, without the pool that did the work.

    Args:
      plain: Config as JSON has it.
      name: Name of the source, for messages.

    Raises:
      ConfigError: A field is missing or unknown, or has a value that is not allowed.
    """
    kept = {key: value for key, value in plain.items() if key != "pool"}
    config: SearchConfig = codec.from_plain(SearchConfig, kept, name)
    return config
