"""Runs that older versions of veldt left behind are resumed and reported."""

import json
import zipfile
from pathlib import Path

import pytest
import yaml

from veldt import cli
from veldt.search.program import Program
from veldt.search.storage import hall_entries
from veldt.search.storage.store import Store
from veldt.tasks.common import compiling

GOLDEN = Path(__file__).parents[1] / "golden"
VERSIONS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
SUITE = """
name: tiny
description: one task
tasks:
  - {task: breast_cancer_logistic, num_steps: 25}
"""


@pytest.fixture(params=VERSIONS)
def unpacked(request, tmp_path, monkeypatch):
    """`unpacked(kind)` is a run's directory; the test's own may be worked in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compiling, "keep_compiled", lambda: None)

    def unpack(kind):
        with zipfile.ZipFile(GOLDEN / request.param / f"{kind}.zip") as archive:
            archive.extractall(kind)
        return Path(kind)

    unpack.version = request.param
    return unpack


def report(run_dir):
    assert cli.main(["report", str(run_dir)]) == 0
    page = (run_dir / "report.html").read_text()
    assert page.lower().startswith("<!doctype html>") and len(page) > 5_000
    return page


def as_config(run_dir, name="mine.yaml"):
    """The config that a run holds, as a file to resume it with."""
    Path(name).write_text((run_dir / "config.yaml").read_text())
    return name


def test_a_search_is_reported_resumed_and_its_rule_used(unpacked, capsys):
    run_dir = unpacked("search")
    report(run_dir)
    with Store.open(run_dir, read_only=True) as store:
        before = store.rows("SELECT id, program, fitness FROM candidate WHERE id >= 0")
    words = ["search", as_config(run_dir), "--run-dir", str(run_dir), "--resume"]
    assert cli.main([*words, "--max-evaluations", "14"]) == 0
    noted = "did not detect hollow runs" in capsys.readouterr().err
    assert noted == unpacked.version.startswith("0.1.")
    with Store.open(run_dir, read_only=True) as store:
        after = store.rows("SELECT id, program, fitness FROM candidate WHERE id >= 0")
    assert after[: len(before)] == before and len(after) > len(before)
    report(run_dir)
    assert cli.main(["export", str(run_dir), "--to", "optax", "-o", "rule.py"]) == 0


@pytest.mark.parametrize("kind", ["meta_train", "tune"])
def test_what_was_stopped_goes_on_to_its_end(unpacked, kind):
    run_dir = unpacked(kind)
    report(run_dir)
    command = kind.replace("_", "-")
    assert cli.main([command, as_config(run_dir), "--run-dir", str(run_dir), "--resume"]) == 0
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    updates = [line["update"] for line in lines if "meta_grad_norm" in line]
    assert updates == [1, 2, 3, 4]
    report(run_dir)


@pytest.mark.parametrize("kind", ["meta_train", "tune"])
def test_another_config_is_refused_by_name(unpacked, kind, capsys):
    run_dir = unpacked(kind)
    settings = yaml.safe_load((run_dir / "config.yaml").read_text())
    settings["seed"] = 7
    Path("mine.yaml").write_text(yaml.safe_dump(settings))
    command = kind.replace("_", "-")
    assert cli.main([command, "mine.yaml", "--run-dir", str(run_dir), "--resume"]) == 1
    assert "seed" in capsys.readouterr().err


def test_an_evaluation_is_drawn_again_and_goes_on_from_its_runs(unpacked, capsys):
    run_dir = unpacked("evaluate")
    report(run_dir)
    Path("suite.yaml").write_text(SUITE)
    kept = {path: path.read_bytes() for path in (run_dir / "sweeps").glob("*.npz")}
    words = ["evaluate", "sgd", "--suite", "suite.yaml", "--out", str(run_dir)]
    assert cli.main([*words, "--step-times", "false"]) == 0
    assert kept and all(path.read_bytes() == content for path, content in kept.items())
    assert "sgd" in capsys.readouterr().out


@pytest.mark.slow
def test_finals_that_were_stopped_end_as_the_older_version_would_have_ended_them(
    tmp_path, monkeypatch
):
    """Among them constants tuned by CMA-ES and by metagradients, half of them done before."""
    folder = GOLDEN / "0.2.0"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compiling, "keep_compiled", lambda: None)
    with zipfile.ZipFile(folder / "search_in_finals.zip") as archive:
        archive.extractall("run")
    with Store.open(Path("run"), read_only=True) as store:
        done = store.first("SELECT COUNT(*) FROM evaluation")
    words = ["search", as_config(Path("run")), "--run-dir", "run", "--resume"]
    assert cli.main(words) == 0
    with Store.open(Path("run"), read_only=True) as store:
        found = hall_entries.read_entries(store)
        assert store.first("SELECT COUNT(*) FROM evaluation") > done
    expected = json.loads((folder / "search_in_finals.json").read_text())
    assert [(one.label, one.winner) for one in found] == [
        (one["label"], one["winner"]) for one in expected
    ]
    for one, other in zip(found, expected, strict=True):
        program = Program.parse(other["program"])
        assert one.program.statements == program.statements
        # To the bit where both were compiled alike; tests compile at another level.
        assert dict(one.program.constants) == pytest.approx(dict(program.constants), rel=1e-4)
        for name in ("learning_rate", "select", "final", "meta"):
            assert getattr(one, name) == pytest.approx(other[name], rel=1e-4)
