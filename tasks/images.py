"""Image tasks: multilayer perceptrons, small convolutional nets and an autoencoder.

Digits are the 8x8 images embedded with veldt; Fashion-MNIST is read from disk where present (see
`dataset.load_fashion_mnist`). Each factory returns a task of about the size whose step costs tens
(digits) or hundreds (Fashion-MNIST) of microseconds on one core: proxies to search on.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from veldt.tasks import dataset, supervised

_NUM_CLASSES = 10


class Mlp(nn.Module):
    """Dense layers with ReLU between them, on images of any shape.

    Attributes:
      widths: Width of each layer; the last one has no activation.
      pixel_max: What the pixels are divided by.
    """

    widths: tuple[int, ...]
    pixel_max: float = 1.0

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map images [B, ...] to outputs [B, widths[-1]]."""
        x = images.reshape(images.shape[0], -1).astype(jnp.float32) / self.pixel_max
        for width in self.widths[:-1]:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.widths[-1])(x)


class Conv(nn.Module):
    """3x3 convolutions of stride 2 with ReLU, then one dense layer of logits.

    Attributes:
      channels: Output channels of each convolution.
      pool: Side of the squares that are averaged before the first convolution.
      pixel_max: What the pixels are divided by.
    """

    channels: tuple[int, ...]
    pool: int = 1
    pixel_max: float = 1.0

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Map square images [B, H, H] or [B, H * H] to logits [B, 10]."""
        side = math.isqrt(math.prod(images.shape[1:])) // self.pool
        x = images.reshape(-1, side, self.pool, side, self.pool, 1).astype(jnp.float32)
        x = x.mean(axis=(2, 4)) / self.pixel_max
        for num_channels in self.channels:
            x = nn.relu(nn.Dense(num_channels)(patches(x)))
        return nn.Dense(_NUM_CLASSES)(x.reshape(x.shape[0], -1))


def patches(images: jax.Array) -> jax.Array:
    """Gather 3x3 neighbourhoods at stride 2: [B, H, W, C] to [B, ceil(H/2), ceil(W/2), 9 C].

    A dense layer on these is a 3x3 convolution of stride 2 with "SAME" padding. XLA's own
    convolution is 4 (8x8 images) to 8 (28x28) times slower in a training step on CPU: its
    gradients fall back to plain loops.
    """
    height, width = images.shape[1:3]

    def padding(size: int) -> tuple[int, int]:
        total = 2 * (-(-size // 2) - 1) + 3 - size
        return total // 2, total - total // 2

    padded = jnp.pad(images, ((0, 0), padding(height), padding(width), (0, 0)))
    shifted = [
        padded[:, row : row + height : 2, column : column + width : 2]
        for row in range(3)
        for column in range(3)
    ]
    return jnp.concatenate(shifted, axis=-1)


def digits_mlp() -> supervised.SupervisedTask:
    """Classify 8x8 digits with a 64-32-10 perceptron."""
    return _classifier("digits_mlp", Mlp((32, _NUM_CLASSES)), dataset.load_digits())


def digits_conv() -> supervised.SupervisedTask:
    """Classify 8x8 digits with two small convolutions."""
    return _classifier("digits_conv", Conv((8, 16)), dataset.load_digits())


def digits_autoencoder() -> supervised.SupervisedTask:
    """Squeeze 8x8 digits through 8 numbers, 64-32-8-32-64, squared error."""
    splits = dataset.load_digits()
    mean_image = splits["train"].inputs.mean(axis=0)
    # Centred, so that an output of zero is the mean image: the best that knows nothing.
    centred = {
        split: dataset.Examples(part.inputs - mean_image, part.inputs - mean_image)
        for split, part in splits.items()
    }
    return supervised.SupervisedTask(
        name="digits_autoencoder",
        module=Mlp((32, 8, 32, 64)),
        criterion=supervised.squared_error,
        splits=supervised.on_device(centred),
        batch_size=64,
        eval_size=512,
        reference_loss=jnp.asarray(np.mean(np.square(centred["train"].inputs)), jnp.float32),
    )


def fashion_mlp() -> supervised.SupervisedTask:
    """Classify 28x28 garments with a 784-64-10 perceptron."""
    module = Mlp((64, _NUM_CLASSES), pixel_max=255.0)
    return _classifier("fashion_mlp", module, dataset.load_fashion_mnist())


def fashion_conv() -> supervised.SupervisedTask:
    """Classify 28x28 garments, halved to 14x14, with two small convolutions."""
    module = Conv((8, 16), pool=2, pixel_max=255.0)
    return _classifier("fashion_conv", module, dataset.load_fashion_mnist())


def _classifier(name: str, module: nn.Module, splits: dataset.Splits) -> supervised.SupervisedTask:
    return supervised.SupervisedTask(
        name=name,
        module=module,
        criterion=supervised.cross_entropy,
        splits=supervised.on_device(splits),
        batch_size=64,
        eval_size=1024,
        reference_loss=jnp.asarray(math.log(_NUM_CLASSES), jnp.float32),
    )
