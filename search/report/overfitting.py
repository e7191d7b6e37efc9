"""Meta-overfitting: from when on a search fits its tasks and no longer what they stand for.

Lion (arXiv 2302.06675, section 2.3): fitness goes on rising while the score on meta-validation
falls, in half of the searches early; those where it sets in late find what generalises better. Here
the incumbents are looked at, whose scores on meta-validation decide nothing. A few seeds of a few
tasks are noisy, so the loss since the best of them comes with its standard error.
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
"""By candidate, and by task and seed: the log loss on meta-validation."""


@final
@dataclass(frozen=True, slots=True)
class Onset:
    """Where meta-overfitting set in.

    Attributes:
      best: the incumbent with the best score on meta-validation.
      since: programs trained when its time ended.
      last: the last incumbent with a score there.
      gained: the last one's fitness less the best one's; below 0.
      lost: the last one's score on meta-validation less the best one's; above 0.
      error: standard error of `lost` over the runs that both made; None where there are not two.
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
    """Finds it; None where the last incumbent is the best on meta-validation, or not the fittest.

    Args:
      incumbents: the incumbents, in order.
      meta_runs: of each incumbent.
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
    """The onset in two sentences.

    Args:
      found: it.
      num_trained: programs trained in all.
      name: the best incumbent's, for people.
    """
    share = found.since / max(num_trained, 1)
    error = formatting.plus_minus(found.error)
    if found.significant:
        judgement = "meta-overfitting set in there"
    else:
        judgement = "that may be noise, and is no clear meta-overfitting"
    return (
        f"Meta-validation was best with {name}, which was the incumbent until {found.since:,} "
        f"programs had been trained, {share:.0%} of the search. Since then the fitness went on by "
        f"{found.gained:+.3f} while meta-validation changed by {found.lost:+.3f}{error}: "
        f"{judgement}."
    )
