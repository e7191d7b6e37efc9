"""What the README and the configs promise beyond the code and the commands that pages show."""

import re
from pathlib import Path

import pytest

from veldt import config
from veldt.meta.train.config import MetaTrainConfig
from veldt.meta.tune import problem
from veldt.meta.tune.config import TuneConfig
from veldt.search.config.search_config import SearchConfig
from veldt.tasks import suites
from veldt.tasks.benchmark.protocol import baselines

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
META_TRAIN = {"celo", "celo2", "scaled"}
TUNE = {"tune_digits", "tune_few_rows"}
"""Configs of `veldt meta-train` and of `veldt tune`; the others are of `veldt search`."""


def test_the_readme_shows_a_picture_and_how_veldt_gets_on_the_path():
    assert re.findall(r"!\[[^]]*\]\(docs/[^)]+\.png\)", TEXT)
    assert "source .venv/bin/activate" in TEXT


def test_every_target_shown_is_the_makefiles():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.M):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), (page.name, target)


def test_every_baseline_is_in_the_table_shown():
    text = (ROOT / "docs" / "tutorials" / "find_a_rule.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```text\n(smoke: 4 tasks.*?)```", text, re.DOTALL)
    first_words = {line.split()[0] for line in shown.splitlines() if line.strip()}
    assert set(baselines.BASELINES) <= first_words


@pytest.mark.parametrize("info", config.list_configs(), ids=lambda info: info.name)
def test_shipped_configs_load(info):
    assert info.description
    if info.name in META_TRAIN:
        settings = config.load_config(MetaTrainConfig, info.name)
        validated_on = {check.task for check in settings.meta_validation}
        # So that the benchmark of the weights need leave nothing out.
        assert validated_on.isdisjoint(entry.task for entry in suites.load_suite("small").tasks)
        return
    if info.name in TUNE:
        problem.Problem(config.load_config(TuneConfig, info.name))
        return
    settings = config.load_config(SearchConfig, info.name)
    tasks = {proxy.task for proxy in settings.tasks}
    assert tasks.isdisjoint(proxy.task for proxy in settings.meta_validation)
