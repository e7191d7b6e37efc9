"""Every value of every `Literal` of every config is built, run for a few steps, and reported.

An enumeration that a table elsewhere does not cover fails here, whoever adds a value to it.
"""

import dataclasses
import types
import typing
import zipfile
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.meta.conftest import toy  # noqa: F401 (a fixture)
from tests.search import fakes
from veldt import cli, config
from veldt.meta.train.config import MetaTrainConfig
from veldt.meta.train.run_meta_training import run_meta_training
from veldt.meta.tune.config import TuneConfig
from veldt.meta.tune.run_tuning import run_tuning
from veldt.search.config.search_config import SearchConfig
from veldt.search.run.run_search import run_search
from veldt.tasks.benchmark.evaluate import EvaluateConfig
from veldt.tasks.benchmark.protocol.schedules import SCHEDULES
from veldt.tasks.common.config import codec

GOLDEN = Path(__file__).parents[1] / "golden" / "0.2.0"

# What a choice needs beside itself, by field and value; and what cannot be run on this machine.
NEEDS = {
    ("finals.tuning.method", "cma_es"): ("--finals.tuning.budget", "13"),
    ("finals.tuning.method", "metagradient"): ("--finals.tuning.budget", "13"),
    ("finals.tuning.method", "both"): ("--finals.tuning.budget", "25"),
    ("phases.0.estimator.kind", "full_es"): ("--phases.0.lengths", "[8, 8]"),
    ("phases.0.estimator.kind", "full_backprop"): ("--phases.0.lengths", "[8, 8]"),
    ("tune.learning_rate.scale", "logit"): ("--tune.learning_rate.start", "0.01"),
    ("tune.learning_rate.by", "group"): ("--groups", "{all: '.*'}"),
    ("synthetic.start", "rows"): ("--task", "letters_logistic"),
    ("synthetic.start", "noise"): ("--task", "letters_logistic"),
}
MODELS = "[{name: m, url: 'http://127.0.0.1:9/v1'}]"  # Nobody is there.
WITH_MODELS = [
    *(("llm.choice", value) for value in ("shares", "bandit")),
    *(("llm.models.0.grammar", value) for value in ("none", "llama_cpp", "vllm")),
]
NEEDS |= dict.fromkeys(WITH_MODELS, ("--llm.models", MODELS, "--llm.max_tries", "1"))
STAGE = "[{name: B, tasks: [{task: quadratic, num_steps: 10}]}]"
NEEDS |= {
    ("finals.stages.0.tasks.0.schedule", schedule): ("--finals.stages", STAGE)
    for schedule in SCHEDULES
}
NOT_RUN = {("pool.backend", "ray")}  # Starts a cluster; `test_ray_search.py` does.


def literals(cls: type, prefix: str = "") -> "list[tuple[str, Any]]":
    """The fields of a config that are enumerations, with each of their values."""
    found = []
    for name, hint in typing.get_type_hints(cls).items():
        if not dataclasses.is_dataclass(cls) or name not in {
            f.name for f in dataclasses.fields(cls)
        }:
            continue
        found += _of(f"{prefix}{name}", hint)
    return found


def _of(path: str, hint: Any) -> "list[tuple[str, Any]]":
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return [(path, value) for value in args]
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return literals(hint, f"{path}.")
    if origin is tuple and args[1:] == (...,):
        return _of(f"{path}.0", args[0])
    if origin is dict:
        return _of(f"{path}.learning_rate", args[1])
    if origin in (typing.Union, types.UnionType):
        return [one for arg in args for one in _of(path, arg)]
    return []


def base(kind: str, folder: Path) -> Path:
    """The config of a small run, as a file."""
    with zipfile.ZipFile(GOLDEN / f"{kind}.zip") as archive:
        path = folder / f"{kind}.yaml"
        path.write_bytes(archive.read("config.yaml"))
    return path


def settings(cls: type, kind: str, folder: Path, choice: "tuple[str, Any]") -> Any:
    """The small run's config with one choice made."""
    more = NEEDS.get(choice, ())
    return config.load_config(cls, str(base(kind, folder)), [*more, f"--{choice[0]}", choice[1]])


def names(choices: "list[tuple[str, Any]]") -> list[str]:
    return [f"{path}={value}" for path, value in choices]


def report(run_dir: Path) -> str:
    assert cli.main(["report", str(run_dir)]) == 0
    return (run_dir / "report.html").read_text(encoding="utf-8")


SEARCHES = literals(SearchConfig)
TRAININGS = literals(MetaTrainConfig)
TUNINGS = literals(TuneConfig)


def test_the_walk_finds_the_enumerations():
    assert ("parents", "initial") in SEARCHES and ("finals.tuning.method", "both") in SEARCHES
    assert ("phases.0.estimator.objective", "log_final") in TRAININGS
    assert ("tune.learning_rate.scale", "logit") in TUNINGS
    assert {path for path, _ in literals(EvaluateConfig)} == {"pool.backend"}


@pytest.mark.parametrize("choice", SEARCHES, ids=names(SEARCHES))
def test_a_search_is_built_run_and_reported(choice, tmp_path):
    made = settings(SearchConfig, "search", tmp_path, choice)
    if choice not in NOT_RUN:
        run_search(made, tmp_path / "run", factory=fakes.FakeWorker)
        assert "Hall of fame" in report(tmp_path / "run")


@pytest.mark.parametrize("kind", ["meta_train", "tune"])
def test_every_choice_of_a_stored_run_is_reported(kind, tmp_path):
    """Return a run that has ended, as if its config had the choice."""
    cls, choices = {"meta_train": (MetaTrainConfig, TRAININGS), "tune": (TuneConfig, TUNINGS)}[kind]
    run_dir = tmp_path / "run"
    with zipfile.ZipFile(GOLDEN / f"{kind}.zip") as archive:
        archive.extractall(run_dir)
    for choice in choices:
        made = settings(cls, kind, tmp_path, choice)
        (run_dir / "config.yaml").write_text(codec.dump(made))
        assert "<h2>Configuration</h2>" in report(run_dir), choice


@pytest.mark.slow
@pytest.mark.parametrize("choice", TRAININGS, ids=names(TRAININGS))
def test_a_meta_training_is_built_run_and_reported(choice, tmp_path, toy):  # noqa: F811
    made = settings(MetaTrainConfig, "meta_train", tmp_path, choice)
    if choice in NOT_RUN:
        return
    made = dataclasses.replace(
        made, architecture="rate", phases=(dataclasses.replace(made.phases[0], num_updates=1),)
    )
    run_meta_training(made, tmp_path / "run")
    assert "Meta-loss" in report(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("choice", TUNINGS, ids=names(TUNINGS))
def test_a_tuning_is_built_run_and_reported(choice, tmp_path):
    made = settings(TuneConfig, "tune", tmp_path, choice)
    if choice in NOT_RUN:
        return
    made = dataclasses.replace(made, num_updates=1, num_steps=6, compare=False)
    run_tuning(made, tmp_path / "run")
    assert "Outcome" in report(tmp_path / "run")
