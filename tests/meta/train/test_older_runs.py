"""What an older run's config lacks is its default, and every objective has a name in reports."""

import contextlib
import copy
import dataclasses
import json
import typing
import zipfile
from pathlib import Path

import pytest
import yaml

from veldt import config as config_lib
from veldt.meta import checkpoint
from veldt.meta.train import build, config, directory, report
from veldt.meta.train import run_meta_training as meta_run
from veldt.meta.tune import config as tune_config
from veldt.meta.tune import run_tuning as tune_run
from veldt.search.config.search_config import SearchConfig
from veldt.tasks.common.config import older_config

GOLDEN = Path(__file__).parents[2] / "golden" / "0.1.0"
CONFIGS = {
    "celo2": config.MetaTrainConfig,
    "celo": config.MetaTrainConfig,
    "tune_digits": tune_config.TuneConfig,
    "discover": SearchConfig,
    "small_search": SearchConfig,
}


def plain(settings):
    return json.loads(json.dumps(dataclasses.asdict(settings)))


def places(node, path=()):
    """Where all fields of nested mappings and lists are."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        if isinstance(node, dict):
            yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def without(node, path):
    copied = copy.deepcopy(node)
    inner = copied
    for key in path[:-1]:
        inner = inner[key]
    return copied, inner, inner.pop(path[-1])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_without_any_one_default_is_filled(name):
    whole = plain(config_lib.load_config(CONFIGS[name], name, []))
    assert older_config.fill(CONFIGS[name], whole) == whole
    num_filled = 0
    for path in places(whole):
        older, _, removed = without(whole, path)
        filled = older_config.fill(CONFIGS[name], older)
        found = filled
        for key in path:
            found = found.get(key, ...) if isinstance(found, dict) else found[key]
        if found is not ...:  # It has a default; the config may say something else.
            num_filled += 1
            assert filled == whole or found != removed
    assert num_filled > 10


@pytest.mark.parametrize(
    ("kind", "config_class", "run"),
    [
        ("meta_train", config.MetaTrainConfig, meta_run),
        ("tune", tune_config.TuneConfig, tune_run),
    ],
)
def test_a_run_begun_before_any_one_field_was_there_is_resumed(kind, config_class, run, tmp_path):
    with zipfile.ZipFile(GOLDEN / f"{kind}.zip") as archive:
        archive.extractall(tmp_path)
    path = tmp_path / directory.CONFIG_FILE
    stored = yaml.safe_load(path.read_text())
    settings = config_lib.load_config(config_class, path, [])
    defaults = older_config.fill(config_class, {})
    num_resumed = 0
    for name, default in defaults.items():
        if stored.get(name, default) != default:
            continue  # Its default is not what this run has: nobody could know.
        path.write_text(yaml.safe_dump({k: v for k, v in stored.items() if k != name}))
        with contextlib.ExitStack() as stack:
            run._open_run(settings, tmp_path, stack, resume=True)
        num_resumed += 1
    assert num_resumed > 5
    assert (tmp_path / checkpoint.FOLDER).exists()


def test_every_objective_is_built_and_named():
    allowed = typing.get_args(typing.get_type_hints(config.EstimatorConfig)["objective"])
    assert set(report._OBJECTIVES) == set(build._OBJECTIVES) == set(allowed)
