"""Relative odds and ranges in configs: checks and draws."""

from collections.abc import Collection, Mapping
from typing import TypeVar

import numpy as np

from veldt.tasks.common import spelling

_ChoiceT = TypeVar("_ChoiceT")


def check_odds(name: str, odds: Mapping[str, float], known: Collection[str]) -> None:
    """Raise a ValueError that names the field, unless `odds` are of known words and not all 0."""
    for key, weight in odds.items():
        if key not in known:
            hint = spelling.did_you_mean(key, known)
            raise ValueError(f"{name}: unknown {key!r}{hint}; known are {', '.join(known)}")
        if not 0 <= weight < float("inf"):
            raise ValueError(f"{name}.{key} is {weight}; odds are numbers of 0 or more")
    if not sum(odds.values()) > 0:
        raise ValueError(f"{name} has no entry above 0; it must have at least one")


def check_range(name: str, bounds: tuple[float, float]) -> None:
    """Raise a ValueError that names the field, unless 0 < least <= greatest."""
    low, high = bounds
    if not 0 < low <= high < float("inf"):
        raise ValueError(f"{name} has [{low}, {high}]; it must be 0 < least <= greatest")


def one(choices: tuple[_ChoiceT, ...], random: np.random.RandomState) -> _ChoiceT:
    """Draw one of the choices, all with the same odds."""
    return choices[random.randint(len(choices))]


def weighted(odds: Mapping[str, float], random: np.random.RandomState) -> str:
    """Draw a key with the odds that are the values."""
    total = np.cumsum(list(odds.values()))
    return list(odds)[int(np.searchsorted(total, random.uniform() * total[-1], side="right"))]
