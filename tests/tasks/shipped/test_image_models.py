"""Image models against Flax's convolution, plain NumPy, and their symmetries."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from veldt.tasks.shipped import attention, image_models

# Without LLVM's optimisation: half the time to compile, and nothing here runs long.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [7, 8])
def test_dense_on_patches_is_flaxs_convolution(side, stride):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, side, side, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 5)), jnp.float32)
    ours = image_models.patches(x, stride) @ kernel.reshape(27, 5)
    conv = nn.Conv(5, (3, 3), strides=stride, use_bias=False)
    theirs = conv.apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_pooling_averages_squares():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 28, 28)).astype(np.uint8)
    halved = np.stack([image.reshape(14, 2, 14, 2).mean(axis=(1, 3)) for image in pixels]) / 255
    pooled = image_models.Conv((4,), pool=2, pixel_max=255.0)
    params = jit(pooled.init)(jax.random.key(0), pixels)
    np.testing.assert_allclose(
        jit(pooled.apply)(params, pixels),
        jit(image_models.Conv((4,)).apply)(params, jnp.asarray(halved, jnp.float32)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_cutting_keeps_squares_together():
    images = np.arange(2 * 16).reshape(2, 4, 4)
    pieces = np.asarray(image_models.cut(jnp.asarray(images), 2))
    np.testing.assert_array_equal(
        pieces[0], [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    )
    np.testing.assert_array_equal(pieces[1], pieces[0] + 16)
    np.testing.assert_array_equal(image_models.cut(jnp.asarray(images.reshape(2, 16)), 2), pieces)


def test_attention_without_a_mask_does_not_know_the_order():
    """What tells positions apart is their embedding alone."""
    x = np.random.default_rng(0).normal(size=(1, 5, 8)).astype(np.float32)
    order = [3, 0, 4, 1, 2]
    for causal in (False, True):
        block = attention.Block(num_heads=2, causal=causal)
        params = jit(block.init)(jax.random.key(0), x)
        apply = jit(block.apply)
        outputs, shuffled = apply(params, x), apply(params, x[:, order])
        same = np.allclose(shuffled, outputs[:, order], atol=1e-5)
        assert same is not causal


def test_attention_is_a_weighted_mean_of_values():
    """With one head and identity-like weights the attention is softmax(x x' / sqrt(W)) x."""
    width = 4
    x = np.random.default_rng(1).normal(size=(1, 3, width)).astype(np.float32)
    block = attention.Block(num_heads=1, causal=False)
    params = jax.tree.map(jnp.zeros_like, jit(block.init)(jax.random.key(0), x))
    p = params["params"]
    p["LayerNorm_0"]["scale"] = jnp.ones(width)
    p["Dense_0"]["kernel"] = jnp.concatenate([jnp.eye(width)] * 3, axis=1)
    p["Dense_1"]["kernel"] = jnp.eye(width)
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    scores = np.exp(normed[0] @ normed[0].T / np.sqrt(width))
    weights = scores / scores.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        jit(block.apply)(params, x)[0], x[0] + weights @ normed[0], rtol=1e-4
    )


@pytest.mark.parametrize(
    ("module", "num_params"),
    [
        # stem 9 + 1, two convolutions of 72 + 1 behind norms of 2, last norm 2, all times 8, logits
        (image_models.ResidualConv((8,), num_blocks=1), 8 * (10 + 2 * 75 + 2) + 90),
        # patches 4 -> 8, positions, block (2 norms, 24 + 8, 16 + 8 outputs), norm, logits
        (
            image_models.VisionTransformer(patch=2, width=8, num_heads=2, num_layers=1),
            40 + 128 + (32 + 216 + 72 + 144 + 136) + 16 + 90,
        ),
        # patches, norms, 16 -> 32 -> 16 over patches, 8 -> 16 -> 8 over channels, norm, logits
        (image_models.Mixer(patch=2, width=8, num_layers=1), 40 + 32 + 1072 + 280 + 16 + 90),
    ],
)
def test_sizes_are_as_counted_by_hand(module, num_params):
    images = jnp.zeros((3, 64))
    params = jax.eval_shape(module.init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == num_params
    assert jax.eval_shape(module.apply, params, images).shape == (3, 10)


def test_a_residual_block_of_zero_weights_passes_its_input_on():
    images = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
    module = image_models.ResidualConv((4,), num_blocks=3)
    params = jit(module.init)(jax.random.key(0), images)
    zeroed = {
        name: jax.tree.map(jnp.zeros_like, leaf)
        if name in {f"Dense_{i}" for i in range(1, 7)}
        else leaf
        for name, leaf in params["params"].items()
    }
    shallow = image_models.ResidualConv((4,), num_blocks=0)
    renamed = {
        "Dense_0": zeroed["Dense_0"],
        "LayerNorm_0": zeroed["LayerNorm_6"],
        "Dense_1": zeroed["Dense_7"],
    }
    np.testing.assert_allclose(
        jit(module.apply)({"params": zeroed}, images),
        jit(shallow.apply)({"params": renamed}, images),
        rtol=1e-5,
        atol=1e-6,
    )


def test_an_output_variance_scales_the_start_alone():
    x = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
    usual, small = image_models.Mlp((8, 100)), image_models.Mlp((8, 100), output_variance=0.01)
    key = jax.random.key(0)
    ratio = small.apply(small.init(key, x), x) / usual.apply(usual.init(key, x), x)
    np.testing.assert_allclose(ratio, 0.1, rtol=1e-4)
