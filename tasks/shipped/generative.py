"""Models of images without labels: autoencoder, variational autoencoder, denoising diffusion.

All are perceptrons on flat images. The inputs are centred on the training part's mean image, so
that an output of zero is the best that knows nothing. A module that needs noise draws it with
`self.make_rng("noise")` and returns all that its criterion reads.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from veldt.tasks.common import types
from veldt.tasks.data import dataset
from veldt.tasks.shipped import image_models, supervised

# Shapes: B batch, N pixels, Z latent numbers, K frequencies.

PIXEL_SCALE = 0.2
"""Standard deviation of a pixel around the variational autoencoder's reconstruction (pixels are
0..1). It weighs reconstruction against the latent code's length."""


class VaeOutputs(NamedTuple):
    """The parts of the negative evidence bound.

    Attributes:
      reconstruction: Mean of the pixels given a drawn latent code, [B, N].
      mean: Mean of the latent code given the pixels, [B, Z].
      log_variance: Log-variance of the latent code given the pixels, [B, Z].
    """

    reconstruction: jax.Array
    mean: jax.Array
    log_variance: jax.Array


class Vae(nn.Module):
    """A variational autoencoder (Kingma and Welling 2014, arXiv 1312.6114).

    Attributes:
      hidden: Widths of the encoder's hidden layers; the decoder has them in reverse.
      num_latents: Number of latent numbers Z.
      activation: Activation between the layers.
    """

    hidden: tuple[int, ...]
    num_latents: int
    activation: image_models.Activation = nn.relu

    @nn.compact
    def __call__(self, images: jax.Array) -> VaeOutputs:
        """Encode images [B, N], draw one code each, decode."""
        encoder = image_models.Mlp((*self.hidden, 2 * self.num_latents), self.activation)
        mean, log_variance = jnp.split(encoder(images), 2, axis=-1)
        noise = jax.random.normal(self.make_rng("noise"), mean.shape, mean.dtype)
        code = mean + jnp.exp(0.5 * log_variance) * noise
        widths = (*self.hidden[::-1], images.shape[-1])
        decoder = image_models.Mlp(widths, self.activation, output_variance=0.01)
        return VaeOutputs(decoder(code), mean, log_variance)


def negative_elbo(outputs: VaeOutputs, images: jax.Array) -> types.Scalar:
    """Return the negative evidence lower bound per image in nats, without its constant.

    Pixels are Gaussian around the reconstruction with `PIXEL_SCALE`, the prior of the code standard
    normal. The constant N log(PIXEL_SCALE sqrt(2 pi)) is left out, so that 0 is a perfect
    reconstruction from no code (which no model reaches).
    """
    squares = jnp.sum(jnp.square(outputs.reconstruction - images), axis=-1)
    code_length = kl_to_standard_normal(outputs.mean, outputs.log_variance)
    return jnp.mean(0.5 * squares / PIXEL_SCALE**2 + code_length)


