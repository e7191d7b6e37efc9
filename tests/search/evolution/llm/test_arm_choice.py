"""The choice of a model: lots by shares, and the bandit against its definition."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search import chat_server
from tests.search.evolution.llm import searches
from veldt.search.config.llm_config import LlmConfig, ModelConfig
from veldt.search.evolution.llm import arm_choice
from veldt.search.evolution.llm.arm_choice import Arm
from veldt.search.storage.store import Store

MODELS = (ModelConfig("a", "http://h", share=1.0), ModelConfig("b", "http://h", share=3.0))


def test_lots_fall_by_the_shares():
    rng = np.random.default_rng(0)
    drawn = Counter(arm_choice.by_lot(rng, LlmConfig(models=MODELS)) for _ in range(4000))
    assert drawn["b"] / 4000 == pytest.approx(0.75, abs=0.04)


def test_what_was_never_tried_is_tried_first():
    assert arm_choice.best([Arm("a", 9, 5.0, 1.0), Arm("b", 0, 0.0, 0.0)]) == "b"


ARMS = st.lists(
    st.tuples(st.integers(1, 500), st.floats(0, 5), st.floats(0, 1e5)), min_size=1, max_size=4
)


@given(ARMS)
def test_the_bandit_is_ucb_on_gain_per_cost(found):
    arms = [Arm(f"arm {i}", *values) for i, values in enumerate(found)]
    total = sum(arm.num_tried for arm in arms)
    rates = [arm.gain / max(arm.cost, 1.0) for arm in arms]
    top = max(rates)
    scores = [
        (rate / top if top else 0.0) + math.sqrt(math.log(total) / arm.num_tried)
        for rate, arm in zip(rates, arms, strict=True)
    ]
    chosen = [arm.name for arm in arms].index(arm_choice.best(arms))
    assert scores[chosen] == pytest.approx(max(scores))


@pytest.mark.parametrize("seed", range(5))
def test_a_better_arm_is_chosen_most(seed):
    """In a game with known odds: an arm that gains three times as much per cost."""
    rng = np.random.default_rng(seed)
    tried, gain = Counter(good=1, bad=1), Counter()
    for _ in range(600):
        arms = [Arm(name, tried[name], gain[name], 10.0 * tried[name]) for name in ("bad", "good")]
        name = arm_choice.best(arms)
        tried[name] += 1
        gain[name] += rng.random() < (0.6 if name == "good" else 0.2)
    assert tried["good"] > 1.5 * tried["bad"] > 10


def test_what_arms_earned_is_what_the_rows_say(tmp_path):
    with chat_server.Scripted() as server:
        config = searches.llm(server.url, steps_per_token=0.5)
        searches.search(tmp_path, config)
    proposals = {row["id"]: row for row in searches.rows(tmp_path, "SELECT * FROM proposal")}
    fitness = {
        row["id"]: row for row in searches.rows(tmp_path, "SELECT * FROM candidate WHERE id >= 0")
    }
    gains, costs, nums = Counter(), Counter(), Counter()
    for row in proposals.values():
        arm = "m" if row["mutation"] == "llm m" else "mutation"
        nums[arm] += 1
        if row["source"] != "evaluated":
            continue
        costs[arm] += fitness[row["candidate"]]["num_steps"]
        parent = 0 if row["parent"] is None else proposals[row["parent"]]["candidate"]
        ours, theirs = fitness[row["candidate"]]["fitness"], fitness[parent]["fitness"]
        if None not in (ours, theirs):
            gains[arm] += max(theirs - ours, 0.0)
    tokens = "SELECT SUM(prompt_tokens + completion_tokens) AS n FROM llm_call"
    costs["m"] += 0.5 * searches.rows(tmp_path, tokens)[0]["n"]
    with Store.open(tmp_path, read_only=True) as store:
        arms = arm_choice.arms(store, config, {"m": 4})
    assert [arm.name for arm in arms] == ["m", "mutation"]
    for arm in arms:
        assert arm.num_tried == nums[arm.name] + (4 if arm.name == "m" else 0)
        assert arm.gain == pytest.approx(gains[arm.name]) and arm.gain > 0
        assert arm.cost == pytest.approx(costs[arm.name])
