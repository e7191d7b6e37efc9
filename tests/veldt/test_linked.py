"""What a changed field leaves standing is said, and a run on other tasks has a place of its own."""

import dataclasses
from pathlib import Path

import pytest

from tests.veldt.test_cli import fake  # noqa: F401 (a fixture)
from veldt import cli, fields
from veldt import config as config_lib
from veldt.api import linked

CONFIGS = {"search": "discover", "meta-train": "celo", "tune": "tune_digits"}
# Another value for each field that has linked ones.
OTHERS = {
    ("search", "tasks"): ("tasks", "[{task: quadratic, num_steps: 10}]"),
    ("search", "initial_rule"): ("initial-rule", "lion"),
    ("meta-train", "architecture"): ("architecture", "celo2"),
    ("meta-train", "tasks"): ("tasks.num-families", "3"),
    ("tune", "task"): ("task", "quadratic"),
    ("tune", "optimizer"): ("optimizer", "sgd"),
}
ROWS = [(command, field) for command, row in linked.LINKED.items() for field in row]


def load(command, source, overrides):
    cls = cli.COMMANDS[command].config_class()
    return config_lib.load_config(cls, source, overrides)


def text_of(settings, field):
    return fields.one_line(linked._value(settings, field))


@pytest.mark.parametrize(("command", "field"), ROWS)
def test_what_stays_is_said_with_its_value_and_the_option(command, field):
    source = CONFIGS[command]
    option, value = OTHERS[command, field]
    overrides = [f"--{option}", value]
    settings = load(command, source, overrides)
    said = "\n".join(linked.notes(command, settings, source, overrides))
    for other in linked.LINKED[command][field]:
        stays = linked._value(settings, other)
        expected = f"{other} stays as in {source}: {text_of(settings, other)} (--"
        assert (expected in said) == (stays not in (None, (), {}))
    assert linked.notes(command, load(command, source, []), source, []) == []


@pytest.mark.parametrize(("command", "field"), ROWS)
def test_what_is_given_too_is_not_said(command, field):
    option, value = OTHERS[command, field]
    settings = load(command, CONFIGS[command], [f"--{option}", value])
    overrides = [f"--{option}", value]
    for other in linked.LINKED[command][field]:
        overrides += ["--" + other.replace("_", "-"), text_of(settings, other)]
    assert linked.notes(command, settings, CONFIGS[command], overrides) == []


def test_the_table_names_fields_that_there_are():
    for command, rows in linked.LINKED.items():
        options = {row.option for row in fields.list_fields(cli.COMMANDS[command].config_class())}
        for field in [*rows, *(other for row in rows.values() for other in row)]:
            option = "--" + field.replace("_", "-")
            assert any(f"{each}.".startswith(f"{option}.") for each in options), (command, field)
    assert set(linked.SUBJECTS) == set(linked.LINKED)


@pytest.mark.parametrize(
    ("command", "overrides", "name"),
    [
        ("search", [], "discover"),
        ("search", ["--seed", "3", "--initial-rule", "lion"], "discover"),
        ("search", ["--tasks", "[{task: 'my_task:Spiral', num_steps: 200}]"], "discover_Spiral"),
        ("search", ["--tasks.0.num-steps", "400"], "discover"),
        (
            "search",
            ["--tasks.0.task", "quadratic"],
            "discover_quadratic_and_3_more",
        ),
        ("meta-train", ["--architecture", "celo2"], "celo_celo2"),
        ("tune", ["--task=letters_mlp"], "tune_digits_letters_mlp"),
    ],
)
def test_a_run_is_kept_under_what_it_is_of(command, overrides, name):
    source = CONFIGS[command]
    settings = load(command, source, overrides)
    assert linked.run_dir(command, settings, source, overrides) == Path("runs") / name
    assert linked.run_dir(command, settings, f"configs/{source}.yaml", overrides).name == name


def test_the_terminal_shows_it(fake, capsys, tmp_path, monkeypatch):  # noqa: F811
    calls = []

    def run_search(config, run_dir, *, resume, view):
        calls.append(run_dir)
        return dataclasses.make_dataclass("Result", ["entries"])(())

    fake("run.run_search", run_search=run_search)
    monkeypatch.chdir(tmp_path)
    words = ["search", "quickstart", "--tasks", "[{task: quadratic, num_steps: 10}]"]
    assert cli.main(words) == 0
    err = capsys.readouterr().err
    assert "note: --tasks is changed; meta_validation stays as in quickstart: [{" in err
    assert "note: the run is kept in runs/quickstart_quadratic (--run-dir changes it)" in err
    assert cli.main([*words, "--run-dir", "here", "--meta-validation", "[]"]) == 0
    assert "note" not in capsys.readouterr().err
    assert calls == [Path("runs/quickstart_quadratic"), Path("here")]
