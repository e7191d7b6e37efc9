"""A run directory: what is in it, whose it is, and that what was interrupted goes on."""

import dataclasses
import json
import shutil
import sys

import jax
import numpy as np
import pytest

from tests.meta import toys
from veldt.learned_opt import errors as learned_errors
from veldt.learned_opt import shipped, weight_files
from veldt.meta import checkpoint, errors
from veldt.meta.train import config, log, run_meta_training
from veldt.tasks.common import errors as task_errors
from veldt.tasks.common.config import codec
from veldt.tasks.common.disk import lock, run_directory
from veldt.tasks.pool import config as pool_config

pytestmark = pytest.mark.usefixtures("toy")

SETTINGS = toys.settings(
    toys.phase("rate", 3, train=("rate",)),
    toys.phase("both", 3),
    meta_validation=(toys.CHECK,),
    validate_every=2,
    staleness=1,
)


class View:
    """Keeps its notes, and presses Ctrl-C when a method is called for an update."""

    def __init__(self, at=None, method="updated"):
        self.at, self.method = at, method
        self.notes = []

    def _called(self, method, progress):
        if (method, progress.update) == (self.method, self.at):
            raise KeyboardInterrupt

    def updated(self, settings, progress, figures):
        self._called("updated", progress)

    def checked(self, progress, figures):
        self._called("checked", progress)

    def doing(self, text):
        pass

    def note(self, text):
        self.notes.append(text)

    def close(self):
        pass


def arrays(directory):
    """All weights, as they lie in the files."""
    return {
        name: jax.tree.map(np.asarray, weight_files.read(directory / name).meta_params)
        for name in (shipped.RUN_FILE, run_meta_training.LAST_FILE)
    }


