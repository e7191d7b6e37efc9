"""Every kind of family: members learn, side by side, from one compile."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from veldt.tasks import base, registry
from veldt.tasks.inner_loop import unroll

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
LEARNED = {  # Normalised validation loss that 60 steps of Adam must come below.
    "patterns_mlp": 0.7,
    "patterns_conv": 0.7,
    "patterns_autoencoder": 0.8,
    "patterns_vit": 0.9,
    "chains_transformer": 0.98,
    "chains_gru": 0.98,
}
EACH = [
    pytest.param(name, marks=[] if name == "patterns_mlp" else [pytest.mark.slow])
    for name in LEARNED
]


train_batch = jit(lambda task, key: task.train_batch(key))


def members(family, num_members, seed=0):
    return jit(jax.vmap(family.sample))(jax.random.split(jax.random.key(seed), num_members))


@pytest.mark.parametrize("name", sorted(LEARNED))
def test_members_keep_the_contract_and_differ(name):
    family = registry.TASK_FAMILIES[name]()
    cfgs = members(family, 2)
    tasks = [family.task(jax.tree.map(lambda leaf, i=i: leaf[i], cfgs)) for i in (0, 1)]
    assert base.check_task(tasks[0]) is tasks[0]
    assert tasks[0].name == name
    first, second, same, later = (
        train_batch(task, jax.random.key(seed)).inputs
        for task, seed in ((tasks[0], 0), (tasks[1], 0), (tasks[0], 0), (tasks[0], 1))
    )
    assert not np.allclose(first, second)
    assert not np.allclose(first, later)
    np.testing.assert_array_equal(first, same)


@pytest.mark.parametrize("name", EACH)
def test_members_learn_side_by_side_from_one_compile(name):
    family = registry.TASK_FAMILIES[name]()
    traces = []

    @jit
    def train(family, cfgs, keys):
        traces.append(name)

        def one(cfg, key):
            task, tx = family.task(cfg), optax.adam(0.01)
            start = unroll.init(task, tx, key)
            end, _ = unroll.unroll(task, tx, start, num_steps=60)
            return [
                task.normalizer(unroll.evaluate(task, state.params, key, "valid"))
                for state in (start, end)
            ]

        return jax.vmap(one)(cfgs, keys)

    keys = jax.random.split(jax.random.key(1), 3)
    starts, ends = train(family, members(family, 3), keys)
    assert np.all(ends < starts)
    assert np.mean(ends) < LEARNED[name]
    other, _ = train(registry.TASK_FAMILIES[name](), members(family, 3, seed=9), keys)
    assert not np.allclose(starts, other)
    assert len(traces) == 1


def test_knowing_nothing_is_one_on_the_scale():
    @jit
    def loss_of_zeros(family, key):
        task = family.task(family.sample(key))
        zeros = jax.tree.map(jnp.zeros_like, task.init(key))
        loss, _ = task.loss(zeros, key, task.eval_batch("test"))
        return loss, task.normalizer(loss)

    classes, images = (registry.TASK_FAMILIES[f"patterns_{x}"]() for x in ("mlp", "autoencoder"))
    loss, normalised = loss_of_zeros(classes, jax.random.key(0))
    assert float(loss) == pytest.approx(math.log(10), rel=1e-5)
    assert float(normalised) == pytest.approx(1.0, rel=1e-5)
    # Of 256 images and 10 prototypes, whose strengths differ.
    assert float(loss_of_zeros(images, jax.random.key(0))[1]) == pytest.approx(1.0, abs=0.15)
