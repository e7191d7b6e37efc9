"""Tuning a rule's numbers: every kind of number moves, and what comes out was scored."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veldt.search import constants
from veldt.search.mutation import Genotype
from veldt.search.program import Program

RULE = Program.parse(
    "def rule(w, g, m, *, b1=0.9, gain=3.0, shift=-2.5, wd=0.0):\n"
    "    m = interp(g, m, b1)\n"
    "    x = m * gain + shift\n"
    "    x = x * 0.3\n"
    "    return x + wd * w, m\n"
)
TARGET = {"rate": 0.02, "b1": 0.99, "gain": 7.0, "shift": -1.0, "wd": 0.005, "c1": 0.1}


def misfit(genotype):
    """How far every number is from the target, in its own kind of distance."""
    values = dict(genotype.program.constants)
    logit = sum(
        (np.log(values[k] / (1 - values[k])) - np.log(TARGET[k] / (1 - TARGET[k]))) ** 2
        for k in ("b1", "c1")
    )
    logs = sum(math.log(values[k] / TARGET[k]) ** 2 for k in ("gain", "shift"))
    return (
        logit
        + logs
        + math.log(genotype.learning_rate / TARGET["rate"]) ** 2
        + ((values["wd"] - TARGET["wd"]) / 0.01) ** 2
    )


def score_all(genotypes):
    return [misfit(genotype) for genotype in genotypes]


def test_all_numbers_are_found_where_the_score_is_plain():
    config = constants.TuningConfig(budget=721, generation=12)
    found = constants.tune(Genotype(RULE, 1e-3), score_all, config, seed=0)
    assert found.num_evaluations == 721
    assert found.score == misfit(found.genotype) < 1e-3 < found.start_score
    values = dict(found.genotype.program.constants)
    assert values["b1"] == pytest.approx(0.99, abs=1e-3)
    assert values["shift"] == pytest.approx(-1.0, rel=0.05)


def test_equal_seeds_give_equal_rules_and_others_do_not():
    config = constants.TuningConfig(budget=25)
    one, again, other = (
        constants.tune(Genotype(RULE, 1e-3), score_all, config, seed=seed) for seed in (1, 1, 2)
    )
    assert one == again
    assert one.genotype != other.genotype


def test_no_more_is_spent_than_whole_generations_of_the_budget():
    asked, told = [], []

    def count(genotypes):
        asked.append(len(genotypes))
        return score_all(genotypes)

    config = constants.TuningConfig(budget=40, generation=12)
    constants.tune(Genotype(RULE, 1e-3), count, config, 0, lambda *done: told.append(done))
    assert asked == [1, 12, 12, 12]
    assert told == [(1, 37), (13, 37), (25, 37), (37, 37)]


def test_failures_are_never_chosen():
    def fails_above(genotypes):
        return [math.nan if g.learning_rate > 1e-3 else misfit(g) for g in genotypes]

    config = constants.TuningConfig(budget=121)
    found = constants.tune(Genotype(RULE, 1e-3), fails_above, config, seed=0)
    assert found.genotype.learning_rate <= 1e-3
    assert found.score < found.start_score


def test_where_everything_fails_the_start_comes_back():
    config = constants.TuningConfig(budget=25)
    found = constants.tune(Genotype(RULE, 1e-3), lambda g: [math.inf] * len(g), config, seed=0)
    assert found.score == found.start_score == math.inf
    assert found.genotype.learning_rate == 1e-3


numbers = st.one_of(
    st.just(0.0),
    st.floats(1e-9, 1 - 1e-6),
    st.floats(1.0, 1e6),
    st.floats(-1e6, -1e-9),
)


@given(st.lists(numbers, min_size=4, max_size=4), st.floats(1e-6, 10.0))
def test_a_rule_has_its_own_numbers_at_its_own_coordinates(values, rate):
    program = RULE.with_constants(**dict(zip(("b1", "gain", "shift", "wd"), values, strict=True)))
    again = constants.decode(program, constants.encode(Genotype(program, rate)))
    assert again.learning_rate == pytest.approx(rate, rel=1e-9)
    for (_, right), (_, value) in zip(program.constants, again.program.constants, strict=True):
        assert value == pytest.approx(right, rel=1e-6, abs=1e-12)


@given(st.lists(numbers, min_size=4, max_size=4), st.lists(st.floats(-50, 50), min_size=5))
def test_numbers_stay_of_their_kind_wherever_the_search_goes(values, steps):
    program = RULE.with_constants(**dict(zip(("b1", "gain", "shift", "wd"), values, strict=True)))
    point = constants.encode(Genotype(program, 1e-3)) + np.array(steps[:5])
    for (_, start), (_, value) in zip(
        program.constants, constants.decode(program, point).program.constants, strict=True
    ):
        assert math.isfinite(value)
        if 0 < start < 1:
            assert 0 < value < 1
        elif start != 0:
            assert math.copysign(1, value) == math.copysign(1, start)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"budget": -1}, "budget is -1"),
        ({"budget": 12}, "not one generation"),
        ({"generation": 3}, "at least 4"),
        ({"spread": 0.0}, "above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        constants.TuningConfig(**settings)
