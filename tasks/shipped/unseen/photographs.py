"""Tasks on colour photographs that need no labels: distortions, masked patches, noise.

The windows come from `photos.load_windows`; pixels are divided by 255 and less the mean colour of
the training windows.
"""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from veldt.tasks.common import types
from veldt.tasks.data import dataset, photos
from veldt.tasks.shipped import attention, image_models, supervised

# Shapes: B batch, S side of a window, C channels, P patches, F numbers in a patch, W model width.

_SIDE = 16
_PIXEL_SCALE = 0.25  # About the standard deviation of a centred pixel.
_NOISE = 0.05  # Standard deviation; pixels are 0..1.

DISTORTIONS = ("unchanged", "blurred", "sharpened", "pixelated", "noisy")
"""What may be done to a window: nothing; the mean over 3x3 pixels; the opposite, by as much; the
mean over squares of 2x2 pixels; Gaussian noise added."""


class GroupNormResidual(nn.Module):
    """Pre-activation residual blocks with group normalisation (Wu and He 2018, arXiv 1803.08494).

    The first convolution and every later stage's first one have stride 2; a block adds two 3x3
    convolutions. The last activations are averaged over positions.

    Attributes:
      channels: Number of channels C of each stage; divisible by 8.
      num_outputs: Number of outputs.
    """

    channels: tuple[int, ...]
    num_outputs: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map images float [B, S, S, 3] to outputs [B, num_outputs]."""
        x = images / _PIXEL_SCALE
        for num_channels in self.channels:
            x = nn.Dense(num_channels)(image_models.patches(x, stride=2))
            inner = x
            for _ in range(2):
                inner = nn.silu(nn.GroupNorm(num_groups=8)(inner))
                inner = nn.Dense(num_channels)(image_models.patches(inner, stride=1))
            x = x + inner
        x = nn.silu(nn.GroupNorm(num_groups=8)(x)).mean(axis=(1, 2))
        return nn.Dense(self.num_outputs)(x)


class MaskedOutputs(NamedTuple):
    """The patches as the model fills them in, and which of them it did not see.

    Attributes:
      patches: Predicted patches, [B, P, F].
      hidden: 1.0 where the model did not see a patch, 0.0 elsewhere, [B, P].
    """

    patches: jax.Array
    hidden: jax.Array


class MaskedTransformer(nn.Module):
    """A transformer that fills in hidden patches (He et al. 2022, arXiv 2111.06377).

    Departure: one stack of blocks reads all positions, hidden ones as a learned vector, in place of
    an encoder of the seen patches and a decoder.

    Attributes:
      patch: Side of a patch; divides S.
      width: Model width W.
      num_heads: Number of attention heads; divides W.
      num_layers: Number of blocks.
      num_hidden: Number of patches of each image that are hidden.
    """

    patch: int
    width: int
    num_heads: int
    num_layers: int
    num_hidden: int

    @nn.compact
    def __call__(self, images: jax.Array) -> MaskedOutputs:
        """Hide patches of images [B, S, S, 3] at random and predict all of them."""
        seen = cut(images, self.patch)  # [B, P, F]
        order = jax.random.uniform(self.make_rng("noise"), seen.shape[:2])
        rank = jnp.sum(order[:, :, None] > order[:, None, :], axis=-1)  # [B, P]
        hidden = (rank < self.num_hidden)[..., None]
        normal = nn.initializers.normal(0.02)
        mask = self.param("mask", normal, (self.width,))
        x = jnp.where(hidden, mask, nn.Dense(self.width)(seen))
        x = x + self.param("positions", normal, (seen.shape[1], self.width))
        for _ in range(self.num_layers):
            x = attention.Block(self.num_heads, causal=False, activation=nn.gelu)(x)
        start = nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")
        predicted = nn.Dense(seen.shape[-1], kernel_init=start)(nn.LayerNorm()(x))
        return MaskedOutputs(predicted, hidden[..., 0].astype(jnp.float32))


class UNet(nn.Module):
    """Convolutions down three levels and up again, with links across (Ronneberger et al. 2015).

    Its output is what it takes away from the image. Halving is by stride 2, doubling by repetition.

    Attributes:
      channels: Number of channels C of each level, the finest first.
      noise_scale: Standard deviation of the noise that is added to the images.
    """

    channels: tuple[int, ...]
    noise_scale: float

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Add noise to images [B, S, S, 3] and return them as the network restores them."""
        noise = jax.random.normal(self.make_rng("noise"), images.shape, images.dtype)
        noisy = images + self.noise_scale * noise
        x, levels = noisy, []
        for level, num_channels in enumerate(self.channels):
            x = self._convolve(x, num_channels, stride=1 if level == 0 else 2)
            levels.append(x)
        for across in reversed(levels[:-1]):
            doubled = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            x = self._convolve(jnp.concatenate([doubled, across], axis=-1), across.shape[-1], 1)
        start = nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")
        return noisy - nn.Dense(3, kernel_init=start)(x)

    def _convolve(self, x: jax.Array, num_channels: int, stride: int) -> jax.Array:
        return nn.leaky_relu(nn.Dense(num_channels)(image_models.patches(x, stride)), 0.1)


