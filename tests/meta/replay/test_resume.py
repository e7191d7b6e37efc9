"""Whenever a metagradient dies, the same call goes on with it, to the same bits."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.meta.replay import trainings
from veldt.meta import errors
from veldt.meta.replay import api, plans, programs
from veldt.tasks.common.disk import lock
from veldt.tasks.common.errors import FileError

ROOT = Path(__file__).parents[3]
KEY = jax.random.key(0)
NUM_STEPS = 23
PLAN = plans.binomial(NUM_STEPS, 3, 3)


def take(directory=None, z=None, run=None, plan=PLAN, save_every_s=0.0):
    z = trainings.Map.point() if z is None else z
    return api.metagradient(
        run or trainings.Map(NUM_STEPS),
        z,
        key=KEY,
        plan=plan,
        directory=directory,
        check="none",
        save_every_s=save_every_s,
    )


def assert_same(one, other):
    assert one.outcome == other.outcome
    for a, b in zip(jax.tree.leaves(one.gradient), jax.tree.leaves(other.gradient), strict=True):
        np.testing.assert_array_equal(a, b)


class Crash(Exception):
    pass


def crash_after(monkeypatch, name, count):
    """Let the program `name` fail at its call number `count` from now on; returns the counter."""
    program, calls = getattr(programs, name), []

    def counted(*args):
        calls.append(name)
        if len(calls) == count:
            raise Crash
        return program(*args)

    monkeypatch.setattr(programs, name, counted)
    return calls


@pytest.mark.parametrize("name", ["reverse", "forward", "through_start"])
def test_a_crash_at_any_call_is_gone_on_from(name, tmp_path, monkeypatch):
    expected = take()
    for count in range(1, 1000):
        directory = tmp_path / str(count)
        with monkeypatch.context() as patch:
            calls = crash_after(patch, name, count)
            with contextlib.suppress(Crash):
                take(directory)
        assert_same(take(directory), expected)
        assert not list(directory.glob("state-*"))
        if len(calls) < count:
            break
    # One forward call is the fingerprint's, two are the last leaf's.
    num_runs = sum(not isinstance(a, plans.Store | plans.Load | plans.Free) for a in PLAN.actions())
    assert len(calls) == {"reverse": PLAN.num_leaves, "forward": num_runs + 2}.get(name, 1)


def test_crashes_again_and_again_still_come_to_an_end(tmp_path, monkeypatch):
    crashes = 0
    while crashes < 50:
        with monkeypatch.context() as patch:
            crash_after(patch, "reverse", 2)  # One leaf further each time.
            try:
                found = take(tmp_path)
                break
            except Crash:
                crashes += 1
    assert crashes == PLAN.num_leaves - 1
    assert_same(found, take())


def test_work_is_not_done_twice(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        crash_after(patch, "reverse", 5)
        with pytest.raises(Crash):
            take(tmp_path)
    found = take(tmp_path)
    assert found.cost.reverse_steps < NUM_STEPS - 3 * 3
    again = take(tmp_path)
    assert again.cost is None
    assert_same(again, found)


def test_what_was_not_yet_written_down_is_done_again(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        crash_after(patch, "reverse", 4)
        with pytest.raises(Crash):
            take(tmp_path, save_every_s=1e9)
    assert_same(take(tmp_path), take())


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"z": {**trainings.Map.point(), "c": jnp.asarray(0.71)}}, "training"),
        ({"run": trainings.Map(NUM_STEPS, jax.random.key(6))}, "training"),
        ({"plan": plans.kary(NUM_STEPS, 3)}, "plan"),
    ],
)
def test_another_metagradients_directory_is_refused(change, what, tmp_path):
    found = take(tmp_path)
    with pytest.raises(errors.ReplayError, match=f"its {what} differs"):
        take(tmp_path, **change)
    assert_same(take(tmp_path), found)


def test_a_directory_in_use_is_refused(tmp_path):
    with lock.DirectoryLock(tmp_path), pytest.raises(FileError, match="in use"):
        take(tmp_path)


def test_a_damaged_record_is_refused(tmp_path):
    take(tmp_path)
    path = tmp_path / "progress.arrays"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(errors.ReplayError, match="damaged"):
        take(tmp_path)


KILLED = """
import os, pathlib, signal, sys
from tests.meta.replay import test_resume
from veldt.meta.replay import programs

reverse, calls = programs.reverse, []

def deadly(*args):
    calls.append(args)
    if len(calls) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return reverse(*args)

programs.reverse = deadly
test_resume.take(pathlib.Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_kill_nine_in_the_middle_of_the_backward_pass(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, timeout=300, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert list(tmp_path.glob("state-*"))
    found = take(tmp_path)
    assert found.cost.reverse_steps < NUM_STEPS - 3 * 3
    assert_same(found, take())
