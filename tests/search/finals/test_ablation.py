"""Ablation: needed instructions stay, others go, and the budget holds."""

import math

import numpy as np
import pytest

from veldt.search.evaluation import jobs
from veldt.search.evaluation.genotype import Genotype
from veldt.search.finals import ablation
from veldt.search.program import Program
from veldt.search.simplify import prune, verification

# Program 4 of the Lion paper with its clip and arcsin, learning rate outside.
FULL = Program.parse(
    """
def full(w, g, m):
    g = max(min(g, 10.0), -10.0)
    c = interp(arcsin(g * 1e-3), m, 0.9)
    m = interp(arcsin(g * 1e-3), m, 0.99)
    return sign(c) + 0.5 * w, m
"""
)
LION = Program.parse(
    """
def lion(w, g, m):
    c = interp(g, m, 0.9)
    m = interp(g, m, 0.99)
    return sign(c) + 0.5 * w, m
"""
)


def updates(program):
    return verification.trace(program.lower(), num_steps=12).updates


def far_from_lion(program):
    """Root mean square distance from Lion's updates."""
    pairs = zip(updates(program), updates(LION), strict=True)
    return float(np.sqrt(np.mean([np.mean((x - y) ** 2) for x, y in pairs])))


def test_clip_and_arcsin_go_and_lion_is_left():
    found = ablation.ablate(FULL, far_from_lion, tolerance=0.05, max_evaluations=60)
    assert found.complete
    assert found.program.lower().structural_hash == LION.lower().structural_hash
    assert found.score <= found.start_score + 0.05


def test_nothing_goes_that_the_score_misses():
    found = ablation.ablate(LION, far_from_lion)
    assert found.program.lower().structural_hash == LION.lower().structural_hash
    assert found.complete and found.score == found.start_score == 0.0


def test_a_budget_of_evaluations_is_kept():
    scored = []

    def score(program):
        scored.append(program)
        return far_from_lion(program)

    found = ablation.ablate(FULL, score, tolerance=0.05, max_evaluations=3)
    assert len(scored) == found.num_evaluations == 3
    assert not found.complete
    behaviours = {prune(program).lower().structural_hash for program in scored}
    assert len(behaviours) == 3  # nothing is scored twice


def test_a_failed_program_is_no_gain():
    def score(program):
        return 0.0 if len(program.statements) > 4 else math.nan

    program = ablation.ablate(LION, score).program
    assert len(program.statements) == len(prune(LION).statements)


def test_variants_are_shorter_and_well_formed():
    program = Program.parse(
        "def f(w, g, m):\n    x = norm(g)\n    m = interp(g, m, 0.9)\n    u = m / x\n"
        "    return u * dot(m, w), m\n"
    )
    variants = ablation.variants(program)
    assert variants
    for variant in variants:
        assert Program.parse(str(variant)) == variant
        assert len(variant.statements) < len(prune(program).statements)
    assert [len(v.statements) for v in variants] == sorted(len(v.statements) for v in variants)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": -1.0}, "tolerance is -1.0"),
        ({"max_evaluations": 0}, "max_evaluations is 0"),
        ({"score": lambda program: math.inf}, "nothing to compare with"),
    ],
)
def test_bad_input_is_a_clear_error(options, message):
    with pytest.raises(ValueError, match=message):
        ablation.ablate(LION, **{"score": far_from_lion, **options})


def test_training_scores_are_those_of_the_evaluator_on_the_same_runs():
    runs = (jobs.ProxyRun(0, 3), jobs.ProxyRun(0, 4))
    asked = []

    def evaluate(job):
        asked.append(job)
        status = jobs.Status.OK if len(asked) == 1 else jobs.Status.DIVERGED
        return jobs.Outcome(status, -0.5 if len(asked) == 1 else None, ())

    score = ablation.training_score(evaluate, 0.01, runs)
    assert score(LION) == -0.5 and score(FULL) == math.inf
    assert [job.runs for job in asked] == [runs, runs]
    assert asked[0].genotype == Genotype(LION, 0.01)
