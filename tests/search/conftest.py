"""A small but real run, made once and read by every test that needs one."""

import fcntl
import os
import shutil

import pytest

from veldt.search.config.finals_config import FinalsConfig
from veldt.search.config.proxy_config import ProxyConfig
from veldt.search.config.search_config import SearchConfig
from veldt.search.run import run_search
from veldt.tasks.pool.config import PoolConfig


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """The directory of a finished search on digits. Read only: to change it, use `run_copy`."""
    base = tmp_path_factory.getbasetemp()
    # Under pytest-xdist each worker has a folder in the session's; they share one run.
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished"
    config = SearchConfig(
        tasks=(ProxyConfig("digits_mlp", 20),),
        meta_validation=(ProxyConfig("breast_cancer_logistic", 20),),
        max_evaluations=40,
        population_size=10,
        fresh_seeds=4,
        window=4,
        hurdle=1.0,
        finals=FinalsConfig(num_rates=4, lowest_rate=1e-3, rate_factor=4.0, final_seeds=3),
        pool=PoolConfig(num_workers=1),
    )
    with open(directory.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.with_suffix(".done").exists():
            run_search.run_search(config, directory)
            directory.with_suffix(".done").touch()
    return directory


@pytest.fixture
def run_copy(finished_run, tmp_path):
    """A copy of the finished run that a test may damage."""
    return shutil.copytree(finished_run, tmp_path / "copy")