class FourierFeatures(nn.Module):
    """A perceptron on sines and cosines of random frequencies (Tancik et al. 2020, 2006.10739).

    Attributes:
      widths: Widths of the perceptron's layers.
      num_frequencies: Number of frequencies, drawn once and fixed.
      frequency_scale: Standard deviation of the frequencies, in periods over the width.
    """

    widths: tuple[int, ...]
    num_frequencies: int = 64
    frequency_scale: float = 4.0

    @nn.compact
    def __call__(self, points: jax.Array) -> jax.Array:
        """Map points [B, 2] to outputs [B, widths[-1]]."""
        drawn = np.random.RandomState(0).normal(size=(2, self.num_frequencies))
        frequencies = np.float32(self.frequency_scale * drawn)
        angles = 2 * math.pi * (points @ frequencies)
        features = math.sqrt(2) * jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        return image_models.Mlp(self.widths, output_variance=0.01)(features)


def hidden_error(outputs: MaskedOutputs, images: jax.Array) -> types.Scalar:
    """Return the mean squared error over the hidden patches of images [B, S, S, 3]."""
    truth = cut(images, math.isqrt(outputs.patches.shape[-1] // 3))
    squares = jnp.mean(jnp.square(outputs.patches - truth), axis=-1)
    return jnp.sum(squares * outputs.hidden) / jnp.sum(outputs.hidden)


def cut(images: jax.Array, patch: int) -> jax.Array:
    """Cut colour images [B, S, S, 3] into patches, row by row: [B, (S / patch)^2, 3 patch^2]."""
    side = images.shape[1] // patch
    x = images.reshape(-1, side, patch, side, patch, 3)
    return jnp.swapaxes(x, 2, 3).reshape(-1, side * side, 3 * patch * patch)


def photo_distortion_resnet() -> supervised.SupervisedTask:
    """Tell how a colour window was distorted, in five ways: a group-normalised residual network."""
    return supervised.SupervisedTask(
        name="photo_distortion_resnet",
        module=GroupNormResidual((16, 32), len(DISTORTIONS)),
        criterion=supervised.cross_entropy,
        splits=supervised.on_device(_distorted(_centred())),
        batch_size=32,
        eval_size=512,
        reference_loss=jnp.asarray(math.log(len(DISTORTIONS)), jnp.float32),
    )


def photo_masked_transformer() -> supervised.SupervisedTask:
    """Fill in 8 of 16 patches of colour windows with a transformer of three blocks of width 64."""
    module = MaskedTransformer(patch=4, width=64, num_heads=4, num_layers=3, num_hidden=8)
    splits = _to_themselves(_centred())
    return supervised.SupervisedTask(
        name="photo_masked_transformer",
        module=module,
        criterion=hidden_error,
        splits=supervised.on_device(splits),
        batch_size=16,
        eval_size=256,
        reference_loss=jnp.asarray(np.mean(np.square(splits["train"].inputs)), jnp.float32),
    )


def photo_denoise_unet() -> supervised.SupervisedTask:
    """Take Gaussian noise out of colour windows with a U-Net of three levels, batch 8."""
    module = UNet(channels=(16, 32, 48), noise_scale=0.15)
    return supervised.SupervisedTask(
        name="photo_denoise_unet",
        module=module,
        criterion=supervised.squared_error,
        splits=supervised.on_device(_to_themselves(_centred())),
        batch_size=8,
        eval_size=128,
        reference_loss=jnp.asarray(module.noise_scale**2, jnp.float32),  # Nothing is changed.
    )


def photo_coordinates() -> supervised.SupervisedTask:
    """Fit a photograph's colours as a function of position: Fourier features, width 128."""
    splits = pixels(photos.load_photos()["flower"])
    return supervised.SupervisedTask(
        name="photo_coordinates",
        module=FourierFeatures((128, 128, 3)),
        criterion=supervised.squared_error,
        splits=supervised.on_device(splits),
        batch_size=256,
        eval_size=2048,
        reference_loss=jnp.asarray(np.mean(np.square(splits["train"].targets)), jnp.float32),
    )


def distort(images: np.ndarray, distortion: str, random: np.random.RandomState) -> np.ndarray:
    """Distort images [N, S, S, 3] in one of the `DISTORTIONS`."""
    if distortion == "noisy":
        return images + _NOISE * random.normal(size=images.shape)
    if distortion == "pixelated":
        return _coarse(images)
    share = {"unchanged": 0.0, "blurred": 1.0, "sharpened": -1.0}[distortion]
    return images + share * (_blurred(images) - images)


def pixels(photo: np.ndarray) -> dataset.Splits:
    """Turn a photograph uint8 [H, X, 3] into positions and centred colours, split at random.

    A position float32 [N, 2] is (row, column) over the number of columns; a colour float32 [N, 3].
    """
    rows, columns = np.indices(photo.shape[:2]).reshape(2, -1)
    positions = np.stack([rows, columns], axis=-1).astype(np.float32) / photo.shape[1]
    splits = dataset.split_rows(
        dataset.Examples(positions, photo.reshape(-1, 3).astype(np.float32) / 255)
    )
    mean = splits["train"].targets.mean(axis=0)
    return {split: part._replace(targets=part.targets - mean) for split, part in splits.items()}


@functools.cache
def _centred() -> dict[types.Split, np.ndarray]:
    """Return the windows as float32 [N, S, S, 3], 0..1, less the training part's mean colour."""
    windows = photos.load_windows(_SIDE)
    scaled = {split: part.astype(np.float32) / 255 for split, part in windows.items()}
    mean = scaled["train"].mean(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)
    return {split: part - mean for split, part in scaled.items()}


def _to_themselves(windows: dict[types.Split, np.ndarray]) -> dataset.Splits:
    return {split: dataset.Examples(part, part) for split, part in windows.items()}


def _distorted(windows: dict[types.Split, np.ndarray]) -> dataset.Splits:
    """Distort each window in one way, drawn at random, the target int32 [N]."""

    def part(images: np.ndarray) -> dataset.Examples:
        random = np.random.RandomState(0)
        kinds = random.randint(len(DISTORTIONS), size=len(images)).astype(np.int32)
        changed = np.empty_like(images)
        for number, distortion in enumerate(DISTORTIONS):
            chosen = kinds == number
            changed[chosen] = distort(images[chosen], distortion, random)
        return dataset.Examples(changed, kinds)

    return {split: part(images) for split, images in windows.items()}


def _blurred(images: np.ndarray) -> np.ndarray:
    """Average over 3x3 pixels; the outermost ones are repeated beyond the edge."""
    side = images.shape[1]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    total = np.zeros_like(images)
    for row in range(3):
        for column in range(3):
            total += padded[:, row : row + side, column : column + side]
    return total / 9


def _coarse(images: np.ndarray) -> np.ndarray:
    """Average over squares of 2x2 pixels, and give each pixel the mean of its square."""
    half = images.shape[1] // 2
    means = images.reshape(-1, half, 2, half, 2, 3).mean(axis=(2, 4))
    return np.repeat(np.repeat(means, 2, axis=1), 2, axis=2)
