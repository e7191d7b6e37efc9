"""The choice of the model for a call, or of none: by lot, or by a bandit.

The bandit is UCB (Auer et al. 2002, "Finite-time analysis of the multiarmed bandit problem") over
the arms blind mutation and each model. What an arm earned is the fitness that its children gained
over their parents, for those that are better; what it cost is the training steps of its children
and, at a price that the user sets, its tokens. Steps stand for worker-seconds, which no run would
repeat. An arm's value is its gain per cost, relative to the best arm's, so the scale of losses does
not matter; the bonus for what is seldom tried is UCB's. Only the last proposals count, since gains
shrink as a search goes on (Garivier and Moulines 2011, sliding-window UCB). Calls under way count
as tried and not yet as gained. All of it is read from recorded rows, so the choice repeats.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from veldt.search.config.llm_config import BLIND, LlmConfig
from veldt.search.storage.llm_calls import MUTATION
from veldt.search.storage.store import Store

MEMORY: Final = 2_000
"""Number of the last proposals that count."""


@final
@dataclass(frozen=True, slots=True)
class Arm:
    """What is known of one choice.

    Attributes:
      name: Name of the model, or of blind mutation.
      num_tried: Number of children, those of calls under way included.
      gain: Sum of the gains in fitness over parents.
      cost: Training steps, and tokens at their price in steps.
    """

    name: str
    num_tried: int
    gain: float
    cost: float


def by_lot(rng: np.random.Generator, config: LlmConfig) -> str:
    """Return the name of a model, drawn by the models' shares."""
    shares = np.array([model.share for model in config.asked])
    return config.asked[int(rng.choice(len(shares), p=shares / shares.sum()))].name


def best(arms: Sequence[Arm]) -> str:
    """Return the arm with the highest upper bound; the first of equals, and of those untried."""
    for arm in arms:
        if not arm.num_tried:
            return arm.name
    most = math.log(sum(arm.num_tried for arm in arms))
    values = [arm.gain / max(arm.cost, 1.0) for arm in arms]
    scale = max(values) or 1.0
    bounds = [
        value / scale + math.sqrt(most / arm.num_tried)
        for value, arm in zip(values, arms, strict=True)
    ]
    return arms[bounds.index(max(bounds))].name


def arms(store: Store, config: LlmConfig, under_way: Mapping[str, int]) -> list[Arm]:
    """Return what is known of all arms, the models first.

    Args:
      store: Store of the search, with all that was recorded.
      config: Config of the models.
      under_way: Number of programs asked for and not yet recorded, by model.
    """
    first = int(store.first("SELECT COUNT(*) FROM proposal")) - MEMORY
    # Founders, copies and immigrants are nobody's children.
    rows = store.rows(
        "SELECT CASE WHEN p.mutation LIKE 'llm %' THEN p.mutation ELSE '' END AS arm, "
        "COUNT(*) AS num, "
        "SUM(CASE WHEN p.source = 'evaluated' THEN c.num_steps ELSE 0 END) AS steps, "
        "SUM(CASE WHEN p.source = 'evaluated' AND c.fitness < d.fitness "
        "THEN d.fitness - c.fitness ELSE 0.0 END) AS gain "
        "FROM proposal p JOIN candidate c ON c.id = p.candidate "
        "LEFT JOIN proposal q ON q.id = p.parent "
        "JOIN candidate d ON d.id = COALESCE(q.candidate, 0) "
        "WHERE p.id >= ? AND p.mutation NOT LIKE 'founder %' "
        "AND p.mutation NOT IN ('sample', 'immigrant') GROUP BY arm",
        (first,),
    )
    known = {row["arm"].removeprefix(MUTATION) or BLIND: row for row in rows}
    tokens = store.rows(
        "SELECT model, SUM(prompt_tokens + completion_tokens) AS num FROM llm_call "
        "WHERE due >= ? AND requests > 0 GROUP BY model",
        (first,),
    )
    spent = {row["model"]: row["num"] * config.steps_per_token for row in tokens}
    found = []
    for name in (*(model.name for model in config.asked), BLIND):
        row = known.get(name, {"num": 0, "steps": 0, "gain": 0.0})
        num_tried = row["num"] + under_way.get(name, 0)
        found.append(Arm(name, num_tried, row["gain"], row["steps"] + spent.get(name, 0.0)))
    return found
