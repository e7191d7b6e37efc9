"""How candidates are made, raced, and what the first population holds."""

import functools
import math
from dataclasses import dataclass
from typing import Final, final

from veldt.search.language.ops import expand
from veldt.search.language.statements import ROLES, STEP

_expanded: Final = functools.cache(expand)


_NAMES: Final = ("insert", "delete", "modify", "constant", "learning_rate")


@final
@dataclass(frozen=True, slots=True)
class MutationConfig:
    """How children are made. Weights are relative odds.

    Attributes:
      insert: weight of inserting a random statement.
      delete: weight of deleting one.
      modify: weight of altering one argument.
      constant: weight of scaling one constant by 2^N(0, 1).
      learning_rate: weight of scaling the learning rate by 2^N(0, 1).
      new_constant: probability that a redrawn argument is a new constant and not a variable.
      max_statements: longest genotype, dead statements included; nothing is inserted at the limit.
      ops: the instructions to insert, by name or by part of the instruction set (`ops.OP_SETS`:
        base, published, periodic, axes, quantiles, spectral, products); empty for "base".
      reads: which of `step` and the parameters' roles (ndim, fan_in, fan_out, is_last,
        is_embedding) may be drawn as arguments.
      repeat: probability of a further mutation on top of one (geometric).
      match_steps: whether a child of another structure takes the learning rate at which its steps
        are as long as its parent's (`step_size.py`).
    """

    insert: float = 1.0
    delete: float = 1.0
    modify: float = 1.0
    constant: float = 0.5
    learning_rate: float = 0.25
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
        expand(self.ops)
        for name in self.reads:
            if name not in (STEP, *ROLES):
                raise ValueError(
                    f"reads names {name!r}; what can be read is {', '.join((STEP, *ROLES))}"
                )

    @property
    def instructions(self) -> tuple[str, ...]:
        """The instructions to insert, by name."""
        return _expanded(self.ops)

    def weights(self) -> dict[str, float]:
        """The odds by the mutation's name."""
        return {name: getattr(self, name) for name in _NAMES}


SHAPING: Final = 0.25  # Of the control group.


@final
@dataclass(frozen=True, slots=True)
class RacingConfig:
    """Which candidates are dropped before their training has ended; see `racing.py`.

    Attributes:
      chance: highest probability with which a good candidate is dropped; 0 drops none and stores no
        curves.
      control: share of candidates, drawn by lot, that are never dropped and that the levels come
        from; 1 drops none and stores all curves.
      top: share of the control group that counts as good.
      memory: most recent candidates of the control group that count.
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
                f"racing.memory is {self.memory}, in which there are never enough good candidates "
                f"to drop one with chance {self.chance:g} at top {self.top:g}; it must be at least "
                f"{least}, or chance or top larger"
            )

    @property
    def enabled(self) -> bool:
        """Whether the search races."""
        return self.chance > 0


def least_memory(chance: float, top: float) -> int:
    """With so many in memory, enough calibrate on average for a level to be finite."""
    num_calibrating = 1 / (chance * top) - 1
    return math.ceil(num_calibrating / (1 - SHAPING) - 1e-9)


@final
@dataclass(frozen=True, slots=True)
class FounderConfig:
    """What the first population holds beside the initial rule.

    Attributes:
      rule: a shipped rule, a rule file or an export, "RUN#ID", an entry of a run's hall of fame, or
        a run directory: all of them.
      learning_rate: its own; null takes what a run directory's rules came with, and the search's
        for others.
    """

    rule: str
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"founder {self.rule}: learning_rate must be above 0")
