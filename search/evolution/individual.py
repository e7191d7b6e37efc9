"""A genotype with its program lowered once, and all that follows from that.

What a search asks of a child (its structural hash, its live program, its updates on the probe, its
niche) starts from the program's graph of values. So the graph is made once and carried, and the
rest is computed when it is first asked for, and kept: a child that a cache knows by its structure
never runs the probe. A child that differs from its parent in its learning rate alone has its
parent's program, with all that is known of it.
"""

import dataclasses
from functools import cached_property
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from veldt.search import simplify
from veldt.search.evaluation import fingerprint, probe
from veldt.search.evaluation.fingerprint import Fingerprint
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evolution import niches
from veldt.search.evolution.niches import Niche
from veldt.search.language import dataflow
from veldt.search.language.dataflow import Dataflow
from veldt.search.program import Program

IGNORES_GRADIENT: Final = "its update does not depend on the gradient"


@final
@dataclasses.dataclass(frozen=True)
class LoweredProgram:
    """A program and what follows from it, whatever the learning rate.

    Attributes:
      program: the program, dead statements included.
    """

    program: Program

    @cached_property
    def flow(self) -> Dataflow:
        """The graph of values, with the constants as the numbers that they default to."""
        return dataflow.lower(self.program, fold=True)

    @cached_property
    def live(self) -> Program:
        """The program without what its update does not depend on."""
        return simplify.prune(self.program)

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
    """A genotype and its program as lowered.

    Attributes:
      genotype: the program and the learning rate.
      lowered: the genotype's program, lowered.
    """

    genotype: Genotype
    lowered: LoweredProgram

    @classmethod
    def of(cls, genotype: Genotype) -> "Individual":
        """Return the individual that a genotype comes to."""
        return cls(genotype, LoweredProgram(genotype.program))

    def with_genotype(self, genotype: Genotype) -> "Individual":
        """Return another genotype's, lowered anew only where the program is another."""
        same = genotype.program is self.genotype.program
        return Individual(genotype, self.lowered) if same else Individual.of(genotype)

    @property
    def structure(self) -> str:
        """The structural hash with the learning rate: what equal individuals share."""
        return f"{self.lowered.flow.structural_hash}:{self.genotype.learning_rate!r}"

    @property
    def live(self) -> Genotype:
        """The genotype without dead statements: what is trained."""
        return dataclasses.replace(self.genotype, program=self.lowered.live)

    def fingerprint(self) -> Fingerprint:
        """Return what the steps on the probe look like."""
        return fingerprint.fingerprint(self.lowered.updates, self.genotype.learning_rate)
