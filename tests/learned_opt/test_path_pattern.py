"""Patterns of paths: what regular expressions find, where they are such, in bounded time."""

import re

import hypothesis
import pytest
from hypothesis import strategies as st

from veldt.learned_opt import errors, path_pattern
from veldt.learned_opt.architectures import celo2

texts = st.text("ab/", max_size=3)
alternatives = st.builds(
    lambda start, parts, end: "^" * start + ".*".join(parts) + "$" * end,
    st.booleans(),
    st.lists(texts, min_size=1, max_size=3),
    st.booleans(),
)


@hypothesis.given(st.lists(alternatives, min_size=1, max_size=3), st.text("ab/", max_size=8))
@hypothesis.settings(max_examples=500)
def test_it_finds_what_a_regular_expression_finds(parts: list[str], path: str):
    pattern = "|".join(parts)
    assert path_pattern.matches(pattern, path) == bool(re.search(pattern, path))


def test_published_patterns_are_patterns():
    pattern = ".*bias.*|.*embed.*"
    found = [path_pattern.matches(pattern, p) for p in ("a/bias", "embedding/kernel", "a/kernel")]
    assert found == [True, True, False]


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+$", "a{1,9999}", "[ab]", r"\bhead", "a.b", "a+", "a?", "x^", "a$b", "a" * 1001],
)
def test_what_is_none_is_refused_where_it_is_given(pattern: str):
    with pytest.raises(errors.LearnedOptError, match=r"^adam_paths: .*pattern"):
        celo2.Celo2(adam_paths=pattern)


def test_many_wildcards_and_a_long_path_take_no_time():
    """A regular expression of this form takes longer than anyone waits."""
    assert not path_pattern.matches(".*".join("a" * 300) + "b$", "a" * 100_000)
