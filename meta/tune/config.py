"""What a tuning is: `TuneConfig`, filled in from a YAML file in `configs/`."""

import dataclasses
from typing import Literal, final

from veldt.meta.tune.training import hyperparameters
from veldt.meta.tune.training.hyperparameters import Hyperparameter
from veldt.meta.tune.training.synthetic import SyntheticConfig
from veldt.tasks.common.config import bounds
from veldt.tasks.pool.config import PoolConfig


@final
@dataclasses.dataclass(frozen=True)
class OuterConfig:
    """How hyperparameters move along the metagradient, on their scales.

    Attributes:
      optimizer: "adam"; "signed", a step of the same size for each number; or "normalised", one of
        that root mean square for all together.
      learning_rate: size of a step; on a logarithmic scale, 0.1 is ten per cent.
      decay: "constant", or "cosine" down to a tenth.
      max_change: the largest change of any number in one update; null: any.
    """

    optimizer: Literal["adam", "signed", "normalised"] = "adam"
    learning_rate: float = 0.1
    decay: Literal["constant", "cosine"] = "cosine"
    max_change: float | None = 0.3

    def __post_init__(self) -> None:
        bounds.above(self, 0, "learning_rate", "max_change")


@final
@dataclasses.dataclass(frozen=True)
class TuneConfig:
    """A tuning of hyperparameters for one task and one optimizer.

    Attributes:
      task: a shipped task's name, or "module:factory".
      num_steps: length of a training run.
      optimizer: sgd, adam, adamw or lion, made to be differentiated, or "module:factory" of an
        Optax transform that takes the hyperparameters as keyword arguments.
      fixed: other keyword arguments of the optimizer.
      tune: what is learned, by name: arguments of the optimizer, rate_of_GROUP for each group, and
        of the task label_smoothing, input_noise, class_weights and example_weights.
      synthetic: training rows that are learned in place of the task's own; null for none.
      groups: regular expressions for parameters' paths, such as {head: "Dense_1"}; the first that
        is found in a path says which group a parameter is in, for rate_of_GROUP and for what is
        tuned by group.
      num_updates: number of metagradients.
      seeds: training runs side by side, with a mean outcome that counts; each update draws new
        ones.
      objective: "valid", the loss on the validation split, or "train", that of the last tenth of
        the steps.
      outer: what moves the hyperparameters.
      check_every: updates between two checks on fixed seeds, by which the best hyperparameters are
        kept.
      check_seeds: training runs of a check.
      runs_per_job: the most training runs of one job, side by side; null puts all runs of an
        update, or of a check, into one. More jobs keep more workers busy. It changes the last bits
        of the numbers, unlike the number of workers.
      memory_mb: memory of a job for stored states; decides what is stored and what is run again.
      verify: how a metagradient is examined: "fast" (finite, states replayed rightly), "full"
        (finite differences and metasmoothness, some more runs) or "none".
      on_failure: what is done where it fails: "auto" falls back to evolution strategies, until a
        later check finds that the metagradient is right again, where it is not finite or at most 64
        numbers are learned, and keeps it otherwise; "keep" keeps it; "raise" ends the run.
      compare: whether the best constant learning rate and the best cosine, chosen by as many
        training runs, are run beside the result, where a learning rate is tuned.
      journal: whether the progress of each metagradient is written to disk, so that one that takes
        hours survives a crash; not with workers of a Ray cluster.
      seed: seed of everything random.
      pool: where training runs.
    """

    task: str
    num_steps: int
    tune: dict[str, Hyperparameter] = dataclasses.field(default_factory=dict)
    optimizer: str = "adam"
    fixed: dict[str, float] = dataclasses.field(default_factory=dict)
    synthetic: SyntheticConfig | None = None
    groups: dict[str, str] = dataclasses.field(default_factory=dict)
    num_updates: int = 50
    seeds: int = 4
    objective: Literal["valid", "train"] = "valid"
    outer: OuterConfig = dataclasses.field(default_factory=OuterConfig)
    check_every: int = 5
    check_seeds: int = 8
    runs_per_job: int | None = None
    memory_mb: float = 512.0
    verify: Literal["none", "fast", "full"] = "fast"
    on_failure: Literal["auto", "keep", "raise"] = "auto"
    compare: bool = True
    journal: bool = False
    seed: int = 0
    pool: PoolConfig = dataclasses.field(default_factory=lambda: PoolConfig(num_workers=1))

    def __post_init__(self) -> None:
        bounds.at_least(self, 1, "num_steps", "num_updates", "seeds", "check_every", "check_seeds")
        bounds.at_least(self, 1, "runs_per_job")
        bounds.above(self, 0, "memory_mb")
        if not self.tune and self.synthetic is None:
            raise ValueError("tune is empty; name what is to be learned")
        twice = sorted(set(self.tune) & set(self.fixed))
        if twice:
            raise ValueError(f"{twice[0]} is both in tune and in fixed")
        hyperparameters.check_groups(self.groups, self.tune)
        shaped = sorted(set(self.tune) & set(hyperparameters.TASK_NAMES))
        if self.synthetic is not None and shaped:
            raise ValueError(
                f"tune.{shaped[0]} is for the task's own rows, and synthetic takes their place: "
                "leave one of them out"
            )
