"""How a program came about: the mutations that led to it, what each changed and what it gained.

Steps that left the behaviour as it was (dead code, mostly) are counted and not shown. Programs are
compared in the form that people read, simplified and nested. Names of intermediate values, which
change with every insertion, make no difference.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, final

from veldt.search import simplify
from veldt.search.language import printing
from veldt.search.program import Program
from veldt.search.report.report_data import Ancestor

# Numbers that evolution drew, with more digits than anyone reads.
_NUMBER: Final = re.compile(r"\d+\.\d{5,}(e[+-]\d+)?")


@final
@dataclass(frozen=True, slots=True)
class Change:
    """A step's change to the text of a program: removed and added lines, and changed settings."""

    removed: tuple[str, ...]
    added: tuple[str, ...]
    settings: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class Step:
    """A step that altered the behaviour.

    Attributes:
      ancestor: Proposal that made the step.
      num_neutral: Number of neutral steps between the last step shown and this one.
      change: Difference to the last step shown.
      gain: Fitness less that of the last step shown that has one, below 0 where it is better; None
        where there is nothing to compare.
    """

    ancestor: Ancestor
    num_neutral: int
    change: Change
    gain: float | None


def steps(
    initial: Program,
    learning_rate: float,
    lineage: Sequence[Ancestor],
    fitness: float | None = None,
) -> tuple[Step, ...]:
    """Return the steps of a lineage that altered something, the first against the initial rule.

    Args:
      initial: Initial rule.
      learning_rate: Learning rate of the initial rule.
      lineage: Proposals, each the parent of the next.
      fitness: Fitness of the initial rule.
    """
    shown: list[Step] = []
    candidate, num_neutral = 0, 0
    program, rate = initial, learning_rate
    for ancestor in lineage:
        if ancestor.candidate == candidate:
            num_neutral += 1
            continue
        change = compare(program, rate, ancestor.program, ancestor.learning_rate)
        gain = None
        if ancestor.fitness is not None and fitness is not None:
            gain = ancestor.fitness - fitness
        shown.append(Step(ancestor, num_neutral, change, gain))
        candidate, num_neutral = ancestor.candidate, 0
        fitness = fitness if ancestor.fitness is None else ancestor.fitness
        program, rate = ancestor.program, ancestor.learning_rate
    return tuple(shown)


def compare(before: Program, rate_before: float, after: Program, rate_after: float) -> Change:
    """Return what differs between two programs and their learning rates."""
    before, after = simplify.prune(before), simplify.prune(after)
    old, new = _body(before), _body(after)
    matcher = difflib.SequenceMatcher(None, _keys(old), _keys(new), autojunk=False)
    removed: list[str] = []
    added: list[str] = []
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind != "equal":
            removed += old[a:b]
            added += new[c:d]
    settings = _settings(dict(before.constants), dict(after.constants))
    if rate_before != rate_after:
        settings = (f"learning rate {rate_before:.4g} → {rate_after:.4g}", *settings)
    return Change(tuple(removed), tuple(added), settings)


def _body(program: Program) -> list[str]:
    text = printing.pretty(replace(program, doc=""))
    return [_NUMBER.sub(_short, line.strip()) for line in text.rstrip().split("\n")[1:]]


def _short(match: re.Match[str]) -> str:
    return f"{float(match[0]):.4g}"


def _keys(lines: Sequence[str]) -> list[str]:
    return [re.sub(r"\bt\d+\b", "t", line) for line in lines]


def _settings(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[str, ...]:
    # A constant that is added or removed shows in the lines that read it.
    both = [name for name in before if name in after]
    return tuple(
        f"{name} {before[name]:.4g} → {after[name]:.4g}"
        for name in both
        if before[name] != after[name]
    )
