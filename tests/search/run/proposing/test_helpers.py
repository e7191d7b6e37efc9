"""Processes that make children: one search with any number of them, however it goes."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.search import fakes, rerun
from veldt.search.config.evolution_config import FounderConfig, MutationConfig
from veldt.search.evolution.engine import Evolution
from veldt.search.run import run_search
from veldt.search.run.proposing import helpers, replica
from veldt.search.storage import integrity
from veldt.search.storage.store import Store
from veldt.tasks.pool.config import PoolConfig

ALL_MUTATIONS = MutationConfig(graft=1.0, rewire=1.0, unwire=0.5, match_steps=True)
# Everything that the choice of a child can depend on: one sample of each candidate, or several.
PLAIN = {
    "mutation": ALL_MUTATIONS,
    "islands": 3,
    "migration": 0.2,
    "niche_size": 2,
    "restart_after": 12,
    "founders": (FounderConfig("lion", 1e-3),),
}
SAMPLED = {"mutation": ALL_MUTATIONS, "samples": 3, "window": 8}


class InThread:
    """A helper in a thread of this process, which starts at once."""

    pid = 0

    def __init__(self, descriptor):
        self.thread = threading.Thread(
            target=replica.main, args=(os.dup(descriptor),), name="replica", daemon=True
        )
        self.thread.start()

    def wait(self, timeout_s):
        self.thread.join(timeout_s)
        assert not self.thread.is_alive()
        return 0


@pytest.fixture
def threads(monkeypatch):
    monkeypatch.setattr(helpers, "start_process", InThread)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """The driver waits for its helpers to start, and counts the children that they made."""
    made = []
    child = helpers.Proposers.child

    def counted(self, index):
        found = child(self, index)
        made.append(found is not None)
        return found

    def enter_and_wait(self):
        entered = enter(self)
        self.wait()
        return entered

    enter = helpers.Proposers.__enter__
    monkeypatch.setattr(helpers.Proposers, "child", counted)
    monkeypatch.setattr(helpers.Proposers, "__enter__", enter_and_wait)
    return made


def search(directory, *, resume=False, view=None, proposers=0, workers=1, **changes):
    pool = PoolConfig(backend="inline", num_workers=workers)
    config = fakes.small_config(pool=pool, proposers=proposers, **changes)
    run_search.run_search(config, directory, resume=resume, view=view, factory=fakes.TroubledWorker)
    return directory


def differences(one, other):
    """What differs between two runs but the pool that the config names."""
    with Store.open(one, read_only=True) as ours, Store.open(other, read_only=True) as theirs:
        integrity.check(theirs)
        return [line for line in rerun.differences(ours, theirs) if not line.startswith("meta")]


class StopAt(fakes.View):
    """Presses Ctrl-C after so many results."""

    def __init__(self, num_told):
        super().__init__()
        self.num_told = num_told

    def update(self, evolution):
        if evolution.counts.num_told == self.num_told:
            raise KeyboardInterrupt


@pytest.mark.parametrize("changes", [PLAIN, SAMPLED], ids=["plain", "sampled"])
def test_the_store_is_the_same_with_any_number_of_helpers(tmp_path, threads, at_once, changes):
    alone = search(tmp_path / "alone", **changes)
    assert not any(at_once)
    one = search(tmp_path / "one", proposers=1, workers=3, **changes)
    assert differences(alone, one) == []
    # All but those asked before anything was recorded, founders and copies.
    assert sum(at_once) > 0.6 * len(at_once) / 2
    at_once.clear()
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "four", proposers=4, view=StopAt(25), **changes)
    search(tmp_path / "four", proposers=4, workers=2, resume=True, **changes)
    assert sum(at_once) > 10
    assert differences(alone, tmp_path / "four") == []


def test_each_of_several_drivers_may_have_helpers(tmp_path, threads, at_once):
    changes = {**PLAIN, "drivers": 2, "migration_every": 16, "max_evaluations": 80}
    alone = search(tmp_path / "alone", **changes)
    assert not any(at_once)
    both = search(tmp_path / "both", proposers=1, workers=2, **changes)
    assert sum(at_once) > 20
    assert differences(alone, both) == []


def test_the_search_goes_on_without_a_helper_that_dies(tmp_path, at_once, monkeypatch):
    alone = search(tmp_path / "alone")
    told = helpers.Proposers.told
    pids = []

    def kill_some(self, one):
        if one.proposal in (15, 30) and self.pids:
            pids.extend(self.pids)
            os.kill(self.pids[0], signal.SIGKILL)
            time.sleep(0.2)
        told(self, one)

    monkeypatch.setattr(helpers.Proposers, "told", kill_some)
    view = fakes.View()
    search(tmp_path / "run", proposers=2, view=view)
    assert differences(alone, tmp_path / "run") == []
    noted = [line for line in view.notes if "a process that proposes has ended (signal 9)" in line]
    assert len(noted) == 2 and "with no others" in noted[1]
    assert any(at_once) and not any(map(is_alive, pids))


def test_helpers_end_with_the_search():
    with pytest.raises(KeyboardInterrupt), helpers.Proposers(1, None, print) as proposers:
        pids = proposers.pids
        assert len(pids) == 1 and all(map(is_alive, pids))
        raise KeyboardInterrupt
    assert not any(map(is_alive, pids))


def test_helpers_end_when_their_driver_is_killed():
    code = """
        import os, signal
        from veldt.search.run.proposing import helpers
        with helpers.Proposers(1, None, print) as proposers:
            proposers.wait()
            print(*proposers.pids, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert run.returncode == -signal.SIGKILL
    pid = int(run.stdout)
    deadline = time.monotonic() + 20
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(pid)


def received(value):
    """A value as another process gets it."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301, our own bytes


def is_alive(pid):
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_helper_answers_with_all_that_the_driver_needs(tmp_path):
    """What a replica makes, sent and received, has the properties of the child made here."""
    search(tmp_path / "run")
    config = fakes.small_config(niche_size=2)
    with Store.open(tmp_path / "run", read_only=True) as store:
        evolution = Evolution(config, store, lambda jobs: iter(()))
        first = evolution.counts.num_told
        maker = replica.Replica(received(evolution.proposer))
        for index in range(first, first + config.window):
            sent = received(maker.child(index))
            ours = evolution.proposer.child(index)
            assert sent._replace(individual=None) == ours._replace(individual=None)
            got, wanted = sent.individual, ours.individual
            for name in ("text", "num_statements", "length", "structural_hash", "niche"):
                assert name in vars(got.lowered)
                assert getattr(got.lowered, name) == getattr(wanted.lowered, name)
            assert "program" not in vars(got.lowered)
            assert (got.structure, got.genotype) == (wanted.structure, wanted.genotype)
            assert got.fingerprint() == wanted.fingerprint() and got.live == wanted.live
            assert got.lowered.live_text == str(wanted.live.program)
            np.testing.assert_array_equal(got.lowered.updates, wanted.lowered.updates)


def test_without_helpers_nothing_waits():
    assert helpers.lag(0, 100) == 0
    assert [helpers.lag(2, window) for window in (1, 2, 16, 1000)] == [0, 1, 8, 64]


def test_the_number_of_helpers_may_change_between_sessions(tmp_path, threads):
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "run", proposers=1, view=StopAt(9))
    search(tmp_path / "run", proposers=0, resume=True)
    assert differences(search(tmp_path / "alone"), tmp_path / "run") == []
    with pytest.raises(ValueError, match="proposers is -1"):
        fakes.small_config(proposers=-1)
