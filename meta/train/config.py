"""What a meta-training is: `MetaTrainConfig`, filled in from a YAML file in `configs/`.

A run is a sequence of phases. Each has its own estimator, lengths, outer optimizer and set of
meta-parameters that move; the others are frozen. So "imitate a rule, then train the update rule,
then its scheduler" (Celo's order) and a curriculum of growing lengths are lists of phases.
"""

import dataclasses
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, final

from veldt.tasks.common.config import bounds
from veldt.tasks.families.distribution import Distribution
from veldt.tasks.pool.config import PoolConfig

Plain: TypeAlias = bool | int | float | str | tuple[float, ...] | None
"""A value of an architecture's field, as YAML has it; lists are of numbers."""


Objective: TypeAlias = Literal["mean", "final", "log_final", "telescoped"]

OBJECTIVES: Final[Mapping[Objective, str]] = {
    "mean": "mean loss",
    "final": "final loss",
    "log_final": "log of the final loss",
    "telescoped": "change of loss",
}
"""What an estimator's objective is called in reports."""


@final
@dataclasses.dataclass(frozen=True)
class EstimatorConfig:
    """How a meta-gradient is estimated on each task family.

    Attributes:
      kind: one of the estimators of `veldt.meta`, or "imitation" (`veldt.meta.problems.imitation`).
      num_particles: training runs side by side; pairs, for the evolution strategies.
      window: K, steps of each run in one estimate.
      sigma: standard deviation of the noise on meta-parameters.
      sign: whether only the sign of a pair's difference of losses counts.
      clip_difference: the largest difference of losses that counts; null: any.
      clip_norm: the largest norm of the gradient of one run, of "full_backprop"; null: any.
      objective: what a run is worth: the mean of the losses, the final loss, the logarithm of the
        final loss (so that no task weighs more than another), or how far the loss fell.
      split: examples that final losses are of, "train" or "valid"; with "valid" it counts how well
        a task is learned, and not only how far.
      expert: what "imitation" imitates, "module:function" that maps num_steps to an Optax
        transform; ignored by the others.
    """

    kind: Literal[
        "full_es",
        "truncated_es",
        "pes",
        "nres",
        "truncated_backprop",
        "full_backprop",
        "imitation",
    ] = "pes"
    num_particles: int = 8
    window: int = 50
    sigma: float = 0.01
    sign: bool = False
    clip_difference: float | None = None
    clip_norm: float | None = None
    objective: Objective = "mean"
    split: Literal["train", "valid"] = "train"
    expert: str = "veldt.meta.problems.experts:adamw"

    def __post_init__(self) -> None:
        bounds.at_least(self, 1, "num_particles", "window")
        bounds.above(self, 0, "sigma", "clip_difference", "clip_norm")


@final
@dataclasses.dataclass(frozen=True)
class MetaOptimizerConfig:
    """The outer optimizer.

    Attributes:
      optimizer: "adam", "adamw" or "sgd" (with momentum 0.9).
      learning_rate: peak of the learning rate.
      warmup: share of the phase in which the rate rises from 0.
      decay: "constant", or "cosine" down to a tenth of the peak.
      weight_decay: decoupled weight decay, for "adamw" alone.
      clip: the largest absolute value of an element of the averaged meta-gradient; null: any.
      clip_norm: the largest global norm of the averaged meta-gradient; null: any.
    """

    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = 3e-4
    warmup: float = 0.0
    decay: Literal["constant", "cosine"] = "constant"
    weight_decay: float = 0.0
    clip: float | None = None
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        bounds.above(self, 0, "learning_rate")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is {self.warmup}; it must be a share, 0 to below 1")
        bounds.above(self, 0, "clip", "clip_norm")


