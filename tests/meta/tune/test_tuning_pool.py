"""Tunings on pools: the same bits wherever and by however many, also after losses."""

import dataclasses
import os
import pickle
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.meta.tune import test_run_tuning as tunings
from veldt.meta import errors
from veldt.meta.replay import api, fallback, trust
from veldt.meta.tune import (
    comparison,
    config,
    problem,
    run_tuning,
    tuning_jobs,
    tuning_worker,
)
from veldt.tasks.pool import pools, simulated
from veldt.tasks.pool.config import PoolConfig
from veldt.tasks.pool.simulated import Cluster, End

# Three runs an update in jobs of two and one; the means of unequal parts.
SETTINGS = dataclasses.replace(
    tunings.SETTINGS, seeds=3, runs_per_job=2, num_updates=4, verify="fast", compare=True
)
DECEPTIVE = dataclasses.replace(
    SETTINGS, task="tests.meta.tune.test_run_tuning:Deceptive", compare=False
)


@dataclasses.dataclass(frozen=True)
class DyingFactory:
    """Makes workers of which the first to have done so many jobs takes its process with it."""

    config: config.TuneConfig
    journal: Path | None = None

    def __call__(self):
        return Dying(tuning_worker.TuningWorker(self.config))


class Dying:
    def __init__(self, worker):
        self.worker, self.num_jobs = worker, 0

    def __call__(self, payload):
        self.num_jobs += 1
        died = Path(os.environ["VELDT_TEST_DIED"])
        if self.num_jobs == 4 and not died.exists():
            died.touch()
            os._exit(3)
        return self.worker(payload)


def run(folder, settings=SETTINGS, **options):
    return run_tuning.run_tuning(settings, folder, **options)


def on(settings, **pool):
    return dataclasses.replace(settings, pool=PoolConfig(**pool))


