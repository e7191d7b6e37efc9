"""Whose devices are whose, without any: nodes, environments and shares are made up."""

import os
import subprocess
import sys

import pytest

from veldt.tasks.pool import devices
from veldt.tasks.pool.config import PoolConfig, RayConfig

CPUS, GPUS, CHIPS = {"CPU": 8.0}, {"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "TPU": 4.0}
HEAD = {"CPU": 0.0, "node:10.0.0.1": 1.0}
MINE = "XLA_PYTHON_CLIENT_MEM_FRACTION"


@pytest.mark.parametrize(
    ("settings", "nodes", "shape"),
    [
        (RayConfig(), [CPUS, CPUS], {"CPU": 1}),
        (RayConfig(), [HEAD, GPUS, GPUS], {"CPU": 1, "GPU": 1}),
        (RayConfig(), [CPUS, GPUS], {"CPU": 1}),  # Not all could work.
        (RayConfig(num_gpus=0), [GPUS], {"CPU": 1}),
        (RayConfig(num_cpus=0, num_gpus=0.25), [GPUS], {"GPU": 0.25}),
        (RayConfig(), [HEAD, CHIPS, CHIPS], {"CPU": 1, "TPU": 4}),  # One worker for each host.
        (RayConfig(), [CHIPS, CPUS], {"CPU": 1}),
        (RayConfig(resources={"TPU": 1}), [CHIPS], {"CPU": 1, "TPU": 1}),
        (RayConfig(num_gpus=0), [CHIPS], {"CPU": 1}),
        (RayConfig(), [], {"CPU": 1}),
        (RayConfig(), [HEAD], {"CPU": 1}),
    ],
)
def test_the_resources_of_a_worker(settings, nodes, shape):
    assert devices.worker_shape(settings, nodes) == shape


@pytest.mark.parametrize(
    ("shape", "environ", "variables"),
    [
        ({"CPU": 1}, {}, {"JAX_PLATFORMS": "cpu"}),
        ({"CPU": 1}, {"JAX_PLATFORMS": "cuda"}, {}),
        ({"CPU": 1, "mine": 1}, {}, {}),
        ({"GPU": 1}, {}, {}),
        ({"GPU": 2}, {}, {}),
        ({"TPU": 4}, {}, {}),
        ({"GPU": 0.25}, {}, {MINE: "0.225"}),
        ({"GPU": 0.5}, {MINE: "0.1"}, {}),
        ({"GPU": 0.5}, {"XLA_CLIENT_MEM_FRACTION": "0.1"}, {}),  # JAX refuses both.
    ],
)
def test_a_worker_is_kept_to_its_devices_unless_the_user_did_so(shape, environ, variables):
    assert devices.worker_variables(shape, environ) == variables


@pytest.mark.parametrize("share", [1 / 2, 1 / 3, 0.25, 0.1])
def test_shares_of_a_gpu_fit_on_it(share):
    (fraction,) = devices.worker_variables({"GPU": share}, {}).values()
    assert 0.85 < round(1 / share) * float(fraction) < 0.95


def test_jax_takes_what_is_set_though_it_is_imported_already():
    code = (
        "import jax\n"
        "from jax._src import xla_bridge\n"
        "xla_bridge.register_backend_factory('fake', lambda: 1 / 0, fail_quietly=False)\n"
        "from veldt.tasks.pool import devices\n"
        "devices.prepare_worker({'CPU': 1.0})\n"
        "print(jax.devices()[0].platform)\n"
    )
    env = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, env=env)
    assert done.stdout == "cpu\n", done.stderr


@pytest.mark.parametrize(("backend", "platforms"), [("ray", ["cpu"]), ("inline", [])])
def test_only_a_driver_of_processes_is_kept_on_the_cpu(backend, platforms, monkeypatch):
    seen = []
    monkeypatch.setattr(devices.jax.config, "update", lambda name, value: seen.append(value))
    devices.keep_driver_on_cpu(PoolConfig(backend))
    assert seen == platforms
