"""Running a comparison's jobs: what is kept, what is run again, what fails and what goes on."""

import sys

import numpy as np
import pytest

from veldt.tasks import registry, task_fingerprint
from veldt.tasks.benchmark.protocol import candidates, protocol
from veldt.tasks.benchmark.runs import cache, comparison_runs, pool_worker
from veldt.tasks.common import errors
from veldt.tasks.common.progress.display import Silent
from veldt.tasks.pool import config as pool_config

OWN = """
import jax
import jax.numpy as jnp
import optax
from veldt.tasks import base


class Slope(base.Task):
    name = "slope"

    def __init__(self):
        self.steepness = jnp.array([1.0, 0.3, 0.1])

    def init(self, key):
        return jax.random.uniform(key, (3,), minval=1.0, maxval=2.0)

    def loss(self, params, key, batch):
        return jnp.sum(self.steepness * jnp.square(params - batch)), {}

    def train_batch(self, key):
        return 0.1 * jnp.ones(3)

    def eval_batch(self, split):
        return jnp.full(3, {"train": 0.0, "valid": 0.1, "test": 0.2}[split])

    def normalizer(self, loss):
        return base.clip_normalized(loss)


class NamedSlope(Slope):
    name = "named slope"

    def init(self, key):
        return {"at": super().init(key)}

    def loss(self, params, key, batch):
        return super().loss(params["at"], key, batch)


def only_for_dictionaries(learning_rate):
    sgd = optax.sgd(learning_rate)

    def init(params):
        if not isinstance(params, dict):
            raise ValueError("I want names")
        return sgd.init(params)

    return optax.GradientTransformation(init, sgd.update)


def sgd(learning_rate):
    return optax.sgd(learning_rate)
"""
PLAIN, NAMED = "own_runs:Slope", "own_runs:NamedSlope"
SGD = candidates.FactoryCandidate("sgd", "optax:sgd", rates=(0.01, 0.1))
ADAM = candidates.FactoryCandidate("adam", "optax:adam", rates=(0.1,))
PICKY = candidates.FactoryCandidate("picky", "own_runs:only_for_dictionaries", rates=(0.1,))
PRINTS = {PLAIN: "a print", NAMED: "another"}
STEPS = protocol.NUM_CHECKS


class Watcher:
    """A watcher that remembers its calls; presses Ctrl-C once `stop_after` jobs are done."""

    def __init__(self, stop_after=None):
        self.phases = []
        self.notes = []
        self._stop_after = stop_after

    def phase(self, text, done, total):
        self.phases.append((text, done, total))
        if done == self._stop_after:
            raise KeyboardInterrupt

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The user's module, in the current directory; forgotten afterwards."""
    path = tmp_path / "own_runs.py"
    path.write_text(OWN)
    monkeypatch.chdir(tmp_path)
    yield path
    sys.modules.pop("own_runs", None)


@pytest.fixture
def ran(monkeypatch):
    """The sweeps that were really run: one (number of rates, number of schedules) each."""
    sizes = []
    sweep = pool_worker.sweep.sweep

    def counted(task, make_tx, rates, *args, **settings):
        sizes.append((len(rates), len(settings["schedules"])))
        return sweep(task, make_tx, rates, *args, **settings)

    monkeypatch.setattr(pool_worker.sweep, "sweep", counted)
    return sizes


def plan(candidate, task=PLAIN, *, num_steps=STEPS, seeds=(0, 1), schedules=("constant",)):
    return protocol.SweepPlan(candidate, task, num_steps, STEPS, seeds, schedules)


def run(folder, plans, watcher=None, *, prints=PRINTS, num_workers=1):
    """Run one session; return the sweeps of all plans, and the watcher."""
    watcher = Watcher() if watcher is None else watcher
    config = pool_config.PoolConfig(backend="inline", num_workers=num_workers)
    with comparison_runs.Runner(config, cache.RunCache(folder), watcher) as runner:
        return runner.sweeps(plans, prints), watcher


def assert_same(found, expected):
    assert set(found) == set(expected)
    for key, sweeps in found.items():
        for one, other in zip(sweeps, expected[key], strict=True):
            np.testing.assert_array_equal(one.losses, other.losses)
            assert (one.compile_s, one.run_s) == (other.compile_s, other.run_s)


def test_what_was_done_is_not_done_again(own, ran, tmp_path):
    plans = [plan(SGD), plan(ADAM, schedules=("constant", "warmup_cosine"))]
    found, first = run(tmp_path / "cache", plans)
    assert sorted(ran) == [(1, 2), (2, 1)]
    assert [len(found[one]) for one in plans] == [1, 2]
    assert first.notes == []
    assert first.phases == [("training", done, 2) for done in range(3)]
    again, second = run(tmp_path / "cache", plans)
    assert len(ran) == 2
    assert_same(again, found)
    assert second.phases == []
    assert second.notes == ["2 of 2 sweeps were done before"]
    # They are those of the task and optimizer named: worked out by hand, without noise.
    task = registry.load_task(PLAIN)
    at = np.asarray(found[plans[0]][0].losses[1, :, 0, 0])
    assert (at > 1.0).all()
    shrunk = (1 - 2 * 0.1 * np.asarray(task.steepness)) ** STEPS
    assert np.isfinite(found[plans[0]][0].losses[..., -1, :]).all()
    floor = np.sum(np.asarray(task.steepness) * (0.1 + (1 - 0.1) * shrunk) ** 2)
    roof = np.sum(np.asarray(task.steepness) * (0.1 + (2 - 0.1) * shrunk) ** 2)
    finals = found[plans[0]][0].losses[1, :, -1, 0]
    assert ((floor <= finals) & (finals <= roof)).all()


