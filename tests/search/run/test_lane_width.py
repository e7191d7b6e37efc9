"""The number of lanes that fit into a device's memory: of devices that are made up."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from veldt.search.config.finals_config import FinalsConfig
from veldt.search.config.proxy_config import ProxyConfig
from veldt.search.config.search_config import SearchConfig
from veldt.search.run import lane_width, run_search
from veldt.search.runtime.encode import Capacity
from veldt.search.storage.store import Store
from veldt.tasks import registry
from veldt.tasks.common.disk import run_directory
from veldt.tasks.pool.config import PoolConfig, RayConfig

GIB = 2**30
CONFIG = SearchConfig(
    tasks=(ProxyConfig("digits_mlp", 300), ProxyConfig("quadratic", 100)),
    meta_validation=(),
    window=1024,
    lanes=None,
    lane_memory_gib=80.0,
    finals=FinalsConfig(stages=()),
)


def settled(config=CONFIG, **changes):
    return lane_width.settle(dataclasses.replace(config, **changes), "nowhere", resume=False)


def test_a_runs_state_is_its_registers_and_schedules():
    quadratic = registry.load_task("quadratic")
    (vector,) = jax.tree.leaves(jax.eval_shape(quadratic.init, jax.random.key(0)))
    found = lane_width.state_bytes(quadratic, 100, Capacity(registers=10, schedules=4))
    assert found == 4 * (10 * vector.size + 100 * 5)


@pytest.mark.parametrize("name", ["quadratic", "digits_mlp", "char_gru"])
def test_a_step_takes_what_xla_takes_or_more(name):
    """XLA's own count of what a gradient needs besides arguments and results, in 8 lanes."""
    task, lanes = registry.load_task(name), 8
    keys = jax.random.split(jax.random.key(0), lanes)

    def gradient(key):
        params, batch = task.init(key), task.train_batch(key)
        return jax.value_and_grad(task.loss, has_aux=True)(params, key, batch)

    compiled = jax.jit(jax.vmap(gradient)).lower(keys).compile()
    analysis = compiled.memory_analysis()
    theirs = (analysis.temp_size_in_bytes + analysis.output_size_in_bytes) / lanes
    ours = lane_width.step_bytes(task)
    assert theirs <= 1.1 * ours + 4096
    assert ours < 30 * theirs + 4096  # No more than a few powers of two too careful.


def test_the_values_of_a_step_are_counted_each_once():
    class Three:
        def init(self, key):
            return jnp.zeros(1000)

        def train_batch(self, key):
            return None

        def eval_batch(self, split):
            return None

        def loss(self, params, key, batch):
            return jnp.sum(jnp.sin(params)), {}

    # Sine and its derivative, the sum, and the gradient: three vectors and some numbers.
    assert 3 * 4000 <= lane_width.step_bytes(Three()) <= 5 * 4000


def test_more_memory_holds_more_lanes_up_to_the_window():
    numbers = [settled(lane_memory_gib=gib).lanes for gib in (0.001, 1.0, 2.0, 4.0, 4000.0)]
    assert numbers[0] == 1 and numbers[-1] == 1024
    assert numbers[2] == 2 * numbers[1] and numbers[3] == 2 * numbers[2]
    assert all(number & (number - 1) == 0 for number in numbers)
    assert settled(lane_memory_gib=4000.0, window=100).lanes == 64
    assert settled(lane_memory_gib=4000.0, pool=PoolConfig(num_workers=20)).lanes == 16
    each = sum(
        2 * lane_width.state_bytes(registry.load_task(proxy.task), proxy.num_steps, Capacity())
        for proxy in CONFIG.tasks
    )
    assert numbers[2] * each < GIB  # Half of 2 GiB, and the steps' values besides.


def test_the_device_is_asked_only_if_no_memory_is_stated(monkeypatch):
    class Device:
        def __init__(self, stats):
            self.memory_stats = lambda: stats

    def have(stats):
        monkeypatch.setattr(jax, "local_devices", lambda: [Device(stats)])

    have({"bytes_limit": 4 * GIB, "bytes_in_use": 1})
    assert settled(lane_memory_gib=None) == dataclasses.replace(
        settled(lane_memory_gib=4.0), lane_memory_gib=None
    )
    have(None)
    assert settled(lane_memory_gib=None).lanes == 1
    monkeypatch.setattr(jax, "local_devices", lambda: 1 / 0)
    assert settled(lane_memory_gib=4.0).workers.backend == "inline"
    assert settled(lanes=4).lanes == 4


def test_lanes_and_ray_exclude_each_other():
    with pytest.raises(ValueError, match="lanes is null and the pool is Ray's"):
        dataclasses.replace(CONFIG, pool=PoolConfig(ray=RayConfig(address="auto")))
    assert CONFIG.workers.backend == "inline"  # The driver is to have the device.


def test_a_run_keeps_its_number(tmp_path):
    """Resumed on a larger device it goes on with the same."""
    task = registry.load_task("quadratic")
    each = 2 * lane_width.state_bytes(task, 20, CONFIG.evaluator.capacity)
    each += lane_width.step_bytes(task)
    config = SearchConfig(
        tasks=(ProxyConfig("quadratic", 20, 2),),
        meta_validation=(),
        lanes=None,
        lane_memory_gib=5 * each / GIB,  # Half of it: two, and a bit.
        max_evaluations=6,
        population_size=4,
        fresh_seeds=2,
        finals=FinalsConfig(num_rates=1, select_seeds=1, final_seeds=2, stages=()),
    )
    run_search.run_search(config, tmp_path)
    assert run_directory.read_config(tmp_path)["lanes"] == 2
    with Store.open(tmp_path, read_only=True) as store:
        fitness = [row["fitness"] for row in store.rows("SELECT fitness FROM candidate")]
    assert np.isfinite([f for f in fitness if f is not None]).sum() >= 2
    more = dataclasses.replace(config, lane_memory_gib=80.0, max_evaluations=8)
    run_search.run_search(more, tmp_path, resume=True)
    assert run_directory.read_config(tmp_path)["lanes"] == 2
