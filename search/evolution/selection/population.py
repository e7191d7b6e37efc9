"""Regularized evolution's population, with islands: lifetimes and the choice of parents.

Proposal `i` lives from `i + window` on, when it has surely been recorded, until `population_size`
more have been. So a population is a range of proposals, and its members are functions of the
store's rows. Places before proposal 0 hold the founders (`founders.py`) in turn, the initial rule
first.

After a *restart* all older places hold the incumbent of that moment: the published search continues
from its best program once the fitness has stopped falling (Lion, arXiv 2302.06675, section 2.2).
The paper gives no figure for that; here it is a number of programs trained without a new incumbent.

Only members that have a fitness take part in tournaments: most children fail, and so do nearly all
children of those.

With `niche_size`, parents are drawn from fewer: the best few of each niche (`niches.py`), so that
one kind of rule cannot take all places. Neither is in the paper.
"""

import collections
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias, final

import numpy as np

from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation.individual import Individual
from veldt.search.evaluation.niches import Niche

INITIAL: Final = -1
"""The proposal's number that stands for the initial rule."""

MAX_DRAWS: Final = 100
"""Draws of a member for a tournament; all of those with a fitness are as likely."""


@final
@dataclass(frozen=True, slots=True)
class Member:
    """An individual, its fitness, infinity where it has none, and the candidate that it is."""

    individual: Individual
    fitness: float
    candidate: int = 0


Rank: TypeAlias = Callable[[Member], float]


class Place(NamedTuple):
    """A place in the population: a proposal's number, or `INITIAL`, and its member."""

    proposal: int
    member: Member


class _Restart(NamedTuple):
    proposal: int  # the last one before it
    best: Place


@final
class Population:
    """Members by the number of their proposal. Memory holds one population and the window.

    Of the incumbent it keeps only when the last one came, and which it was at each restart.
    """

    def __init__(self, config: SearchConfig, initial: Member, num_founders: int):
        """Set up the population before proposal 0.

        Args:
          config: Config of the search.
          initial: Initial rule.
          num_founders: Number of founders with the initial rule; others are the first proposals.
        """
        self._config = config
        self._initial = Place(INITIAL, initial)
        self._num_founders = num_founders
        self._num_since_best = 0
        self._best = INITIAL
        self._restarts: list[_Restart] = []
        self.members: dict[int, Member] = {}

    @property
    def num_restarts(self) -> int:
        """The number of restarts so far."""
        return len(self._restarts)

    def needed_from(self, num_told: int) -> int:
        """Return the first proposal whose member matters after `num_told` proposals."""
        return num_told - self._config.population_size - self._config.window

    def keeps(self, index: int) -> bool:
        """Return whether a proposal's member matters for ever: a founder that has all children."""
        return self._config.parents == "initial" and index < self._num_founders - 1

    def add(self, index: int, member: Member | None, *, trained: bool, best: Place) -> None:
        """Add the next proposal recorded.

        Args:
          index: Number of the proposal.
          member: Member of the proposal; None where it is older than `needed_from`, and not kept.
          trained: Whether the proposal was a new program that was trained.
          best: Incumbent when the proposal was recorded, or which it became.
        """
        if member is not None:
            self.members[index] = member
        oldest = self.needed_from(index)
        if not self.keeps(oldest):
            self.members.pop(oldest, None)
        is_new, self._best = best.proposal != self._best, best.proposal
        self._num_since_best = 0 if is_new else self._num_since_best + trained
        limit = self._config.restart_after
        if limit is not None and self._num_since_best >= limit:
            self._restarts.append(_Restart(index, best))
            self._num_since_best = 0

    def draw(self, rng: np.random.Generator, index: int, rank: Rank) -> Place:
        """Hold the tournament for a proposal's parent. The generator is advanced.

        Args:
          rng: Source of randomness.
          index: Number of the proposal.
          rank: Function that gives a member's fitness as it is known.
        """
        config, newest = self._config, index - self._config.window
        if config.parents == "initial":
            return self._draw_founder(rng, newest, rank)
        if config.niche_size is not None:
            return self._draw_by_niche(rng, index, config.niche_size, rank)
        drawn = [self._draw_fit(rng, newest, rank) for _ in range(config.tournament_size)]
        return min(drawn, key=lambda place: rank(place.member))

    def _draw_founder(self, rng: np.random.Generator, newest: int, rank: Rank) -> Place:
        """Return one of the founders known to have a fitness, or the initial rule."""
        known = range(min(self._num_founders - 1, newest + 1))
        places = [self._initial, *(Place(i, self.members[i]) for i in known)]
        fit = [place for place in places if math.isfinite(rank(place.member))] or places[:1]
        return fit[int(rng.integers(len(fit)))] if len(fit) > 1 else fit[0]

    def _draw_fit(self, rng: np.random.Generator, newest: int, rank: Rank) -> Place:
        """Return a living member whose training succeeded, at home or, by migration, anywhere.

        Where none turns up in many draws it may be one that failed.
        """
        config = self._config
        for _ in range(MAX_DRAWS):
            age = int(rng.integers(config.population_size))
            # Proposal i lives on island i modulo their number; each draw is as likely on it.
            if config.islands > 1 and rng.random() >= config.migration:
                home = -config.window % config.islands
                age = age // config.islands * config.islands + home
            place = self._at(newest - age, newest)
            if math.isfinite(rank(place.member)):
                break
        return place

    def living(self, index: int) -> list[Place]:
        """Return the members that a proposal may know of, the youngest first."""
        newest = index - self._config.window
        oldest = newest - self._config.population_size
        return [self._at(place, newest) for place in range(newest, oldest, -1)]

    def _draw_by_niche(
        self, rng: np.random.Generator, index: int, niche_size: int, rank: Rank
    ) -> Place:
        """Hold the tournament among the best of each niche, at home or, by migration, anywhere."""
        config = self._config
        newest = index - config.window
        all_places = range(newest - config.population_size + 1, newest + 1)
        first = (index - all_places.start) % config.islands
        drawn = []
        for _ in range(config.tournament_size):
            stays = config.islands == 1 or rng.random() >= config.migration
            places = all_places[first :: config.islands] if stays else all_places
            living = [self._at(place, newest) for place in reversed(places)]  # the youngest first
            allowed = self._best_of_niches(living, niche_size, rank)
            drawn.append(allowed[int(rng.integers(len(allowed)))])
        return min(drawn, key=lambda place: rank(place.member))

    def _best_of_niches(self, places: Sequence[Place], niche_size: int, rank: Rank) -> list[Place]:
        """Return the fittest few of each niche, the first of equals; all if none has a fitness."""
        counts: collections.Counter[Niche] = collections.Counter()
        best: list[Place] = []
        for fitness, place in sorted(
            ((rank(place.member), place) for place in places), key=lambda pair: pair[0]
        ):
            if not math.isfinite(fitness):
                break
            niche = place.member.individual.lowered.niche
            if counts[niche] < niche_size:
                counts[niche] += 1
                best.append(place)
        return best or list(places)

    def _at(self, place: int, newest: int) -> Place:
        """Return the member of a place when `newest` is the last proposal known to be recorded."""
        restart = next((r for r in reversed(self._restarts) if r.proposal <= newest), None)
        if restart is not None and place <= restart.proposal:
            return restart.best
        if place < 0:
            # Every island has all founders.
            place = (-1 - place) // self._config.islands % self._num_founders - 1
            if not 0 <= place <= newest:
                return self._initial
        return Place(place, self.members[place])
