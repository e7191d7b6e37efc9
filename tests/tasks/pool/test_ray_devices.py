"""What workers on a real Ray see of its GPUs, which are made up: Ray only counts them."""

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]
CODE = """
    import os, sys, time
    import ray

    ray.init(num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(sys.modules["__main__"])
    from veldt.tasks.pool import config, pools
    from veldt.tasks.pool.base import Job

    class Seen:
        def __call__(self, payload):
            import jax

            time.sleep(0.3)  # For the other worker to have some too.
            names = ("CUDA_VISIBLE_DEVICES", "XLA_PYTHON_CLIENT_MEM_FRACTION")
            return (jax.config.jax_platforms or "any", *(os.environ.get(n, "-") for n in names))

    for gpus, number in ((1.0, 2), (0.5, 2), (0.0, 1), (None, 2)):
        settings = config.PoolConfig("ray", number, ray=config.RayConfig(num_gpus=gpus))
        with pools.make_pool(settings, Seen) as pool:
            while pool.stats().num_ready < number:
                pool._hear(0.1)
            for i in range(4 * number):
                pool.submit(Job(i, i))
            print(gpus, sorted({result.value for result in pool.results()}))
"""


def test_workers_see_the_gpus_that_ray_gives_them_and_take_their_share():
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "JAX_PLATFORMS", "CUDA"))
    }
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(CODE)]
    done = subprocess.run(command, text=True, capture_output=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    one_each = [("any", "0", "-"), ("any", "1", "-")]
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines() if "[(" in line)
    assert found["1.0"] == found["None"] == str(one_each)
    assert found["0.5"] in (
        str([("any", "0", "0.450")]),
        str([("any", "1", "0.450")]),
        str([("any", "0", "0.450"), ("any", "1", "0.450")]),
    )
    assert found["0.0"].startswith("[('cpu', ")
