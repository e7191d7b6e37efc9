"""Configs of mutation, of the race, and of the founders in the first population."""

import functools
import math
from dataclasses import dataclass
from typing import Final, final

from veldt.search.language.ops import expand
from veldt.search.language.statements import READABLE, STEP

_expanded: Final = functools.cache(expand)


# The order counts: runs of earlier versions drew from the first five.
_NAMES: Final = (
    "insert",
    "delete",
    "modify",
    "constant",
    "learning_rate",
    "rewire",
    "unwire",
    "graft",
)


@final
@dataclass(frozen=True, slots=True)
class MutationConfig:
    """The mutations that make children. Weights are relative odds.

    Attributes:
      insert: Weight of inserting a random statement.
      delete: Weight of deleting a statement.
      modify: Weight of altering one argument.
      constant: Weight of scaling one constant by 2^N(0, 1).
      learning_rate: Weight of scaling the learning rate by 2^N(0, 1).
      rewire: Weight of inserting a statement between a value that matters and its reader.
      unwire: Weight of replacing a statement that matters by one of its arguments.
      graft: Weight of replacing a value by a part of another program: a member of the population or
        a shipped rule that consists of `ops`.
      from_rules: Probability that a graft is taken from a shipped rule and not from a member of the
        population.
      new_constant: Probability that a redrawn argument is a new constant and not a variable.
      max_statements: Longest genotype, dead statements included; nothing is inserted at the limit,
        and what is rewired or grafted takes the place of dead statements.
      ops: Instructions to insert, by name or by part of the instruction set (`ops.OP_SETS`: base,
        published, periodic, axes, quantiles, spectral, products, globals, whitening, grams,
        sketches, history); empty for "base".
      reads: Names that may be drawn as arguments besides variables: `step`, `progress` (the step
        over the length of the run), `loss` (the batch's) and the parameters' roles (ndim, fan_in,
        fan_out, is_last, is_embedding).
      repeat: Probability of a further mutation after each mutation (geometric).
      match_steps: Whether a child of another structure gets the learning rate at which the steps
        are as long as those of its parent (`step_size.py`).
    """

    insert: float = 1.0
    delete: float = 1.0
    modify: float = 1.0
    constant: float = 0.5
    learning_rate: float = 0.25
    rewire: float = 0.0
    unwire: float = 0.0
    graft: float = 0.0
    from_rules: float = 0.5
    new_constant: float = 0.2
    max_statements: int = 30
    ops: tuple[str, ...] = ()
    reads: tuple[str, ...] = (STEP,)
    repeat: float = 0.2
    match_steps: bool = False

    def __post_init__(self) -> None:
        for name, weight in self.weights().items():
            if weight < 0:
                raise ValueError(f"{name} is {weight}; a weight is at least 0")
        if not sum(self.weights().values()):
            raise ValueError("all mutation weights are 0")
        for name in ("new_constant", "repeat"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a probability below 1")
        if not 0 <= self.from_rules <= 1:
            raise ValueError(f"from_rules is {self.from_rules}; it is a probability")
        expand(self.ops)
        for name in self.reads:
            if name not in READABLE:
                raise ValueError(f"reads names {name!r}; what can be read is {', '.join(READABLE)}")

    @property
    def instructions(self) -> tuple[str, ...]:
        """The instructions to insert, by name."""
        return _expanded(self.ops)

    def weights(self) -> dict[str, float]:
        """Return the odds by the mutation's name."""
        return {name: getattr(self, name) for name in _NAMES}


SHAPING: Final = 0.25  # Share of the control group.


@final
@dataclass(frozen=True, slots=True)
class RacingConfig:
    """The race, which drops candidates before their training has ended; see `racing.py`.

    Attributes:
      chance: Highest probability with which a good candidate is dropped; 0 drops none and stores no
        curves.
      control: Share of candidates, drawn by lot, that are never dropped and that define the levels;
        1 drops none and stores all curves.
      top: Share of the control group that counts as good.
      memory: Number of candidates of the control group that count, the most recent ones.
    """

    chance: float = 0.0
    control: float = 0.2
    top: float = 0.25
    memory: int = 200

    def __post_init__(self) -> None:
        if not 0 <= self.chance < 1:
            raise ValueError(
                f"racing.chance is {self.chance}; it is a probability below 1, and 0 for no race"
            )
        for name in ("control", "top"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(
                    f"racing.{name} is {getattr(self, name)}; it is a share, above 0 and at most 1"
                )
        if self.memory < 1:
            raise ValueError(f"racing.memory is {self.memory}; it must be at least 1")
        if self.enabled and self.memory < (least := least_memory(self.chance, self.top)):
            raise ValueError(
                f"racing.memory is {self.memory}, too few to have enough good candidates to drop "
                f"one with chance {self.chance:g} at top {self.top:g}; it must be at least "
                f"{least}, or chance or top larger"
            )

    @property
    def enabled(self) -> bool:
        """Whether the search races."""
        return self.chance > 0


def least_memory(chance: float, top: float) -> int:
    """Return the memory in which, on average, enough calibrate for a level to be finite."""
    num_calibrating = 1 / (chance * top) - 1
    return math.ceil(num_calibrating / (1 - SHAPING) - 1e-9)


ZOO: Final = "zoo"


@final
@dataclass(frozen=True, slots=True)
class FounderConfig:
    """Rules of the first population beside the initial rule.

    Attributes:
      rule: Shipped rule, rule file or export, "RUN#ID", an entry of a run's hall of fame, or a run
        directory, which stands for its whole hall of fame; "zoo" stands for all shipped rules that
        consist of `mutation.ops` and fit `num_slots`.
      learning_rate: Learning rate of the rule; null takes the one that the run directory stores,
        the one at which steps are about as long as the initial rule's for the zoo, or the search's
        learning rate for other rules.
      rate_factors: Learning rates that each rule starts at, relative to that one; each is a founder
        of its own.
    """

    rule: str
    learning_rate: float | None = None
    rate_factors: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.rate_factors or not all(factor > 0 for factor in self.rate_factors):
            raise ValueError(f"founder {self.rule}: rate_factors must be numbers above 0")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"founder {self.rule}: learning_rate must be above 0")
