"""Configs of the finals: tuning, comparing, and the funnel."""

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, final, get_args

from veldt.search.config import objectives
from veldt.search.config.proxy_config import ProxyConfig
from veldt.tasks.common import spelling
from veldt.tasks.common.config import bounds

PRICE: Final = 8
"""The price of a metagradient in evaluations of the same runs, the five of its check included. In
processor time it took 6.2 of them on digits_mlp and 2.5 on quadratic (AdamW, 4 seeds), without
compiling."""


DIFFERENTIABLE: Final = (objectives.DEFAULT, "train_loss")
"""The objectives whose score has a derivative."""

Method: TypeAlias = Literal["cma_es", "metagradient", "both"]


STEP_FACTORS: Final = (0.25, 0.5, 1.0, 2.0)
"""Lengths tried along each metagradient, relative to the length of the last step taken."""


@final
@dataclass(frozen=True, slots=True)
class TuningConfig:
    """The tuning of constants and learning rates.

    Attributes:
      budget: Number of evaluations of each rule, the start included; 0 tunes nothing. A
        metagradient counts as `finals_config.PRICE` of them.
      generation: Number of candidates of one generation of CMA-ES.
      spread: Standard deviation of the first generation, and length of the first step along a
        metagradient, in coordinates.
      method: Method of tuning: "cma_es", "metagradient", or "both": half of the budget each, CMA-ES
        first. The latter two need an objective that has a derivative.
    """

    budget: int = 0
    generation: int = 12
    spread: float = 0.5
    method: Method = "cma_es"

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            hint = spelling.did_you_mean(str(self.method), get_args(Method))
            raise ValueError(
                f"method is {self.method!r}{hint}; it must be one of {', '.join(get_args(Method))}"
            )
        bounds.at_least(self, 0, "budget")
        if self.generation < 4:
            raise ValueError(f"generation is {self.generation}; CMA-ES needs at least 4")
        if 0 < self.budget <= self.generation:
            raise ValueError(
                f"a budget of {self.budget} is not one generation of {self.generation} and the "
                "start; 0 tunes nothing"
            )
        if 0 < self.budget < (least := self._least):
            raise ValueError(
                f"a budget of {self.budget} is too little for method {self.method}, which needs "
                f"{least}: a metagradient counts as {PRICE} evaluations, and {len(STEP_FACTORS)} "
                "steps along it are scored"
            )
        bounds.above(self, 0, "spread")

    @property
    def _least(self) -> int:
        """Return the cost of the start, of a CMA-ES generation if it is first, and of one step."""
        step = PRICE + len(STEP_FACTORS)
        return {"cma_es": 0, "metagradient": 1 + step, "both": 1 + self.generation + step}[
            self.method
        ]

    def check_objective(self, objective: str) -> None:
        """Raise an error for metagradients of an objective that has no derivative.

        Raises:
          ValueError: The method takes metagradients, and the search's objective, named as in the
            config, is not a differentiable loss.
        """
        if self.method != "cma_es" and objective not in DIFFERENTIABLE:
            raise ValueError(
                f"finals.tuning.method is {self.method}, which takes derivatives, and objective "
                f"{objective} has none: tune by cma_es, or search by {' or '.join(DIFFERENTIABLE)}"
            )


@final
@dataclass(frozen=True, slots=True)
class StageConfig:
    """A stage of the funnel: larger or longer tasks, passed only by rules that beat the baselines.

    Attributes:
      name: Name in the report; published searches have B (10 times the proxies) and C (100 times).
      tasks: Tasks that rules are trained on.
      seeds: Number of seeds of each task.
      rate_factors: Learning rates tried, relative to that of each rule; the best counts, for
        baselines alike.
    """

    name: str
    tasks: tuple[ProxyConfig, ...]
    seeds: int = 2
    rate_factors: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError(f"stage {self.name} has no tasks; it needs at least one")
        names = [proxy.task for proxy in self.tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"stage {self.name} names {twice[0]} twice; a task may stand once")
        if self.seeds < 1:
            raise ValueError(f"stage {self.name}: seeds is {self.seeds}; it must be at least 1")
        if not self.rate_factors or not all(factor > 0 for factor in self.rate_factors):
            raise ValueError(f"stage {self.name}: rate_factors must be numbers above 0")

    @property
    def purpose(self) -> str:
        """The store's name of the purpose of its runs."""
        return f"stage {self.name}"


@final
@dataclass(frozen=True, slots=True)
class FinalsConfig:
    """The finals: how finalists and baselines are compared, all with the same budget.

    Attributes:
      baselines: Shipped rules or rule files scored beside the finalists.
      shortlist: Number of candidates, the best by the search's own account, that are trained again
        on seeds of their own before the finalists are chosen among them (`shortlist.py`); 0
        chooses by the search's own account.
      max_entries: Largest number of finalists from the Pareto front over fitness, length and state
        slots.
      lowest_rate: Lowest learning rate tried.
      num_rates: Number of learning rates tried for every rule, each `rate_factor` times the one
        before.
      rate_factor: Factor between one learning rate tried and the next.
      rates_of_finalists: Learning rates tried for the rules that the search found: common, those of
        the baselines, or own, as many around the rate that the rule was found with. A rule whose
        steps have another scale than AdamW's may have its best rate outside of the common ones.
      select_seeds: Number of seeds on which each rule's learning rate is chosen, and the winner.
      final_seeds: Number of further seeds on which the figures shown are measured.
      tuning: Tuning of all constants of every rule, baselines alike, on the selection seeds; none
        by default.
      stages: Stages of the funnel, in order; only rules that beat every baseline pass one.
      choose_by: Score on the selection seeds that chooses the winner among the rules that passed
        the most stages: that of the proxies, or of the tasks of "meta_validation", where there are
        such tasks.
      meta_rate_factors: Learning rates tried on the meta-validation tasks, relative to that of each
        rule; the best on the selection seeds counts, for baselines alike.
    """

    baselines: tuple[str, ...] = ("adamw", "lion")
    shortlist: int = 0
    max_entries: int = 6
    lowest_rate: float = 1e-4
    num_rates: int = 13
    rate_factor: float = 2.0
    rates_of_finalists: Literal["common", "own"] = "common"
    select_seeds: int = 4
    final_seeds: int = 8
    tuning: TuningConfig = field(default_factory=TuningConfig)
    stages: tuple[StageConfig, ...] = ()
    choose_by: Literal["proxies", "meta_validation"] = "proxies"
    meta_rate_factors: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two stages are named {twice[0]}; a name may stand once")
        bounds.at_least(self, 1, "max_entries", "num_rates", "select_seeds", "final_seeds")
        bounds.at_least(self, 0, "shortlist")
        if not self.meta_rate_factors or not all(f > 0 for f in self.meta_rate_factors):
            raise ValueError("meta_rate_factors must be numbers above 0")
        if not (self.lowest_rate > 0 and self.rate_factor > 1):
            raise ValueError("lowest_rate must be above 0 and rate_factor above 1")

    @property
    def selects_on_meta(self) -> bool:
        """Whether anything is chosen on the meta-validation tasks: the winner, or rates there."""
        return self.choose_by == "meta_validation" or self.meta_rate_factors != (1.0,)

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates tried, where they are common."""
        return tuple(self.lowest_rate * self.rate_factor**i for i in range(self.num_rates))

    def rates_around(self, own: float) -> tuple[float, ...]:
        """Return as many learning rates around one, which is among them."""
        middle = self.num_rates // 2
        return tuple(own * self.rate_factor ** (i - middle) for i in range(self.num_rates))
