"""Meta-overfitting: from some point on, a search fits its tasks and no longer other tasks.

Lion (arXiv 2302.06675, section 2.3): fitness keeps improving while the score on meta-validation
gets worse; in half of the searches this begins early, and searches where it begins late find rules
that generalise better. Here it is measured on the incumbents, whose scores on meta-validation
decide nothing. A few seeds of a few tasks are noisy, so the loss since the best of them comes with
a standard error.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, final

import numpy as np

from veldt.search.report.report_data import Incumbent
from veldt.tasks.common import formatting

SIGNIFICANT: Final = 2.0  # standard errors

MetaRuns: TypeAlias = Mapping[int, Mapping[tuple[str, int], float]]
"""Log loss on meta-validation, by candidate, then by task and seed."""


@final
@dataclass(frozen=True, slots=True)
class Onset:
    """The point where meta-overfitting began.

    Attributes:
      best: Incumbent with the best score on meta-validation.
      since: Number of programs trained when the next incumbent replaced it.
      last: Last incumbent with a score on meta-validation.
      gained: Fitness of the last one less that of the best one; below 0.
      lost: Meta-validation score of the last one less that of the best one; above 0.
      error: Standard error of `lost` over the runs of both; None where they share fewer than two.
    """

    best: Incumbent
    since: int
    last: Incumbent
    gained: float
    lost: float
    error: float | None

    @property
    def significant(self) -> bool:
        """Whether the loss is at least `SIGNIFICANT` standard errors."""
        return self.error is not None and self.lost >= SIGNIFICANT * self.error


def onset(incumbents: Sequence[Incumbent], meta_runs: MetaRuns) -> Onset | None:
    """Find the onset; None where the last incumbent is best on meta-validation, or not the fittest.

    Args:
      incumbents: Incumbents, in order.
      meta_runs: Meta-validation runs of each incumbent.
    """
    scored = [
        (i, incumbent.meta) for i, incumbent in enumerate(incumbents) if incumbent.meta is not None
    ]
    if not scored:
        return None
    where, best_meta = min(scored, key=lambda pair: pair[1])
    last_index, last_meta = scored[-1]
    best, last = incumbents[where], incumbents[last_index]
    if not (last_meta > best_meta and last.fitness < best.fitness):
        return None
    ours, theirs = meta_runs.get(last.candidate, {}), meta_runs.get(best.candidate, {})
    paired = np.array([ours[run] - theirs[run] for run in ours.keys() & theirs.keys()])
    error = float(paired.std(ddof=1) / math.sqrt(len(paired))) if len(paired) > 1 else None
    return Onset(
        best=best,
        since=incumbents[where + 1].since,
        last=last,
        gained=last.fitness - best.fitness,
        lost=last_meta - best_meta,
        error=error,
    )


def describe(found: Onset, num_trained: int, name: str) -> str:
    """Return two sentences on an onset.

    Args:
      found: Onset to describe.
      num_trained: Number of programs trained in all.
      name: Name of the best incumbent, for people.
    """
    share = found.since / max(num_trained, 1)
    error = formatting.plus_minus(found.error)
    if found.significant:
        judgement = "meta-overfitting began there"
    else:
        judgement = "that may be noise, and is no clear meta-overfitting"
    return (
        f"Meta-validation was best with {name}, which was the incumbent until {found.since:,} "
        f"programs had been trained, {share:.0%} of the search. Since then the fitness changed by "
        f"{found.gained:+.3f} while meta-validation changed by {found.lost:+.3f}{error}: "
        f"{judgement}."
    )
