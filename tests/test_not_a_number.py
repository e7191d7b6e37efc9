"""Wherever the lowest of measured numbers is taken, NaN in any place is never the lowest."""

import contextlib
import dataclasses
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

import veldt
from tests.meta.train import test_report as meta_runs
from tests.meta.tune import test_run_tuning as tunings
from veldt.meta.replay import trust
from veldt.meta.train import log
from veldt.meta.train import report as meta_report
from veldt.meta.tune import descent
from veldt.meta.tune import report as tune_report
from veldt.tasks.benchmark import comparison_table
from veldt.tasks.common.config import codec
from veldt.tasks.common.html import plot
from veldt.tasks.common.nan_last import finite, lowest

VALUES = (3.0, 1.0, 2.0)
BAD = (math.nan, math.inf, -math.inf, None)


def with_bad(place, bad):
    values = list(VALUES)
    values.insert(place, bad)
    return values


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", range(4))
def test_the_lowest_is_the_same_wherever_a_bad_one_stands(place, bad):
    values = with_bad(place, bad)
    assert values[lowest(values)] == 1.0
    assert finite(values) == list(VALUES)
    assert lowest([bad, bad]) is None and lowest([]) is None
    assert lowest([1.0, bad, 1.0]) == 0


@pytest.mark.parametrize("place", range(4))
def test_tune_keeps_the_best_of_the_finite_outcomes(place, monkeypatch):
    outcomes = iter([*with_bad(place, math.nan), math.nan, math.nan])
    monkeypatch.setattr(
        descent.api,
        "metagradient",
        lambda training, meta_params, **_: SimpleNamespace(
            outcome=next(outcomes), gradient=jnp.asarray(1.0)
        ),
    )
    seen = {}
    tuned = veldt.tune(
        lambda update: None,
        jnp.asarray(-3.0),
        num_updates=4,
        report=lambda update, outcome, meta_params: seen.update({outcome: meta_params}),
    )
    assert math.isnan(tuned.outcomes[place])
    assert tuned.outcome == 1.0 and tuned.meta_params == seen[1.0]
    tuned = veldt.tune(lambda update: None, jnp.asarray(-3.0), num_updates=2)
    assert math.isnan(tuned.outcome) and tuned.meta_params == -3.0


@pytest.mark.parametrize("bad", [(0,), (20,), (0, 20, 40, 60, 80, 100, 120, 140)])
def test_a_meta_training_whose_checks_were_not_finite_has_a_report(tmp_path, bad):
    lines = [
        {**line, "score": None, "tasks": dict.fromkeys(line["tasks"])}
        if line["kind"] == "check" and line["update"] in bad
        else line
        for line in meta_runs.lines(140)
    ]
    text = meta_report.render(meta_runs.write_run(tmp_path, meta_runs.settings(), lines))
    assert "NaN" not in text and 'd="Mnan' not in text
    none = len(bad) == 8
    assert ("No meta-validation was finite" in text) == none
    assert ("after update 100" in text) == (not none)


@pytest.mark.parametrize("bad", [(0,), (1,), (0, 1, 2)])
def test_a_tuning_whose_checks_were_not_finite_has_a_report(tmp_path, bad):
    config = dataclasses.replace(tunings.SETTINGS, num_updates=3, check_every=1)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(codec.to_plain(config)))
    numbers = {"learning_rate": [0.1] * 3, "momentum": 0.5}
    with contextlib.closing(log.JsonLog(tmp_path, {})) as lines:
        for update in range(3):
            outcome = math.nan if update in bad else 1.0 - 0.1 * update
            lines.write("check", update, {"outcome": outcome, "best": False})
            figures = {"outcome": outcome, "hyperparameters": numbers, "seconds": 1.0}
            figures |= {"method": "replay", "metasmoothness": None, "plan": "", "verdict": ""}
            lines.write("update", update + 1, figures)
    text = tune_report.render(tmp_path)
    assert "nan" not in text
    assert len(bad) == 3 or f"{1.0 - 0.1 * 2:.5g} after 2 updates" in text


class log_of:
    """`with log_of(folder) as lines`: a log that is closed at the end."""

    def __init__(self, folder):
        self.lines = log.JsonLog(folder, {})

    def __enter__(self):
        return self.lines

    def __exit__(self, *error):
        self.lines.close()


@pytest.mark.parametrize("place", range(4))
def test_rows_of_an_evaluation_are_in_order_whatever_one_lacks(place):
    def row(value):
        return SimpleNamespace(speedup=SimpleNamespace(value=value))

    rows = sorted(map(row, with_bad(place, math.nan)), key=comparison_table._rank)
    assert [one.speedup.value for one in rows[:3]] == [3.0, 2.0, 1.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", range(4))
def test_a_figure_leaves_out_what_is_not_finite(place, bad):
    values = with_bad(place, bad)
    low, high = plot.padded(values)
    assert low < 1.0 and high > 3.0 and math.isfinite(low + high)
    frame = plot.Plot(plot.LinearAxis(0, 4, ""), plot.LinearAxis(low, high, ""))
    line = str(frame.line(enumerate(values), "x")) + str(frame.dots(enumerate(values), "x"))
    assert "nan" not in line and line.count("L") == 2
    assert all(map(math.isfinite, plot.padded([bad])))


@pytest.mark.parametrize("place", range(2))
def test_a_direction_whose_smoothness_is_no_number_is_not_smooth(place):
    moved = np.array([0.9, 0.9])
    moved[place] = math.nan
    # An outcome that is the meta-parameter itself; directions are of its own size.
    point, key = jnp.asarray(1.0), jax.random.key(0)
    lengths = [float(each) for each in trust._directions(key, point, jnp.asarray(1.0), 2)]
    outcomes = np.array(
        [[[1 + h * v, 1 - h * v] for h in trust.STEP_SIZES] for v in lengths], np.float64
    )
    found = trust.judge(
        point,
        1.0,
        jnp.asarray(1.0),
        key,
        trust.Differences(trust.STEP_SIZES, outcomes, moved, np.ones(2), 1e-7),
    )
    assert found.passed and max(found.relative_errors) < 1e-6
    assert math.isnan(found.metasmoothness) and "; low: keep steps small" in found.message
