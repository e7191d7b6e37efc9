"""Drivers as Ray actors: the stores of threads, to the bit, also where drivers are killed."""

import dataclasses

import pytest

from tests.search.drivers import test_several_drivers as threads
from veldt.search.config import finals_config, proxy_config, search_config
from veldt.search.drivers import on_ray
from veldt.search.errors import SearchError
from veldt.search.run import run_search
from veldt.search.storage import integrity
from veldt.search.storage.store import Store
from veldt.tasks.pool import config as pool_config

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def small_config(backend, num_workers=3):
    """A small search that really trains."""
    return search_config.SearchConfig(
        tasks=(proxy_config.ProxyConfig("quadratic", 20, 2),),
        meta_validation=(proxy_config.ProxyConfig("breast_cancer_logistic", 20, 2),),
        max_evaluations=90,
        population_size=12,
        fresh_seeds=4,
        window=8,
        samples=3,
        drivers=3,
        migration_every=10,
        finals=finals_config.FinalsConfig(num_rates=3, select_seeds=1, final_seeds=2),
        pool=pool_config.PoolConfig(
            backend=backend, num_workers=num_workers, straggler_factor=None
        ),
    )


@pytest.fixture(scope="module")
def inline(tmp_path_factory):
    directory = tmp_path_factory.mktemp("inline")
    return directory, run_search.run_search(small_config("inline"), directory)


def test_drivers_on_ray_make_the_stores_of_threads_though_they_are_killed(
    inline, tmp_path, monkeypatch
):
    deaths = []
    exchange = on_ray.Actors.exchange

    def exchange_and_kill(self, mail):
        """Kill each driver once, when it has sent some letters."""
        import ray

        found = exchange(self, mail)
        for driver, report in found.items():
            if not isinstance(report, str) and report.letters and driver not in deaths:
                deaths.append(driver)
                ray.kill(self._actors[driver])
        return found

    monkeypatch.setattr(on_ray.Actors, "exchange", exchange_and_kill)
    directory, expected = inline
    found = run_search.run_search(small_config("ray"), tmp_path)
    assert sorted(deaths) == [0, 1, 2]
    assert found == dataclasses.replace(expected, best=found.best)
    assert threads.everything(tmp_path) == threads.everything(directory)
    with Store.open(tmp_path, read_only=True) as store:
        assert integrity.problems(store) == []
        assert {row["backend"] for row in store.rows("SELECT * FROM session")} == {"ray"}


def test_fewer_workers_than_drivers_are_refused_on_ray(tmp_path):
    with pytest.raises(SearchError, match="2 workers for 3 drivers"):
        run_search.run_search(small_config("ray", num_workers=2), tmp_path)
