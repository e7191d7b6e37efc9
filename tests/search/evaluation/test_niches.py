"""Niches: what kind of rule a program is, and that no kind takes all places in a population."""

import math

from tests.search import fakes, rerun
from veldt.search import rule_sources
from veldt.search.evaluation import niches, probe
from veldt.search.language import dataflow
from veldt.search.program import Program
from veldt.search.run import run_search
from veldt.search.storage.store import Store
from veldt.tasks.pool.config import PoolConfig


def niche_of(source):
    text = source if "\n" in source else f"def rule(w, g):\n    return {source}\n"
    return niches.niche(probe.run(dataflow.lower(Program.parse(text), fold=True)))


def shipped(name):
    return niches.niche(probe.run(dataflow.lower(rule_sources.load_rule(name), fold=True)))


def test_the_measures_tell_kinds_of_rules_apart():
    assert niche_of("g").scaling == 2 and niche_of("sign(g)").scaling == 0
    assert niche_of("sign(g) * sqrt(abs(g))").scaling == 1
    assert shipped("momentum").memory > shipped("sgd").memory
    assert niche_of("sign(w)").evenness == 2 > niche_of("w * w * w").evenness
    assert niche_of("g").descent == 3 and niche_of("-g").descent == 0
    assert niche_of("exp(1e5 + g)") == niches.NOWHERE
    assert niche_of("g + 1e3 * w").decay == 2 > niche_of("g").decay


def test_constants_and_rates_do_not_change_the_kind():
    assert niche_of("3.5 * g") == niche_of("g") == shipped("sgd")
    assert shipped("adam") == shipped("adamw") == shipped("amsgrad") == shipped("adan")
    assert len({shipped(name) for name in ("adam", "lion", "sgd", "momentum", "rmsprop")}) == 5


def test_every_shipped_rule_has_a_niche_also_one_that_reads_roles():
    kinds = {name: shipped(name) for name in rule_sources.RULE_NAMES}
    roles = [name for name in kinds if "is_last" in str(rule_sources.load_rule(name))]
    assert roles and all(kinds[name] != niches.NOWHERE for name in ("adamw", *roles))


def test_parents_are_the_best_of_their_niche(tmp_path):
    islands = 3
    changes = {"niche_size": 1, "islands": islands, "max_evaluations": 60}
    config = fakes.small_config(pool=PoolConfig(num_workers=1), **changes)
    run_search.run_search(config, tmp_path / "run", factory=fakes.FakeWorker)
    with Store.open(tmp_path / "run", read_only=True) as store:
        found = store.rows(
            "SELECT p.id, p.parent, p.program, c.fitness FROM proposal p "
            "JOIN candidate c ON c.id = p.candidate ORDER BY p.id"
        )
        (initial,) = store.rows("SELECT program, fitness FROM candidate WHERE id = 0")
    scores = [math.inf if row["fitness"] is None else row["fitness"] for row in found]
    kinds = [niche_of(row["program"]) for row in found]
    num_checked = 0
    for row in found:
        newest = row["id"] - config.window
        living = [
            i
            for i in range(newest - config.population_size + 1, newest + 1)
            if i % islands == row["id"] % islands
        ]
        score, kind = initial["fitness"], niche_of(initial["program"])
        if row["parent"] is not None:
            assert row["parent"] in living
            score, kind = scores[row["parent"]], kinds[row["parent"]]
        assert math.isfinite(score)
        others = [scores[i] for i in living if i >= 0 and kinds[i] == kind]
        assert all(score <= other for other in others)
        num_checked += len(others) > 1
    assert num_checked > 10
    assert rerun.replay(tmp_path / "run", tmp_path / "again") == []