def lines(directory):
    """The log, without times."""
    return [
        {key: value for key, value in line.items() if key not in ("worker_s", "wall_s")}
        for line in log.read(directory)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Makes a run that nothing interrupts, once."""
    made = []

    def make():
        if not made:
            directory = tmp_path_factory.mktemp("whole")
            made.append((directory, toys.run_in(directory, SETTINGS)))
        return made[0]

    return make


def test_a_run_directory_holds_all_of_a_run(whole):
    directory, result = whole()
    assert {path.name for path in directory.iterdir()} == {
        *(
            "run.json",
            "config.yaml",
            "checkpoints",
            "metrics.jsonl",
            "weights.npz",
            "last.npz",
            "lock",
        ),
    }
    found = weight_files.read(directory / "weights.npz")
    assert toys.same(jax.tree.map(np.asarray, found.meta_params), dict(result.progress.best))
    assert toys.same(arrays(directory)["last.npz"], dict(result.progress.meta_params))
    record = found.record
    assert record["update"] == 6 and record["seed"] == 0
    assert record["families"] == ["bowls", "others"]
    assert record["config"] == codec.to_plain(SETTINGS)
    assert record["cost"]["inner_steps"] == result.progress.num_inner_steps
    assert record["meta_validation_score"] == result.progress.best_score
    assert found.tasks == {"tests.meta.toys:Bowl"}
    assert set(record["versions"]) == {"python", "veldt", "jax", "jaxlib", "optax"}


def test_the_log_has_a_line_for_each_update_and_look(whole):
    directory, result = whole()
    told = lines(directory)
    updates = [line for line in told if line["kind"] == "update"]
    assert [line["update"] for line in updates] == [1, 2, 3, 4, 5, 6]
    assert [line["phase"] for line in updates] == ["rate"] * 3 + ["both"] * 3
    assert sum(line["num_inner_steps"] for line in updates) == result.progress.num_inner_steps
    checks = [line for line in told if line["kind"] == "check"]
    assert [line["update"] for line in checks] == [0, 2, 3, 4, 6]
    assert min(line["score"] for line in checks) == result.progress.best_score


@pytest.mark.parametrize("method", ["updated", "checked"])
@pytest.mark.parametrize("moment", [2, 3, 4, 6])
def test_interrupted_it_goes_on_to_the_same_files(whole, tmp_path, moment, method):
    view = View(moment, method)
    with pytest.raises(KeyboardInterrupt):
        toys.run_in(tmp_path, SETTINGS, view=view)
    view = View()
    result = toys.run_in(tmp_path, SETTINGS, resume=True, view=view)
    # An update is done when all who watch have been told of it.
    done = moment - (method == "updated")
    assert view.notes[0] == f"going on after update {done}"
    directory, undisturbed = whole()
    assert toys.same(arrays(tmp_path), arrays(directory))
    assert lines(tmp_path) == lines(directory)
    assert result.progress.best_score == undisturbed.progress.best_score


def test_stopped_before_the_first_update_it_begins_anew(whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        toys.run_in(tmp_path, SETTINGS, view=View(0, "checked"))
    assert not (tmp_path / "weights.npz").exists()
    toys.run_in(tmp_path, SETTINGS, resume=True)
    assert toys.same(arrays(tmp_path), arrays(whole()[0]))
    assert lines(tmp_path) == lines(whole()[0])


def test_more_phases_may_be_appended(whole, tmp_path):
    first = dataclasses.replace(SETTINGS, phases=SETTINGS.phases[:1])
    toys.run_in(tmp_path, first)
    toys.run_in(tmp_path, SETTINGS, resume=True)
    assert toys.same(arrays(tmp_path), arrays(whole()[0]))
    assert lines(tmp_path) == lines(whole()[0])
    with pytest.raises(task_errors.FileError, match="holds a run with phases = "):
        toys.run_in(tmp_path, first, resume=True)


def test_a_run_that_is_there_is_not_run_over(whole, tmp_path):
    shutil.copytree(whole()[0], tmp_path, dirs_exist_ok=True)
    with pytest.raises(task_errors.FileError, match="already holds a run: continue it with --resu"):
        toys.run_in(tmp_path, SETTINGS)
    for changes, key in (({"seed": 1}, "seed = 0, not 1"), ({"staleness": 0}, "staleness = 1")):
        with pytest.raises(task_errors.FileError, match=f"holds a run with {key}"):
            toys.run_in(tmp_path, dataclasses.replace(SETTINGS, **changes), resume=True)
    assert lines(tmp_path) == lines(whole()[0])


def test_a_finished_run_may_be_resumed_elsewhere_and_stays_as_it_is(whole, tmp_path):
    shutil.copytree(whole()[0], tmp_path, dirs_exist_ok=True)
    elsewhere = dataclasses.replace(
        SETTINGS, pool=pool_config.PoolConfig("inline", 2), checkpoint_every_s=5.0
    )
    toys.run_in(tmp_path, elsewhere, resume=True)
    assert toys.same(arrays(tmp_path), arrays(whole()[0]))
    assert lines(tmp_path) == lines(whole()[0])
    written = run_directory.read_config(tmp_path)
    assert written["pool"]["num_workers"] == 2


def test_two_processes_cannot_have_one_directory(tmp_path):
    with (
        lock.DirectoryLock(tmp_path),
        pytest.raises(task_errors.FileError, match="in use by another veldt process"),
    ):
        toys.run_in(tmp_path, SETTINGS)
    assert not (tmp_path / "config.yaml").exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"architecture": "celo3"}, learned_errors.LearnedOptError, "celo3"),
        ({"fields": {"scal": 2.0}}, learned_errors.LearnedOptError, "scal"),
        ({"start": "no-such"}, learned_errors.WeightsError, "no-such"),
        (
            {"phases": (toys.phase("a"), toys.phase("b", train=("momentun",)))},
            errors.MetaTrainError,
            "no part 'momentun' to train .*'momentum'.*; there are: momentum, rate",
        ),
        (
            {
                "phases": (
                    toys.phase(
                        estimator=config.EstimatorConfig(
                            "imitation", 2, 2, expert="veldt.meta.problems.experts:adan"
                        )
                    ),
                )
            },
            task_errors.TaskError,
            "adan",
        ),
        (
            {"meta_validation": (config.CheckConfig("quadratik", 3),)},
            task_errors.TaskError,
            "quadratik",
        ),
    ],
)
def test_what_is_misspelt_leaves_no_run_behind(tmp_path, changes, error, message):
    directory = tmp_path / "run"
    with pytest.raises(error, match=message):
        toys.run_in(directory, dataclasses.replace(SETTINGS, **changes))
    assert not directory.exists()


def test_it_starts_from_weights_of_another_run(whole, tmp_path):
    directory, _ = whole()
    settings = toys.settings(toys.phase("more", 1, train=("rate",)), start=str(directory))
    toys.run_in(tmp_path, settings)
    before, after = arrays(directory)["weights.npz"], arrays(tmp_path)["weights.npz"]
    assert toys.same(before["momentum"], after["momentum"])
    assert not toys.same(before["rate"], after["rate"])
    # That run's meta-validation chose the weights at the start: no benchmark may count its tasks.
    assert settings.meta_validation == ()
    assert weight_files.read(tmp_path / "weights.npz").tasks == {toys.CHECK.task}
    mlp = dataclasses.replace(settings, architecture="mlp", phases=(toys.phase(),))
    with pytest.raises(errors.MetaTrainError, match="weights of rate in other sizes than this mlp"):
        toys.run_in(tmp_path / "mlp", mlp)


def test_tensorboard_without_its_package_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(errors.MetaTrainError, match="needs the package tensorboardX"):
        toys.run_in(tmp_path / "run", dataclasses.replace(SETTINGS, tensorboard=True))
    assert not (tmp_path / "run").exists()


def test_what_a_kill_left_beyond_the_last_checkpoint_is_done_again(whole, tmp_path):
    """As after SIGKILL: a checkpoint of update 3, and files of later ones."""
    with pytest.raises(KeyboardInterrupt):
        toys.run_in(tmp_path, SETTINGS, view=View(4))
    with (tmp_path / log.FILE_NAME).open("a") as handle:
        for update in (4, 5):
            handle.write(json.dumps({"kind": "update", "update": update, "lost": True}) + "\n")
        handle.write('{"kind": "upd')
    assert (tmp_path / checkpoint.FOLDER / "3").is_dir()
    toys.run_in(tmp_path, SETTINGS, resume=True)
    assert lines(tmp_path) == lines(whole()[0])
