"""What language models cost and what they bought, in figures for people.

Tokens and requests are counted over all answers that arrived, also those that came too late for the
search; children are counted by what the search recorded. Blind mutation is counted beside the
models, so that both can be compared at what they trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, final

from veldt.search.config.llm_config import BLIND, LlmConfig
from veldt.search.storage import llm_calls
from veldt.search.storage.store import Store

_ARM: Final = "CASE WHEN p.mutation LIKE 'llm %' THEN SUBSTR(p.mutation, 5) ELSE '' END"
_CHILDREN: Final = f"""
SELECT {_ARM} AS arm, COUNT(*) AS num, SUM(p.source = 'evaluated') AS trained,
  SUM(p.source = 'evaluated' AND c.fitness < d.fitness) AS better
FROM proposal p JOIN candidate c ON c.id = p.candidate
LEFT JOIN proposal q ON q.id = p.parent JOIN candidate d ON d.id = COALESCE(q.candidate, 0)
WHERE p.mutation NOT LIKE 'founder %' AND p.mutation NOT IN ('sample', 'immigrant')
GROUP BY arm
"""
_BESTS: Final = f"""
SELECT {_ARM} AS arm, COUNT(*) AS num FROM challenge h JOIN proposal p ON p.id = h.proposal
WHERE h.won = 1 AND h.id > 0 GROUP BY arm
"""
_ANSWERS: Final = """
SELECT c.model, SUM(a.prompt_tokens) AS asked, SUM(a.completion_tokens) AS written,
  SUM(a.estimated * (a.prompt_tokens + a.completion_tokens)) AS estimated, SUM(a.tries) AS requests
FROM llm_answer a JOIN llm_call c ON c.id = a.call GROUP BY c.model
"""
_CALLS: Final = """
SELECT model, COUNT(*) AS num, SUM(status LIKE 'failed: %') AS failed,
  SUM(programs = 0 AND status <> 'under way' AND status NOT LIKE 'failed: %') AS useless
FROM llm_call WHERE digest <> '' GROUP BY model
"""


@final
@dataclass(frozen=True, slots=True)
class ArmFigures:
    """What one model, or blind mutation, cost and bought.

    Attributes:
      name: Name of the model, or of blind mutation.
      num_calls: Number of calls made.
      num_failed: Number of calls without an answer.
      num_useless: Number of answers without any program.
      num_requests: Number of requests made, failed ones included.
      prompt_tokens: Number of tokens of prompts.
      completion_tokens: Number of tokens of answers.
      estimated_tokens: Number of these tokens that are estimates.
      num_children: Number of proposals.
      num_trained: Number of proposals that were new and were trained.
      num_better: Number of proposals with a better fitness than the parent's.
      num_bests: Number of times that a proposal became the best.
    """

    name: str
    num_calls: int
    num_failed: int
    num_useless: int
    num_requests: int
    prompt_tokens: int
    completion_tokens: int
    estimated_tokens: int
    num_children: int = 0
    num_trained: int = 0
    num_better: int = 0
    num_bests: int = 0

    @property
    def num_tokens(self) -> int:
        """The number of all tokens."""
        return self.prompt_tokens + self.completion_tokens


def read(store: Store) -> list[ArmFigures]:
    """Return the figures of all models that were asked, and of blind mutation, the last."""
    children = {row["arm"] or BLIND: row for row in store.rows(_CHILDREN)}
    bests = {row["arm"] or BLIND: row["num"] for row in store.rows(_BESTS)}
    found = []
    for arm in read_costs(store):
        child = children.get(arm.name, {})
        found.append(
            replace(
                arm,
                num_children=child.get("num", 0),
                num_trained=child.get("trained", 0),
                num_better=child.get("better", 0),
                num_bests=bests.get(arm.name, 0),
            )
        )
    return found


def read_costs(store: Store) -> list[ArmFigures]:
    """Return the same figures without those of the children, which take longer to read."""
    calls = {row["model"]: row for row in store.rows(_CALLS)}
    answers = {row["model"]: row for row in store.rows(_ANSWERS)}
    found = []
    for name in (*sorted(calls), BLIND):
        call, answer = calls.get(name, {}), answers.get(name, {})
        found.append(
            ArmFigures(
                name,
                call.get("num", 0),
                call.get("failed", 0),
                call.get("useless", 0),
                answer.get("requests", 0),
                answer.get("asked", 0),
                answer.get("written", 0),
                answer.get("estimated", 0),
            )
        )
    return found


def tokens_line(arms: Sequence[ArmFigures], config: LlmConfig) -> str:
    """Return the calls, tokens and the price of all models, on one line."""
    tokens, estimated = (
        sum(arm.num_tokens for arm in arms),
        sum(arm.estimated_tokens for arm in arms),
    )
    text = f"{sum(arm.num_calls for arm in arms):,} calls, {tokens:,} tokens"
    if estimated:
        text += f" ({estimated:,} of them estimated)"
    return text + _price(arms, config)


def closing_lines(store: Store, config: LlmConfig) -> list[str]:
    """Return the lines that state what the models of a run cost and what they bought."""
    arms = read(store)
    query = "SELECT COUNT(*) FROM llm_call WHERE status = ?"
    refused = int(store.first(query, (llm_calls.REFUSED,)))
    more = f"; {refused:,} more were beyond the budget" if refused else ""
    lines = [f"language models: {tokens_line(arms, config)}{more}"]
    for arm in arms:
        if arm.name != BLIND:
            cost = (
                f"{arm.num_calls:,} calls ({arm.num_failed:,} failed, {arm.num_useless:,} without "
                f"a program), {arm.prompt_tokens:,} tokens of prompts and "
                f"{arm.completion_tokens:,} of answers{_price([arm], config)}; "
            )
            each = f", {arm.num_tokens / arm.num_better:,.0f} tokens each" if arm.num_better else ""
        else:
            cost = each = ""
        lines.append(
            f"{arm.name}: {cost}{arm.num_children:,} proposed, {arm.num_trained:,} trained, "
            f"{arm.num_better:,} better than their parents{each}; new bests: {arm.num_bests:,}"
        )
    return lines


def _price(arms: Sequence[ArmFigures], config: LlmConfig) -> str:
    """Return the price of tokens where prices are known; empty where none is."""
    models = {model.name: model for model in config.asked if model.has_prices}
    priced = [(models[arm.name], arm) for arm in arms if arm.name in models]
    if not priced:
        return ""
    cost = sum(model.cost(arm.prompt_tokens, arm.completion_tokens) for model, arm in priced)
    return f", at a price of {cost:,.4g}"
