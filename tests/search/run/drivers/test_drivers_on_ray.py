"""Drivers as Ray actors: the stores of threads, to the bit, also where one is killed.

The workers score by a formula: that training on Ray is training inline, others test.
"""

import dataclasses

import pytest

from tests.search import fakes
from tests.search.run.drivers import test_several_drivers as threads
from veldt.search.errors import SearchError
from veldt.search.run import run_search
from veldt.search.run.drivers import on_ray
from veldt.search.storage import integrity
from veldt.search.storage.store import Store
from veldt.tasks.pool.config import PoolConfig

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def search(directory, backend, num_workers=2):
    pool = PoolConfig(backend=backend, num_workers=num_workers, straggler_factor=None)
    config = fakes.small_config(
        drivers=2, migration_every=8, samples=4, max_evaluations=60, pool=pool
    )
    return run_search.run_search(config, directory, factory=fakes.FakeWorker)


def test_drivers_on_ray_make_the_stores_of_threads_though_one_is_killed(tmp_path, monkeypatch):
    expected = search(tmp_path / "threads", "inline")
    deaths = []
    exchange = on_ray.Actors.exchange

    def exchange_and_kill(self, mail):
        """Kill a driver once, when it has sent some letters."""
        import ray

        found = exchange(self, mail)
        for driver, report in found.items():
            if not deaths and not isinstance(report, str) and report.letters:
                deaths.append(driver)
                ray.kill(self._actors[driver])
        return found

    monkeypatch.setattr(on_ray.Actors, "exchange", exchange_and_kill)
    found = search(tmp_path / "ray", "ray")
    assert len(deaths) == 1
    assert found == dataclasses.replace(expected, best=found.best)  # Its origin names the folder.
    everything = [threads.everything(tmp_path / name, drivers=2) for name in ("ray", "threads")]
    assert everything[0] == everything[1]
    with Store.open(tmp_path / "ray", read_only=True) as store:
        assert integrity.problems(store) == []
        sessions = store.rows("SELECT backend, state FROM session")
    assert {row["backend"] for row in sessions} == {"ray"}
    assert sorted(row["state"] for row in sessions) == ["done", "done", "done", "working"]


def test_fewer_workers_than_drivers_are_refused_on_ray(tmp_path):
    with pytest.raises(SearchError, match="1 workers for 2 drivers"):
        search(tmp_path, "ray", num_workers=1)