def kl_to_standard_normal(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Return KL(N(mean, exp(log_variance)) || N(0, 1)) in nats, summed over the last axis."""
    terms = jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance
    return 0.5 * jnp.sum(terms, axis=-1)


class DenoiserOutputs(NamedTuple):
    """A guess and the truth.

    Attributes:
      predicted: The noise that the model sees in the images, [B, N].
      noise: The noise that was mixed in, standard normal, [B, N].
    """

    predicted: jax.Array
    noise: jax.Array


class Denoiser(nn.Module):
    """A network that predicts the noise in noisy images (Ho et al. 2020, arXiv 2006.11239).

    Time is continuous.

    Attributes:
      hidden: Widths of the hidden layers.
      image_scale: Divisor of the images before noise is mixed in.
      num_frequencies: Number K of frequencies; the model gets the time as their sines and cosines.
      activation: Activation between the layers.
    """

    hidden: tuple[int, ...]
    image_scale: float
    num_frequencies: int = 8
    activation: image_models.Activation = nn.silu

    @nn.compact
    def __call__(self, images: jax.Array) -> DenoiserOutputs:
        """Draw a time and noise for each image [B, N], mix, and predict the noise."""
        key_time, key_noise = jax.random.split(self.make_rng("noise"))
        time = jax.random.uniform(key_time, (images.shape[0], 1))
        noise = jax.random.normal(key_noise, images.shape)
        signal = signal_share(time)
        noisy = jnp.sqrt(signal) * images / self.image_scale + jnp.sqrt(1 - signal) * noise
        angles = time * jnp.pi * 2.0 ** jnp.arange(self.num_frequencies)  # [B, K]
        features = jnp.concatenate([noisy, jnp.sin(angles), jnp.cos(angles)], axis=-1)
        widths = (*self.hidden, images.shape[-1])
        model = image_models.Mlp(widths, self.activation, output_variance=0.01)
        return DenoiserOutputs(model(features), noise)


def signal_share(time: jax.Array) -> jax.Array:
    """Return the signal's share of the variance at a time in 0..1, from 1 down to 0.

    The cosine schedule, alpha-bar of Nichol and Dhariwal 2021 (arXiv 2102.09672), equation 17.
    """
    offset = 0.008
    start = math.cos(offset / (1 + offset) * math.pi / 2) ** 2
    share = jnp.cos((time + offset) / (1 + offset) * jnp.pi / 2) ** 2 / start
    return jnp.minimum(share, 1.0)  # Rounding may exceed it, and 1 - share has a root taken.


def noise_error(outputs: DenoiserOutputs, images: jax.Array) -> types.Scalar:
    """Return the mean squared error of the predicted noise; 1 if the prediction is always zero."""
    del images
    return supervised.squared_error(outputs.predicted, outputs.noise)


def digits_autoencoder() -> supervised.SupervisedTask:
    """Squeeze 8x8 digits through 8 numbers, 64-32-8-32-64, squared error."""
    module = image_models.Mlp((32, 8, 32, 64))
    return _autoencoder("digits_autoencoder", module, centred(dataset.load_digits()))


def digits_autoencoder_deep() -> supervised.SupervisedTask:
    """Squeeze 8x8 digits through 4 numbers and back with eight tanh layers, batch 128."""
    module = image_models.Mlp((64, 32, 16, 4, 16, 32, 64, 64), nn.tanh, output_variance=0.01)
    splits = centred(dataset.load_digits())
    return _autoencoder("digits_autoencoder_deep", module, splits, batch_size=128)


def fashion_autoencoder() -> supervised.SupervisedTask:
    """Squeeze 28x28 garments through 32 numbers, 784-256-32-256-784, squared error."""
    module = image_models.Mlp((256, 32, 256, 784), output_variance=0.01)
    splits = centred(dataset.load_fashion_mnist())
    return _autoencoder("fashion_autoencoder", module, splits, batch_size=128)


def digits_vae() -> supervised.SupervisedTask:
    """Variational autoencoder of 8x8 digits with 8 latent numbers and tanh layers of width 64."""
    return _vae("digits_vae", Vae((64,), 8, nn.tanh), centred(dataset.load_digits()))


def fashion_vae() -> supervised.SupervisedTask:
    """Variational autoencoder of 28x28 garments with 16 latent numbers, width 256, batch 128."""
    splits = centred(dataset.load_fashion_mnist())
    return _vae("fashion_vae", Vae((256, 256), 16), splits, batch_size=128)


def digits_diffusion() -> supervised.SupervisedTask:
    """Predict the noise mixed into 8x8 digits with a SiLU perceptron of width 128."""
    splits = centred(dataset.load_digits())
    return _diffusion("digits_diffusion", (128, 128), splits, batch_size=64)


def fashion_diffusion() -> supervised.SupervisedTask:
    """Predict the noise mixed into 28x28 garments with three layers of width 1024, batch 256."""
    splits = centred(dataset.load_fashion_mnist())
    return _diffusion("fashion_diffusion", (1024,) * 3, splits, batch_size=256)


def centred(splits: dataset.Splits) -> dataset.Splits:
    """Turn images of any number type into examples float32 [B, N] of image and the same image.

    Pixels are divided by the largest one of the training part, less its mean image.
    """
    train = splits["train"].inputs
    largest = np.float32(train.max())
    mean_image = train.reshape(len(train), -1).mean(axis=0, dtype=np.float64) / largest

    def centre(part: dataset.Examples) -> dataset.Examples:
        flat = np.asarray(part.inputs).reshape(len(part.inputs), -1).astype(np.float32) / largest
        images = flat - mean_image.astype(np.float32)
        return dataset.Examples(images, images)

    return {split: centre(part) for split, part in splits.items()}


def _autoencoder(
    name: str, module: nn.Module, splits: dataset.Splits, batch_size: int = 64
) -> supervised.SupervisedTask:
    return supervised.SupervisedTask(
        name=name,
        module=module,
        criterion=supervised.squared_error,
        splits=supervised.on_device(splits),
        batch_size=batch_size,
        eval_size=512,
        reference_loss=jnp.asarray(_mean_square(splits), jnp.float32),
    )


def _vae(
    name: str, module: Vae, splits: dataset.Splits, batch_size: int = 64
) -> supervised.SupervisedTask:
    num_pixels = splits["train"].inputs.shape[1]
    reference = 0.5 * num_pixels * _mean_square(splits) / PIXEL_SCALE**2  # Zeros, and no code.
    return supervised.SupervisedTask(
        name=name,
        module=module,
        criterion=negative_elbo,
        splits=supervised.on_device(splits),
        batch_size=batch_size,
        eval_size=512,
        reference_loss=jnp.asarray(reference, jnp.float32),
    )


def _diffusion(
    name: str, hidden: tuple[int, ...], splits: dataset.Splits, batch_size: int
) -> supervised.SupervisedTask:
    image_scale = round(math.sqrt(_mean_square(splits)), 3)
    return supervised.SupervisedTask(
        name=name,
        module=Denoiser(hidden, image_scale),
        criterion=noise_error,
        splits=supervised.on_device(splits),
        batch_size=batch_size,
        eval_size=512,
        reference_loss=jnp.ones((), jnp.float32),
    )


def _mean_square(splits: dataset.Splits) -> float:
    return float(np.mean(np.square(splits["train"].inputs)))
