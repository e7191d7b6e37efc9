"""The suite `smoke` as a user runs it, against the shipped archive: what must come out of it."""

import dataclasses

import pytest

from veldt.search.export import program_candidate
from veldt.search.program import Program
from veldt.tasks import suites
from veldt.tasks.benchmark import evaluate
from veldt.tasks.benchmark.protocol import baselines

pytestmark = pytest.mark.slow

FLIPPED = Program.parse(
    """
def flipped(w, g, m, *, b1=0.9):
    m = interp(g, m, b1)
    update = -m
    return update, m
"""
)


@pytest.fixture(scope="module")
def results(tmp_path_factory, inline):
    sgd = baselines.BASELINES["sgd_momentum"].renamed("sgd")
    rows = [
        baselines.BASELINES["adam"],
        sgd,
        # The same grid divided by three, without the rates that would make up for it.
        sgd.renamed("third").with_rates(tuple(rate / 3 for rate in sgd.rates[:4])),
        program_candidate.ProgramCandidate("flipped", FLIPPED),
    ]
    config = evaluate.EvaluateConfig(pool=dataclasses.replace(inline, num_workers=2))
    folder = tmp_path_factory.mktemp("smoke")
    return evaluate.evaluate(suites.load_suite("smoke"), rows, config, folder)


def test_the_archive_is_of_the_tasks_as_they_are(results):
    assert {task.reference for task in results.tasks} == {"archive"}


def test_tuned_adam_is_not_faster_than_its_envelope(results):
    adam = results.row("adam")
    assert adam.source == "run"
    assert 0.3 < adam.speedup.value <= 1.0
    assert adam.speedup.high <= 1.0
    # Trained again by another program, it is the archive's Adam.
    assert adam.train_ratio.value == pytest.approx(1.0, abs=0.02)
    assert adam.test_ratio.value == pytest.approx(1.0, abs=0.02)


def test_sgd_at_a_third_of_its_rate_is_clearly_slower(results):
    assert results.row("third").speedup.high < 0.8 * results.row("sgd").speedup.low


def test_a_flipped_sign_learns_nothing(results):
    flipped = results.row("flipped")
    assert flipped.speedup.high == 0.0
    assert flipped.won == 0.0
    assert flipped.test_ratio.low > 2.0


def test_costs_are_plausible(results):
    assert results.row("adam").state_bytes == pytest.approx(8.0, rel=0.1)
    for row in results.rows:
        assert row.step_ratio is None or 0.2 < row.step_ratio < 5
