"""Models of small images: perceptron, convolutions, residual convolutions, vision transformer.

Each maps images [B, H, H] or [B, H * H] (side H, pixels 0..pixel_max, of any number type) to
outputs [B, F]. Those that are of a published kind are its plainest form: no dropout, and layer
normalisation in place of batch normalisation, so that a loss is a function of one example.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from veldt.tasks.shipped import attention

# Shapes: B batch, H height = width, C channels, F outputs, P patches, W model width.

Activation: TypeAlias = Callable[[jax.Array], jax.Array]


class Mlp(nn.Module):
    """Dense layers with an activation between them, on inputs of any shape.

    Attributes:
      widths: Widths of the layers; the last one has no activation.
      activation: Activation between the layers.
      pixel_max: Divisor of the pixels.
      output_variance: Variance of the outputs at the start, relative to the usual; small where a
        model should begin without a preference.
    """

    widths: tuple[int, ...]
    activation: Activation = nn.relu
    pixel_max: float = 1.0
    output_variance: float = 1.0

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map inputs [B, ...] to outputs [B, widths[-1]]."""
        x = images.reshape(images.shape[0], -1).astype(jnp.float32) / self.pixel_max
        for width in self.widths[:-1]:
            x = self.activation(nn.Dense(width)(x))
        start = nn.initializers.variance_scaling(self.output_variance, "fan_in", "truncated_normal")
        return nn.Dense(self.widths[-1], kernel_init=start)(x)


class LayerNormMlp(nn.Module):
    """Dense layers with layer normalisation (arXiv 1607.06450) and an activation between them.

    Attributes:
      widths: Widths of the layers; the last one has neither.
      activation: Activation between the layers.
    """

    widths: tuple[int, ...]
    activation: Activation = nn.relu

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map inputs [B, ...] to outputs [B, widths[-1]]."""
        x = inputs.reshape(inputs.shape[0], -1)
        for width in self.widths[:-1]:
            x = self.activation(nn.LayerNorm()(nn.Dense(width)(x)))
        return nn.Dense(self.widths[-1])(x)


class Conv(nn.Module):
    """3x3 convolutions of stride 2, each with an activation, then one dense layer.

    Attributes:
      channels: Numbers of output channels of the convolutions.
      num_outputs: Number of outputs F.
      activation: Activation after each convolution.
      pool: Side of the squares that are averaged before the first convolution.
      pixel_max: Divisor of the pixels.
    """

    channels: tuple[int, ...]
    num_outputs: int = 10
    activation: Activation = nn.relu
    pool: int = 1
    pixel_max: float = 1.0

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map images to outputs [B, F]."""
        x = pooled(images, self.pool) / self.pixel_max
        for num_channels in self.channels:
            x = self.activation(nn.Dense(num_channels)(patches(x, stride=2)))
        return nn.Dense(self.num_outputs)(x.reshape(x.shape[0], -1))


class ResidualConv(nn.Module):
    """Stages of pre-activation residual blocks (He et al. 2016, arXiv 1603.05027).

    Every stage begins with a 3x3 convolution, of stride 2 from the second stage on; a block adds
    two 3x3 convolutions of stride 1, each behind layer normalisation over the channels and an
    activation. The last activations are averaged over positions.

    Attributes:
      channels: Number of channels C of each stage.
      num_blocks: Number of blocks per stage.
      num_outputs: Number of outputs F.
      activation: Activation before each convolution of a block, and before the mean.
      pool: Side of the squares that are averaged before the first convolution.
      pixel_max: Divisor of the pixels.
    """

    channels: tuple[int, ...]
    num_blocks: int
    num_outputs: int = 10
    activation: Activation = nn.relu
    pool: int = 1
    pixel_max: float = 1.0

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map images to outputs [B, F]."""
        x = pooled(images, self.pool) / self.pixel_max
        for stage, num_channels in enumerate(self.channels):
            x = nn.Dense(num_channels)(patches(x, stride=1 if stage == 0 else 2))
            for _ in range(self.num_blocks):
                inner = x
                for _ in range(2):
                    inner = self.activation(nn.LayerNorm()(inner))
                    inner = nn.Dense(num_channels)(patches(inner, stride=1))
                x = x + inner
        x = self.activation(nn.LayerNorm()(x)).mean(axis=(1, 2))
        return nn.Dense(self.num_outputs)(x)


class VisionTransformer(nn.Module):
    """A transformer over square patches (Dosovitskiy et al. 2021, arXiv 2010.11929).

    Departure: outputs come from the mean over patches, not from a token of their own.

    Attributes:
      patch: Side of a patch; divides H.
      width: Model width W.
      num_heads: Number of attention heads; divides W.
      num_layers: Number of blocks.
      num_outputs: Number of outputs F.
      activation: Activation of the blocks' hidden layers.
      pixel_max: Divisor of the pixels.
    """

    patch: int
    width: int
    num_heads: int
    num_layers: int
    num_outputs: int = 10
    activation: Activation = nn.gelu
    pixel_max: float = 1.0

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map images to outputs [B, F]."""
        x = nn.Dense(self.width)(cut(images, self.patch) / self.pixel_max)  # [B, P, W]
        x = x + self.param("positions", nn.initializers.normal(0.02), x.shape[1:])
        for _ in range(self.num_layers):
            x = attention.Block(self.num_heads, causal=False, activation=self.activation)(x)
        return nn.Dense(self.num_outputs)(nn.LayerNorm()(x).mean(axis=1))


