"""The conclusion of a search's finals, in words that claim no more than the figures show.

The winner is compared with each baseline on the final seeds, which nothing was selected on. A
difference below two standard errors is called not significant, whatever its sign; so is any
difference that was measured on one seed. The standard error of a difference is the root of the sum
of both squared ones: both rules have the same seeds, so it is too large, if anything.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from veldt.search.config.finals_config import FinalsConfig
from veldt.search.storage.hall_entries import Entry
from veldt.tasks.common import formatting

SIGNIFICANT: Final = 2.0  # standard errors


@final
@dataclass(frozen=True, slots=True)
class Comparison:
    """The winner compared with one baseline on the final seeds.

    Attributes:
      baseline: Label of the baseline.
      difference: Mean log loss of the winner less the baseline's; below 0 the winner is better.
      standard_error: Standard error of the difference; None where there was one seed only.
      meta_difference: Difference on the meta-validation tasks; None where either has no score.
      floor: Tasks on which either is at the floor, where losses cannot be distinguished.
      meta_floor: Meta-validation tasks on which either is at the floor.
    """

    baseline: str
    difference: float
    standard_error: float | None
    meta_difference: float | None
    floor: tuple[str, ...] = ()
    meta_floor: tuple[str, ...] = ()

    @property
    def significant(self) -> bool:
        """Whether it is `SIGNIFICANT` standard errors or more, with error above 0 and no floor."""
        error = self.standard_error
        return (
            not self.floor
            and error is not None
            and error > 0
            and abs(self.difference) >= SIGNIFICANT * error
        )

    @property
    def loss_change(self) -> float:
        """The winner's loss over the baseline's, less 1: -0.1 is 10% less (geometric means)."""
        return math.expm1(min(self.difference, 700.0))

    def __str__(self) -> str:
        return f"{self.difference:+.3f}{formatting.plus_minus(self.standard_error)}"


def find_winner(entries: Sequence[Entry]) -> Entry | None:
    """Return the entry of the winner."""
    return next((entry for entry in entries if entry.winner), None)


def compare(entries: Sequence[Entry]) -> tuple[Comparison, ...]:
    """Compare the winner with every baseline that has a score; empty if the winner has none."""
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
            floor=_either(winner.end.at_floor, entry.end.at_floor),
            meta_floor=_either(winner.end.meta_at_floor, entry.end.meta_at_floor),
        )
        for entry in entries
        if entry.candidate < 0 and entry.final is not None
    )


def sentences(entries: Sequence[Entry], finals: FinalsConfig | None = None) -> str:
    """Return the outcome in a few sentences; empty before the finals have been played.

    Args:
      entries: Entries of the finals.
      finals: Config of the finals; by default, meta-validation did not choose the winner.
    """
    if not entries:
        return ""
    winner = find_winner(entries)
    if winner is None:
        return "No finalist could be trained at any learning rate of the finals."
    if winner.final is None:
        how = f" ({winner.end.failure})" if winner.end.failure else ""
        return (
            f"The winner, {winner.label}, failed on a final seed{how}: it is not a rule to rely on."
        )
    name = f"the discovered rule {winner.label}" if winner.candidate else winner.label
    comparisons = compare(entries)
    sentences = []
    if winner.candidate == 0:
        sentences.append("The search found nothing better than the rule that it started from.")
    better = [c for c in comparisons if c.significant and c.difference < 0]
    worse = [c for c in comparisons if c.significant and c.difference > 0]
    unclear = [c for c in comparisons if not c.significant and not c.floor]
    floored = [c for c in comparisons if c.floor]
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
        still = any(c.standard_error == 0.0 for c in unclear)
        why = (
            "one seed shows no spread"
            if one_seed
            else "all seeds gave one number, which is no evidence"
            if still
            else f"below {SIGNIFICANT:.0f} standard errors"
        )
        ahead = [c.baseline for c in unclear if c.difference > 0]
        sentences.append(
            f"Against {named} the difference of {name} on the final seeds is not significant "
            f"({why}){f'; {_join(ahead)} scored better' if ahead else ''}."
        )
    if floored:
        tasks = _join(list(dict.fromkeys(task for c in floored for task in c.floor)))
        sentences.append(
            f"Against {_join([c.baseline for c in floored])} no conclusion is possible: the losses "
            f"on {tasks} are at the floor, below which losses cannot be distinguished. A harder "
            "task, or fewer steps, would show a difference."
        )
    failed = [entry.label for entry in entries if entry.candidate < 0 and entry.final is None]
    if failed:
        sentences.append(f"{_join(failed)} failed on the final seeds.")
    if not comparisons and not failed:
        sentences.append(f"The run has no baselines to compare {name} with.")
    elsewhere = [
        f"{abs(gap):.3f} {'behind' if gap > 0 else 'ahead of'} {c.baseline}"
        for c in comparisons
        if (gap := c.meta_difference) is not None and not c.meta_floor
    ]
    if elsewhere:
        chose = finals is not None and finals.choose_by == "meta_validation"
        which = ", which chose it on other seeds," if chose else ""
        sentences.append(f"On the meta-validation tasks{which} it is {_join(elsewhere)}.")
    return " ".join(sentences)


def _either(ours: Sequence[str], theirs: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted({*ours, *theirs}))


def _join(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
