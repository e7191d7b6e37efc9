"""The budget: what a call may cost at worst, and what is left for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veldt.search.config.llm_config import LlmConfig, ModelConfig
from veldt.search.evolution.llm import token_budget
from veldt.search.evolution.llm.token_budget import Spent

MODEL = ModelConfig("m", "http://h", max_tokens=100, input_price=2.0, output_price=10.0)


def test_a_call_at_worst_is_two_requests():
    found = token_budget.worst(MODEL, "x" * 300, "y" * 300)
    assert found.completion_tokens == 200
    assert found.prompt_tokens == 200 + (200 + 100) + 2731  # With words about what was wrong.
    assert found.cost == pytest.approx((found.prompt_tokens * 2 + 200 * 10) / 1e6)


NUMBERS = st.integers(0, 50)


@given(NUMBERS, st.lists(NUMBERS, max_size=5), NUMBERS, st.none() | NUMBERS, st.none() | NUMBERS)
def test_no_limit_is_passed_at_worst(spent, under_way, call, most, most_cost):
    config = LlmConfig(models=(MODEL,), max_tokens_total=most, max_cost=most_cost)
    total = spent + sum(under_way) + call
    allowed = token_budget.allows(
        config,
        7,
        Spent(spent, 0, float(spent)),
        [Spent(0, each, float(each)) for each in under_way],
        Spent(call, 0, float(call)),
    )
    assert allowed == (
        (most is None or total <= most) and (most_cost is None or total <= most_cost)
    )


@pytest.mark.parametrize(("num_calls", "allowed"), [(0, True), (2, True), (3, False), (9, False)])
def test_calls_are_counted(num_calls, allowed):
    config = LlmConfig(models=(MODEL,), max_calls=3)
    assert token_budget.allows(config, num_calls, Spent(), [], Spent()) == allowed
