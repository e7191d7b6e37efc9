"""A run's directory and its work: what is recorded, what is shown, and disks that are full."""

import dataclasses
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.search import fakes
from veldt.search.evaluation.jobs import Outcome
from veldt.search.run import run_search as run
from veldt.search.storage import integrity, usage
from veldt.search.storage.store import Store
from veldt.tasks.common.errors import FileError
from veldt.tasks.pool.config import PoolConfig

ROOT = Path(__file__).parents[3]


def search(directory, *, view=None, resume=False, factory=fakes.FakeWorker, **changes):
    config = fakes.small_config(**{"pool": PoolConfig(num_workers=1), **changes})
    return run.run_search(config, directory, view=view, resume=resume, factory=factory)


def test_the_work_is_recorded_and_its_cost_shown(tmp_path):
    view = fakes.View()
    search(tmp_path, view=view, max_evaluations=10, pool=PoolConfig(num_workers=2))
    search(tmp_path, view=view, max_evaluations=15, resume=True)
    with Store.open(tmp_path, read_only=True) as store:
        found = usage.read_work(store)
        made = store.first("SELECT COUNT(*) FROM evaluation")
    assert [one.state for one in found.sessions] == ["done", "done"]
    assert [one.stats.num_workers for one in found.sessions] == [2, 1]
    # A job makes one run at least.
    assert 20 < sum(one.stats.num_done for one in found.sessions) <= made
    for one in found.sessions:
        assert sum(worker.num_jobs for worker in one.stats.workers) == one.stats.num_done
    assert [note[:5] for note in view.notes] == ["cost:", "cost:"]
    assert view.notes[-1] == usage.cost_line(found) and "2 sessions" in view.notes[-1]
    assert view.stats[-1].backend == "inline"


def test_a_run_that_was_stopped_is_marked_stopped(tmp_path):
    class View(fakes.View):
        def update(self, evolution):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, view=View())
    with Store.open(tmp_path, read_only=True) as store:
        assert [one.state for one in usage.read_work(store).sessions] == ["stopped"]


@pytest.mark.parametrize(("window", "warned"), [(2, True), (3, False)])
def test_workers_that_the_window_leaves_idle_are_reported_once(tmp_path, window, warned):
    view = fakes.View()
    pool = PoolConfig(num_workers=3)
    search(tmp_path, view=view, window=window, max_evaluations=5, pool=pool)
    notes = [note for note in view.notes if "window" in note]
    assert len(notes) == warned
    assert not warned or "no more than 2 of the 3 workers" in notes[0]


def test_finals_stay_where_nothing_has_changed_and_go_where_it_has(tmp_path):
    class View(fakes.View):
        def phase(self, text, done=0, total=0):
            raise KeyboardInterrupt

    def table():
        with Store.open(tmp_path, read_only=True) as store:
            return store.rows("SELECT * FROM hall_of_fame")

    search(tmp_path, max_evaluations=10)
    before = table()
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, max_evaluations=10, resume=True, view=View())
    assert table() == before != []
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, max_evaluations=12, resume=True, view=View())
    assert table() == []


@pytest.mark.parametrize("name", ["config.yaml", "best.py", "best.json"])
def test_a_file_that_cannot_be_written_is_a_clear_error_and_loses_nothing(tmp_path, name):
    (tmp_path / f"{name}.new").mkdir()
    with pytest.raises(FileError, match=rf"{name} cannot be written"):
        search(tmp_path, max_evaluations=10)
    (tmp_path / f"{name}.new").rmdir()
    search(tmp_path, max_evaluations=10, resume=True)
    assert (tmp_path / name).is_file()


SCRIPT = """
import resource, signal, sys
from pathlib import Path
from tests.search import fakes
from veldt.search.run import run_search as run
from veldt.search.evaluation.jobs import Outcome
from veldt.tasks.common.errors import VeldtError
from veldt.tasks.pool.config import PoolConfig
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    config = fakes.small_config(pool=PoolConfig(num_workers=2))
    run.run_search(config, Path(sys.argv[1]), resume=True, factory=fakes.FakeWorker)
except VeldtError as error:
    sys.exit(str(error))
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit on files here")
def test_a_full_disk_stops_a_run_that_then_goes_on(tmp_path):
    """The system refuses to let any file grow past some size, as a full disk would."""
    directory = tmp_path / "run"
    written = [0]
    for limit in (250_000, 400_000):
        command = [sys.executable, "-c", SCRIPT, str(directory), str(limit)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 1, ended.stderr
        assert "Traceback" not in ended.stderr
        assert f"{directory}/store.sqlite cannot be written" in ended.stderr
        with Store.open(shutil.copytree(directory, tmp_path / str(limit))) as store:
            assert integrity.problems(store) == []
            written.append(store.first("SELECT COUNT(*) FROM proposal"))
    assert written == sorted(written) and written[-1] > 0
    search(directory, resume=True)
    search(tmp_path / "whole")
    found = []
    for one in (directory, tmp_path / "whole"):
        with Store.open(one, read_only=True) as store:
            query = "SELECT id, program, candidate, source FROM proposal ORDER BY id"
            found.append((store.rows(query), store.rows("SELECT * FROM hall_of_fame")))
    assert found[0] == found[1]
    assert json.loads((directory / "best.json").read_text())["learning_rate"] > 0


def test_a_run_begun_before_hollow_runs_were_detected_is_reported(tmp_path):
    search(tmp_path, max_evaluations=10)
    with Store.open(tmp_path) as store, store.transaction():
        versions = json.loads(store.meta()["versions"])
        store.set_meta("versions", json.dumps({**versions, "veldt": "0.1.0"}))
    view = fakes.View()
    search(tmp_path, view=view, max_evaluations=12, resume=True)
    assert any("begun by veldt 0.1.0" in note and "hollow" in note for note in view.notes)


@pytest.mark.parametrize(("end", "said"), [(-13.8155106, "at the floor"), (0.2, "learnt nothing")])
def test_a_task_on_which_nothing_can_be_found_is_named(tmp_path, end, said):
    class Flat(fakes.FakeWorker):
        def __call__(self, payload):
            outcome = super().__call__(payload)
            runs = tuple(dataclasses.replace(run, log_losses=(end,)) for run in outcome.runs)
            return Outcome.of(runs)

    view = fakes.View()
    search(tmp_path, view=view, factory=Flat, max_evaluations=5)
    assert sum(said in note for note in view.notes) == len(fakes.small_config().tasks)
