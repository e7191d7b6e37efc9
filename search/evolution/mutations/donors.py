"""Where grafts come from: other members of the population, and the shipped rules.

A shipped rule counts if a search could have drawn it: its instructions are among those that the
search draws, and it reads `progress` or `loss` only where the search may. Roles (`ndim`, `fan_in`)
it may always read: every training loop knows them, while the other two are asked of it.
"""

import functools
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from veldt.search import rule_sources
from veldt.search.config.evolution_config import MutationConfig
from veldt.search.language.statements import COPY, OF_RUN
from veldt.search.program import Program


@final
@dataclass(frozen=True, slots=True)
class Donors:
    """Programs of which a graft may take a part.

    Attributes:
      rules: Shipped rules.
      member: Function that draws a member of the population; None where there is none.
    """

    rules: tuple[Program, ...] = ()
    member: Callable[[np.random.Generator], Program] | None = None

    def __bool__(self) -> bool:
        return bool(self.rules) or self.member is not None

    def draw(self, rng: np.random.Generator, of_rules: float) -> Program:
        """Return a donor.

        Args:
          rng: Source of all randomness; it is advanced.
          of_rules: Probability of a shipped rule, where there are members too.
        """
        is_rule = rng.random() < of_rules
        if self.rules and (is_rule or self.member is None):
            return self.rules[int(rng.integers(len(self.rules)))]
        assert self.member is not None
        return self.member(rng)


@functools.cache
def rules_within(config: MutationConfig) -> Mapping[str, Program]:
    """Return the shipped rules that a search with this config could have drawn, by name."""
    ops = {COPY, *config.instructions}
    forbidden = set(OF_RUN) - set(config.reads)
    found = {
        name: program
        for name, program in _shipped().items()
        if ops.issuperset(s.op for s in program.statements)
        and forbidden.isdisjoint(program.returns)
        and all(forbidden.isdisjoint(s.args) for s in program.statements)
    }
    return types.MappingProxyType(found)


@functools.cache
def _shipped() -> dict[str, Program]:
    return {name: rule_sources.load_rule(name) for name in rule_sources.RULE_NAMES}
