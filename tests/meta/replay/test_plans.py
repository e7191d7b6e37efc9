"""Plans against a simulation of their actions, and the binomial one against dynamic programming."""

import functools
import itertools

import hypothesis
import pytest
from hypothesis import strategies as st

from veldt.meta.replay import plans, revolve

NUM_STEPS = st.integers(1, 300)


@st.composite
def any_plan(draw):
    num_steps = draw(NUM_STEPS)
    kind = draw(st.sampled_from(["store-all", "root", "binomial", "k-ary", "within"]))
    match kind:
        case "store-all":
            return plans.store_all(num_steps)
        case "root":
            return plans.square_root(num_steps)
        case "binomial":
            return plans.binomial(num_steps, draw(st.integers(1, 40)), draw(st.integers(1, 12)))
        case "k-ary":
            return plans.kary(num_steps, draw(st.integers(2, 12)))
        case _:
            return plans.within(num_steps, draw(st.integers(2, 330)))


def simulate(plan):
    """Do what the plan says, on numbers; returns what it cost."""
    at_hand, position, forward, peak = 0, plan.num_steps, 0, 0
    stored, reached_end = set(), False
    for action in plan.actions():
        match action:
            case plans.Advance(first, last):
                assert at_hand == first < last
                forward += last - first
                at_hand = last
                reached_end |= last == plan.num_steps
            case plans.Store(step):
                assert at_hand == step and step not in stored
                stored.add(step)
            case plans.Load(step):
                assert step in stored
                at_hand = step
            case plans.Free(step):
                stored.remove(step)
            case plans.Reverse(first, last):
                assert at_hand == first and last == position
                assert 1 <= last - first <= plan.leaf_steps
                forward += last - first - 1 + (not reached_end)
                reached_end, at_hand, position = True, None, first
        peak = max(peak, len(stored))
    assert position == 0 and not stored
    return forward, peak


@hypothesis.given(any_plan())
@hypothesis.settings(max_examples=300)
def test_every_plan_reverses_every_step_once_in_order_at_the_predicted_cost(plan):
    forward, peak = simulate(plan)
    assert forward == plan.forward_steps == plan.rerun_steps + plan.num_steps
    assert peak == plan.peak_states
    assert plan.memory_states == peak + plan.leaf_steps


@functools.cache
def least_advances(num_leaves, slots):
    """By dynamic programming over every first split (Griewank & Walther, equation 3)."""
    if num_leaves == 1:
        return 0
    if slots == 1:
        return num_leaves * (num_leaves - 1) // 2
    return min(
        m + least_advances(num_leaves - m, slots - 1) + least_advances(m, slots)
        for m in range(1, num_leaves)
    )


def test_the_closed_forms_are_what_dynamic_programming_finds():
    for num_leaves, slots in itertools.product(range(1, 70), range(1, 9)):
        best = least_advances(num_leaves, slots)
        assert revolve.num_advances(num_leaves, slots) == best
        if num_leaves > 1 and slots > 1:
            m = revolve.split(num_leaves, slots)
            left = least_advances(num_leaves - m, slots - 1)
            assert m + left + least_advances(m, slots) == best


@pytest.mark.parametrize(
    ("num_steps", "arity"), [(1000, 2), (3125, 4), (3125, 8), (10_000, 4), (100_000, 8)]
)
def test_binomial_re_runs_three_quarters_of_what_replay_does_in_the_same_memory(num_steps, arity):
    replay = plans.kary(num_steps, arity)
    ours = plans.binomial(num_steps, 1, replay.memory_states - 1)
    assert ours.memory_states <= replay.memory_states
    assert ours.rerun_steps <= 0.75 * replay.rerun_steps


def test_k_ary_costs_what_the_paper_says():
    """About 1 + log_k T runs, and k states on a level (arXiv 2503.13751, section 2)."""
    plan = plans.kary(4**6, 4)
    assert 0.75 * 6 <= plan.forward_steps / plan.num_steps <= 7
    assert 3 * 5 <= plan.memory_states <= 4 * 6 + 1


@hypothesis.given(NUM_STEPS, st.integers(2, 60))
def test_more_memory_never_costs_more_work_within_a_budget(num_steps, memory_states):
    less, more = (plans.within(num_steps, memory_states + i) for i in (0, 1))
    assert less.memory_states <= memory_states
    assert more.forward_steps + 4 * more.num_leaves <= less.forward_steps + 4 * less.num_leaves


@hypothesis.given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(8, 3000))
@hypothesis.settings(max_examples=30)
def test_what_is_chosen_fits_the_memory(num_steps, state_bytes, states):
    plan = plans.choose(num_steps, state_bytes, states * state_bytes)
    assert (plan.memory_states + plans.WORKING_STATES) * state_bytes <= states * state_bytes


def test_a_budget_that_nothing_fits_says_what_is_needed():
    with pytest.raises(ValueError, match="8,000"):
        plans.choose(100, 1000, 7999)
    assert plans.choose(100, 1000, 8000).memory_states == 2


def test_without_a_budget_it_is_the_square_root():
    assert plans.choose(10_000, 1) == plans.square_root(10_000)
    assert plans.square_root(10_000).leaf_steps == 100
    assert plans.square_root(10_000).forward_steps < 2 * 10_000


def test_a_hundred_thousand_steps_are_planned_as_they_run():
    plan = plans.kary(100_000, 4)
    first = list(itertools.islice(plan.actions(), 20))
    assert isinstance(first[0], plans.Store)
    assert sum(isinstance(action, plans.Reverse) for action in plan.actions()) == plan.num_leaves


def test_the_line_that_is_printed():
    assert plans.binomial(100, 4, 3).describe(2**20) == (
        "binomial plan for 100 steps: 25 leaves of 4, at most 7 states at once (7.0 MiB), "
        f"{plans.binomial(100, 4, 3).forward_steps / 100:.2f} forward runs"
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: plans.binomial(0, 1, 1),
        lambda: plans.binomial(5, 0, 1),
        lambda: plans.binomial(5, 2, 0),
        lambda: plans.kary(5, 1),
        lambda: plans.within(5, 1),
    ],
)
def test_impossible_plans_are_errors(make):
    with pytest.raises(ValueError, match="must be at least"):
        make()
