"""A tuning from its start to its files, interrupted and gone on with."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import veldt
from tests.meta import toys
from veldt.meta import errors
from veldt.meta.train import log
from veldt.meta.tune import config, loop, problem, report, run_tuning
from veldt.meta.tune.training.hyperparameters import Hyperparameter
from veldt.tasks.common.errors import FileError

SETTINGS = config.TuneConfig(
    "tests.meta.toys:Bowl",
    20,
    {
        "learning_rate": Hyperparameter(0.01, "log", 3),
        "momentum": Hyperparameter(0.5, "logit"),
    },
    optimizer="sgd",
    num_updates=6,
    seeds=2,
    check_every=2,
    check_seeds=3,
    verify="none",
    compare=False,
)


class Deceptive(toys.Bowl):
    """A bowl whose validation loss is right, and the gradient of that wrong."""

    def loss(self, params, key, batch):
        value, aux = super().loss(params, key, batch)
        wrong = params - jax.lax.stop_gradient(params)
        return value + jnp.where(batch == 0, 100.0, 0.0) * wrong, aux


class View:
    """Keeps its notes, and presses Ctrl-C after an update."""

    def __init__(self, at=None):
        self.at = at
        self.notes = []

    def updated(self, settings, progress, figures):
        if progress.update == self.at:
            raise KeyboardInterrupt

    def checked(self, settings, progress, figures):
        pass

    def doing(self, text):
        pass

    def note(self, text):
        self.notes.append(text)

    def close(self):
        pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, run_tuning.run_tuning(SETTINGS, folder)


def figures(folder):
    return [
        {key: value for key, value in line.items() if key != "seconds"} for line in log.read(folder)
    ]


def test_what_was_learned_is_better_than_the_start(whole):
    _, result = whole
    progress = result.progress
    assert progress.update == 6 and progress.num_skipped == 0
    assert progress.best_outcome < 0.8 * progress.first_outcome
    subject = problem.Problem(SETTINGS)
    again = problem.outcome(subject.check(), dict(progress.best))
    assert again == pytest.approx(progress.best_outcome, rel=1e-6)


def test_a_run_directory_holds_all_of_it(whole):
    folder, result = whole
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "checkpoints", "metrics.jsonl", "schedules.py", "tuned.npz"} <= names
    lines = figures(folder)
    assert [line["update"] for line in lines if line["kind"] == "update"] == list(range(1, 7))
    assert [line["update"] for line in lines if line["kind"] == "check"] == [0, 2, 4, 6]
    with np.load(folder / "tuned.npz") as arrays:
        np.testing.assert_array_equal(arrays["learning_rate"], result.numbers["learning_rate"])


@pytest.mark.parametrize(
    "at", [2, pytest.param(1, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.slow)]
)
def test_an_interrupted_run_ends_with_the_same_numbers(whole, tmp_path, at):
    with pytest.raises(KeyboardInterrupt):
        run_tuning.run_tuning(SETTINGS, tmp_path, view=View(at))
    view = View()
    result = run_tuning.run_tuning(SETTINGS, tmp_path, resume=True, view=view)
    assert any("going on after update" in note for note in view.notes)
    folder, expected = whole
    for name, values in expected.progress.meta_params.items():
        np.testing.assert_array_equal(result.progress.meta_params[name], values)
    assert figures(tmp_path) == figures(folder)
    assert (tmp_path / "tuned.npz").read_bytes() == (folder / "tuned.npz").read_bytes()


def test_the_function_takes_the_same_steps_as_the_command(whole):
    folder, _ = whole
    subject = problem.Problem(SETTINGS)
    seen = []
    tuned = veldt.tune(
        subject.training_of,
        subject.meta_params,
        num_updates=SETTINGS.num_updates,
        outer=SETTINGS.outer,
        memory_bytes=int(SETTINGS.memory_mb * 2**20),
        report=lambda update, outcome, meta_params: seen.append(meta_params),
    )
    logged = [line for line in log.read(folder) if line["kind"] == "update"]
    assert list(tuned.outcomes) == [line["outcome"] for line in logged]
    for meta_params, line in zip(seen[1:], logged, strict=False):
        assert subject.numbers(meta_params)["momentum"] == line["hyperparameters"]["momentum"]
    assert tuned.outcome == min(tuned.outcomes)
    assert isinstance(tuned.meta_params["momentum"], jax.Array)
    summary = f"Tuned: outcome {tuned.outcome:.5g}, {tuned.outcomes[0]:.5g} at the start, 6 updates"
    assert repr(tuned).startswith(summary) and summary in tuned._repr_html_()
    assert [row["outcome"] for row in tuned.to_records()] == list(tuned.outcomes)


def test_what_failed_its_check_is_not_trusted_until_the_next(tmp_path):
    settings = dataclasses.replace(
        SETTINGS, task="tests.meta.tune.test_run_tuning:Deceptive", num_updates=4, verify="fast"
    )
    progress = run_tuning.run_tuning(settings, tmp_path).progress
    updates = [line for line in log.read(tmp_path) if line["kind"] == "update"]
    assert [line["method"] for line in updates] == ["full ES"] * 4
    assert ["the differences" in line["verdict"] for line in updates] == [True, False] * 2
    assert [line["plan"] == "none" for line in updates] == [False, True] * 2
    # The estimates know the way, which the gradients do not.
    assert progress.best_outcome < progress.first_outcome


def test_another_run_is_refused(whole):
    folder, _ = whole
    with pytest.raises(FileError, match="already holds a run"):
        run_tuning.run_tuning(SETTINGS, folder)
    with pytest.raises(FileError, match="num_steps = 20, not 30"):
        run_tuning.run_tuning(dataclasses.replace(SETTINGS, num_steps=30), folder, resume=True)


def test_a_misspelt_name_leaves_no_run_behind(tmp_path):
    wrong = dataclasses.replace(SETTINGS, fixed={"nesterof": 1.0})
    with pytest.raises(errors.MetaTrainError, match="no argument 'nesterof'"):
        run_tuning.run_tuning(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("optimizer", ["adam", "signed", "normalised"])
def test_no_number_changes_by_more_than_it_may(optimizer):
    outer = config.OuterConfig(optimizer, learning_rate=1.0, decay="constant", max_change=0.05)
    tx = loop.make_outer(outer, 10)
    grads = {"a": np.float32([3.0, -1e-3]), "b": np.float32(0.0)}
    steps, _ = tx.update(grads, tx.init(grads), grads)
    assert max(np.abs(step).max() for step in steps.values()) == pytest.approx(0.05)
    assert steps["a"][0] < 0 < steps["a"][1] and steps["b"] == 0


def test_the_report_shows_each_schedule(whole, tmp_path):
    folder, _ = whole
    text = report.render(folder)
    for part in ("learning_rate over the run", "momentum by update", "Outcome by update"):
        assert part in text
    with pytest.raises(FileError, match="cannot be read"):
        report.render(tmp_path)
