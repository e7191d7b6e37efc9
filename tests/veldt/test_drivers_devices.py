"""A driver whose workers are processes of Ray never makes an accelerator's client.

That no import does is in `tests/test_house.py`.

A plug-in of JAX stands in for the accelerator: whoever asks for it, driver or worker, leaves the
number of the process in a file, and gets the CPU instead.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.veldt.test_stopped_commands import TASK

ROOT = Path(__file__).parents[2]
PLUGIN = """
import os

def initialize():
    from jax._src import xla_bridge

    def make():
        with open(os.environ["ASKED"], "a") as file:
            file.write(f"{os.getpid()}\\n")
        raise RuntimeError("nothing here")

    xla_bridge.register_backend_factory("fake", make, priority=500, fail_quietly=True)
"""
CONFIGS = {
    "search": """
        tasks: [{task: "mine:Bowl", num_steps: 10, num_chunks: 2}]
        meta_validation: []
        max_evaluations: 4
        population_size: 4
        fresh_seeds: 2
        finals: {num_rates: 1, select_seeds: 1, final_seeds: 2, stages: []}
    """,
    "meta-train": """
        architecture: celo2
        tasks: {num_families: 1, kinds: {perceptron: 1}}
        phases:
          - name: all
            num_updates: 2
            lengths: [4, 4]
            estimator: {kind: full_es, num_particles: 2, window: 4}
    """,
    "tune": """
        task: "mine:Bowl"
        num_steps: 10
        num_updates: 1
        tune: {learning_rate: {start: 0.1}}
    """,
    "evaluate": """
        name: bowls
        description: One bowl.
        tasks: [{task: "mine:Bowl", num_steps: 100}]
    """,
}


@pytest.fixture
def start(tmp_path):
    """Runs Python in a folder with the accelerator and a task; gives who asked for it."""
    plugin = tmp_path / "path" / "jax_plugins" / "fake_accelerator"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").write_text(PLUGIN)
    (tmp_path / "mine.py").write_text(TASK)
    asked = tmp_path / "asked"

    def start(*words):
        env = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
        env |= {"PYTHONPATH": f"{plugin.parents[1]}:{ROOT}", "ASKED": str(asked)}
        asked.write_text("")
        process = subprocess.Popen(
            [sys.executable, *words],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
            env=env,
        )
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 0, out[-3000:]
        pids = [int(line) for line in asked.read_text().splitlines()]
        return process.pid in pids, len(pids)

    return start


def command(name, tmp_path, *words):
    """The words of a small run."""
    (tmp_path / "my.yaml").write_text(textwrap.dedent(CONFIGS[name]))
    own = ["sgd", "--suite", "my.yaml"] if name == "evaluate" else ["my.yaml"]
    return ["-m", "veldt", name, *own, *words]


@pytest.mark.ray
@pytest.mark.parametrize(
    "name", ["search", *(pytest.param(n, marks=pytest.mark.slow) for n in CONFIGS if n != "search")]
)
def test_a_driver_with_rays_workers_asks_for_none(name, start, tmp_path):
    words = ["--pool.backend", "ray", "--pool.num-workers", "1"]
    driver, number = start(*command(name, tmp_path, *words))
    # Nor does a worker that was given none, whatever its node has.
    assert (driver, number) == (False, 0)


def test_a_driver_that_does_the_work_itself_asks_for_it(start, tmp_path):
    """With lanes the workers are threads here, however many there are."""
    words = ["--lanes", "2", "--window", "16", "--pool.num-workers", "16"]
    driver, number = start(*command("search", tmp_path, *words))
    assert (driver, number) == (True, 1)
