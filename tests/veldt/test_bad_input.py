"""Bad input at the command line: a clear error, the right exit code, nothing lost, nothing run."""

import re
import sqlite3

import pytest

from tests.search import fakes
from veldt import cli
from veldt.search.run import run_search
from veldt.search.storage import schema
from veldt.search.storage.store import FILE_NAME, Store
from veldt.tasks.pool.config import PoolConfig

LINES = {
    "a loop": ("    for x in g: w = x\n", "line 2, column 5: a loop is not allowed"),
    "an import": ("    import os\n", "line 2, column 5: an import is not allowed"),
    "an unknown function": (
        "    w = intrep(g, w, 0.9)\n",
        "unknown function 'intrep' (did you mean 'interp'?)",
    ),
    "a wrong arity": (
        "    w = interp(g, w)\n",
        "line 2, column 9: interp takes 3 argument(s), not 2",
    ),
    "an undefined name": ("    w = gg + w\n", "'gg' is not defined here (did you mean 'g'?)"),
    "smuggled code": ("    w = __import__('os').system('touch {marker}')\n", "can be called"),
    "smuggled in a default": (None, "needs a number as its default"),
    "a wrong kind": ("    w = norm(step)\n", "argument 1 of norm must be a tensor"),
}


def fails(capsys, words, code):
    """Runs a command that must fail. Returns what it said."""
    assert cli.main([str(word) for word in words]) == code
    # What the command line leaves standing of a config is noted first.
    message = re.sub(r"\A(note: .*\n)*", "", capsys.readouterr().err)
    assert message.startswith("error: ") and "Traceback" not in message
    return message


@pytest.mark.parametrize("case", LINES)
def test_a_bad_rule_file_is_refused_with_its_place_and_never_runs(case, tmp_path, capsys):
    line, expected = LINES[case]
    marker = tmp_path / "was_run"
    head = "def f(w, g):\n"
    if line is None:
        head, line = f"def f(w, g, *, b=open({str(marker)!r}, 'w')):\n", ""
    rule = tmp_path / "bad.py"
    rule.write_text(head + line.replace("{marker}", str(marker)) + "    return w\n")
    output = tmp_path / "out.py"
    message = fails(capsys, ["export", rule, "--to", "optax", "-o", output], 1)
    assert expected in message and "bad.py" in message
    assert not marker.exists() and not output.exists()


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["search", "quickstrat"], 2, "quickstart"),
        (["search", "quickstart", "--max-evaluation", "5"], 2, "max-evaluations"),
        (["search", "quickstart", "--max-evaluations", "many"], 2, "max-evaluations"),
        (["search", "quickstart", "--tournament-size", "0"], 2, "tournament_size is 0"),
        (
            ["search", "quickstart", "--tasks", "[{task: digits_mpl, num_steps: 10}]"],
            2,
            "'digits_mlp'",
        ),
        (["search", "quickstart", "--tasks", "[{task: digits_mlp, num_step: 10}]"], 2, "num_steps"),
        (["search", "quickstart", "--tasks", "[]"], 2, "tasks is empty"),
        (["search", "quickstart", "--initial-rule", "adamm"], 2, "mean adam"),
        (["search", "quickstart", "--mutation.ops", "[sine]"], 2, "'sine'"),
        (["export", "lyon", "--to", "optax", "-o", "x.py"], 2, "mean lion"),
        (["export", "lion", "--to", "optix", "-o", "x.py"], 2, "optax"),
        (["report", "nowhere"], 2, "nowhere"),
        (["list", "rule"], 2, "rules"),
        (["serach", "quickstart"], 2, "'search'"),
    ],
)
def test_bad_words_name_what_is_wrong_and_the_nearest_right_spelling(
    words, code, expected, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    message = fails(capsys, words, code)
    assert expected.lower() in message.lower()
    assert list(tmp_path.iterdir()) == []


def test_a_bad_config_file_is_named_with_the_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "mine.yaml"
    config.write_text(
        "tasks: [{task: digits_mlp, num_steps: 10, num_chunks: 1}]\npopulaton_size: 5\n"
    )
    message = fails(capsys, ["search", config], 2)
    assert "mine.yaml" in message and "populaton_size" in message
    assert "population_size" in message and "2" in message


def test_missing_data_says_how_to_get_them(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VELDT_DATA", str(tmp_path))
    monkeypatch.setattr("veldt.tasks.data.dataset._DEBIAN_FASHION", tmp_path)
    words = ["search", "quickstart", "--tasks", "[{task: fashion_mlp, num_steps: 10}]"]
    message = fails(capsys, words, 1)
    assert "dataset-fashion-mnist" in message and "VELDT_DATA" in message
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def finished(tmp_path):
    directory = tmp_path / "run"
    config = fakes.small_config(pool=PoolConfig(num_workers=1), max_evaluations=5)
    run_search.run_search(config, directory, factory=fakes.FakeWorker)
    return directory


def test_a_damaged_store_is_refused_by_every_command(finished, capsys):
    path = finished / FILE_NAME
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :][:3000] = b"\0" * 3000
    path.write_bytes(bytes(content[: len(content) // 2]))
    kept = path.read_bytes()
    config = finished / "config.yaml"
    for words in (["report", finished], ["search", config, "--run-dir", finished, "--resume"]):
        message = fails(capsys, words, 1)
        assert "damaged" in message and FILE_NAME in message
    assert path.read_bytes() == kept


def test_a_run_of_another_version_is_refused_by_every_command(finished, capsys):
    with Store.open(finished) as store, store.transaction():
        store.set_meta("schema_version", str(schema.SCHEMA_VERSION + 1))
    config = finished / "config.yaml"
    for words in (["report", finished], ["search", config, "--run-dir", finished, "--resume"]):
        assert "another version" in fails(capsys, words, 1)
    with sqlite3.connect(finished / FILE_NAME) as connection:
        assert connection.execute("SELECT COUNT(*) FROM proposal").fetchone()[0] > 0
    connection.close()


def test_a_run_directory_is_neither_overwritten_nor_shared(finished, capsys):
    config = finished / "config.yaml"
    before = (finished / "best.py").read_text()
    assert "--resume" in fails(capsys, ["search", config, "--run-dir", finished], 1)
    with Store.open(finished):
        words = ["search", config, "--run-dir", finished, "--resume"]
        assert "in use" in fails(capsys, words, 1)
    words = ["search", config, "--run-dir", finished, "--resume", "--seed", "9"]
    assert "seed = 0, not 9" in fails(capsys, words, 1)
    assert (finished / "best.py").read_text() == before


def test_an_export_goes_nowhere_it_cannot(finished, capsys, tmp_path):
    (tmp_path / "file").write_text("x")
    message = fails(capsys, ["export", finished, "-o", tmp_path / "file" / "rule.py"], 1)
    assert "file" in message


def test_a_damaged_best_is_refused(finished, capsys):
    (finished / "best.json").write_text("{")
    assert "damaged" in fails(capsys, ["export", finished, "-o", finished / "rule.py"], 1)
