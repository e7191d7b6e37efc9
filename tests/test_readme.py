"""The README's code does what it says."""

import re
import runpy
from pathlib import Path

import jax
import pytest

import veldt
from veldt import config, evaluation
from veldt.meta.train.config import MetaTrainConfig
from veldt.meta.tune import problem
from veldt.meta.tune.config import TuneConfig
from veldt.search.config.search_config import SearchConfig
from veldt.tasks import suites
from veldt.tasks.benchmark.protocol import baselines, candidates, protocol

TEXT = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def block(start):
    """The README's code block that begins with `start`."""
    return next(text for text in BLOCKS if text.startswith(start))


def test_the_rule_shown_is_lion():
    program = veldt.Program.parse(block("def lion"))
    assert program.lower().structural_hash == veldt.load_rule("lion").lower().structural_hash


def test_the_task_shown_is_a_task(tmp_path, monkeypatch):
    (tmp_path / "my_task.py").write_text(block("# my_task.py"))
    monkeypatch.chdir(tmp_path)
    task = veldt.load_task("my_task:Spiral")
    params = task.init(jax.random.key(0))
    loss, _ = task.loss(params, jax.random.key(1), task.eval_batch("valid"))
    assert 0.5 < float(task.normalizer(loss)) < 1.5


def test_the_suite_shown_is_a_suite_whose_lengths_fit(tmp_path):
    (text,) = re.findall(r"```yaml\n(name: mine.*?)```", TEXT, re.DOTALL)
    (tmp_path / "my_suite.yaml").write_text(text)
    suite = evaluation.load_suite(tmp_path / "my_suite.yaml")
    assert [entry.num_steps % protocol.NUM_CHECKS for entry in suite.tasks] == [0, 0]


def test_every_baseline_is_in_the_table_shown():
    (shown,) = re.findall(r"```\n(smoke: 4 tasks.*?)```", TEXT, re.DOTALL)
    first_words = {line.split()[0] for line in shown.splitlines() if line.strip()}
    assert set(baselines.BASELINES) <= first_words
    assert "7 learning rates" in TEXT and candidates.NUM_RATES == 7
    assert "15 learning rates" in TEXT and len(baselines.REFERENCE.rates) == 15


def test_every_config_and_rule_named_exists():
    for name in re.findall(r"veldt search (\w+)", TEXT):
        assert config.load_config(SearchConfig, name).tasks
    for name in re.findall(r"veldt meta-train (\w+)", TEXT):
        assert config.load_config(MetaTrainConfig, name).phases
    for name in re.findall(r"veldt tune (\w+)", TEXT):
        assert config.load_config(TuneConfig, name).tune
    listed = re.search(r"shipped ones \(([^)]*)\)", TEXT)
    assert listed is not None
    from veldt.search import rule_sources

    assert set(listed.group(1).split(", ")) == set(rule_sources.PUBLISHED)
    for name in rule_sources.DISCOVERED:
        assert f'veldt.load_rule("{name}")' in TEXT


def test_the_loop_of_ones_own_that_is_shown_is_tuned(tmp_path):
    text = block("# own_loop.py")
    (tmp_path / "own_loop.py").write_text(text)
    tuned = runpy.run_path(str(tmp_path / "own_loop.py"))["tuned"]
    assert tuned.outcomes[0] > 0.4
    assert tuned.outcome < 0.2
    functions = text[text.index("def init") :]
    assert len([line for line in functions.splitlines() if line.strip()]) < 30


META_TRAIN = {"celo", "celo2"}
TUNE = {"tune_digits"}
"""Configs of `veldt meta-train` and of `veldt tune`; the others are of `veldt search`."""


@pytest.mark.parametrize("info", config.list_configs(), ids=lambda info: info.name)
def test_shipped_configs_load(info):
    assert info.description
    if info.name in META_TRAIN:
        settings = config.load_config(MetaTrainConfig, info.name)
        looked_at = {check.task for check in settings.meta_validation}
        # So that the benchmark of the weights need leave nothing out.
        assert looked_at.isdisjoint(entry.task for entry in suites.load_suite("small").tasks)
        return
    if info.name in TUNE:
        problem.Problem(config.load_config(TuneConfig, info.name))
        return
    settings = config.load_config(SearchConfig, info.name)
    tasks = {proxy.task for proxy in settings.tasks}
    assert tasks.isdisjoint(proxy.task for proxy in settings.meta_validation)


def test_a_program_and_an_export_have_different_names_and_veldt_gets_on_the_path():
    exports = set(re.findall(r" -o (\S+)", TEXT))
    programs = set(re.findall(r"(?:initial-rule|rule:) (\w+\.py)", TEXT))
    assert exports and programs and exports.isdisjoint(programs)
    assert "source .venv/bin/activate" in TEXT


def test_pictures_are_there():
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", TEXT):
        assert (Path(__file__).parents[1] / path).is_file()
