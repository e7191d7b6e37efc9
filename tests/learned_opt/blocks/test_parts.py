"""Averages, means, the fused network, Newton-Schulz: against NumPy, one formula at a time."""

import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from hypothesis import strategies as st

from tests.learned_opt import reference
from veldt.learned_opt.blocks import (
    accumulators,
    features,
    loss_history,
    newton_schulz,
    perceptron,
    reductions,
    tensor_statistics,
    tensors,
)

ROOT = Path(__file__).parents[3]


KEY = jax.random.key(0)


def normal(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("shape", [(5,), (3, 4), (4, 4), (5, 2, 3), (2, 4, 4)])
def test_averages_and_factors_are_those_of_numpy(shape):
    names = (0.9, 0.99), (0.95,), (0.5, 0.9)
    decays = accumulators.fixed_decays(*names)
    moments = accumulators.init(jnp.zeros(shape), decays)
    slow = reference.Averages(shape, *names)
    for seed in range(3):
        grad = normal(seed, shape)
        moments = jax.jit(accumulators.update)(moments, grad, decays)
        slow.update(np.asarray(grad, np.float64))
    np.testing.assert_allclose(moments.momentum, slow.m, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(moments.rms, slow.rms, rtol=1e-5)
    row, col = accumulators.factors(moments.factored, shape)
    factor = row if col is None else row * col
    expected = [np.broadcast_to(slow.factor(k), shape) for k in range(2)]
    np.testing.assert_allclose(np.broadcast_to(factor, (2, *shape)), expected, rtol=1e-5)


@hypothesis.given(st.lists(st.integers(1, 6), min_size=2, max_size=5))
def test_the_two_largest_dimensions_are_factored(shape):
    second, largest = accumulators.factored_dims(tuple(shape))
    assert second != largest
    assert [shape[second], shape[largest]] == sorted(shape)[-2:]
    assert accumulators.factored_dims((shape[0],)) is None


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        *[((7,), None), ((3, 70), None), ((4, 3, 5), (1, 2)), ((270000,), None), ((0, 3), None)],
        # Large: a few rows at first, a few runs of a row, of a row at a time, nothing that divides.
        *[((96, 100), None), ((8192,), None), ((2, 65, 128), (2,)), ((91, 91), None)],
        ((2, 72, 64), (1, 2)),
    ],
)
def test_means_are_those_of_numpy_and_linear(shape, axes):
    arrays = [normal(seed, shape) + seed for seed in range(3)]
    found = reductions.means(arrays, axes)
    over = tuple(range(len(shape))) if axes is None else axes
    for array, mean in zip(arrays, found, strict=True):
        expected = np.mean(np.asarray(array, np.float64), over, keepdims=True) if array.size else 0
        np.testing.assert_allclose(
            mean, np.broadcast_to(expected, mean.shape), rtol=2e-5, atol=1e-6
        )
    if array.size:
        gradient = jax.grad(lambda x: sum(m.sum() for m in reductions.means([x, 2 * x], axes)))
        count = np.prod([shape[axis] for axis in over])
        np.testing.assert_allclose(gradient(arrays[0]), 3 / count, rtol=1e-5)


@pytest.mark.parametrize(("shape", "axes"), [((96, 100), None), ((2, 72, 64), (1, 2))])
def test_features_of_a_large_tensor_are_those_of_the_blocks_over_their_root_mean_square(
    shape, axes
):
    decays = accumulators.fixed_decays((0.9, 0.99), (0.95,), (0.5, 0.9))

    @jax.jit
    def run(grad, param):
        moments = accumulators.update(accumulators.init(param, decays), grad, decays)
        known = features.known(grad, param, moments)
        found = features.normalized(features.VELO, known, axes=axes, eps=1e-5)
        return found.scaled(), [block(known) for block in features.VELO]

    found, blocks = run(normal(0, shape), normal(1, shape))
    over = tuple(range(1, len(shape) + 1)) if axes is None else tuple(a + 1 for a in axes)

    def spread(arrays):
        arrays = [np.asarray(array, np.float64) for array in arrays]
        return np.concatenate([np.broadcast_to(a, (len(a), *shape)) for a in arrays])

    expected = spread(blocks)
    expected = expected / np.sqrt(np.mean(np.square(expected), over, keepdims=True) + 1e-5)
    np.testing.assert_allclose(spread(found), expected, rtol=1e-4, atol=1e-6)


