"""The shipped rules that Optax lacks against their papers' formulas, in plain NumPy, float64."""

import numpy as np
import pytest

from tests.search.rules import papers
from tests.search.rules.cases import CASES
from tests.search.rules.oracles import OPTAX_RULES
from veldt.search import rule_sources
from veldt.search.language.ops import OPS

# Rounding alone, over 100 steps in which each depends on those before it.
TOLERANCE = 1e-11


@pytest.mark.parametrize("name", CASES)
def test_equals_the_papers_formula(name: str) -> None:
    deviation, _ = CASES[name].result
    assert deviation < TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_default_constants_are_the_formulas(name: str) -> None:
    constants = dict(rule_sources.load_rule(name).constants)
    defaults = papers.defaults_of(CASES[name].formula)
    assert defaults == (constants if defaults else {})


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("adamp", "projections"),
        ("adam_cm", "kept"),
        ("lion_k_huber", "inner"),
        ("spam", "spikes"),
        ("stable_spam", "over"),
    ],
)
def test_the_rare_part_of_a_rule_is_compared_too(name: str, count: str) -> None:
    _, states = CASES[name].result
    assert states[papers.LAST][count] >= 1


def test_both_rates_of_sania_are_compared() -> None:
    _, states = CASES["sania"].result
    assert states[papers.LAST]["branches"] == {True, False}


@pytest.mark.parametrize("size", [1, 2, 5, 8, 33])
def test_projections_have_orthonormal_rows_and_change_with_the_seed(size: int) -> None:
    first, again, other = (OPS["sketch"].fn(np, np.eye(size), seed) for seed in (0.0, 0.9, 1.0))
    assert first.shape == (-(-size // 4), size)
    np.testing.assert_allclose(first @ first.T, np.eye(len(first)), atol=1e-14)
    assert np.array_equal(first, again)
    assert size == 1 or not np.allclose(first, other)


def test_every_rule_has_a_formula_or_is_in_optax() -> None:
    assert sorted([*CASES, *OPTAX_RULES]) == list(rule_sources.PUBLISHED)
