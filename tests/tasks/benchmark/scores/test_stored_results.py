"""Stored results are read back as they were, or refused with what to do."""

import dataclasses
import json
import math

import pytest

from tests.tasks.benchmark.scores.test_results import RESULTS, ROW, TASK
from veldt.tasks.benchmark.scores import stored_results
from veldt.tasks.benchmark.scores.aggregate import Interval
from veldt.tasks.common import errors

# As results are: what is not finite is infinite, and only a row without tasks has no number at all.
LOST = dataclasses.replace(TASK, train_ratio=math.inf, test_ratio=math.inf)
WHOLE = dataclasses.replace(
    RESULTS,
    tasks=(dataclasses.replace(RESULTS.tasks[0], envelope=(1.0, math.inf)),),
    rows=(dataclasses.replace(ROW, tasks=(LOST,)), dataclasses.replace(ROW, name="b", tasks=())),
)


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "results.json"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_results_come_back_as_they_were(write):
    found = stored_results.read(write(WHOLE.to_json()))
    assert found.rows[0] == WHOLE.rows[0]
    assert dataclasses.replace(found, rows=()) == dataclasses.replace(WHOLE, rows=())


def test_a_row_that_no_task_counts_for_has_no_number(write):
    seen = dataclasses.replace(TASK, selected=True)
    row = dataclasses.replace(ROW, speedup=Interval(*[math.nan] * 3), won=math.nan, tasks=(seen,))
    found = stored_results.read(write(dataclasses.replace(WHOLE, rows=(row,)).to_json())).rows[0]
    assert math.isnan(found.speedup.value) and math.isnan(found.won)
    assert found.num_selected == row.num_selected and found.num_rates == row.num_rates


def damaged():
    data = json.loads(WHOLE.to_json())
    yield "no JSON", "{"
    yield "nothing", "null"
    yield "a list", "[]"
    yield "a field gone", json.dumps({key: data[key] for key in data if key != "rows"})
    yield "another type", json.dumps(data | {"suite": 3})
    yield "a number for a row", json.dumps(data | {"rows": [1]})
    yield "truth for a number", json.dumps(data | {"horizon": True})
    yield "too deep", "[" * 100_000


@pytest.mark.parametrize(("what", "text"), list(damaged()))
def test_what_is_damaged_is_refused_with_the_remedy(what, text, write):
    path = write(text)
    with pytest.raises(errors.TaskError, match=r"results\.json is damaged.*veldt evaluate"):
        stored_results.read(path)


def test_a_later_versions_further_fields_are_left_alone(write):
    data = json.loads(WHOLE.to_json())
    data["rows"][0]["something_new"] = 1
    assert stored_results.read(write(json.dumps(data))).rows[0] == WHOLE.rows[0]