def test_scales_are_taken_into_the_weights_or_the_features():
    shape = (2, 64, 65)
    blocks = [normal(0, (1, *shape)), normal(1, (3, 2, 64, 1))]
    weights = perceptron.init(KEY, (4, 5, 2))
    for sizes in (((1, 1, 1, 1), (3, 1, 1, 1)), ((1, 2, 1, 1), (3, 2, 1, 1))):
        scales = [jnp.abs(normal(i, size)) for i, size in enumerate(sizes, 2)]
        given = features.Features(blocks, scales)

        @jax.jit
        def outputs(given):
            return [
                perceptron.apply(weights, f, shape, num_outputs=1) for f in (given, given.scaled())
            ]

        (found,), (expected,) = outputs(given)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(20, 30), (96, 100)], ids=["stacked", "unrolled"])
def test_the_fused_network_is_the_plain_one(shape):
    rows, cols = shape
    arrays = [normal(0, shape), normal(1, (rows, 1)), normal(2, shape), normal(3, (1, cols))]
    constants = normal(4, (2,))
    weights = perceptron.init(jax.random.key(0), (7, 4, 8, 3))
    weights = {name: w + 0.1 * normal(5, w.shape) for name, w in weights.items()}
    blocks = [arrays[0][None], arrays[1][None], jnp.stack([arrays[2], 2 * arrays[2]])]
    blocks.append(arrays[3][None])
    arrays.insert(3, 2 * arrays[2])
    out = perceptron.apply(weights, blocks, shape, constants=constants, num_outputs=2)

    stacked = np.stack([np.broadcast_to(f, shape) for f in arrays], -1).astype(np.float64)
    x = reference.with_constants(stacked, np.asarray(constants, np.float64))
    expected = reference.network(reference.f64(weights), x)
    assert len(out) == 2
    np.testing.assert_allclose(np.stack(out, -1), expected[..., :2], rtol=1e-4, atol=1e-5)


def test_the_derivatives_of_a_small_network_are_finite_differences():
    """Its tangent is written by hand."""
    shape = (5, 4)
    blocks = [normal(0, (2, *shape)), normal(1, (1, 5, 1)), normal(2, (3, 1, 4))]
    weights = {
        n: w + 0.1 * normal(5, w.shape) for n, w in perceptron.init(KEY, (6, 4, 3, 2)).items()
    }

    @jax.jit
    def outputs(weights, blocks):
        return perceptron.apply(weights, blocks, shape, num_outputs=2)

    jax.test_util.check_grads(outputs, (weights, blocks), order=1, rtol=2e-2, atol=2e-2)


def test_a_wide_network_over_a_large_tensor_is_the_plain_one():
    shape = (101, 97)  # more than one block, and a rest
    arrays = [normal(0, shape), normal(1, shape)]
    weights = perceptron.init(jax.random.key(0), (2, 16, 16, 2))
    out = perceptron.apply(weights, [f[None] for f in arrays], shape, num_outputs=2)
    stacked = np.stack(arrays, -1).astype(np.float64)
    expected = reference.network(reference.f64(weights), stacked)
    np.testing.assert_allclose(np.stack(out, -1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (2, 5, 5)])
def test_newton_schulz_brings_singular_values_near_one(shape):
    values = jnp.linalg.svd(newton_schulz.orthogonalize(normal(0, shape), 5), compute_uv=False)
    assert jnp.all((values > 0.6) & (values < 1.3))


def test_newton_schulz_keeps_zeros_with_a_finite_derivative_and_refuses_vectors():
    zeros = jnp.zeros((3, 2))
    assert jnp.all(newton_schulz.orthogonalize(zeros) == 0)
    gradient = jax.grad(lambda x: newton_schulz.orthogonalize(x).sum())(zeros)
    assert jnp.all(jnp.isfinite(gradient))
    with pytest.raises(ValueError, match="matrices"):
        newton_schulz.orthogonalize(jnp.ones(3))


