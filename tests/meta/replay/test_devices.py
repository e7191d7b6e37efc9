"""Metagradients of runs that are spread over devices."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SPREAD = """
import tempfile
import jax, jax.numpy as jnp, numpy as np, optax
from veldt.meta.replay import api, plans, programs
from veldt.meta.replay import task_training as training
from veldt.meta.tune import config, problem
from veldt.meta.tune.training.hyperparameters import Hyperparameter
from tests.meta import toys

def make(z, task):
    rate = optax.linear_schedule(jnp.exp(z["start"]), jnp.exp(z["end"]), 20)
    return task, optax.sgd(rate, momentum=0.9)

z = {"start": jnp.log(0.3), "end": jnp.log(0.1)}
one = training.TaskTraining.of(make, 20, seeds=range(8), data=toys.Bowl(1.5))
many = one.spread()
assert one.mesh is None and many.mesh.size == 4
# Seven seeds cannot be parted evenly; a single one is where it was.
assert training.TaskTraining.of(make, 20, seeds=range(7), data=toys.Bowl()).spread().mesh is None

spec = programs.spec_of(many, z)
held = programs.start(spec, many, z), programs.empty_buffer(spec, 5, many)
for state, axis in zip(held, (0, 1)):
    for leaf in jax.tree.leaves(state.moving):
        assert {shard.data.shape[axis] for shard in leaf.addressable_shards} == {2}
        assert len(leaf.sharding.device_set) == 4

key = jax.random.key(0)
expected = api.metagradient(one, z, key=key)
for where in (None, tempfile.mkdtemp()):
    plan = plans.square_root(20)
    found = api.metagradient(many, z, key=key, plan=plan, directory=where)
    assert found.verdict.passed, found.verdict.message
    np.testing.assert_allclose(found.outcome, expected.outcome, rtol=1e-6)
    for name, value in expected.gradient.items():
        np.testing.assert_allclose(found.gradient[name], value, rtol=1e-5)

settings = config.TuneConfig(
    "tests.meta.toys:Bowl", 20, {"learning_rate": Hyperparameter(0.01)}, optimizer="sgd", seeds=2
)
assert problem.Problem(settings).training_of(0).mesh.size == 2
print("all the same")
"""


def test_runs_on_several_devices_have_the_gradient_of_one():
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", SPREAD],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "all the same"
