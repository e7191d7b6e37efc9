"""Ray's command lines on the page about clusters are what Ray takes, and the searches in them."""

import re
import shlex

import pytest
from ray.scripts import scripts

from tests.docs import pages
from veldt import cli, words
from veldt import config as config_lib
from veldt.search.config.search_config import SearchConfig
from veldt.tasks.pool import config as pool_config

PAGE = pages.DOCS / "how-to" / "cluster.md"
LINES = [line for block in pages.blocks(PAGE, "console") for line in block.splitlines()]
RAYS = [line for line in LINES if re.match(r"(\w+=\w+ )?ray ", line)]
SEARCHES = [
    text.partition("veldt search ")[2]
    for text in (*LINES, *re.findall(r"`([^`\n]+)`", pages.prose(PAGE)))
    if "veldt search " in text
]


@pytest.mark.parametrize("line", RAYS)
def test_ray_takes_them(line):
    group, rest = scripts.cli, shlex.split(line.partition("ray ")[2])
    while hasattr(group, "commands"):
        group = group.commands[rest.pop(0)]
    context = group.make_context(group.name, rest)  # Unknown options are errors.
    assert context.params


def test_there_are_some():
    assert len(RAYS) == 5
    assert len(SEARCHES) >= 6


@pytest.mark.parametrize("text", SEARCHES)
def test_the_searches_are_ones(text):
    own, overrides = words.split_overrides(shlex.split(text), cli.COMMANDS["search"].own_options)
    settings = config_lib.load_config(SearchConfig, own[0], overrides)
    if settings.pool.ray.address is not None:
        assert pool_config.choose_backend(settings.pool) == "ray"
        assert settings.pool.num_workers is None or settings.window >= 8


def test_every_way_has_a_section_and_its_file_exists():
    sections = re.findall(r"^### (.+)$", pages.text(PAGE), re.MULTILINE)
    assert sections == ["By hand", "Slurm", "ray job submit", "KubeRay", "ray up"]
    files = re.findall(r"examples/cluster/[\w.-]*\w", pages.text(PAGE))
    assert {*files} == {
        f"examples/cluster/{name}"
        for name in ("slurm.sh", "rayjob.yaml", "Dockerfile", "ray-up.yaml")
    }
    assert all((pages.ROOT / name).is_file() for name in files)
