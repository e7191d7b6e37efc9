"""The four long commands as processes, stopped as schedulers and people stop them."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

TASK = """
import jax, jax.numpy as jnp
from veldt.tasks import base

class Bowl(base.Task):
    name = "bowl"

    def init(self, key):
        return {"w": jax.random.normal(key, (3,))}

    def loss(self, params, key, batch):
        return jnp.sum((params["w"] - batch) ** 2), {}

    def train_batch(self, key):
        return 0.1 * jax.random.normal(key, (3,))

    def eval_batch(self, split):
        return jnp.zeros((3,))

    def normalizer(self, loss):
        return base.clip_normalized(loss)
"""
CONFIGS = {
    "search": """
        tasks: [{task: "mine:Bowl", num_steps: 50}]
        meta_validation: []
        max_evaluations: 100000
    """,
    "meta-train": """
        architecture: celo2
        tasks: {num_families: 1, kinds: {perceptron: 1}}
        checkpoint_every_s: 0.2
        phases:
          - name: all
            num_updates: 100000
            lengths: [10, 10]
            estimator: {kind: full_es, num_particles: 2, window: 10}
    """,
    "tune": """
        task: mine:Bowl
        num_steps: 50
        num_updates: 100000
        tune: {learning_rate: {start: 0.01}}
    """,
    "evaluate": """
        name: own
        description: mine
        tasks: [{task: "mine:Bowl", num_steps: 200}]
    """,
}
# A line that is on screen while loops are compiled, and one that says that there is progress.
LINES = {
    "search": ("compiling", "new best|proposed"),
    "meta-train": ("meta-parameters", "meta-loss"),
    "tune": ("numbers of", "update [1-9].*outcome"),
    "evaluate": ("checking tasks: 0 of", "done before|measuring step times"),
}


def start(folder, name, *, resume=False):
    (folder / "mine.py").write_text(TASK)
    (folder / "my.yaml").write_text(textwrap.dedent(CONFIGS[name]))
    words = [name, "my.yaml", "--run-dir", "run", *(["--resume"] if resume else [])]
    if name == "evaluate":
        words = ["evaluate", "sgd", "adam", "lion", "--suite", "my.yaml", "--out", "run"]
    return subprocess.Popen(
        [sys.executable, "-m", "veldt", *words],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")},
    )


def read_to(process, pattern):
    """Reads lines to the first that the pattern is found in; all of them."""
    lines = []
    limit = threading.Timer(120, process.kill)
    limit.start()
    try:
        for line in process.stderr:
            lines.append(line)
            if re.search(pattern, line):
                return lines
    finally:
        limit.cancel()
    raise AssertionError(f"no {pattern!r} in {''.join(lines)}")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_it_stops_while_compiling_and_later_and_goes_on(name, tmp_path):
    compiles, moves = LINES[name]
    # Twice in quick succession while it compiles; in its midst; and that it goes on from there.
    for resume, ready, signals in (
        (False, compiles, [signal.SIGTERM, signal.SIGTERM]),
        (True, moves, [signal.SIGTERM]),
        (True, compiles, [signal.SIGINT, signal.SIGINT]),
    ):
        process = start(tmp_path, name, resume=resume)
        read_to(process, ready)
        for signum in signals:
            process.send_signal(signum)
            time.sleep(0.05)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 128 + signals[0], err
        assert "Traceback" not in out + err
        lines = err.splitlines()
        assert lines[-1].startswith("stopped by ") and "To go on: veldt " in lines[-1]
        assert sum(line.startswith("stopping by ") for line in lines) == 1
    process = start(tmp_path, name, resume=True)
    lines = read_to(process, moves)
    process.kill()
    process.communicate()
    if name in ("meta-train", "tune"):
        assert any("going on after update" in line for line in lines)
    if name == "evaluate":
        assert any("done before" in line for line in lines)
    if name == "search":
        assert int(re.search(r"(\d[\d,]*) proposed", lines[-1])[1].replace(",", "")) > 1
