"""A run whose stored config lacks a field, as an older version's may, is the same run.

What is changed, or unknown, is one error that names the field. Both are tried for every field of
the configs of all commands that keep a run, nested fields too.
"""

import copy
import dataclasses
import re
import typing

import pytest

from veldt import config as config_lib
from veldt.meta.train import build, config
from veldt.meta.train import run_meta_training as meta_run
from veldt.meta.tune import config as tune_config
from veldt.meta.tune import run_tuning as tune_run
from veldt.search.config.evolution_config import FounderConfig
from veldt.search.config.finals_config import FinalsConfig, StageConfig
from veldt.search.config.proxy_config import ProxyConfig
from veldt.search.config.search_config import SearchConfig
from veldt.search.run import run_search
from veldt.tasks import suites
from veldt.tasks.benchmark import evaluate
from veldt.tasks.common.config import codec, older_config
from veldt.tasks.common.disk.run_directory import RunDirectory
from veldt.tasks.common.errors import FileError

SHIPPED = {
    "celo2": config.MetaTrainConfig,
    "celo": config.MetaTrainConfig,
    "tune_digits": tune_config.TuneConfig,
    "discover": SearchConfig,
    "small_search": SearchConfig,
}
# One of every part that a config may have, and else the defaults.
PROXY = ProxyConfig("digits_mlp", 100)
RUNS = {
    "search": (
        run_search.TERMS,
        SearchConfig(
            (PROXY,),
            (ProxyConfig("letters_mlp", 100),),
            founders=(FounderConfig("lion"),),
            finals=FinalsConfig(stages=(StageConfig("B", (PROXY,)),)),
        ),
    ),
    "meta-train": (
        meta_run.TERMS,
        config.MetaTrainConfig(
            "celo2",
            (config.PhaseConfig("a", 3),),
            meta_validation=(config.CheckConfig("digits_mlp", 10),),
        ),
    ),
    "tune": (
        tune_run.TERMS,
        codec.from_plain(
            tune_config.TuneConfig,
            {"task": "digits_mlp", "num_steps": 9, "tune": {"learning_rate": {"start": 0.1}}},
            "test",
        ),
    ),
    "evaluate": (
        evaluate.TERMS,
        evaluate.Evaluation("smoke", suites.load_suite("smoke").tasks, ("lion",)),
    ),
}
# What no older version's config can lack, or what the configs above say in a default's place.
WITHOUT_DEFAULT = {
    "search": "tasks tasks.task tasks.num_steps meta_validation meta_validation.task "
    "meta_validation.num_steps founders founders.rule",
    "meta-train": "architecture phases phases.name phases.num_updates meta_validation "
    "meta_validation.task meta_validation.num_steps",
    "tune": "task num_steps tune tune.learning_rate tune.learning_rate.start",
    "evaluate": "suite",
}


