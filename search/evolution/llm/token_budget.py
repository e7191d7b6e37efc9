"""The budget of calls, tokens and money: what was spent, and what a call may cost at worst.

Tokens of calls that the search has learnt count as they were counted; those of calls under way
count as much as they may take at worst, whether they have arrived or not. So whether a call is made
depends on what was recorded and not on timing. At worst a call takes two requests, the second for a
repair, with answers of full length. How many tokens a prompt has is not known before it is counted:
a third of its bytes is more than most tokenizers make of programs. Requests that failed count
nothing, since no endpoint says what they cost.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, final

from veldt.search.config.llm_config import LlmConfig, ModelConfig
from veldt.search.storage.llm_calls import Learnt
from veldt.search.storage.store import Store

_WORST_BYTES_PER_TOKEN: Final = 3
_REPAIR_BYTES: Final = 8_192  # Words about what is wrong with an answer.


@final
@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens of prompts and answers, and their price."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost + other.cost,
        )

    @property
    def tokens(self) -> int:
        """The number of all tokens."""
        return self.prompt_tokens + self.completion_tokens


def worst(model: ModelConfig, *texts: str) -> Spent:
    """Return what a call may take at worst.

    Args:
      model: Model that is asked.
      texts: Parts of the prompt.
    """
    num_bytes = sum(len(text.encode()) for text in texts)
    prompt = math.ceil(num_bytes / _WORST_BYTES_PER_TOKEN)
    repair = prompt + model.max_tokens + math.ceil(_REPAIR_BYTES / _WORST_BYTES_PER_TOKEN)
    asked, written = prompt + repair, 2 * model.max_tokens
    return Spent(asked, written, model.cost(asked, written))


def spent(call: Learnt, model: ModelConfig) -> Spent:
    """Return what a call took that the search learns."""
    asked = sum(answer.prompt_tokens for answer in call.answers)
    written = sum(answer.completion_tokens for answer in call.answers)
    return Spent(asked, written, model.cost(asked, written))


def learnt(store: Store, config: LlmConfig) -> Spent:
    """Return what the calls took that a search has learnt."""
    prices = {model.name: model for model in config.asked}
    rows = store.rows(
        "SELECT model, SUM(prompt_tokens) AS asked, SUM(completion_tokens) AS written "
        "FROM llm_call WHERE requests > 0 GROUP BY model"
    )
    cost = sum(
        prices[row["model"]].cost(row["asked"], row["written"])
        for row in rows
        if row["model"] in prices
    )
    return Spent(sum(row["asked"] for row in rows), sum(row["written"] for row in rows), cost)


def allows(
    config: LlmConfig, num_calls: int, spent: Spent, under_way: Iterable[Spent], call: Spent
) -> bool:
    """Return whether a call may be made.

    Args:
      config: Config with the limits.
      num_calls: Number of calls made before.
      spent: What those calls took that were learnt.
      under_way: What each of the others may take at worst.
      call: What the call may take at worst.
    """
    all_worst = [spent, *under_way, call]
    limits = (
        (config.max_calls, num_calls + 1),
        (config.max_tokens_total, sum(each.tokens for each in all_worst)),
        (config.max_cost, sum(each.cost for each in all_worst)),
    )
    return all(limit is None or needed <= limit for limit, needed in limits)
