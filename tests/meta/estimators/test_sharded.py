"""One estimate over several devices: the mean of the shards' estimates, wherever they were made."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.meta import inner_problems, toys
from veldt.meta.estimators import antithetic, sharded, truncated_es

ROOT = Path(__file__).parents[3]
THETA = inner_problems.LEAKY_META_PARAMS


def part(problem=None):
    return truncated_es.PES(
        problem or inner_problems.Leaky(), 2, 4, noise=antithetic.Antithetic(sigma=0.1)
    )


def test_it_is_the_mean_of_the_shards_taken_by_hand():
    """Two estimates in a row, each shard with its own state and key."""
    num_shards = 3
    whole = sharded.Sharded(part(), num_shards, sharded.make_mesh(num_shards))
    state = inner_problems.init(whole, THETA, jax.random.key(1))
    states = [
        inner_problems.init(part(), THETA, key)
        for key in jax.random.split(jax.random.key(1), num_shards)
    ]
    for number in range(2):
        key = jax.random.key(10 + number)
        meta_grad, state, metrics = inner_problems.estimate(whole, THETA, state, key)
        found = [
            inner_problems.estimate(part(), THETA, each, own)
            for each, own in zip(states, jax.random.split(key, num_shards), strict=True)
        ]
        grads, states, each = zip(*found, strict=True)
        for name in THETA:
            np.testing.assert_allclose(
                meta_grad[name], np.mean([grad[name] for grad in grads], axis=0), rtol=1e-4
            )
        assert metrics.meta_loss == pytest.approx(
            float(np.mean([one.meta_loss for one in each])), rel=1e-5
        )
        for name in ("num_nonfinite", "num_completed", "num_steps"):
            assert getattr(metrics, name) == sum(int(getattr(one, name)) for one in each)


def test_a_shard_that_is_nowhere_finite_leaves_the_mean_loss_to_the_others():
    whole = sharded.Sharded(part(inner_problems.Leaky(nan_at=0)), 2, sharded.make_mesh(2))
    state = inner_problems.init(whole, THETA, jax.random.key(1))
    meta_grad, _, metrics = inner_problems.estimate(whole, THETA, state, jax.random.key(2))
    assert metrics.num_nonfinite > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(meta_grad))


@pytest.mark.parametrize(("num_particles", "num_shards"), [(8, 1), (8, 4), (3, 3)])
def test_particles_are_parted_equally(num_particles, num_shards):
    assert sharded.split_particles(num_particles, num_shards) * num_shards == num_particles


def test_shards_that_would_differ_are_refused():
    with pytest.raises(ValueError, match=r"6 particles cannot be split into 4 .* 2 would do"):
        sharded.split_particles(6, 4)


def in_process(num_devices, script, *arguments):
    """Run a script where the CPU has the form of so many devices."""
    flags = f"--xla_force_host_platform_device_count={num_devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


ESTIMATES = """
import jax, numpy as np
from jax.sharding import Mesh
from tests.meta import inner_problems, toys
from tests.meta.estimators import test_sharded
from veldt.meta.estimators import sharded

assert [sharded.make_mesh(shards).size for shards in (1, 2, 3, 4, 5, 6, 8)] == [1, 2, 3, 4, 1, 3, 4]
found = []
for num_devices in (1, 2, 4):
    mesh = Mesh(np.array(jax.devices()[:num_devices]), ("shards",))
    whole = sharded.Sharded(test_sharded.part(), 4, mesh)
    state = inner_problems.init(whole, inner_problems.LEAKY_META_PARAMS, jax.random.key(1))
    devices = {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state)}
    assert devices == {num_devices}, devices
    result = inner_problems.estimate(
        whole, inner_problems.LEAKY_META_PARAMS, state, jax.random.key(2)
    )
    found.append(jax.tree.map(lambda x: jax.random.key_data(x) if
                              jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x, result))
assert toys.same(found[0], found[1]) and toys.same(found[0], found[2])
assert any(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(found[0][0]))
"""


@pytest.mark.slow
def test_the_number_of_devices_changes_no_bit():
    in_process(4, ESTIMATES)


TRAINING = """
import sys
import jax, numpy as np
from tests.meta import toys
from veldt.learned_opt import registry
from veldt.tasks.families import distribution

registry.ARCHITECTURES["rate"] = toys.Rate()
distribution.draw = lambda tasks, seed: toys.FAMILIES
ended = toys.train(toys.settings(toys.phase(num_updates=3), shards=2))
np.savez(sys.argv[1], *jax.tree.leaves(dict(ended.meta_params)), *ended.streams[0, 1])
"""


@pytest.mark.slow
def test_a_training_ends_alike_on_one_device_and_on_two(tmp_path):
    for num_devices in (1, 2):
        in_process(num_devices, TRAINING, tmp_path / f"{num_devices}.npz")
    one, two = (np.load(tmp_path / f"{n}.npz") for n in (1, 2))
    assert one.files == two.files and len(one.files) > 4
    assert all(np.array_equal(one[name], two[name]) for name in one.files)
    assert not toys.same(one["arr_0"], one["arr_1"])
