"""Children: what a proposal proposes, as a function of its number and what it may know.

Proposal `i` is a function of the seed, `i`, and the proposals up to `i - window`. So its child can
be made by another process as soon as that proposal is recorded, long before the driver asks for it.
`Proposer` is all that is needed for that: the population and the samples. A copy of it that learns
what the engine's own learns (`Told`) makes the same children. Some depend on what was asked since:
founders and copies, which are made where the search is driven.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, final

import numpy as np

from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.individual import Individual
from veldt.search.evaluation.jobs import EvalJob, Outcome
from veldt.search.evolution import mutation
from veldt.search.evolution.founders import Founder
from veldt.search.evolution.mutations import donors, step_size
from veldt.search.evolution.mutations.donors import Donors
from veldt.search.evolution.selection.population import INITIAL, Member, Place, Population, Rank
from veldt.search.evolution.selection.racing import Role
from veldt.search.evolution.selection.samples import Samples
from veldt.search.program import Program
from veldt.search.storage.numbers import Numbers

# Share of the proposals that are copies of the member that might be the best, and the samples that
# these may give it, as a multiple of those that duplicates may.
COPIES: Final = 0.1
COPIED: Final = 4
SAMPLE: Final = "sample"


class Proposed(NamedTuple):
    """A proposed child, before it is searched for in the cache.

    Attributes:
      individual: Child, lowered once.
      parent: Proposal of the parent; None for the initial rule.
      mutation: Names of the mutations made.
      invalid: Number of draws thrown away.
    """

    individual: Individual
    parent: int | None
    mutation: str
    invalid: int


@final
@dataclass(frozen=True, slots=True)
class Asked:
    """A proposal between ask and tell.

    Attributes:
      child: Child that is proposed.
      source: Source of the score, as the store names it.
      candidate: Id of the candidate.
      behaviour: Fingerprint of the child; empty where a cache had the candidate.
      failed: Reason of the probe to reject it; then it is not trained.
      job: Job that trains it; made once, since the race's levels change.
      role: Role in the race.
    """

    child: Proposed
    source: str
    candidate: int
    behaviour: str = ""
    failed: Outcome | None = None
    job: EvalJob | None = None
    role: Role = Role.RACED


class Told(NamedTuple):
    """What later children may know of a proposal that was recorded.

    Attributes:
      proposal: Number of the proposal.
      member: Individual with its fitness.
      trained: Whether it was a new program that was trained.
      best: Incumbent when the proposal was recorded.
      score: Score of the sample that it was; None if it was none.
    """

    proposal: int
    member: Member
    trained: bool
    best: Place
    score: float | None


class Helpers(Protocol):
    """Processes that make children."""

    def told(self, told: Told) -> None:
        """Learn of a proposal that was recorded."""
        ...

    def child(self, index: int) -> Proposed | None:
        """Return the child of a proposal; None where none has made it."""
        ...


@final
class Proposer:
    """Makes the children of a search."""

    def __init__(
        self,
        config: SearchConfig,
        founders: tuple[Founder, ...],
        population: Population,
        samples: Samples,
        numbers: Numbers,
    ):
        """Propose from a population, which is shared with whoever adds to it.

        Args:
          config: Config of the search.
          founders: Rules that the search starts from, the initial rule first.
          population: Population.
          samples: Samples of candidates; not used where the search takes one of each.
          numbers: Numbers of the driver's proposals among those of all; they choose random draws.
        """
        self.config = config
        self._founders = founders
        self._population = population
        self._samples = samples
        self._numbers = numbers

    def child(self, index: int) -> Proposed:
        """Return a mutation of a proposal's parent, a copy of a member, or one of the founders."""
        if index < len(self._founders) - 1:
            founder = self._founders[index + 1]
            return Proposed(Individual.of(founder.genotype), None, f"founder {founder.name}", 0)
        rng = self._random(index)
        if self._may_copy(rng) and (copied := self._copied(index)) is not None:
            number = None if copied.proposal == INITIAL else copied.proposal
            return Proposed(copied.member.individual, number, SAMPLE, 0)
        return self._mutation(rng, index)

    def mutation(self, index: int) -> Proposed | None:
        """Return the child where it is a mutation, whatever was asked since; else None."""
        if index < len(self._founders) - 1:
            return None
        rng = self._random(index)
        return None if self._may_copy(rng) else self._mutation(rng, index)

    def parent(self, rng: np.random.Generator, index: int) -> Place:
        """Return the parent of a proposal's child. The generator is advanced."""
        return self._population.draw(rng, index, self.rank(index))

    def fittest(self, index: int) -> list[Place]:
        """Return the members that a proposal may know of, the fittest first."""
        rank = self.rank(index)
        return sorted(self._population.living(index), key=lambda place: rank(place.member))

    def learn(self, told: Told) -> None:
        """Learn of a proposal that was recorded; for copies of the engine's own proposer."""
        if self.config.samples > 1:
            if told.score is not None:
                self._samples.add(told.member.candidate, told.proposal, told.score)
            self._samples.end(told.proposal)
        self._population.add(told.proposal, told.member, trained=told.trained, best=told.best)

    def _random(self, index: int) -> np.random.Generator:
        return np.random.default_rng((self.config.seed, self._numbers.of(index)))

    def _may_copy(self, rng: np.random.Generator) -> bool:
        return self.config.samples > 1 and bool(rng.random() < COPIES)

    def _mutation(self, rng: np.random.Generator, index: int) -> Proposed:
        place = self.parent(rng, index)
        parent = place.member.individual
        genotype = Genotype(parent.lowered.program, parent.learning_rate)
        made = mutation.mutate(rng, genotype, self.config.mutation, self._donors(index))
        individual = parent.with_genotype(made.genotype)
        if self.config.mutation.match_steps and step_size.changes_structure(made.mutation):
            individual = step_size.matched(parent, individual)
        number = None if place.proposal == INITIAL else place.proposal
        return Proposed(individual, number, made.mutation, made.invalid)

    def _copied(self, index: int) -> Place | None:
        """Return the member that might be the best; None where all have their samples."""
        living, newest = self._population.living(index), index - self.config.window
        most = COPIED * self.config.samples
        number = self._samples.promising([p.member.candidate for p in living], newest, most)
        return None if number is None else living[number]

    def _donors(self, index: int) -> Donors:
        """Return what grafts of a proposal may be taken from."""
        if not self.config.mutation.graft:
            return Donors()
        rank = self.rank(index)

        def member(rng: np.random.Generator) -> Program:
            return self._population.draw(rng, index, rank).member.individual.lowered.program

        return Donors(tuple(donors.rules_within(self.config.mutation).values()), member)

    def rank(self, index: int) -> Rank:
        """Return the function that gives a member's fitness, as a proposal may know it."""
        if self.config.samples == 1:
            return lambda member: member.fitness
        newest = index - self.config.window
        return lambda member: self._samples.estimate(member.candidate, newest).mean
