"""The choice of the model for a call, or of none: by lot, or by a bandit.

The bandit is UCB (Auer et al. 2002, "Finite-time analysis of the multiarmed bandit problem") over
the arms blind mutation and each model. What an arm earns with a child is the fitness that the child
gained over its parent, if it is better. What it costs is the training steps of its children and, at
a price that the user sets, its tokens; steps stand for worker-seconds, which no run would repeat.
An arm's index is the upper bound of its gain per child, over its cost per child. Gains are rare and
of any scale, so the bound has their own variance, over all arms, as UCB-V has (Audibert et al.
2009): a fixed width would drop an arm for good that had no luck at first. Only the last proposals
count, since gains shrink as a search goes on (Garivier and Moulines 2011). Calls under way count as
tried and not yet as gained. All of it is read from recorded rows, so the choice repeats.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from veldt.search.config.llm_config import BLIND, LlmConfig
from veldt.search.storage.llm_calls import MUTATION
from veldt.search.storage.store import Store

_LEAST_COST: Final = 1e-9
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
      squares: Sum of the squares of these gains.
      cost: Training steps, and tokens at their price in steps.
    """

    name: str
    num_tried: int
    gain: float
    squares: float
    cost: float


def by_lot(rng: np.random.Generator, config: LlmConfig) -> str:
    """Return the name of a model, drawn by the models' shares."""
    shares = np.array([model.share for model in config.asked])
    return config.asked[int(rng.choice(len(shares), p=shares / shares.sum()))].name


def best(arms: Sequence[Arm]) -> str:
    """Return the arm with the highest index; of equal ones the least tried, then the first."""
    num_tried = sum(arm.num_tried for arm in arms)
    cost = sum(arm.cost for arm in arms) / max(num_tried, 1)
    variance = sum(arm.squares for arm in arms) / max(num_tried, 1)

    def index(arm: Arm) -> float:
        if not arm.num_tried:
            return math.inf
        width = math.sqrt(variance * math.log(num_tried) / arm.num_tried)
        # With one more child of the mean cost, so that an arm of duplicates has a cost too.
        each = (arm.cost + cost) / (arm.num_tried + 1)
        return (arm.gain / arm.num_tried + width) / max(each, _LEAST_COST)

    return max(arms, key=lambda arm: (index(arm), -arm.num_tried)).name


def arms(store: Store, config: LlmConfig, under_way: Mapping[str, int]) -> list[Arm]:
    """Return what is known of all arms, the models first.

    Args:
      store: Store of the search, with all that was recorded.
      config: Config of the models.
      under_way: Number of programs asked for and not yet recorded, by model.
    """
    first = int(store.first("SELECT COALESCE(MAX(id), -1) + 1 FROM proposal")) - MEMORY
    # Founders, copies and immigrants are nobody's children.
    rows = store.rows(
        "SELECT CASE WHEN p.mutation LIKE 'llm %' THEN p.mutation ELSE '' END AS arm, "
        "COUNT(*) AS num, "
        "SUM(CASE WHEN p.source = 'evaluated' THEN c.num_steps ELSE 0 END) AS steps, "
        "SUM(CASE WHEN p.source = 'evaluated' AND c.fitness < d.fitness "
        "THEN d.fitness - c.fitness ELSE 0.0 END) AS gain, "
        "SUM(CASE WHEN p.source = 'evaluated' AND c.fitness < d.fitness "
        "THEN (d.fitness - c.fitness) * (d.fitness - c.fitness) ELSE 0.0 END) AS squares "
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
        row = known.get(name, {"num": 0, "steps": 0, "gain": 0.0, "squares": 0.0})
        num_tried = row["num"] + under_way.get(name, 0)
        cost = row["steps"] + spent.get(name, 0.0)
        found.append(Arm(name, num_tried, row["gain"], row["squares"], cost))
    return found
