"""What a search's finals show, in words that claim no more than the figures do.

The winner is compared with each baseline on the final seeds, which nothing was selected on. A
difference below two standard errors is called not significant, whatever its sign; so is any
difference that was measured on one seed. The standard error of a difference is the root of the sum
of both squared ones: both rules meet the same seeds, which makes it, if anything, too large.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from veldt.search.config import FinalsConfig
from veldt.search.finals import Entry

SIGNIFICANT: Final = 2.0  # standard errors


@final
@dataclass(frozen=True, slots=True)
class Comparison:
    """The winner against one baseline, on the final seeds.

    Attributes:
      baseline: its label.
      difference: mean log loss of the winner less the baseline's; below 0 the winner is better.
      standard_error: of the difference; None where there was one seed only.
      meta_difference: the same on the meta-validation tasks; None where either has no score.
    """

    baseline: str
    difference: float
    standard_error: float | None
    meta_difference: float | None

    @property
    def significant(self) -> bool:
        """Whether the difference is at least `SIGNIFICANT` standard errors."""
        return self.standard_error is not None and (
            abs(self.difference) >= SIGNIFICANT * self.standard_error
        )

    @property
    def loss_change(self) -> float:
        """The winner's loss over the baseline's, less 1: -0.1 is 10% less (geometric means)."""
        return math.expm1(min(self.difference, 700.0))

    def __str__(self) -> str:
        error = "" if self.standard_error is None else f" ± {self.standard_error:.3f}"
        return f"{self.difference:+.3f}{error}"


def find_winner(entries: Sequence[Entry]) -> Entry | None:
    """The entry that the run hands over."""
    return next((entry for entry in entries if entry.winner), None)


def compare(entries: Sequence[Entry]) -> tuple[Comparison, ...]:
    """The winner against every baseline that has a score; empty where the winner has none."""
    winner = find_winner(entries)
    if winner is None or winner.final is None:
        return ()
    return tuple(
        Comparison(
            baseline=entry.label,
            difference=winner.final - entry.final,
            standard_error=(
                None
                if winner.final_error is None or entry.final_error is None
                else math.hypot(winner.final_error, entry.final_error)
            ),
            meta_difference=(
                None if winner.meta is None or entry.meta is None else winner.meta - entry.meta
            ),
        )
        for entry in entries
        if entry.candidate < 0 and entry.final is not None
    )


def verdict(entries: Sequence[Entry], finals: FinalsConfig | None = None) -> str:
    """The outcome in a sentence or two; empty before the finals have been played.

    Args:
      entries: of the finals.
      finals: how they were played; by default, with a winner that meta-validation did not choose.
    """
    if not entries:
        return ""
    winner = find_winner(entries)
    if winner is None:
        return "No finalist could be trained at any learning rate of the finals."
    if winner.final is None:
        return f"The winner, {winner.label}, failed on a final seed: it is not a rule to rely on."
    name = f"the discovered rule {winner.label}" if winner.candidate else winner.label
    comparisons = compare(entries)
    sentences = []
    if winner.candidate == 0:
        sentences.append("The search found nothing better than the rule that it started from.")
    better = [c for c in comparisons if c.significant and c.difference < 0]
    worse = [c for c in comparisons if c.significant and c.difference > 0]
    unclear = [c for c in comparisons if not c.significant]
    if better:
        named = _join([f"{c.baseline} ({c}, {-c.loss_change:.0%} less loss)" for c in better])
        sentences.append(f"On the final seeds {name} is better than {named}.")
    if worse:
        named = _join([f"{c.baseline} ({c})" for c in worse])
        sentences.append(
            f"On the final seeds {name} is worse than {named}: a baseline is the better choice."
        )
    if unclear:
        named = _join([f"{c.baseline} ({c})" for c in unclear])
        one_seed = any(c.standard_error is None for c in unclear)
        why = "one seed shows no spread" if one_seed else f"below {SIGNIFICANT:.0f} standard errors"
        ahead = [c.baseline for c in unclear if c.difference > 0]
        sentences.append(
            f"Against {named} the difference of {name} on the final seeds is not significant "
            f"({why}){f'; {_join(ahead)} scored better' if ahead else ''}."
        )
    failed = [entry.label for entry in entries if entry.candidate < 0 and entry.final is None]
    if failed:
        sentences.append(f"{_join(failed)} failed on the final seeds.")
    if not comparisons and not failed:
        sentences.append(f"The run has no baselines to hold {name} against.")
    elsewhere = [
        f"{abs(gap):.3f} {'behind' if gap > 0 else 'ahead of'} {c.baseline}"
        for c in comparisons
        if (gap := c.meta_difference) is not None
    ]
    if elsewhere:
        chose = finals is not None and finals.choose_by == "meta_validation"
        tasks = "meta-validation tasks, which chose it," if chose else "meta-validation tasks"
        sentences.append(f"On the {tasks} it is {_join(elsewhere)}.")
    return " ".join(sentences)


def _join(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
