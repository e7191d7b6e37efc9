"""A program as a candidate of the benchmark."""

from dataclasses import dataclass
from typing import Any, final

import optax

from veldt.search.language import printing
from veldt.search.program import Program
from veldt.tasks.benchmark.protocol.candidates import DEFAULT_CENTRE, Candidate, rate_grid


@final
@dataclass(frozen=True, slots=True)
class ProgramCandidate(Candidate):
    """An update rule, compiled for each task with its constants' defaults.

    Attributes:
      name: Name in tables.
      program: Rule.
      rates: Peak learning rates; around the one that it was found with, where that is known.
      proxies: Names of the tasks that a search selected it on.
    """

    name: str
    program: Program
    rates: tuple[float, ...] = rate_grid(DEFAULT_CENTRE)
    proxies: frozenset[str] = frozenset()

    def make_tx(self, learning_rate: Any, num_steps: int) -> optax.GradientTransformation:
        return self.program.as_optax(learning_rate, num_steps=num_steps)

    @property
    def selected_on(self) -> frozenset[str]:
        return self.proxies

    @property
    def identity(self) -> str:
        return printing.pretty(self.program)