class Mixer(nn.Module):
    """Perceptrons over patches and over channels in turn (Tolstikhin et al. 2021, 2105.01601).

    Attributes:
      patch: Side of a patch; divides H.
      width: Model width W.
      num_layers: Number of blocks of two perceptrons, each with a hidden layer of twice the width.
      num_outputs: Number of outputs F.
      activation: Activation of the hidden layers.
      pixel_max: Divisor of the pixels.
    """

    patch: int
    width: int
    num_layers: int
    num_outputs: int = 10
    activation: Activation = nn.gelu
    pixel_max: float = 1.0

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map images to outputs [B, F]."""
        x = nn.Dense(self.width)(cut(images, self.patch) / self.pixel_max)  # [B, P, W]
        for _ in range(self.num_layers):
            across = jnp.swapaxes(nn.LayerNorm()(x), 1, 2)
            x = x + jnp.swapaxes(self._perceptron(across), 1, 2)
            x = x + self._perceptron(nn.LayerNorm()(x))
        return nn.Dense(self.num_outputs)(nn.LayerNorm()(x).mean(axis=1))

    def _perceptron(self, x: jax.Array) -> jax.Array:
        hidden = self.activation(nn.Dense(2 * x.shape[-1])(x))
        return nn.Dense(x.shape[-1])(hidden)


def pooled(images: jax.Array, pool: int) -> jax.Array:
    """Average squares of pool x pool pixels: to float32 [B, H / pool, H / pool, 1]."""
    side = math.isqrt(math.prod(images.shape[1:])) // pool
    x = images.reshape(-1, side, pool, side, pool, 1).astype(jnp.float32)
    return x.mean(axis=(2, 4))


def cut(images: jax.Array, patch: int) -> jax.Array:
    """Cut into patches, row by row: to float32 [B, (H / patch)^2, patch^2]."""
    side = math.isqrt(math.prod(images.shape[1:])) // patch
    x = images.reshape(-1, side, patch, side, patch).astype(jnp.float32)
    return jnp.swapaxes(x, 2, 3).reshape(-1, side * side, patch * patch)


def patches(images: jax.Array, stride: int) -> jax.Array:
    """Gather 3x3 neighbourhoods: [B, H, W, C] to [B, ceil(H/stride), ceil(W/stride), 9 C].

    A dense layer on these is a 3x3 convolution with "SAME" padding. XLA's own convolution is 4
    (8x8 images) to 8 (28x28) times slower in a training step on CPU: its gradients fall back to
    plain loops.
    """
    height, width = images.shape[1:3]

    def padding(size: int) -> tuple[int, int]:
        total = max(stride * (-(-size // stride) - 1) + 3 - size, 0)
        return total // 2, total - total // 2

    padded = jnp.pad(images, ((0, 0), padding(height), padding(width), (0, 0)))
    shifted = [
        padded[:, row : row + height : stride, column : column + width : stride]
        for row in range(3)
        for column in range(3)
    ]
    return jnp.concatenate(shifted, axis=-1)