def contents(folder):
    """All numbers of a run, as they lie in its files."""
    path = folder / comparison.FILE
    return (
        tunings.figures(folder),
        (folder / "tuned.npz").read_bytes(),
        (folder / "schedules.py").read_text(),
        comparison.read(folder) if path.exists() else None,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(folder)
    return contents(folder)


@pytest.fixture(scope="module")
def deceived(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deceived")
    run(folder, DECEPTIVE)
    return contents(folder)


@pytest.fixture(scope="module")
def worker():
    return tuning_worker.TuningWorker(SETTINGS)


@pytest.fixture(scope="module")
def subject():
    return problem.Problem(SETTINGS)


def plain(subject):
    return {name: np.asarray(value) for name, value in subject.meta_params.items()}


@pytest.fixture
def parts(subject):
    groups = subject.groups(subject.seeds_of(5))
    assert [len(group) for group in groups] == [2, 1]
    return groups, tuning_jobs.shares(groups)


def test_parts_have_the_metagradient_of_the_whole(worker, subject, parts):
    groups, shares = parts
    found = [worker(tuning_worker.ReplayJob(group, plain(subject), "update_5")) for group in groups]
    expected = api.metagradient(
        subject.training_of(5), subject.meta_params, key=jax.random.key(0), check="none"
    )
    outcome = tuning_jobs.mean([part.outcome for part in found], shares)
    assert outcome == pytest.approx(expected.outcome, rel=1e-6)
    gradient = tuning_jobs.mean_gradient([part.gradient for part in found], shares)
    for name, value in expected.gradient.items():
        np.testing.assert_allclose(gradient[name], value, rtol=1e-5)
        assert gradient[name].dtype == value.dtype


def test_parts_have_the_differences_of_the_whole(worker, subject, parts):
    groups, shares = parts
    key = jax.random.key(3)
    bits, gradient = tuning_worker.key_bits(key), {k: np.sin(x) for k, x in plain(subject).items()}
    jobs = [
        tuning_worker.DifferenceJob(group, plain(subject), gradient, bits, 2) for group in groups
    ]
    found = trust.mean([worker(job) for job in jobs], shares)
    expected = trust.differences(
        subject.training_of(5), subject.meta_params, gradient, key, num_directions=2
    )
    np.testing.assert_allclose(found.outcomes, expected.outcomes, rtol=1e-6)
    np.testing.assert_allclose(found.movement, expected.movement, rtol=1e-4)
    np.testing.assert_allclose(
        found.agreement / found.movement, expected.agreement / expected.movement, rtol=1e-3
    )


def test_parts_have_the_estimate_of_the_whole(worker, subject, parts):
    groups, shares = parts
    key = jax.random.key(4)
    bits = tuning_worker.key_bits(key)
    found = [worker(tuning_worker.EstimateJob(group, plain(subject), bits)) for group in groups]
    gradient = tuning_jobs.mean_gradient(found, shares)
    expected = fallback.estimate(subject.training_of(5), subject.meta_params, key)
    for name, value in expected.items():
        np.testing.assert_allclose(gradient[name], value, rtol=1e-3)


def test_parts_have_the_outcome_of_the_whole_and_one_hollow_one_makes_it_hollow(subject):
    shares = [0.75, 0.25]
    mean = problem.judge([problem.Ended(1.0, 0), problem.Ended(3.0, 0)], shares)
    assert mean == (1.5, "")
    outcome, why = problem.judge([problem.Ended(1.0, 0), problem.Ended(3.0, 1)], shares)
    assert np.isnan(outcome) and why
    diverged = problem.judge([problem.Ended(np.inf, 0), problem.Ended(3.0, 1)], shares)
    assert diverged == (np.inf, "")  # It is known by its outcome.


def test_all_runs_in_one_job_are_the_metagradient_to_the_bit(subject):
    settings = dataclasses.replace(SETTINGS, runs_per_job=None)
    groups = problem.Problem(settings).groups(subject.seeds_of(2))
    assert groups == [tuple(subject.seeds_of(2))]
    found = tuning_worker.TuningWorker(settings)(
        tuning_worker.ReplayJob(groups[0], plain(subject), "update_2")
    )
    expected = api.metagradient(
        subject.training_of(2),
        subject.meta_params,
        key=jax.random.key(0),
        memory_bytes=int(settings.memory_mb * 2**20),
        check="none",
    )
    assert tuning_jobs.mean([found.outcome], [1.0]) == expected.outcome
    gradient = tuning_jobs.mean_gradient([found.gradient], [1.0])
    for name, value in expected.gradient.items():
        np.testing.assert_array_equal(gradient[name], value)


@pytest.mark.parametrize("num_workers", [2, 5])
def test_the_number_of_workers_changes_no_bit(whole, deceived, tmp_path, num_workers):
    run(tmp_path / "one", on(SETTINGS, backend="inline", num_workers=num_workers))
    assert contents(tmp_path / "one") == whole
    run(tmp_path / "two", on(DECEPTIVE, backend="inline", num_workers=num_workers))
    assert contents(tmp_path / "two") == deceived
    assert {line["method"] for line in deceived[0] if line["kind"] == "update"} == {"full ES"}


@pytest.mark.parametrize("at", [1, 2])
def test_a_run_goes_on_with_another_number_of_workers(whole, tmp_path, at):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, view=tunings.View(at))
    run(tmp_path, on(SETTINGS, backend="inline", num_workers=3), resume=True)
    assert contents(tmp_path) == whole


def test_machines_that_die_change_no_bit(whole, tmp_path, monkeypatch):
    made = []

    def make_pool(config, factory):
        # Jobs take a second or two, and a machine lives for some ten of them.
        made.append(
            simulated.SimulatedPool(
                factory(),
                Cluster(3, start_s=1.0, life_s=15.0),
                lambda job, rng: (rng.uniform(1.0, 2.0), End.RETURNS),
                driver_time=False,
            )
        )
        return made[0]

    monkeypatch.setattr(pools, "make_pool", make_pool)
    view = tunings.View()
    run(tmp_path, view=view)
    stats = made[0].stats()
    assert contents(tmp_path) == whole
    assert stats.num_lost_workers > 0 and stats.num_retries > 0
    said = view.notes[-1]
    assert f"{stats.num_done:,} jobs on 3 workers" in said and "workers lost" in said


def test_only_numbers_travel_and_what_an_update_needs_goes_out_at_once(tmp_path, monkeypatch):
    order, payloads, make_pool = [], [], pools.make_pool

    def make(config, factory):
        pool = make_pool(config, factory)
        submit, next_result = pool.submit, pool.next_result

        def watched(job):
            order.append(job.label.partition(",")[0])
            payloads.append(job.payload)
            submit(job)

        def result(timeout_s=None):
            found = next_result(timeout_s)
            order.append(None)
            assert not any(isinstance(x, jax.Array) for x in jax.tree.leaves(found.value))
            return found

        monkeypatch.setattr(pool, "submit", watched)
        monkeypatch.setattr(pool, "next_result", result)
        return pool

    monkeypatch.setattr(pools, "make_pool", make)
    run(tmp_path)
    first = list(dict.fromkeys(order[: order.index(None)]))
    assert first == ["check after update 0", "metagradient of update 0"]
    assert max(len(pickle.dumps(payload)) for payload in payloads) < 2000
    for payload in payloads:
        leaves = jax.tree.leaves(dataclasses.asdict(payload))
        assert all(isinstance(leaf, np.ndarray | int | str) for leaf in leaves)


def test_what_a_worker_cannot_do_ends_the_tuning_with_its_name(tmp_path):
    class Broken(tuning_worker.TuningWorker):
        def __call__(self, payload):
            raise ValueError("no such luck")

    pool = pools.make_pool(SETTINGS.pool, lambda: Broken(SETTINGS))
    with pool, pytest.raises(errors.MetaTrainError, match="some runs: error: ValueError: no such"):
        jobs = tuning_jobs.TuningJobs(pool)
        jobs.take(jobs.submit("some runs", [tuning_worker.OutcomeJob((1,), {})]))
    with pytest.raises(TypeError, match="no job str"):
        tuning_worker.TuningWorker(SETTINGS)("job")


def test_a_wait_for_many_jobs_says_how_many_are_done():
    said = []
    pool = pools.make_pool(PoolConfig("inline", 2), lambda: first_is_slow)
    with pool:
        jobs = tuning_jobs.TuningJobs(pool, said.append)
        asked = [tuning_worker.OutcomeJob((i,), {}) for i in range(3)]
        assert jobs.take(jobs.submit("runs", asked), "the check") == [0, 1, 2]
    assert "compiling and running the check: 0 of 3 jobs done" in said


def first_is_slow(payload):
    """Take longer for the first seed than a wait after which the watcher is told."""
    time.sleep(0.8 if payload.seeds == (0,) else 0.0)
    return payload.seeds[0]


def test_each_part_has_a_journal_of_its_own(whole, tmp_path):
    settings = dataclasses.replace(SETTINGS, journal=True, compare=False)
    run(tmp_path, on(settings, backend="inline", num_workers=2))
    names = {path.name for path in (tmp_path / run_tuning.JOURNAL_FOLDER).iterdir()}
    assert names == {f"update_{u}_part_{i}" for u in range(4) for i in range(2)}
    assert contents(tmp_path)[1] == whole[1]


def test_workers_of_a_cluster_have_no_journal(tmp_path, monkeypatch):
    settings = dataclasses.replace(SETTINGS, journal=True)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.5:6379")
    with pytest.raises(errors.MetaTrainError, match=r"set pool\.backend to inline"):
        run(tmp_path / "run", settings)
    assert not (tmp_path / "run").exists()


def test_a_rate_for_each_step_replaces_the_schedule(worker, subject):
    rates = np.full(SETTINGS.num_steps, 0.05, np.float32)
    job = tuning_worker.OutcomeJob((3,), {**plain(subject), "learning_rate": rates}, "by_step")
    constant = dataclasses.replace(
        SETTINGS,
        tune={
            **SETTINGS.tune,
            "learning_rate": dataclasses.replace(
                SETTINGS.tune["learning_rate"], start=0.05, knots=0
            ),
        },
    )
    other = problem.Problem(constant)
    expected = problem.outcome(other.training([3]), other.meta_params)
    assert worker(job).outcome == pytest.approx(expected, rel=1e-5)
    assert jnp.isfinite(expected)


@pytest.mark.slow
@pytest.mark.ray
def test_a_tuning_on_ray_is_the_tuning_inline_though_a_worker_is_lost(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("VELDT_TEST_DIED", str(tmp_path / "died"))
    monkeypatch.setattr(tuning_worker, "TuningWorkerFactory", DyingFactory)
    settings = on(SETTINGS, backend="ray", num_workers=2, straggler_factor=None)
    view = tunings.View()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", settings, view=tunings.View(2))
    run(tmp_path / "run", settings, resume=True, view=view)
    assert contents(tmp_path / "run") == whole
    assert (tmp_path / "died").exists()
    run(tmp_path / "again", settings)
    assert contents(tmp_path / "again") == whole
