"""Every kind of name that a user can give, misspelt: exit code 2 and the nearest right spelling.

All commands, and all places of their configs where a name of something stands. Nothing is begun.
"""

import pytest

from tests.veldt.test_bad_input import fails
from veldt import cli

OWN = """
import veldt


class Mine(veldt.Task):
    pass


def factory(learning_rate):
    pass
"""
SUITE = "name: mine\ndescription: one\ntasks:\n  - {task: digits_mpl, num_steps: 25}\n"


def search(field, value):
    return ["search", "quickstart", f"--{field}", value]


def task(name):
    return f"[{{task: {name}, num_steps: 10}}]"


def meta_train(field, value):
    return ["meta-train", "celo", f"--{field}", value]


def tune(field, value):
    return ["tune", "tune_digits", f"--{field}", value]


# What is named, how, and what the message must hold.
CASES = {
    "search config": (["search", "quickstrat"], "'quickstart'"),
    "search config file": (["search", "mine.yml"], "there is no config file mine.yml"),
    "search field": (search("population-sise", "5"), "population-size"),
    "search task": (search("tasks", task("digits_mpl")), "'digits_mlp'"),
    "search task's key": (search("tasks", "[{tsk: digits_mlp}]"), "'task'"),
    "search own task's module": (search("tasks", task("owm:Mine")), "'own'"),
    "search own task's class": (search("tasks", task("own:Mina")), "'Mine'"),
    "search meta-validation task": (
        search("meta-validation", task("letters_mpl")),
        "'letters_mlp'",
    ),
    "search stage's task": (
        search("finals.stages", f"[{{name: B, tasks: {task('digits_mpl')}}}]"),
        "'digits_mlp'",
    ),
    "search initial rule": (search("initial-rule", "adamm"), "adam"),
    "search initial rule's file": (search("initial-rule", "rul.py"), "no rule file or run"),
    "search initial rule of a run": (search("initial-rule", "nowhere#3"), "'nowhere'"),
    "search founder": (search("founders", "[{rule: lionn}]"), "lion"),
    "search finals' baseline": (search("finals.baselines", "[lionn]"), "lion"),
    "search op": (search("mutation.ops", "[sine]"), "'sin"),
    "search role": (search("mutation.reads", "[ndims]"), "ndim"),
    "search objective": (search("objective", "train_los"), "'train_loss'"),
    "search objective's module": (search("objective", "owm:factory"), "'own'"),
    "search back end": (search("pool.backend", "rai"), "'ray'"),
    "search tuning method": (search("finals.tuning.method", "cma"), "cma_es"),
    "search choice": (search("finals.choose-by", "proxie"), "'proxies'"),
    "meta-train config": (["meta-train", "celo22"], "'celo2'"),
    "meta-train architecture": (meta_train("architecture", "celoo"), "'celo'"),
    "meta-train field": (meta_train("fields", "{lstm_sise: 4}"), "'lstm_size'"),
    "meta-train task": (meta_train("meta-validation", task("digits_mpl")), "'digits_mlp'"),
    "meta-train start": (meta_train("start", "celo22"), "'celo2'"),
    "meta-train start's file": (meta_train("start", "no.npz"), "no.npz"),
    "meta-train part": (meta_train("phases.0.train", "[schedulr]"), "'scheduler'"),
    "meta-train kind": (meta_train("tasks.kinds", "{perceptrn: 1}"), "'perceptron'"),
    "meta-train table": (meta_train("tasks.tables", "{wien: 1}"), "'wine'"),
    "meta-train split": (meta_train("phases.0.estimator.split", "vald"), "'valid'"),
    "meta-train estimator": (meta_train("phases.0.estimator.kind", "imitatio"), "'imitation'"),
    "meta-train expert": (meta_train("phases.0.estimator.expert", "owm:factory"), "'own'"),
    "tune config": (["tune", "tune_digit"], "'tune_digits'"),
    "tune task": (tune("task", "digits_mpl"), "'digits_mlp'"),
    "tune optimizer": (tune("optimizer", "adamww"), "'adamw'"),
    "tune own optimizer": (tune("optimizer", "own:factori"), "'factory'"),
    "tune argument": (tune("tune", "{learning_rat: {start: 0.1}}"), "'learning_rate'"),
    "tune fixed argument": (tune("fixed", "{b11: 0.1}"), "'b1'"),
    "evaluate rule": (["evaluate", "adamm"], "'adam'"),
    "evaluate rule's file": (["evaluate", "nowhere.py"], "nowhere.py"),
    "evaluate weights": (["evaluate", "celo22"], "'celo2'"),
    "evaluate weight file": (["evaluate", "nowhere.npz"], "nowhere.npz"),
    "evaluate run": (["evaluate", "runs/nowhere"], "runs/nowhere"),
    "evaluate run's entry": (["evaluate", "nowhere#3"], "'nowhere'"),
    "evaluate module": (["evaluate", "owm:factory"], "'own'"),
    "evaluate function": (["evaluate", "own:factori"], "'factory'"),
    "evaluate suite": (["evaluate", "adamw", "--suite", "smal"], "'small'"),
    "evaluate suite's file": (["evaluate", "adamw", "--suite", "no.yaml"], "no.yaml"),
    "evaluate suite's function": (["evaluate", "adamw", "--suite", "owm:s"], "'own'"),
    "evaluate suite's task": (["evaluate", "adamw", "--suite", "suite.yaml"], "'digits_mlp'"),
    "evaluate suite's own task": (["evaluate", "adamw", "--suite", "own.yaml"], "'own'"),
    "evaluate schedule": (["evaluate", "adamw", "--schedules", "[constnt]"], "'constant'"),
    "evaluate option": (["evaluate", "adamw", "--suit", "small"], "'--suite'"),
    "export rule": (["export", "lyon", "-o", "x.py"], "lion"),
    "export file": (["export", "nowhere.py", "-o", "x.py"], "nowhere.py"),
    "export empty directory": (["export", "empty", "-o", "x.py"], "empty"),
    "export entry": (["export", "nowhere#3", "-o", "x.py"], "'nowhere'"),
    "export format": (["export", "lion", "--to", "optx", "-o", "x.py"], "'optax'"),
    "report directory": (["report", "emty"], "'empty'"),
    "card weights": (["card", "celo22", "-o", "x"], "'celo2'"),
    "card file": (["card", "nowhere.npz", "-o", "x"], "nowhere.npz"),
    "card empty directory": (["card", "empty", "-o", "x"], "empty"),
    "list": (["list", "rule"], "'rules'"),
    "list grammar": (["list", "gramar"], "'grammar'"),
    "list grammar's config": (["list", "grammar", "quickstrat"], "'quickstart'"),
    "command": (["serach", "quickstart"], "'search'"),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "own.yaml").write_text(SUITE.replace("digits_mpl", '"owm:Mine"'))
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_a_name_that_nothing_has_is_a_usage_error(case, folder, capsys):
    words, expected = CASES[case]
    before = sorted(folder.rglob("*"))
    assert expected in fails(capsys, words, cli.USAGE)
    after = [path for path in folder.rglob("*") if "__pycache__" not in path.parts]
    assert sorted(after) == before


def test_every_command_is_walked():
    assert {words[0] for words, _ in CASES.values()} >= set(cli.COMMANDS)


def test_what_is_there_and_fails_is_no_usage_error(folder, capsys):
    """A user's module that imports what nobody has: the name was right."""
    (folder / "breaks.py").write_text("import a_package_that_nobody_has\n")
    assert "a_package_that_nobody_has" in fails(capsys, ["evaluate", "breaks:make"], cli.FAILURE)
    message = fails(capsys, ["evaluate", "own:factory", "--suite", "own:Mine"], cli.FAILURE)
    assert "suite 'own:Mine': Mine() failed: TypeError" in message
