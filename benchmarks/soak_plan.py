"""The plan of a soak: which faults fall on which command, in rounds; the sums of their records."""

import collections
import dataclasses
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

import soak_faults

SHARES: Final = {"search": 30, "meta-train": 25, "evaluate": 25, "tune": 20}  # Of the faults.
ROUND: Final = 10  # The most faults of one round.
VARIANTS: Final = 2


@final
@dataclasses.dataclass(frozen=True)
class Round:
    """Faults on one command, in their order."""

    command: str
    variant: int
    kinds: tuple[str, ...]


def plan(
    rng: random.Random, names: Sequence[str], num_faults: int | None, *, has_links: bool
) -> list[Round]:
    """Return the rounds of a soak.

    Args:
      rng: Source of the faults.
      names: Commands.
      num_faults: Number of faults of all kinds; None for one of each kind on each command.
      has_links: Whether links can be cut and slowed.
    """
    rounds: list[list[Round]] = []
    total = sum(SHARES[name] for name in names)
    for name in names:
        weights = soak_faults.kinds(has_links=has_links)
        drawn = list(weights)  # Each at least once, as far as there are so many.
        rng.shuffle(drawn)
        if num_faults is not None:
            count = round(num_faults * SHARES[name] / total)
            drawn += rng.choices(list(weights), list(weights.values()), k=count)
            drawn = drawn[:count]
            rng.shuffle(drawn)
        parts = [drawn[i : i + ROUND] for i in range(0, len(drawn), ROUND)]
        rounds.append([Round(name, i % VARIANTS, tuple(part)) for i, part in enumerate(parts)])
    longest = max(map(len, rounds))
    return [one[i] for i in range(longest) for one in rounds if i < len(one)]


def summary(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sums of rounds: by command, and of all."""
    commands: dict[str, dict[str, Any]] = {}
    faults = collections.Counter[str]()
    for each in rounds:
        one = commands.setdefault(
            each["command"], {"faults": collections.Counter(), "runs_compared": 0, "checks": 0}
        )
        one["faults"].update(each["faults"])
        faults.update(each["faults"])
        one["runs_compared"] += each["runs_compared"]
        one["checks"] += each["checks"]
    return {
        "faults": dict(sorted(faults.items())),
        "num_faults": faults.total(),
        "commands": {
            name: {**one, "faults": dict(sorted(one["faults"].items()))}
            for name, one in commands.items()
        },
    }


def read_state(path: Path, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rounds that an interrupted soak of the same settings has finished."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    rounds: list[dict[str, Any]] = found["rounds"] if found["settings"] == settings else []
    if rounds:
        print(f"going on after {len(rounds)} rounds; they are in {path}", flush=True)
    return rounds
