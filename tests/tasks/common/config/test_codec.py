"""Plain values become what an annotation says, with the checks and the words of YAML.

What YAML itself may and may not hold is in `tests/veldt/test_config.py`.
"""

import dataclasses
import json
import math
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veldt.tasks.common.config import codec
from veldt.tasks.common.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Part:
    rate: float = 0.5
    kind: Literal["one", "two"] = "one"


@dataclasses.dataclass(frozen=True)
class Whole:
    name: str
    parts: tuple[Part, ...] = (Part(),)
    odds: dict[str, float] = dataclasses.field(default_factory=dict)
    limit: int | None = None
    on: bool = True


PARTS = st.builds(Part, st.floats(allow_nan=False), st.sampled_from(["one", "two"]))
WHOLES = st.builds(
    Whole,
    st.text(max_size=5),
    st.lists(PARTS, max_size=3).map(tuple),
    st.dictionaries(st.text(max_size=3), st.floats(allow_nan=False), max_size=3),
    st.none() | st.integers(),
    st.booleans(),
)


@given(WHOLES)
def test_json_makes_the_config_that_it_was_made_of(whole):
    assert codec.from_plain(Whole, json.loads(json.dumps(codec.to_plain(whole))), "a") == whole


def test_what_is_left_out_is_its_default():
    assert codec.from_plain(Whole, {"name": "a", "parts": [{}]}, "a") == Whole("a")


@pytest.mark.parametrize(
    ("annotation", "plain", "message"),
    [
        (Whole, {"name": "a", "limitt": 1}, "a.json: limitt: unknown key. Did you mean 'limit'?"),
        (Whole, {}, "a.json: name: this key is required; expected a string"),
        (Whole, {"name": 3}, "a.json: name: expected a string, not 3"),
        (Whole, {"name": "a", "on": "yes"}, "a.json: on: expected true or false, not the string"),
        (Whole, {"name": "a", "limit": 2.5}, "a.json: limit: expected an integer or null, not 2.5"),
        (Whole, {"name": "a", "limit": True}, "a.json: limit: expected an integer or null, not t"),
        (Whole, {"name": "a", "parts": [{"kind": "tow"}]}, "a.json: parts.0.kind: expected one of"),
        (Whole, {"name": "a", "parts": {}}, "a.json: parts: expected a list"),
        (float, math.nan, "a.json: the config: expected a number, not nan"),
        (int, "1", "a.json: the config: expected an integer, not the string '1'"),
        (Whole, [], "a.json: the config: expected a mapping, not a list"),
    ],
)
def test_what_does_not_fit_is_named(annotation, plain, message):
    with pytest.raises(ConfigError) as caught:
        codec.from_plain(annotation, plain, "a.json")
    assert str(caught.value).startswith(message)
