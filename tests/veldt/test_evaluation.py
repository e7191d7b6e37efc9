"""What words name a candidate or a suite, and `veldt evaluate` as a user runs it."""

import json
import sys

import numpy as np
import optax
import pytest

import veldt
from veldt import cli, errors, evaluation
from veldt.search import errors as search_errors
from veldt.search import rule_sources
from veldt.search.export import program_candidate
from veldt.search.program import Program
from veldt.search.storage import best_rule
from veldt.tasks import suites
from veldt.tasks.benchmark.protocol import baselines
from veldt.tasks.benchmark.protocol.candidates import FactoryCandidate
from veldt.tasks.common import errors as task_errors

RULE = """\
def slow_sgd(w, g, *, scale=0.5):
    update = scale * g
    return update
"""
TASK = """
import jax
import jax.numpy as jnp

import veldt
from veldt.tasks import base, suites


class Line(veldt.Task):
    name = "line"

    def __init__(self):
        self.x = jnp.linspace(-1.0, 1.0, 90)

    def init(self, key):
        return {"slope": 0.1 * jax.random.normal(key, (1,))}

    def loss(self, params, key, batch):
        return jnp.mean((params["slope"] * batch - 2.0 * batch) ** 2), {}

    def train_batch(self, key):
        return self.x[jax.random.randint(key, (8,), 0, 60)]

    def eval_batch(self, split):
        return {"train": self.x[:60], "valid": self.x[60:75], "test": self.x[75:]}[split]

    def normalizer(self, loss):
        return base.clip_normalized(loss / jnp.mean((2.0 * self.x) ** 2))


def my_suite():
    return suites.Suite("mine", "one line", (suites.SuiteTask("evaluated_task:Line", 25),))


def no_suite():
    return "small"
"""
SUITE = """\
name: mine
description: one line
tasks:
  - {task: "evaluated_task:Line", num_steps: 25}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A user's folder: a rule, a task, a suite; the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rule.py").write_text(RULE)
    (tmp_path / "evaluated_task.py").write_text(TASK)
    (tmp_path / "suite.yaml").write_text(SUITE)
    yield tmp_path
    sys.modules.pop("evaluated_task", None)


# ------------------------------------------------------------------ what words stand for


def test_a_baselines_name_comes_before_a_rules():
    assert evaluation.load_candidate("lion") is baselines.BASELINES["lion"]
    rule = evaluation.load_candidate("adabelief")
    assert isinstance(rule, program_candidate.ProgramCandidate)
    assert rule.program == veldt.load_rule("adabelief")


def test_a_rule_file_is_a_candidate_by_its_own_name(here):
    found = evaluation.load_candidate("rule.py")
    assert isinstance(found, program_candidate.ProgramCandidate)
    assert (found.name, found.program.name) == ("rule", "slow_sgd")
    with pytest.raises(search_errors.SearchError):
        evaluation.load_candidate("missing.py")


def test_a_run_directory_is_its_best_rule_around_its_learning_rate(here):
    run = here / "my_run"
    run.mkdir()
    program = Program.parse(RULE)
    tasks = best_rule.describe_tasks([("digits_mlp", 200), ("my_task:Spiral", 50)])
    best_rule.write_best(run, best_rule.Best(program, 3e-3, {"run": "test", "tasks": tasks}))
    found = evaluation.load_candidate(run)
    assert found.selected_on == {"digits_mlp", "my_task:Spiral"}
    assert found.name == "my_run"
    assert found.program.statements == program.statements
    assert found.rates[3] == pytest.approx(3e-3)
    (here / "empty").mkdir()
    with pytest.raises(search_errors.SearchError, match="holds no best rule"):
        evaluation.load_candidate("empty")


def test_a_function_is_named_or_given(here):
    for given in ("optax:adabelief", optax.adabelief):
        found = evaluation.as_candidate(given)
        assert isinstance(found, FactoryCandidate)
    assert evaluation.as_candidate(optax.adabelief).name == "adabelief"
    assert evaluation.as_candidate(optax.adabelief, "mine").name == "mine"
    with pytest.raises(task_errors.TaskError, match="no factory that a worker could import"):
        evaluation.as_candidate(lambda learning_rate: optax.sgd(learning_rate))
    with pytest.raises(task_errors.TaskError, match="no factory"):
        evaluation.as_candidate(3)
    with pytest.raises(task_errors.TaskError, match="did you mean 'adam'"):
        evaluation.load_candidate("optax:adamm")


def test_a_program_is_a_candidate_and_equal_programs_are_the_same_one():
    one = evaluation.as_candidate(Program.parse(RULE))
    other = evaluation.as_candidate(Program.parse(RULE.replace("scale", "k")), "other")
    assert one.name == "slow_sgd"
    assert one.identity == evaluation.as_candidate(Program.parse(RULE), "x").identity
    assert one.identity != other.identity


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(errors.UsageError, match="Did you mean 'muon'"):
        evaluation.load_candidate("muonn")


def test_suites_come_by_name_file_or_factory(here):
    assert evaluation.load_suite("smoke") is suites.load_suite("smoke")
    wanted = suites.Suite("mine", "one line", (suites.SuiteTask("evaluated_task:Line", 25),))
    assert evaluation.load_suite("suite.yaml") == wanted
    assert evaluation.load_suite("evaluated_task:my_suite") == wanted
    with pytest.raises(task_errors.TaskError, match="did you mean 'small'"):
        evaluation.load_suite("smal")
    with pytest.raises(task_errors.TaskError, match="returned str"):
        evaluation.load_suite("evaluated_task:no_suite")
    (here / "bad.yaml").write_text(SUITE.replace("num_steps", "num_step"))
    with pytest.raises(task_errors.ConfigError, match=r"num_steps"):
        evaluation.load_suite("bad.yaml")
    (here / "twice.yaml").write_text(SUITE + SUITE.splitlines()[-1] + "\n")
    with pytest.raises(task_errors.ConfigError, match="twice"):
        evaluation.load_suite("twice.yaml")


# ------------------------------------------------------------------ the command and the function


def test_the_command_compares_and_writes_and_goes_on(here, capsys):
    words = [
        "evaluate",
        "rule.py",
        "--suite",
        "suite.yaml",
        "--out",
        "out",
        "--step-times",
        "false",
    ]
    words += ["--pool.num-workers", "1"]
    assert cli.main(words) == cli.OK
    printed = capsys.readouterr()
    assert "rule" in printed.out
    # `veldt report` draws the same page again, from what is stored.
    page = here / "out" / evaluation.PAGE_FILE
    drawn = page.read_text(encoding="utf-8")
    page.unlink()
    assert cli.main(["report", "out"]) == cli.OK
    assert capsys.readouterr().out == f"wrote {page.relative_to(here)}\n"
    assert page.read_text(encoding="utf-8") == drawn
    assert "there is no archive of evaluated_task:Line" in printed.err
    data = json.loads((here / "out" / "results.json").read_text())
    assert data["suite"] == "mine"
    assert [row["name"] for row in data["rows"]] == ["rule", "adam"]
    assert data["rows"][0]["speedup"]["value"] > 0
    names = sorted(path.name for path in (here / "out").iterdir())
    assert names == [
        *("curves.svg", "lock", "profile.svg", "report.html", "results.json", "run.json", "sweeps")
    ]
    # Again: nothing is trained, the numbers are the same.
    assert cli.main(words) == cli.OK
    assert "2 of 2 sweeps were done before" in capsys.readouterr().err
    again = json.loads((here / "out" / "results.json").read_text())
    assert again["rows"] == data["rows"]


def test_the_function_returns_what_the_command_prints(here):
    results = veldt.evaluate(
        {"mine": "rule.py"}, suite=here / "suite.yaml", rates=(0.5,), step_times=False
    )
    assert [row.name for row in results.rows] == ["mine", "adam"]
    assert results.rows[0].untuned_rate == 0.5
    assert not (here / "results.json").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["evaluate"], "RULE"),
        (["evaluate", "adammw"], "Did you mean 'adamw'"),
        (["evaluate", "adam", "--suit", "smoke"], "--suite"),
        (["evaluate", "adam", "--schedules", "[cosine]"], "warmup_cosine"),
        (["evaluate", "adam", "--rates", "[0.1, -1]"], "above 0"),
        (["evaluate", "adam", "--rate", "0.1"], "rates"),
    ],
)
def test_mistakes_are_reported_before_anything_runs(words, text, here, capsys):
    assert cli.main(words) == cli.USAGE
    assert text in capsys.readouterr().err
    assert not (here / "runs").exists()


def test_rules_that_find_their_own_step_are_tried_around_one():
    for name in rule_sources.RULE_NAMES:
        candidate = evaluation.load_candidate(name)
        if name in baselines.BASELINES or name in rule_sources.DISCOVERED:
            continue
        centre = 1.0 if name in rule_sources.AT_RATE_ONE else 0.01
        assert np.median(candidate.rates) == pytest.approx(centre)
        says = "learning rate" in rule_sources.load_rule(name).doc.replace("\n", " ")
        assert says or centre != 1.0


def test_help_lists_the_settings(capsys):
    assert cli.main(["evaluate", "--help"]) == cli.OK
    printed = capsys.readouterr().out
    for word in ("RULE", "--suite", "--out", "--schedules", "--seed", "--rates", "--pool.backend"):
        assert word in printed
