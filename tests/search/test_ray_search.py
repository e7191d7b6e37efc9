"""A search on Ray is the search inline, to the bit; and faults change nothing.

The long form of the second test, with at least 50 faults, is `make soak`.
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.search import rerun
from veldt.search.config import finals_config, proxy_config, search_config
from veldt.search.run import run_search
from veldt.search.storage import integrity
from veldt.search.storage.store import Store
from veldt.tasks.pool import config as pool_config

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[2]


def search(backend, directory, proposers=0):
    """A small search that really trains."""
    config = search_config.SearchConfig(
        tasks=(proxy_config.ProxyConfig("quadratic", 20, 2),),
        meta_validation=(proxy_config.ProxyConfig("breast_cancer_logistic", 20, 2),),
        max_evaluations=40,
        population_size=12,
        fresh_seeds=4,
        finals=finals_config.FinalsConfig(num_rates=3, select_seeds=1, final_seeds=2),
        proposers=proposers,
        pool=pool_config.PoolConfig(backend=backend, num_workers=2, straggler_factor=None),
    )
    found = run_search.run_search(config, directory)
    with Store.open(directory, read_only=True) as store:
        integrity.check(store)
        session = store.rows("SELECT * FROM session")
        workers = store.rows("SELECT * FROM worker")
        events = store.rows("SELECT kind FROM pool_event")
    return found, session, workers, events


def test_a_search_on_ray_is_the_search_inline(tmp_path):
    inline, _, _, _ = search("inline", tmp_path / "inline")
    on_ray, (session,), workers, events = search("ray", tmp_path / "ray")
    assert on_ray == dataclasses.replace(inline, best=on_ray.best)  # Its origin names the folder.
    assert (on_ray.best.program, on_ray.best.learning_rate) == (
        inline.best.program,
        inline.best.learning_rate,
    )
    with (
        Store.open(tmp_path / "inline", read_only=True) as ours,
        Store.open(tmp_path / "ray", read_only=True) as theirs,
    ):
        different = rerun.differences(ours, theirs)
    # The config says where the work was done.
    assert [text.split(":")[0] for text in different] == ["meta"]
    assert (session["backend"], session["num_workers"]) == ("ray", 2)
    assert session["busy_s"] > 0
    assert session["starting_s"] > 0
    assert len(workers) >= 1
    assert sum(worker["jobs"] for worker in workers) == session["done"]
    assert {event["kind"] for event in events} == {"worker-ready"}


@pytest.mark.slow
@pytest.mark.parametrize("proposers", [1, 4])
def test_a_search_on_ray_with_helpers_is_the_search_inline(tmp_path, proposers):
    search("inline", tmp_path / "inline")
    search("ray", tmp_path / "ray", proposers)
    with (
        Store.open(tmp_path / "inline", read_only=True) as ours,
        Store.open(tmp_path / "ray", read_only=True) as theirs,
    ):
        assert [text.split(":")[0] for text in rerun.differences(ours, theirs)] == ["meta"]


@pytest.mark.slow
def test_one_fault_of_each_kind_changes_nothing(tmp_path):
    """Several hosts; links cut, and death of workers, nodes, head and driver; see the script."""
    script = ROOT / "benchmarks" / "soak.py"
    command = [sys.executable, script, "--each", "--commands", "search", "--evaluations", "250"]
    command += ["--pause", "1.5", "--state", tmp_path / "state.json"]
    done = subprocess.run(command, text=True, capture_output=True, timeout=900, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    result = json.loads(done.stdout[done.stdout.index("\n{") :])
    # Without network namespaces there are three kinds fewer.
    assert result["num_faults"] == len(result["faults"]) == (11 if result["slowed_by"] else 8)
    assert result["differed"] == 0
    assert result["commands"]["search"]["checks"] >= 3
    assert result["commands"]["search"]["runs_compared"] >= 1
