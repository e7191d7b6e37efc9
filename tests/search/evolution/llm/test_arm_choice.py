"""The choice of a model: lots by shares, and the bandit against its definition."""

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
    assert arm_choice.best([Arm("a", 9, 5.0, 4.0, 1.0), Arm("b", 0, 0.0, 0.0, 0.0)]) == "b"


def test_before_any_gain_the_least_tried_is_next():
    arms = [Arm(name, tried, 0.0, 0.0, 50.0) for name, tried in (("a", 4), ("b", 2), ("c", 2))]
    assert arm_choice.best(arms) == "b"


ARMS = st.lists(
    st.tuples(st.integers(1, 500), st.floats(0, 5), st.floats(0, 5), st.floats(0, 1e5)),
    min_size=1,
    max_size=4,
)


@given(ARMS)
def test_the_index_is_an_upper_bound_of_gain_per_cost(found):
    arms = [Arm(f"arm {i}", *values) for i, values in enumerate(found)]
    tried, gains, squares, costs = (np.array(part, float) for part in zip(*found, strict=True))
    width = np.sqrt(squares.sum() / tried.sum() * np.log(tried.sum()) / tried)
    each = np.maximum((costs + costs.sum() / tried.sum()) / (tried + 1), 1e-9)
    indices = (gains / tried + width) / each
    chosen = [arm.name for arm in arms].index(arm_choice.best(arms))
    np.testing.assert_allclose(indices[chosen], indices.max(), rtol=1e-9)


def play(seed, odds, costs, rounds=1500):
    """How often each arm is chosen in a game with known odds of a gain, and costs of a child."""
    rng = np.random.default_rng(seed)
    tried, gain, squares = Counter(dict.fromkeys(odds, 1)), Counter(), Counter()
    for _ in range(rounds):
        arms = [
            Arm(name, tried[name], gain[name], squares[name], costs[name] * tried[name])
            for name in odds
        ]
        name = arm_choice.best(arms)
        tried[name] += 1
        if rng.random() < odds[name]:
            size = rng.exponential()
            gain[name] += size
            squares[name] += size**2
    return tried


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("low", [0.2, 0.02])
def test_who_gains_more_is_chosen_more(seed, low):
    tried = play(seed, {"bad": low, "good": 3 * low}, {"bad": 10.0, "good": 10.0})
    assert tried["good"] > 1.5 * tried["bad"] > 10


@pytest.mark.parametrize("seed", range(5))
def test_who_costs_less_is_chosen_more(seed):
    tried = play(seed, {"dear": 0.1, "cheap": 0.1}, {"dear": 40.0, "cheap": 10.0})
    assert tried["cheap"] > 1.5 * tried["dear"]


def test_what_arms_earned_is_what_the_rows_say(tmp_path):
    with chat_server.Scripted() as server:
        config = searches.llm(server.url, steps_per_token=0.5)
        searches.search(tmp_path, config)
    proposals = {row["id"]: row for row in searches.rows(tmp_path, "SELECT * FROM proposal")}
    fitness = {
        row["id"]: row for row in searches.rows(tmp_path, "SELECT * FROM candidate WHERE id >= 0")
    }
    gains, squares, costs, nums = Counter(), Counter(), Counter(), Counter()
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
            squares[arm] += max(theirs - ours, 0.0) ** 2
    tokens = "SELECT SUM(prompt_tokens + completion_tokens) AS n FROM llm_call"
    costs["m"] += 0.5 * searches.rows(tmp_path, tokens)[0]["n"]
    with Store.open(tmp_path, read_only=True) as store:
        arms = arm_choice.arms(store, config, {"m": 4})
    assert [arm.name for arm in arms] == ["m", "mutation"]
    for arm in arms:
        assert arm.num_tried == nums[arm.name] + (4 if arm.name == "m" else 0)
        assert arm.gain == pytest.approx(gains[arm.name]) and arm.gain > 0
        assert arm.squares == pytest.approx(squares[arm.name])
        assert arm.cost == pytest.approx(costs[arm.name])
