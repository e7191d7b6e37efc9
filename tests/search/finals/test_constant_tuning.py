"""Tuning a rule's numbers: every kind of number moves, and what comes out was scored."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search import fakes
from veldt.search.config import finals_config
from veldt.search.config.finals_config import PRICE, FinalsConfig
from veldt.search.evaluation import coordinates
from veldt.search.evaluation.genotype import Genotype
from veldt.search.finals import constant_tuning
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
    config = finals_config.TuningConfig(budget=721, generation=12)
    found = constant_tuning.tune(Genotype(RULE, 1e-3), score_all, config, seed=0)
    assert found.num_evaluations == 721
    assert found.score == misfit(found.genotype) < 1e-3 < found.start_score
    values = dict(found.genotype.program.constants)
    assert values["b1"] == pytest.approx(0.99, abs=1e-3)
    assert values["shift"] == pytest.approx(-1.0, rel=0.05)


def test_equal_seeds_give_equal_rules_and_others_do_not():
    config = finals_config.TuningConfig(budget=25)
    one, again, other = (
        constant_tuning.tune(Genotype(RULE, 1e-3), score_all, config, seed=seed)
        for seed in (1, 1, 2)
    )
    assert one == again
    assert one.genotype != other.genotype


def test_no_more_is_spent_than_whole_generations_of_the_budget():
    asked, reported = [], []

    def count(genotypes):
        asked.append(len(genotypes))
        return score_all(genotypes)

    config = finals_config.TuningConfig(budget=40, generation=12)
    constant_tuning.tune(
        Genotype(RULE, 1e-3), count, config, 0, lambda *done: reported.append(done)
    )
    assert asked == [1, 12, 12, 12]
    assert reported == [(1, 37), (13, 37), (25, 37), (37, 37)]


def test_failures_are_never_chosen():
    def fails_above(genotypes):
        return [math.nan if g.learning_rate > 1e-3 else misfit(g) for g in genotypes]

    config = finals_config.TuningConfig(budget=121)
    found = constant_tuning.tune(Genotype(RULE, 1e-3), fails_above, config, seed=0)
    assert found.genotype.learning_rate <= 1e-3
    assert found.score < found.start_score


def test_where_everything_fails_the_start_comes_back():
    config = finals_config.TuningConfig(budget=25)
    found = constant_tuning.tune(
        Genotype(RULE, 1e-3), lambda g: [math.inf] * len(g), config, seed=0
    )
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
    again = coordinates.decode(program, coordinates.encode(program, Genotype(program, rate)))
    assert again.learning_rate == pytest.approx(rate, rel=1e-9)
    for (_, right), (_, value) in zip(program.constants, again.program.constants, strict=True):
        assert value == pytest.approx(right, rel=1e-6, abs=1e-12)


@given(st.lists(numbers, min_size=4, max_size=4), st.lists(st.floats(-50, 50), min_size=5))
def test_numbers_stay_of_their_kind_wherever_the_search_goes(values, steps):
    program = RULE.with_constants(**dict(zip(("b1", "gain", "shift", "wd"), values, strict=True)))
    point = coordinates.encode(program, Genotype(program, 1e-3)) + np.array(steps[:5])
    for (_, start), (_, value) in zip(
        program.constants, coordinates.decode(program, point).program.constants, strict=True
    ):
        assert math.isfinite(value)
        if 0 < start < 1:
            assert 0 < value < 1
        elif start != 0:
            assert math.copysign(1, value) == math.copysign(1, start)


# ------------------------------------------------------------------------------ metagradients

FLAT = Program.parse("def rule(w, g, *, a=0.5, b=2.0):\n    return a * g + b * w\n")


def slope_of(score):
    """A function that differentiates a score by differences, and counts."""
    calls = []

    def differentiate(start, genotype):
        calls.append(genotype)
        point = coordinates.encode(start, genotype)
        steps = 1e-5 * np.eye(len(point))
        at = [score(coordinates.decode(start, point + step)) for step in (*steps, *-steps)]
        return tuple(np.subtract(*np.split(np.array(at), 2)) / 2e-5)

    return differentiate, calls


def counted(score):
    asked = []

    def score_all(genotypes):
        asked.append(list(genotypes))
        return [score(genotype) for genotype in genotypes]

    return score_all, asked


@pytest.mark.parametrize("method", ["metagradient", "both"])
@pytest.mark.parametrize("budget", [30, 61, 121])
def test_metagradients_are_paid_for_and_the_budget_holds(method, budget):
    differentiate, calls = slope_of(misfit)
    score_all, asked = counted(misfit)
    reported = []
    config = finals_config.TuningConfig(budget=budget, method=method)
    found = constant_tuning.tune(
        Genotype(RULE, 1e-3),
        score_all,
        config,
        0,
        lambda *done: reported.append(done),
        differentiate,
    )
    num_scored = sum(len(generation) for generation in asked)
    assert found.num_gradients == len(calls) > 0
    assert found.num_evaluations == num_scored + PRICE * len(calls) <= budget
    assert reported[-1] == (found.num_evaluations, budget)
    assert found.score == misfit(found.genotype) < 0.7 * found.start_score


def test_gradients_find_in_few_evaluations_what_cma_es_does_not():
    differentiate, _ = slope_of(misfit)
    plain, led = (
        constant_tuning.tune(
            Genotype(RULE, 1e-3),
            score_all,
            finals_config.TuningConfig(budget=121, method=method),
            0,
            differentiate=differentiate,
        )
        for method in ("cma_es", "metagradient")
    )
    assert led.score < 0.2 * plain.score


@pytest.mark.parametrize("gradient", [None, (0.0,) * 6])
def test_without_a_gradient_the_rest_is_cma_es_from_the_best(gradient):
    score_all, asked = counted(misfit)
    config = finals_config.TuningConfig(budget=121, method="metagradient")
    found = constant_tuning.tune(
        Genotype(RULE, 1e-3), score_all, config, 0, differentiate=lambda *_: gradient
    )
    assert [len(generation) for generation in asked] == [1, *[12] * ((120 - PRICE) // 12)]
    assert found.num_gradients == 1 and found.score < found.start_score


def test_where_no_step_along_a_gradient_is_better_cma_es_goes_on():
    differentiate, calls = slope_of(lambda genotype: -misfit(genotype))  # It points uphill.
    score_all, asked = counted(misfit)
    config = finals_config.TuningConfig(budget=121, method="metagradient")
    found = constant_tuning.tune(
        Genotype(RULE, 1e-3), score_all, config, 0, differentiate=differentiate
    )
    sizes = [len(generation) for generation in asked]
    assert len(calls) == 1
    assert sizes == [1, *[4] * sizes.count(4), *[12] * sizes.count(12)] and sizes.count(12) >= 7
    assert found.score < found.start_score


def test_both_begins_as_cma_es_and_goes_on_from_its_best():
    differentiate, calls = slope_of(misfit)
    score_all, asked = counted(misfit)
    config = finals_config.TuningConfig(budget=121, method="both")
    constant_tuning.tune(Genotype(RULE, 1e-3), score_all, config, 0, differentiate=differentiate)
    alone, generations = counted(misfit)
    half = constant_tuning.tune(
        Genotype(RULE, 1e-3), alone, finals_config.TuningConfig(budget=60), 0
    )
    assert asked[: len(generations)] == generations
    assert calls[0] == half.genotype


def test_no_gradient_is_taken_of_a_start_that_fails():
    config = finals_config.TuningConfig(budget=61, method="metagradient")
    found = constant_tuning.tune(
        Genotype(RULE, 1e-3), lambda g: [math.inf] * len(g), config, 0, differentiate=never
    )
    assert found.num_gradients == 0 and found.score == math.inf


def never(start, genotype):
    raise AssertionError("a gradient was taken")


def test_steps_along_a_gradient_without_a_rate_leave_the_rate_as_it_is():
    def by_constants(genotype):
        return sum((math.log(value) - 1) ** 2 for _, value in genotype.program.constants)

    differentiate, _ = slope_of(by_constants)
    score_all, asked = counted(by_constants)
    config = finals_config.TuningConfig(budget=61, method="metagradient")
    constant_tuning.tune(Genotype(FLAT, 1e-3), score_all, config, 0, differentiate=differentiate)
    steps = [each for generation in asked if len(generation) == 4 for each in generation]
    assert steps and all(g.learning_rate == pytest.approx(1e-3, rel=1e-9) for g in steps)
    assert len(set(steps)) == len(steps)


def test_metagradients_need_someone_who_takes_them():
    config = finals_config.TuningConfig(budget=61, method="metagradient")
    with pytest.raises(ValueError, match="needs a function that takes metagradients"):
        constant_tuning.tune(Genotype(RULE, 1e-3), score_all, config, 0)


@pytest.mark.parametrize("objective", ["lr_robustness", "my.module:score"])
def test_what_has_no_derivative_is_refused_before_the_search(objective):
    tuning = finals_config.TuningConfig(budget=61, method="both")
    with pytest.raises(ValueError, match=f"method is both.*{objective}.*held_out_loss"):
        fakes.small_config(finals=FinalsConfig(tuning=tuning), objective=objective)
    for allowed in ("held_out_loss", "train_loss"):
        fakes.small_config(finals=FinalsConfig(tuning=tuning), objective=allowed)
    fakes.small_config(objective=objective)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"budget": -1}, "budget is -1"),
        ({"method": "metagradients"}, "did you mean 'metagradient'"),
        ({"budget": 13 + PRICE + 3, "method": "both"}, f"needs {13 + PRICE + 4}"),
        ({"budget": 12, "generation": 4, "method": "metagradient"}, f"needs {PRICE + 5}"),
        ({"budget": 12}, "not one generation"),
        ({"generation": 3}, "at least 4"),
        ({"spread": 0.0}, "above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        finals_config.TuningConfig(**settings)
