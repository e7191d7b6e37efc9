"""Whether a tuning was worth it: other rates at no greater cost, on seeds that chose nothing."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from tests.meta.tune import test_run_tuning as tunings
from veldt.meta.tune import (
    comparison,
    loop,
    problem,
    report,
    run_tuning,
    tuning_jobs,
    tuning_view,
    tuning_worker,
)
from veldt.tasks.pool import pools

SETTINGS = dataclasses.replace(tunings.SETTINGS, compare=True, num_updates=2, check_every=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A tuning that ended where it began, compared."""
    folder = tmp_path_factory.mktemp("compared")
    subject = problem.Problem(SETTINGS)
    start = subject.meta_params
    progress = loop.TuningProgress(
        2, start, best=start, best_outcome=0.1, forward_runs=4.0, wall_s=1.0
    )
    return folder, progress, compare(folder, progress)


def compare(folder, progress):
    subject = problem.Problem(SETTINGS)
    with pools.make_pool(SETTINGS.pool, tuning_worker.TuningWorkerFactory(SETTINGS)) as pool:
        jobs = tuning_jobs.TuningJobs(pool)
        return comparison.compare(SETTINGS, subject, progress, folder, jobs, lambda text: None)


def test_other_rates_stand_beside_the_result(whole, capsys):
    folder, progress, rows = whole
    mine, constant, cosine = rows
    assert constant.name.startswith("best constant rate, ") and "cosine" in cosine.name
    assert {len(row.fresh) for row in rows} == {8}
    # Two updates of two runs, twice forward and once backward, and three checks of three.
    assert mine.num_runs == comparison.cost(SETTINGS, progress) == (4 + 2 * 2) * 2 + 3 * 3
    assert constant.num_runs <= mine.num_runs and cosine.num_runs <= mine.num_runs
    tuning_view.print_result(SETTINGS, progress, {}, folder, rows)
    out, text = capsys.readouterr().out, str(report._worth(folder))
    assert comparison.read(folder) == rows
    for line in comparison.lines(rows):
        assert line in out
        assert line.strip().partition(":")[0] in text


def test_a_constant_is_the_training_at_that_constant(whole):
    constant = whole[2][1]
    rate = float(constant.name.rpartition(" ")[2])
    subject = problem.Problem(
        dataclasses.replace(
            SETTINGS,
            tune={**SETTINGS.tune, "learning_rate": dataclasses.replace(
                SETTINGS.tune["learning_rate"], start=rate, knots=0)},
        )
    )  # fmt: skip
    found = [problem.outcome(one, subject.meta_params) for one in subject.fresh()]
    np.testing.assert_allclose(found, constant.fresh, rtol=0.1)  # The name has three digits.


def test_what_is_known_is_not_run_again(whole, monkeypatch):
    folder, progress, rows = whole
    ran = []
    monkeypatch.setattr(
        problem, "end", lambda *args: ran.append(1) or problem.Ended(outcome=0.0, code=0)
    )
    assert (compare(folder, progress), ran) == (rows, [])
    # As a process that was killed in its midst leaves it.
    path = folder / comparison.FILE
    known = json.loads(path.read_text())
    outcomes = dict(list(known["outcomes"].items())[:-3])
    path.write_text(json.dumps({"outcomes": outcomes}))
    compare(folder, progress)
    assert len(ran) == 3


def test_seeds_of_choosing_and_of_figures_are_apart():
    subject = problem.Problem(SETTINGS)
    groups = [subject.check(), subject.training_of(0), subject.training_of(1), *subject.fresh()]
    keys = [tuple(np.asarray(key)) for one in groups for key in jax.random.key_data(one.keys)]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ([1.0, 1.1, 0.9, 1.0], "what was learned is better (difference +1, 95% interval +0.87 to"),
        ([1.0, -1.0, 0.5, -0.4], "what was learned is not better ("),
        ([-1.0, -1.1, -0.9, -1.0], "what was learned is worse ("),
        ([0.0, 0.0, 0.0], "what was learned is not better ("),
        ([1.0, math.nan], "not comparable"),
        ([1.0], "not better for sure"),
    ],
)
def test_better_is_said_only_where_the_interval_is_above_zero(differences, said):
    assert comparison.conclusion(np.asarray(differences)).startswith(said)


def test_no_rate_no_comparison(tmp_path):
    no_rate = {"momentum": SETTINGS.tune["momentum"]}
    settings = dataclasses.replace(SETTINGS, tune=no_rate, fixed={"learning_rate": 0.1})
    assert not comparison.is_comparable(settings)
    assert not comparison.is_comparable(dataclasses.replace(SETTINGS, compare=False))
    assert comparison.lines(()) == [] and comparison.read(tmp_path) == ()


@pytest.mark.slow
def test_a_run_of_before_there_was_a_comparison_goes_on(tmp_path):
    settings = dataclasses.replace(SETTINGS, num_updates=1)
    result = run_tuning.run_tuning(settings, tmp_path)
    assert result.compared == comparison.read(tmp_path) != ()
    assert "Was it worth it?" in report.render(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(path.read_text().replace("compare: true\n", ""))
    assert run_tuning.run_tuning(settings, tmp_path, resume=True).compared == result.compared
