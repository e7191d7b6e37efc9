"""A genotype with its program lowered once, and properties that follow from it.

All properties of a child that a search needs (structural hash, live program, updates on the probe,
niche) start from the program's graph of values. So the graph is made once and kept, and the rest is
computed and kept when it is first needed: a child that a cache knows by its structure never runs
the probe. A child that differs from its parent in its learning rate alone shares its parent's
program and the properties known of it.
"""

import dataclasses
from functools import cached_property
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from veldt.search.evaluation import fingerprint, niches, probe
from veldt.search.evaluation.fingerprint import Fingerprint
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.niches import Niche
from veldt.search.language import dataflow, pruning
from veldt.search.language.dataflow import Dataflow
from veldt.search.program import Program

IGNORES_GRADIENT: Final = "its update does not depend on the gradient"


@final
@dataclasses.dataclass(frozen=True)
class LoweredProgram:
    """A program and its properties that do not depend on the learning rate.

    Attributes:
      program: Program, dead statements included.
    """

    program: Program

    @cached_property
    def _named(self) -> Dataflow:
        return dataflow.lower(self.program)

    @cached_property
    def flow(self) -> Dataflow:
        """The graph of values, with the constants as the numbers that they default to."""
        return dataflow.folded(self._named)

    @cached_property
    def live(self) -> Program:
        """The program without the statements that its update does not depend on."""
        return pruning.to_program(self._named, self.program)

    @cached_property
    def updates(self) -> NDArray[np.float64]:
        """The updates of the probe's steps; see `probe.run`."""
        return probe.run(self.flow)

    @cached_property
    def niche(self) -> Niche:
        """The kind of behaviour on the probe."""
        return niches.niche(self.updates)

    @property
    def length(self) -> int:
        """The number of live instructions."""
        return len(self.flow.live_nodes)

    @property
    def ignores_gradient(self) -> bool:
        """Whether the updates do not depend on the gradient."""
        return probe.ignores_gradient(self.flow, self.updates)


@final
@dataclasses.dataclass(frozen=True, slots=True)
class Individual:
    """A genotype with its lowered program.

    Attributes:
      genotype: Program and learning rate.
      lowered: Lowered program of the genotype.
    """

    genotype: Genotype
    lowered: LoweredProgram

    @classmethod
    def of(cls, genotype: Genotype) -> "Individual":
        """Return the individual of a genotype."""
        return cls(genotype, LoweredProgram(genotype.program))

    def with_genotype(self, genotype: Genotype) -> "Individual":
        """Return the individual of another genotype, lowered anew only if the program differs."""
        same = genotype.program is self.genotype.program
        return Individual(genotype, self.lowered) if same else Individual.of(genotype)

    @property
    def structure(self) -> str:
        """The structural hash with the learning rate, which equal individuals share."""
        return f"{self.lowered.flow.structural_hash}:{self.genotype.learning_rate!r}"

    @property
    def live(self) -> Genotype:
        """The genotype without dead statements, which is trained."""
        return dataclasses.replace(self.genotype, program=self.lowered.live)

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of the updates on the probe."""
        return fingerprint.fingerprint(self.lowered.updates, self.genotype.learning_rate)
