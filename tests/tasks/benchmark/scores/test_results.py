"""Results as JSON: strict, whole, and what it was."""

import dataclasses
import json
import math

import pytest

from veldt.tasks.benchmark.scores import results
from veldt.tasks.benchmark.scores.aggregate import Interval

TASK = results.TaskScore(
    task="digits_mlp",
    failed=False,
    selected=False,
    rate=0.01,
    valid_rate=1e-05,
    at_edge=True,
    speedup=1.0,
    capped=False,
    train_loss=math.inf,
    test_loss=0.1 + 0.2,
    train=1.5,
    test=0.25,
    train_ratio=-math.inf,
    test_ratio=math.nan,
    diverged=0.0,
    hollow=0.0,
    at_floor=False,
    untuned_speedup=3.0,
    untuned_test_ratio=1 / 3,
    step_ratio=None,
    state_bytes=8.0,
    curve=(1.0, 0.5, math.inf),
)
ROW = results.Row(
    name='a "named" rule, ünïcödé',
    schedule="constant",
    source="run",
    speedup=Interval(1.0, 0.5, math.inf),
    train_ratio=Interval(2.0, 1.0, 3.0),
    test_ratio=Interval(1.0, 1.0, 1.0),
    num_rates=7,
    untuned_rate=10**-2.5,
    untuned_speedup=Interval(0.0, 0.0, 0.0),
    untuned_test_ratio=Interval(1e-300, 0.0, 1e300),
    won=0.5,
    won_untuned=1.0,
    diverged=1 / 3,
    hollow=0.0,
    num_capped=0,
    num_at_edge=1,
    num_at_floor=0,
    num_failed=2,
    num_selected=0,
    step_ratio=1.25,
    state_bytes=None,
    tasks=(TASK, dataclasses.replace(TASK, task="other", curve=())),
)
RESULTS = results.Results(
    suite="small",
    seeds=(0, 1, 2),
    rates_per_candidate=7,
    horizon=3.0,
    tasks=(
        results.TaskRecord(
            task="digits_mlp",
            num_steps=1000,
            num_params=2410,
            fingerprint="9f3c21d07a44:+2.4e+00",
            reference="archive",
            steps=(0, 40),
            envelope=(1.0, math.nan),
        ),
    ),
    rows=(
        ROW,
        dataclasses.replace(ROW, schedule="warmup_cosine"),
        dataclasses.replace(ROW, name="b"),
    ),
    effort=results.Effort(num_runs=63, compile_s=1.0, run_s=3.0, wall_s=2.5),
    versions={"jax": "0.10.2", "device": "cpu"},
)


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def expected(value):
    """What JSON must hold of a value, field by field."""
    if dataclasses.is_dataclass(value):
        return {f.name: expected(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [expected(item) for item in value]
    if isinstance(value, float) and (math.isnan(value) or math.isinf(value)):
        return None
    return value


def test_it_is_strict_json_that_holds_all_of_it():
    text = RESULTS.to_json()
    assert text.endswith("}\n")
    found = json.loads(text, parse_constant=refuse)
    assert found.pop("format") == 1
    assert found["effort"].pop("compile_share") == 0.25
    assert found == expected(RESULTS)


def test_what_is_not_finite_is_null_and_numbers_stay_as_they_are():
    found = json.loads(RESULTS.to_json(), parse_constant=refuse)
    task = found["rows"][0]["tasks"][0]
    assert task["train_loss"] is task["train_ratio"] is task["test_ratio"] is None
    assert task["curve"] == [1.0, 0.5, None]
    assert found["rows"][0]["speedup"] == {"value": 1.0, "low": 0.5, "high": None}
    assert found["tasks"][0]["envelope"] == [1.0, None]
    assert task["step_ratio"] is None
    # Whole numbers are neither rounded floats nor floats made whole; every digit is kept.
    assert isinstance(task["speedup"], float)
    assert isinstance(found["seeds"][0], int)
    assert isinstance(found["tasks"][0]["num_steps"], int)
    assert (task["failed"], task["at_edge"]) == (False, True)
    assert task["test_loss"] == 0.1 + 0.2
    assert found["rows"][0]["untuned_rate"] == 10**-2.5
    assert found["rows"][0]["untuned_test_ratio"] == {"value": 1e-300, "low": 0.0, "high": 1e300}


def test_a_row_is_found_by_its_label():
    assert RESULTS.row("b") is RESULTS.rows[2]
    assert RESULTS.row(ROW.name) is ROW
    assert RESULTS.row(f"{ROW.name} cosine") is RESULTS.rows[1]
    with pytest.raises(KeyError, match=r"no row .*c.*; there are .* cosine, b"):
        RESULTS.row("c")


def test_the_share_of_compiling_is_of_all_work():
    assert results.Effort(1, 3.0, 1.0, 9.0).compile_share == 0.75
    assert results.Effort(0, 0.0, 0.0, 9.0).compile_share == 0.0


def test_results_read_well_and_are_a_table():
    lines = repr(RESULTS).splitlines()
    assert lines[0].startswith(RESULTS.suite)
    assert [line.split("  ")[0] for line in lines[1:]] == [row.label for row in RESULTS.rows]
    html = RESULTS._repr_html_()
    assert html.count("<tr>") == 1 + len(RESULTS.rows) and "1.00 [1.00, 1.00]" in html
    assert "a &quot;named&quot; rule" in html
    records = RESULTS.to_records()
    assert [row["candidate"] for row in records] == [row.name for row in RESULTS.rows]
    assert (records[0]["train_ratio"], records[0]["train_ratio_high"]) == (2.0, 3.0)