def places(node, path=()):
    """Where all fields of nested mappings and lists are."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        if isinstance(node, dict):
            yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def at(node, path):
    for key in path:
        node = node[key]
    return node


def without(node, path):
    copied = copy.deepcopy(node)
    del at(copied, path[:-1])[path[-1]]
    return copied


def with_value(node, path, value):
    copied = copy.deepcopy(node)
    at(copied, path[:-1])[path[-1]] = value
    return copied


def may_differ(terms, path):
    name = ".".join(str(key) for key in path)
    return any(f"{name}.".startswith(f"{each}.") for each in terms.may_differ)


@pytest.fixture(params=RUNS)
def run(request, tmp_path):
    """Terms, the stored config, and the directory that it is compared in."""
    terms, settings = RUNS[request.param]
    with RunDirectory(tmp_path, terms, settings) as directory:
        yield terms, codec.to_plain(settings), directory


def test_a_run_whose_config_lacks_any_one_field_is_resumed(run):
    terms, stored, directory = run
    assert directory.check(stored) == stored
    named = set()
    for path in places(stored):
        older = without(stored, path)
        try:
            assert directory.check(older) == stored or may_differ(terms, path)
        except FileError as error:
            assert "holds a run with" in str(error)
            named.add(".".join(key for key in path if isinstance(key, str)))
    # An entry of the odds that tasks are drawn with is no field.
    fields = {
        name
        for name in named
        if not re.match(r"tasks\.(kinds|images|texts|tables|augmentations\.stretch)\.", name)
    }
    assert fields == set(WITHOUT_DEFAULT[terms.kind].split())


def test_a_field_that_is_changed_is_named(run):
    terms, stored, directory = run
    num_named = 0
    for path in places(stored):
        changed = with_value(stored, path, "something else")
        if may_differ(terms, path):
            directory.check(changed)
            continue
        with pytest.raises(FileError, match="holds a run with ") as caught:
            directory.check(changed)
        assert any(key in str(caught.value) for key in path if isinstance(key, str))
        assert f"Choose another {terms.option}" in str(caught.value)
        num_named += 1
    assert num_named > 0


def test_a_field_that_is_unknown_is_named(run):
    terms, stored, directory = run
    inside = [path for path in places(stored) if isinstance(at(stored, path), dict)]
    for path in [(), *inside]:
        newer = with_value(stored, (*path, "lr_floor"), None)
        if may_differ(terms, path):
            directory.check(newer)
            continue
        with pytest.raises(FileError, match=r"holds a run with .*lr_floor"):
            directory.check(newer)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_config_without_any_one_field_is_filled(name):
    whole = codec.to_plain(config_lib.load_config(SHIPPED[name], name, []))
    assert older_config.fill(SHIPPED[name], whole) == whole
    num_filled = 0
    for path in places(whole):
        found = filled = older_config.fill(SHIPPED[name], without(whole, path))
        for key in path:
            found = found.get(key, ...) if isinstance(found, dict) else found[key]
        if found is not ...:  # It has a default; the config may say something else.
            num_filled += 1
            assert filled == whole or found != at(whole, path)
    assert num_filled > 10


@pytest.mark.parametrize("kind", ["meta-train", "tune"])
def test_a_pool_of_a_version_that_had_a_field_more_is_read(kind):
    terms, settings = RUNS[kind]
    stored = with_value(codec.to_plain(settings), ("pool", "proposers"), 0)
    filled = older_config.fill(terms.config_class, stored)
    assert codec.from_plain(terms.config_class, filled, "test") == settings


def test_more_phases_may_follow_and_no_fewer(tmp_path):
    terms, settings = RUNS["meta-train"]
    more = dataclasses.replace(settings, phases=(*settings.phases, config.PhaseConfig("b", 3)))
    with RunDirectory(tmp_path / "more", terms, more) as directory:
        directory.check(codec.to_plain(settings))
    with (
        RunDirectory(tmp_path / "fewer", terms, settings) as directory,
        pytest.raises(FileError, match=r"holds a run with phases = .*have more phases at the end"),
    ):
        directory.check(codec.to_plain(more))


def test_a_module_that_has_moved_is_the_same(tmp_path):
    terms, settings = RUNS["meta-train"]
    estimator = config.EstimatorConfig("imitation", 2, 2, expert="veldt.meta.problems.experts:adam")
    (phase,) = settings.phases
    phase = dataclasses.replace(phase, estimator=estimator)
    stored = codec.to_plain(dataclasses.replace(settings, phases=(phase,)))
    older = with_value(stored, ("phases", 0, "estimator", "expert"), "veldt.meta.experts:adam")
    for now in (stored, older):
        given = codec.from_plain(config.MetaTrainConfig, now, "test")
        with RunDirectory(tmp_path, terms, given) as directory:
            directory.check(stored)
            directory.check(older)


def test_every_objective_is_built_and_named():
    allowed = typing.get_args(typing.get_type_hints(config.EstimatorConfig)["objective"])
    assert set(config.OBJECTIVES) == set(build._OBJECTIVES) == set(allowed)
