"""`veldt.meta_train`: the meta-training of the command, from Python; and its result.

The toy meta-training of `tests.meta.toys` stands in for a learned optimizer.
"""

import jax
import numpy as np
import optax
import pytest

import veldt
from tests.meta import toys
from veldt import cli
from veldt.errors import UsageError
from veldt.learned_opt import registry
from veldt.meta.train.training_view import TrainingView
from veldt.tasks.common.errors import ConfigError, FileError, TaskError
from veldt.tasks.families import distribution

SETTINGS = toys.settings(meta_validation=(toys.CHECK,), validate_every=2)


@pytest.fixture(autouse=True)
def toy(monkeypatch, tmp_path):
    monkeypatch.setitem(registry.ARCHITECTURES, "rate", toys.Rate())
    monkeypatch.setattr(distribution, "draw", lambda tasks, seed: toys.FAMILIES)
    monkeypatch.chdir(tmp_path)


def test_it_is_the_run_that_the_command_makes():
    learned = veldt.meta_train(SETTINGS, run_dir="python", seed=2, progress=False)
    words = ["--run-dir", "command", "--seed", "2"]
    assert cli.main(["meta-train", "python/config.yaml", *words]) == 0
    other = veldt.load_run("command")
    assert learned.finished and learned.num_updates == 4
    assert toys.same(learned.weights.meta_params, other.weights.meta_params)
    assert (learned.meta_losses, learned.checks) == (other.meta_losses, other.checks)
    assert learned.config == other.config


def test_a_task_of_meta_validation_may_be_an_object():
    checks = [(toys.Bowl(), 3), {"task": "quadratic", "num_steps": 2}]
    by_name = veldt.meta_train(SETTINGS, progress=False)
    by_object = veldt.meta_train(SETTINGS, meta_validation=[(toys.Bowl(), 3)], progress=False)
    assert by_object.checks == by_name.checks
    learned = veldt.meta_train(SETTINGS, meta_validation=checks, run_dir="run", progress=False)
    assert [c.task for c in learned.config.meta_validation] == ["object:bowl", "quadratic"]
    with pytest.raises(FileError, match="another task 'bowl'"):
        other = [(toys.Bowl(3.0), 3), checks[1]]
        veldt.meta_train(run_dir="run", resume=True, meta_validation=other, progress=False)
    with pytest.raises(TaskError, match="'bowl' was given to Python as an object"):
        veldt.meta_train(run_dir="run", resume=True, progress=False)


def test_an_interrupted_run_can_be_read_and_goes_on_to_the_same_end(monkeypatch, capsys):
    whole = veldt.meta_train(SETTINGS, run_dir="whole", progress=False)
    with monkeypatch.context() as patch:
        updated = TrainingView.updated

        def interrupt(view, settings, progress, figures):
            updated(view, settings, progress, figures)
            if progress.update == 3:
                raise KeyboardInterrupt

        patch.setattr(TrainingView, "updated", interrupt)
        with pytest.raises(KeyboardInterrupt):
            veldt.meta_train(SETTINGS, run_dir="cut")
    assert "veldt.meta_train(..., run_dir='cut', resume=True) goes on" in capsys.readouterr().err
    so_far = veldt.load_run("cut")
    assert not so_far.finished and so_far.num_updates == 3
    resumed = veldt.meta_train(run_dir="cut", resume=True, progress=False)
    assert resumed.meta_losses == whole.meta_losses
    assert toys.same(resumed.weights.meta_params, whole.weights.meta_params)


def test_what_cannot_be_used_is_said():
    with pytest.raises(UsageError, match="needs a config"):
        veldt.meta_train(seed=1)
    with pytest.raises(ConfigError, match=r"meta_train\(\): unknown keyword.*'validate_every'"):
        veldt.meta_train(SETTINGS, validate_evry=1)
    with pytest.raises(ConfigError, match="Did you mean 'celo'"):
        veldt.meta_train("celo3")


def test_the_result_is_used_shown_and_kept(tmp_path):
    learned = veldt.meta_train(SETTINGS, run_dir="run", progress=False)
    params = {"w": np.ones(3, np.float32)}
    path = learned.export(tmp_path / "new" / "mine.npz")
    updates = []
    for tx in (learned.as_optax(num_steps=10), veldt.learned_optimizer(path, num_steps=10)):
        assert isinstance(tx, optax.GradientTransformation)
        updates.append(tx.update(params, tx.init(params), params)[0])
    jax.tree.map(np.testing.assert_array_equal, *updates)
    assert repr(learned).startswith("Learned optimizer. architecture: rate; updates: 4 of 4; ")
    assert "<dd>4 of 4</dd>" in learned._repr_html_()
    records = learned.to_records()
    assert [row["update"] for row in records] == [1, 2, 3, 4]
    assert records[1]["meta_validation"] == dict(learned.checks)[2]
    assert "<h2>Meta-loss</h2>" in learned.plot().html
    assert learned.report().path == learned.run_dir / "report.html"
