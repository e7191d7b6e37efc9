"""A search's counts, the same whether it runs or is read from its store.

Distinct programs are those that were trained: proposals that a cache answered, that diverged on the
probe or ignored the gradient there, or that the interpreter has no room for, cost no training.
"""

from collections import Counter
from dataclasses import dataclass
from typing import final

from veldt.search.evolution.engine import Evolution


@final
@dataclass(frozen=True, slots=True)
class Tally:
    """A search's counts, from the engine while it runs or from the store later.

    Attributes:
      num_told: proposals told.
      max_evaluations: distinct programs to train.
      sources: proposals by where their score came from.
      statuses: distinct candidates by what became of them, the initial rule not counted.
      num_invalid: draws thrown away.
      num_statements: of all genotypes proposed.
      num_live: of those, the ones that mattered.
      num_challenges: of the incumbent, the initial rule's own entry counted.
    """

    num_told: int
    max_evaluations: int
    sources: Counter[str]
    statuses: Counter[str]
    num_invalid: int
    num_statements: int
    num_live: int
    num_challenges: int


def of(evolution: Evolution) -> Tally:
    """A running search's counts."""
    return Tally(
        num_told=evolution.num_told,
        max_evaluations=evolution.config.max_evaluations,
        sources=evolution.sources,
        statuses=evolution.statuses,
        num_invalid=evolution.num_invalid,
        num_statements=evolution.num_statements,
        num_live=evolution.num_live,
        num_challenges=evolution.num_challenges,
    )


def counts(tally: Tally) -> dict[str, str]:
    """A search's figures, by the names under which they are shown."""
    sources, statuses = tally.sources, tally.statuses
    trained = sources["evaluated"]
    # Those that diverged on the probe cost no training.
    diverged = statuses["diverged"] - sources["probe"]
    drawn = tally.num_told + tally.num_invalid
    cached = sources["structure"] + sources["behaviour"]
    return {
        "trained": f"{trained:,} of {tally.max_evaluations:,} distinct programs",
        "proposed": f"{tally.num_told:,}",
        "from cache": (
            f"{share(cached, tally.num_told)} "
            f"({sources['structure']:,} by structure, {sources['behaviour']:,} by behaviour)"
        ),
        "dead statements": share(tally.num_statements - tally.num_live, tally.num_statements),
        "invalid draws": share(tally.num_invalid, drawn),
        "rejected": f"{share(statuses['rejected'], trained)} of the trained, before their end",
        "diverged": (
            f"{share(diverged, trained)} of the trained; {sources['probe']:,} already on the probe"
        ),
        "hollow": (
            f"{share(statuses['hollow'] - sources['hollow'], trained)} of the trained; "
            f"{sources['hollow']:,} ignored the gradient"
        ),
        "failed": (
            f"{statuses['timeout']:,} out of time, {statuses['killed']:,} killed their workers, "
            f"{statuses['error']:,} other errors"
        ),
        "challenges": f"{max(tally.num_challenges - 1, 0):,} of the best, on fresh seeds",
    }


def share(part: int, whole: int) -> str:
    """A part in per cent."""
    return f"{part / whole:.0%}" if whole else "-"
