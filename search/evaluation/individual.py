"""A genotype with its program lowered once, and properties that follow from it.

All properties of a child that a search needs (structural hash, live program, updates on the probe,
niche) start from the program's graph of values. So the graph is made once and kept, and the rest is
computed and kept when it is first needed: a child that a cache knows by its structure never runs
the probe. A child that differs from its parent in its learning rate alone shares its parent's
program and the properties known of it. One that differs in dead statements alone has its parent's
structure, so that it is not even lowered.

An individual that another process has made comes with the properties known there. Its program
comes as bytes, which are read when something needs the program: most of what a search's driver does
with a child needs none.
"""

import pickle
from functools import cached_property
from typing import Any, Final, final

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
# Properties that travel between processes, where they are known, and those that all copies of a
# population need.
_SENT: Final = (
    "text",
    "num_statements",
    "structural_hash",
    "length",
    "live",
    "live_text",
    "ignores_gradient",
    "niche",
)
_OF_MEMBERS: Final = ("structural_hash", "length", "niche")
# Properties that programs with the same live code share.
_OF_LIVE_CODE: Final = ("structural_hash", "length")


@final
class LoweredProgram:
    """A program and its properties that do not depend on the learning rate."""

    def __init__(self, program: Program | bytes):
        """Keep a program, or what `packed` gave of it in a process of this run."""
        self._given = program

    @cached_property
    def program(self) -> Program:
        """The program, dead statements included."""
        if isinstance(self._given, Program):
            return self._given
        program = pickle.loads(self._given)  # noqa: S301, written by a process of this run
        assert isinstance(program, Program)
        return program

    @cached_property
    def packed(self) -> bytes:
        """The program as bytes, for other processes of this run."""
        given = self._given
        return given if isinstance(given, bytes) else pickle.dumps(given, pickle.HIGHEST_PROTOCOL)

    def with_program(self, program: Program) -> "LoweredProgram":
        """Return another program, with what is known of this one where dead code alone differs."""
        other = LoweredProgram(program)
        if other._live_code == self._live_code:
            other.__dict__.update(self.known(_OF_LIVE_CODE))
        return other

    @cached_property
    def _live_code(self) -> tuple[tuple[str, ...], ...]:
        return pruning.live_code(self.program)

    @cached_property
    def _named(self) -> Dataflow:
        return dataflow.lower(self.program)

    @cached_property
    def flow(self) -> Dataflow:
        """The graph of live values, with the constants as the numbers that they default to."""
        return dataflow.folded(self._named)

    @cached_property
    def text(self) -> str:
        """The program's text."""
        return str(self.program)

    @cached_property
    def num_statements(self) -> int:
        """The number of statements, dead ones included."""
        return len(self.program.statements)

    @cached_property
    def structural_hash(self) -> str:
        """The hash of the live code."""
        return self.flow.structural_hash

    @cached_property
    def live(self) -> Program:
        """The program without the statements that its update does not depend on."""
        return pruning.to_program(self._named, self.program)

    @cached_property
    def live_text(self) -> str:
        """The text of the program without the statements that its update does not depend on."""
        return str(self.live)

    @cached_property
    def updates(self) -> NDArray[np.float64]:
        """The updates of the probe's steps; see `probe.run`."""
        return probe.run(self.flow)

    @cached_property
    def niche(self) -> Niche:
        """The kind of behaviour on the probe."""
        return niches.niche(self.updates)

    @cached_property
    def length(self) -> int:
        """The number of live instructions."""
        return len(self.flow.live_nodes)

    @cached_property
    def ignores_gradient(self) -> bool:
        """Whether the updates do not depend on the gradient."""
        return probe.ignores_gradient(self.flow, self.updates)

    def known(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return those of some properties that were needed so far."""
        return {name: self.__dict__[name] for name in names if name in self.__dict__}


@final
class Individual:
    """A genotype with its lowered program.

    Attributes:
      lowered: Lowered program of the genotype.
      learning_rate: Learning rate of the genotype.
    """

    __slots__ = ("_fingerprint", "learning_rate", "lowered")

    def __init__(self, lowered: LoweredProgram, learning_rate: float):
        """Join a lowered program and a learning rate."""
        self.lowered = lowered
        self.learning_rate = learning_rate
        self._fingerprint: Fingerprint | None = None

    @classmethod
    def of(cls, genotype: Genotype) -> "Individual":
        """Return the individual of a genotype."""
        return cls(LoweredProgram(genotype.program), genotype.learning_rate)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Individual) and self.genotype == other.genotype

    def __hash__(self) -> int:
        return hash(self.genotype)

    @property
    def genotype(self) -> Genotype:
        """The program, with its dead statements, and its learning rate."""
        return Genotype(self.lowered.program, self.learning_rate)

    def with_genotype(self, genotype: Genotype) -> "Individual":
        """Return the individual of another genotype, lowered anew only if the live code differs."""
        if genotype.program is self.lowered.program:
            return Individual(self.lowered, genotype.learning_rate)
        return Individual(self.lowered.with_program(genotype.program), genotype.learning_rate)

    @property
    def structure(self) -> str:
        """The structural hash with the learning rate, which equal individuals share."""
        return f"{self.lowered.structural_hash}:{self.learning_rate!r}"

    @property
    def live(self) -> Genotype:
        """The genotype without dead statements, which is trained."""
        return Genotype(self.lowered.live, self.learning_rate)

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of the updates on the probe."""
        if self._fingerprint is None:
            updates = self.lowered.updates
            self._fingerprint = fingerprint.fingerprint(updates, self.learning_rate)
        return self._fingerprint

    def as_member(self) -> "Individual":
        """Return the same with the properties alone that each copy of a population needs."""
        lowered = LoweredProgram(self.lowered.packed)
        lowered.__dict__.update(self.lowered.known(_OF_MEMBERS))
        return Individual(lowered, self.learning_rate)

    def __reduce__(self) -> tuple[Any, ...]:
        lowered = self.lowered
        known = lowered.known(_SENT)
        return _received, (lowered.packed, known, self.learning_rate, self._fingerprint)


def _received(
    packed: bytes, known: dict[str, Any], learning_rate: float, print_: Fingerprint | None
) -> Individual:
    lowered = LoweredProgram(packed)
    lowered.__dict__.update(known)
    found = Individual(lowered, learning_rate)
    found._fingerprint = print_
    return found