def test_loss_features_are_those_of_numpy_and_skip_what_is_not_finite():
    losses = [2.0, 1.5, 9.0, 1.2, 1.9, 0.4]
    slow = reference.Losses(300)
    decay = loss_history.decays(300)
    history = loss_history.init()
    for loss in losses:
        history = loss_history.update(history, jnp.asarray(loss), decay)
        skipped = loss_history.update(history, jnp.asarray(jnp.nan), decay)
        assert jax.tree.all(jax.tree.map(lambda a, b: jnp.all(a == b), history, skipped))
        found = loss_history.features(history, decay)
        np.testing.assert_allclose(found, slow.features(loss), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("form", ["consistent", "published"])
def test_tensor_statistics_are_those_of_numpy(form):
    decays = accumulators.fixed_decays((0.9, 0.99, 0.999), (0.999,))
    slow = reference.Averages((3, 4), (0.9, 0.99, 0.999), (0.999,))
    moments = accumulators.init(jnp.zeros((3, 4)), decays)
    for seed in range(2):
        moments = jax.jit(accumulators.update)(moments, normal(seed, (3, 4)), decays)
        slow.update(np.asarray(normal(seed, (3, 4)), np.float64))
    param = 0.1 * normal(3, (3, 4))
    oracle = reference.PublishedVelo if form == "published" else reference.Velo
    expected = oracle.statistics(oracle({}, 10), np.asarray(param, np.float64), slow)
    found = jax.jit(tensor_statistics.statistics, static_argnums=2)(param, moments, form)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_items_alike_are_mapped_together_in_order():
    calls = []

    def function(item):
        calls.append(item["x"].shape)
        return item["x"].sum(), -item["x"]

    items = [{"x": normal(i, shape)} for i, shape in enumerate([(2,), (3,), (2,), (2,)])]
    out = tensors.map_alike(function, items)
    assert sorted(calls) == [(2,), (3,)]
    for item, (total, negative) in zip(items, out, strict=True):
        assert total == pytest.approx(float(item["x"].sum()), rel=1e-5)
        assert jnp.all(negative == -item["x"])


def test_a_few_large_items_are_mapped_one_by_one_and_many_together():
    for num, num_calls in ((3, 3), (5, 1)):
        calls = []

        def function(x, calls=calls):
            calls.append(x.shape)
            return x.sum()

        items = [jnp.full((512, 512), i, jnp.float32) for i in range(num)]
        out = tensors.map_alike(function, items)
        assert len(calls) == num_calls
        assert [float(x) for x in out] == [i * 512 * 512 for i in range(num)]


SHARDED = """
import math, re
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from veldt.learned_opt import registry
assert jax.device_count() == 2
mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
rule = registry.architecture("celo2_base")
tx = rule.as_optax(rule.init(jax.random.key(0)))
rng = np.random.default_rng(0)
params, grads = ({"w": jnp.asarray(rng.normal(size=(96, 100)), jnp.float32)} for _ in range(2))
step = jax.jit(lambda g, p: tx.update(g, tx.init(p), p)[0])
plain = step(grads, params)
split = NamedSharding(mesh, PartitionSpec("x", None))
compiled = jax.jit(
    lambda g, p: tx.update(g, tx.init(p), p)[0], out_shardings=split
).lower(*jax.device_put((grads, params), split)).compile()
sharded = compiled(*jax.device_put((grads, params), split))
assert sharded["w"].sharding.is_equivalent_to(split, 2)
np.testing.assert_allclose(sharded["w"], plain["w"], rtol=1e-3, atol=1e-4)
shapes = re.findall(r"= \\w+\\[([\\d,]*)\\]\\S* all-gather", compiled.as_text())
assert all(math.prod(map(int, shape.split(","))) < 100 for shape in shapes), shapes
"""


@pytest.mark.slow
def test_sharded_parameters_get_the_same_update_without_being_gathered():
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    done = subprocess.run(
        [sys.executable, "-c", SHARDED], cwd=ROOT, env=env, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
