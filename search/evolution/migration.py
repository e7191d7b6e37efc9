"""Migration between the drivers of a search: the rule that a driver sends, and the one it gets.

What is sent is the best member that the proposal of that moment could have had as a parent: with
samples that with the lowest upper bound of its mean, since the lowest mean is mostly luck, else the
fittest. What is got enters as a proposal like any other, is searched for in the cache and trained
on samples of its own, so a store holds all that its driver knows.
"""

import math
from collections.abc import Sequence
from typing import Final

from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.individual import Individual
from veldt.search.evolution.children import Proposed
from veldt.search.evolution.selection.population import Place
from veldt.search.evolution.selection.samples import Estimate, Samples
from veldt.search.program import Program
from veldt.search.storage.mail import Letter

IMMIGRANT: Final = "immigrant"
"""What the store has as the mutation of a proposal that came by mail."""


def immigrant(letter: Letter) -> Proposed:
    """Return the rule of a letter, as a proposal."""
    genotype = Genotype(Program.parse(letter.program), letter.learning_rate)
    return Proposed(Individual.of(genotype), None, IMMIGRANT, 0)


def emigrant(number: int, living: Sequence[Place], samples: Samples | None, newest: int) -> Letter:
    """Return a letter with the best of a population.

    Args:
      number: Number of the letter.
      living: Population, the youngest first.
      samples: Samples of the search; None where it has one evaluation of each program.
      newest: Last proposal whose results count.
    """

    def known(place: Place) -> Estimate:
        if samples is None:
            return Estimate(place.member.fitness, 1)
        return samples.estimate(place.member.candidate, newest)

    noise = 0.0 if samples is None else samples.noise(newest)
    best = min(living, key=lambda place: known(place).bound(noise, 1.0))
    genotype, (mean, num_samples) = best.member.individual.genotype, known(best)
    return Letter(
        number,
        best.proposal,
        str(genotype.program),
        genotype.learning_rate,
        mean if math.isfinite(mean) else None,
        num_samples,
    )
