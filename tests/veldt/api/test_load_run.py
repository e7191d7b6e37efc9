"""`veldt.load_run`: results of every kind of run, of this version and of older ones."""

import dataclasses
import zipfile
from pathlib import Path

import numpy as np
import pytest

import veldt
from tests.meta.tune.test_run_tuning import SETTINGS
from tests.tasks.benchmark.scores.test_stored_results import WHOLE
from veldt import evaluation
from veldt.errors import UsageError
from veldt.meta.tune import run_tuning
from veldt.tasks.benchmark.scores.results import Results
from veldt.tasks.common.errors import FileError, VeldtError

GOLDEN = Path(__file__).parents[2] / "golden"
VERSIONS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


@pytest.mark.parametrize("version", VERSIONS)
def test_runs_of_older_versions_are_read(version, tmp_path):
    for kind, cls, finished in (
        ("search", veldt.Discovery, True),
        ("meta_train", veldt.TrainedOptimizer, False),
        ("tune", veldt.TunedRun, False),
        ("evaluate", Results, None),
    ):
        with zipfile.ZipFile(GOLDEN / version / f"{kind}.zip") as archive:
            archive.extractall(tmp_path / kind)
        found = veldt.load_run(tmp_path / kind)
        assert isinstance(found, cls)
        assert finished is None or found.finished == finished
        assert found.to_records() and repr(found) and found._repr_html_().startswith("<div>")
        if kind != "evaluate":
            assert found.plot().html.count("<svg") >= 1
            assert found.report(tmp_path / f"{kind}.html").path.is_file()


def test_a_tuning_is_read(tmp_path):
    ended = run_tuning.run_tuning(SETTINGS, tmp_path)
    found = veldt.load_run(tmp_path)
    assert found.finished and found.num_updates == SETTINGS.num_updates == len(found.outcomes)
    assert found.numbers.keys() == ended.numbers.keys() == {"learning_rate", "momentum"}
    for name, value in ended.numbers.items():
        np.testing.assert_array_equal(found.numbers[name], value)
    assert found.outcome == pytest.approx(ended.progress.best_outcome)
    assert found.outcome < found.first_outcome
    assert "6 of 6" in repr(found) and "tests.meta.toys:Bowl" in found._repr_html_()
    (tmp_path / "tuned.npz").write_bytes(b"PK")
    with pytest.raises(FileError, match=r"tuned\.npz is damaged"):
        veldt.load_run(tmp_path)


def test_an_evaluation_is_read(tmp_path):
    evaluation.write_results(WHOLE, tmp_path)
    found = veldt.load_run(tmp_path)
    assert found.rows[0] == WHOLE.rows[0]
    assert dataclasses.replace(found, rows=()) == dataclasses.replace(WHOLE, rows=())


def test_what_holds_no_run_is_said(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match=r"mine' holds no run"):
        veldt.load_run(tmp_path / "mine")
    with pytest.raises(UsageError, match=r"no run directory .*Did you mean 'mine'"):
        veldt.load_run(tmp_path / "min")
    with zipfile.ZipFile(GOLDEN / VERSIONS[-1] / "search.zip") as archive:
        archive.extractall(tmp_path / "run")
    (tmp_path / "run" / "best.py").write_text("damaged")
    with pytest.raises(VeldtError, match=r"best\.py"):
        veldt.load_run(tmp_path / "run")
