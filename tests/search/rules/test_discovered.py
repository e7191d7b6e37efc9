"""Rules that veldt found and ships: the file is what won, and its record holds what it claims."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from veldt import config as config_lib
from veldt.search import rule_sources
from veldt.search.config.search_config import SearchConfig
from veldt.search.program import Program
from veldt.tasks import suites

EACH = pytest.mark.parametrize("name", rule_sources.DISCOVERED)


def record_of(name):
    return json.loads((rule_sources.DISCOVERED_FOLDER / f"{name}.json").read_text("utf-8"))


def config_of(record, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(record["config"]))
    return config_lib.load_config(SearchConfig, tmp_path / "config.yaml")


def test_names_are_the_files():
    files = {path.name for path in rule_sources.DISCOVERED_FOLDER.iterdir()}
    assert files == {
        name + suffix for name in rule_sources.DISCOVERED for suffix in (".py", ".json")
    }
    assert not set(rule_sources.DISCOVERED) & set(rule_sources.PUBLISHED)


@EACH
def test_it_behaves_as_the_winner_of_its_finals(name, x64):
    (winner,) = (entry for entry in record_of(name)["finals"] if entry["winner"])
    found = rule_sources.read_discovered(name)
    assert found.learning_rate == winner["learning_rate"]
    assert found.program == replace(rule_sources.load_rule(name), doc="")
    with x64():
        rng = np.random.default_rng(0)
        start = {"w": rng.normal(size=(5, 4)), "b": rng.normal(size=4), "s": np.float64(0.3)}
        ends = []
        for program in (found.program, Program.parse(winner["program"])):
            tx = program.as_optax(winner["learning_rate"])
            update = jax.jit(tx.update)
            params = jax.tree.map(jnp.asarray, start)
            state = tx.init(params)
            for step in range(30):
                grads = jax.tree.map(lambda w, step=step: w + jnp.cos(step + w), params)
                updates, state = update(grads, state, params)
                params = jax.tree.map(jnp.add, params, updates)
            ends.append(params)
    for mine, its, first in zip(*map(jax.tree.leaves, ends), jax.tree.leaves(start), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-9, atol=1e-12)
        assert not np.allclose(mine, first)


@EACH
def test_the_winner_was_chosen_by_meta_validation_alone(name, tmp_path):
    record = record_of(name)
    config = config_of(record, tmp_path)
    assert config.finals.choose_by == "meta_validation"
    found = [entry for entry in record["finals"] if entry["candidate"] >= 0]
    furthest = max(entry["stages"] for entry in found)
    chosen = min(
        (entry for entry in found if entry["stages"] == furthest and entry["meta"] is not None),
        key=lambda entry: entry["meta"],
    )
    assert chosen["winner"] and sum(entry["winner"] for entry in record["finals"]) == 1


@EACH
def test_nothing_of_its_benchmark_was_seen(name, tmp_path):
    record = record_of(name)
    config = config_of(record, tmp_path)
    stages = [task for stage in config.finals.stages for task in stage.tasks]
    seen = {one.task for one in (*config.tasks, *config.meta_validation, *stages)}
    suite = suites.load_suite(record["benchmark"]["suite"])
    assert not seen & {entry.task for entry in suite.tasks}
    assert {one.task for one in config.tasks} == rule_sources.read_discovered(name).proxies


@EACH
def test_the_baselines_beside_it_had_their_constants_tuned_alike(name, tmp_path):
    record = record_of(name)
    budget = config_of(record, tmp_path).finals.tuning.budget
    assert budget > 0
    assert set(record["benchmark"]["rows"]) == {name, "adamw_tuned", "lion_tuned"}
    entries = {entry["label"]: entry for entry in record["finals"]}
    for label in ("adamw", "lion"):
        tuned = Program.parse(entries[label]["program"])
        shipped = rule_sources.load_rule(label)
        assert [s.op for s in tuned.statements] == [s.op for s in shipped.statements]
        before, after = dict(shipped.constants), dict(tuned.constants)
        assert before.keys() == after.keys()
        assert all(after[name] != value for name, value in before.items() if value)
    for row in record["benchmark"]["rows"].values():
        speed = row["speedup"]
        assert speed["low"] <= speed["value"] <= speed["high"]
        assert len(row["tasks"]) == 15 and row["num_selected"] == 0


@EACH
def test_its_record_states_its_origin(name):
    record = record_of(name)
    assert {"config", "store", "lineage", "provenance"} <= set(record)
    assert isinstance(record["config"]["seed"], int)
    assert record["store"]["proposals"] > 1000 and record["store"]["versions"]["jax"]
    gains = [step["gain"] for step in record["lineage"]]
    assert gains and all(step["mutation"] for step in record["lineage"])


@EACH
def test_it_is_evaluated_at_rates_around_its_own_and_not_on_its_proxies(name):
    from veldt import evaluation

    candidate = evaluation.load_candidate(name)
    found = rule_sources.read_discovered(name)
    assert candidate.name == name and candidate.selected_on == found.proxies
    rates = candidate.rates
    assert rates[len(rates) // 2] == pytest.approx(found.learning_rate)