def test_two_workers_do_the_same_and_only_what_is_missing(own, ran, tmp_path):
    plans = [plan(SGD), plan(ADAM)]
    found, _ = run(tmp_path / "cache", plans[:1])
    both, watcher = run(tmp_path / "cache", plans, num_workers=2)
    assert len(ran) == 2
    assert watcher.notes == ["1 of 2 sweeps were done before"]
    assert_same({plans[0]: both[plans[0]]}, found)


def test_a_task_that_changed_and_a_damaged_file_are_run_again(own, ran, tmp_path):
    plans = [plan(ADAM)]
    found, _ = run(tmp_path / "cache", plans)
    run(tmp_path / "cache", plans, prints={PLAIN: "changed since"})
    assert len(ran) == 2
    file = cache.RunCache(tmp_path / "cache").path(plans[0], PRINTS[PLAIN])
    file.write_bytes(b"not at all")
    again, watcher = run(tmp_path / "cache", plans)
    assert len(ran) == 3
    assert watcher.notes == []
    np.testing.assert_array_equal(again[plans[0]][0].losses, found[plans[0]][0].losses)


def test_an_optimizer_that_raises_on_a_task_is_left_out_and_noted(own, ran, tmp_path):
    plans = [plan(PICKY), plan(PICKY, NAMED), plan(ADAM)]
    found, watcher = run(tmp_path / "cache", plans)
    assert set(found) == {plans[1], plans[2]}
    assert len(watcher.notes) == 1
    assert watcher.notes[0].startswith(f"picky on {PLAIN} failed: error: ValueError: I want names")
    assert watcher.phases[-1] == ("training", 3, 3)
    # What failed is not kept, and is tried again.
    _, second = run(tmp_path / "cache", plans)
    assert len(ran) == 4
    assert second.notes[0] == "2 of 3 sweeps were done before"
    assert "I want names" in second.notes[1]


def test_ctrl_c_loses_only_what_was_running(own, ran, tmp_path):
    plans = [plan(ADAM, seeds=(seed,)) for seed in range(3)]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cache", plans, Watcher(stop_after=1))
    assert len(ran) == 1
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 1
    found, watcher = run(tmp_path / "cache", plans)
    assert len(ran) == 3
    assert set(found) == set(plans)
    assert watcher.notes == ["1 of 3 sweeps were done before"]


def test_the_longest_go_first(own, ran, tmp_path):
    plans = [
        plan(ADAM),
        plan(ADAM, schedules=("constant", "warmup_linear")),
        plan(SGD, num_steps=3 * STEPS),
    ]
    run(tmp_path / "cache", plans)
    assert ran == [(2, 1), (1, 2), (1, 1)]


def test_a_file_that_is_edited_meanwhile_does_not_get_the_old_ones_results(own, ran, tmp_path):
    """What is kept must be found by the text that ran, not by the one that is there at the end."""
    own_sgd = candidates.FactoryCandidate("own", "own_runs:sgd", rates=(0.1,))

    class Editor(Watcher):
        def phase(self, text, done, total):
            super().phase(text, done, total)
            own.write_text(OWN + "\n# Another optimizer by now.\n")

    run(tmp_path / "cache", [plan(own_sgd, seeds=(0,))], Editor())
    _, watcher = run(tmp_path / "cache", [plan(own_sgd, seeds=(0,))])
    assert watcher.notes == []
    assert len(ran) == 2


def test_fingerprints_are_the_tasks_own(own):
    watcher = Watcher()
    config = pool_config.PoolConfig(backend="inline", num_workers=1)
    with comparison_runs.Runner(config, cache.RunCache(own.parent / "cache"), watcher) as runner:
        found = runner.fingerprints([PLAIN, NAMED])
    assert found == {
        name: task_fingerprint.fingerprint(registry.load_task(name)) for name in (PLAIN, NAMED)
    }
    assert found[PLAIN] != found[NAMED]
    assert watcher.phases == [("checking tasks", done, 2) for done in range(3)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits_mpl", r"task 'digits_mpl' cannot be used: .*did you mean 'digits_mlp'"),
        ("own_runs:Slop", r"task 'own_runs:Slop' cannot be used: .*did you mean 'Slope'"),
        ("nowhere_at_all:Task", "No module named 'nowhere_at_all'"),
    ],
)
def test_a_task_that_cannot_be_loaded_is_an_error(own, name, message):
    config = pool_config.PoolConfig(backend="inline", num_workers=1)
    with (
        comparison_runs.Runner(config, cache.RunCache(own.parent / "cache"), Silent()) as runner,
        pytest.raises(errors.TaskError, match=message),
    ):
        runner.fingerprints([name])
