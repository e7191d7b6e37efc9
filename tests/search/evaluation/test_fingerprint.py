"""Fingerprints: equal behaviour is one, different behaviour is not."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from veldt.search import rule_sources
from veldt.search.config import evolution_config
from veldt.search.evaluation import fingerprint, probe
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evolution import mutation
from veldt.search.language import dataflow
from veldt.search.program import Program
from veldt.search.simplify import prune


def fingerprint_of(flow, rate):
    return fingerprint.fingerprint(probe.run(flow), rate)


def digest(text, rate=0.1):
    return fingerprint_of(dataflow.lower(Program.parse(text)), rate).digest


def body(update, before="", slots=""):
    lines = "".join(f"    {line}\n" for line in before.split(";") if line)
    names = f", {slots}" if slots else ""
    return f"def f(w, g{names}):\n{lines}    return {update}{names}\n"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (body("w * g"), body("g * w")),
        (body("(w + g) + 2 * g"), body("w + 3 * g")),
        (
            body("m / sqrt(m * m)", "m = interp(g, m, 0.9)", "m"),
            body("sign(m)", "m = interp(g, m, 0.9)", "m"),
        ),
        (body("g", "m = interp(g, m, 0.9)", "m"), body("g")),
        (body("where(g > 0, g, g)"), body("g")),
        (body("-(-g)"), body("g")),
    ],
)
def test_equal_behaviour_is_one(one, other):
    assert digest(one) == digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (body("g"), body("-g")),
        (body("g"), body("g * 1.001")),
        (body("g"), body("g + 1e-5 * w")),
        (body("norm(g) * g"), body("global_norm(g) * g")),
        (body("g"), body("g * step")),
        (body("g"), body("g * progress")),
        (body("g * step"), body("g * progress")),
        (body("g * step"), body("g * (progress * 16)")),
        (body("g"), body("g * loss")),
        (body("g * loss"), body("g * progress")),
        (body("where(progress < 0.9, g, 0.5 * g)"), body("g")),
        (body("g"), body("matmul(row_gram(g), g)")),
        # What the layers between the first and the last get differs, and nothing else.
        (body("where(is_last + is_embedding, g, sign(g))"), body("g")),
        (body("polar(g)"), body("orthogonalize(g)")),
        (body("g * global_cosine(w, g)"), body("g * cosine_sim(w, g)")),
        (body("unsketch(sketch(g, 1), 1)"), body("unsketch(sketch(g, 2), 2)")),
        (body("m", "m = interp(g, m, 0.9)", "m"), body("m", "m = interp(g, m, 0.91)", "m")),
        (body("g / (abs(g) + 1e-8)"), body("g / (abs(g) + 1e-3)")),
    ],
)
def test_different_behaviour_is_not(one, other):
    assert digest(one) != digest(other)


def test_the_learning_rate_belongs_to_the_behaviour():
    assert digest(body("2 * g"), 0.05) == digest(body("g"), 0.1)
    assert digest(body("g"), 0.05) != digest(body("g"), 0.1)


def test_digests_are_those_of_earlier_stores():
    """A run that was stopped goes on with the digests that its store holds."""
    lion = fingerprint_of(rule_sources.load_rule("lion").lower(), 0.1).digest
    assert lion == "06b162c05f5eacfd24bf80c3bed7bfb5dd04b183"


def test_updates_that_are_not_finite_are_reported():
    flow = dataflow.lower(Program.parse(body("exp(exp(exp(8 + abs(g))))")))
    assert not fingerprint_of(flow, 1.0).finite
    assert fingerprint_of(dataflow.lower(Program.parse(body("g / (g - g)"))), 1.0).finite


def test_shipped_rules_are_all_different():
    digests = {
        name: fingerprint_of(rule_sources.load_rule(name).lower(), 0.1).digest
        for name in rule_sources.RULE_NAMES
    }
    # adam with no decay is adamw with none, and so on: only such rules may agree. adamp is adam
    # until a gradient stands nearly at right angles to the parameters, as none of the probe's does;
    # sinkgd and swan are adam for embeddings and the last layer, which the probe's tensors are.
    agreeing = {
        frozenset((a, b)) for a in digests for b in digests if a < b and digests[a] == digests[b]
    }
    like_adam = itertools.combinations(("adam", "adamp", "sinkgd", "swan"), 2)
    assert agreeing <= {frozenset(("signsgd", "signum")), *map(frozenset, like_adam)}


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_pruning_never_changes_it_and_nothing_warns(seed):
    rng = np.random.default_rng(seed)
    genotype = Genotype(rule_sources.load_rule("adamw"), 1e-3)
    for _ in range(6):
        genotype = mutation.mutate(
            rng, genotype, evolution_config.MutationConfig(repeat=0.5)
        ).genotype
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow = dataflow.lower(genotype.program, fold=True)
        seen = fingerprint_of(flow, 0.1)
        assert seen == fingerprint_of(prune(genotype.program).lower(), 0.1)
        assert seen == fingerprint_of(Program.parse(genotype.program.pretty()).lower(), 0.1)