@final
@dataclasses.dataclass(frozen=True)
class PhaseConfig:
    """A stretch of meta-training.

    Attributes:
      name: name of the phase in logs.
      num_updates: number of updates of the meta-parameters.
      train: top-level parts of the meta-parameters that move; empty: all of them.
      fields: fields of the architecture that differ in this phase, such as {schedule: constant}.
      lengths: the least and the greatest length of an inner training run, log-uniform in between.
      estimator: how the gradient is estimated.
      outer: what moves the meta-parameters.
    """

    name: str
    num_updates: int
    train: tuple[str, ...] = ()
    fields: dict[str, Plain] = dataclasses.field(default_factory=dict)
    lengths: tuple[int, int] = (100, 2000)
    estimator: EstimatorConfig = dataclasses.field(default_factory=EstimatorConfig)
    outer: MetaOptimizerConfig = dataclasses.field(default_factory=MetaOptimizerConfig)

    def __post_init__(self) -> None:
        bounds.at_least(self, 1, "num_updates")
        low, high = self.lengths
        if not 1 <= low <= high:
            raise ValueError(f"lengths are {low} and {high}; 1 <= least <= greatest is asked")
        windowed = self.estimator.kind not in ("full_es", "full_backprop")
        if windowed and self.estimator.window > low:
            raise ValueError(
                f"the window is {self.estimator.window} steps; it may not be longer than the "
                f"shortest run, {low} (lengths)"
            )


@final
@dataclasses.dataclass(frozen=True)
class CheckConfig:
    """A task of meta-validation; nothing learns from it.

    Attributes:
      task: a shipped task's name, or "module:factory".
      num_steps: length of the training run.
    """

    task: str
    num_steps: int

    def __post_init__(self) -> None:
        bounds.at_least(self, 1, "num_steps")


@final
@dataclasses.dataclass(frozen=True)
class MetaTrainConfig:
    """A meta-training of a learned optimizer.

    Attributes:
      architecture: a name of `veldt.learned_opt.registry`.
      phases: what is done, in order.
      fields: fields of the architecture in place of the registry's, such as {hidden_size: 4}.
      start: weights to start from: a shipped name, an `.npz` or a run directory; null draws them.
      tasks: the distribution that inner tasks are drawn from.
      meta_validation: tasks that meta-validation trains; the weights that are best on them are
        kept, so no benchmark may count these tasks.
      validate_every: number of updates between two meta-validations.
      validation_seeds: training runs of each task in a meta-validation.
      staleness: how many updates a gradient may be behind the meta-parameters that it moves; more
        than 0 keeps workers busy, and is part of the experiment, unlike their number.
      shards: parts that the particles of each estimate are split into; as many devices as divide
        this are used. Part of the experiment, unlike the number of devices.
      seed: seed of everything random.
      checkpoint_every_s: seconds between checkpoints; one is also kept at the end of each phase.
      tensorboard: whether TensorBoard's event files are written too (`veldt[tensorboard]`).
      pool: where gradients are computed.
    """

    architecture: str
    phases: tuple[PhaseConfig, ...]
    fields: dict[str, Plain] = dataclasses.field(default_factory=dict)
    start: str | None = None
    tasks: Distribution = dataclasses.field(default_factory=Distribution)
    meta_validation: tuple[CheckConfig, ...] = ()
    validate_every: int = 200
    validation_seeds: int = 2
    staleness: int = 0
    shards: int = 1
    seed: int = 0
    checkpoint_every_s: float = 60.0
    tensorboard: bool = False
    pool: PoolConfig = dataclasses.field(default_factory=PoolConfig)

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("phases is empty; a meta-training needs at least one")
        names = [phase.name for phase in self.phases]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two phases are named {twice[0]}; a name may stand once")
        bounds.at_least(self, 1, "validate_every", "validation_seeds", "shards")
        bounds.at_least(self, 0, "staleness")
        if not self.checkpoint_every_s > 0:
            raise ValueError("checkpoint_every_s must be above 0")
        for phase in self.phases:
            if phase.estimator.num_particles % self.shards:
                raise ValueError(
                    f"phase {phase.name}: {phase.estimator.num_particles} particles cannot be "
                    f"split into {self.shards} equal shards"
                )

    @property
    def num_updates(self) -> int:
        """Number of updates of all phases together."""
        return sum(phase.num_updates for phase in self.phases)

    def phase_at(self, update: int) -> tuple[int, int]:
        """Return the number of the phase that an update is in, and its first update."""
        first = 0
        for index, phase in enumerate(self.phases):
            if update < first + phase.num_updates:
                return index, first
            first += phase.num_updates
        raise ValueError(f"there is no update {update}; the run has {self.num_updates}")
