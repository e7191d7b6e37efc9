"""The tasks of `schedules.py`: four kinds of model, each with GELU and with ReLU.

Sizes of shipped tasks' models on the same embedded data, small enough that a training of a few
hundred steps takes a hundredth of a second to a tenth on one core, so that a thousand schedules
can be tried on several seeds. Batches are small and runs short: the schedule decides much here.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Final, final

import flax.linen as nn
import jax.numpy as jnp

from veldt.tasks.data import dataset, text
from veldt.tasks.shipped import generative, image_models, language, supervised

NUM_CLASSES: Final = 10


@final
@dataclasses.dataclass(frozen=True)
class Entry:
    """A task and how it is trained.

    Attributes:
      factory: Function that makes the task.
      num_steps: Number of steps T.
      start: Learning rate of the flat schedule that searches begin at: about a tenth of the best
        constant rate on a coarse sweep, so that there is something to gain.
    """

    factory: Callable[[], supervised.SupervisedTask]
    num_steps: int
    start: float


def conv(activation: image_models.Activation) -> supervised.SupervisedTask:
    """Classify 8x8 digits with two convolutions of 8 and 16 channels, batch 16."""
    module = image_models.Conv((8, 16), activation=activation)
    return _digits(module, batch_size=16)


def mlp(activation: image_models.Activation) -> supervised.SupervisedTask:
    """Classify 8x8 digits with a 64-32-32-10 perceptron, batch 32."""
    return _digits(image_models.Mlp((32, 32, NUM_CLASSES), activation), batch_size=32)


def autoencoder(activation: image_models.Activation) -> supervised.SupervisedTask:
    """Squeeze 8x8 digits through 8 numbers, 64-32-8-32-64, batch 32."""
    splits = generative.centred(dataset.load_digits())
    train = splits["train"].inputs
    return supervised.SupervisedTask(
        name="autoencoder",
        module=image_models.Mlp((32, 8, 32, 64), activation),
        criterion=supervised.squared_error,
        splits=supervised.on_device(splits),
        batch_size=32,
        eval_size=512,
        reference_loss=jnp.asarray(float((train**2).mean()), jnp.float32),
    )


def transformer(activation: image_models.Activation) -> supervised.SupervisedTask:
    """Predict the next byte of prose with one transformer block of width 16, 8 bytes, batch 8."""
    corpus = text.load_jargon(8)
    module = language.Transformer(
        corpus.num_symbols, 16, num_heads=2, num_layers=1, activation=activation
    )
    return supervised.SupervisedTask(
        name="transformer",
        module=module,
        criterion=supervised.cross_entropy,
        splits=supervised.on_device(corpus.splits),
        batch_size=8,
        eval_size=256,
        reference_loss=jnp.asarray(math.log(corpus.num_symbols), jnp.float32),
    )


def _digits(module: nn.Module, batch_size: int) -> supervised.SupervisedTask:
    return supervised.SupervisedTask(
        name="digits",
        module=module,
        criterion=supervised.cross_entropy,
        splits=supervised.on_device(dataset.load_digits()),
        batch_size=batch_size,
        eval_size=1024,
        reference_loss=jnp.asarray(math.log(NUM_CLASSES), jnp.float32),
    )


def mlp_gelu() -> supervised.SupervisedTask:
    """Return `mlp` with GELU."""
    return mlp(nn.gelu)


def mlp_relu() -> supervised.SupervisedTask:
    """Return `mlp` with ReLU."""
    return mlp(nn.relu)


def conv_gelu() -> supervised.SupervisedTask:
    """Return `conv` with GELU."""
    return conv(nn.gelu)


def conv_relu() -> supervised.SupervisedTask:
    """Return `conv` with ReLU."""
    return conv(nn.relu)


def autoencoder_gelu() -> supervised.SupervisedTask:
    """Return `autoencoder` with GELU."""
    return autoencoder(nn.gelu)


def autoencoder_relu() -> supervised.SupervisedTask:
    """Return `autoencoder` with ReLU."""
    return autoencoder(nn.relu)


def transformer_gelu() -> supervised.SupervisedTask:
    """Return `transformer` with GELU."""
    return transformer(nn.gelu)


def transformer_relu() -> supervised.SupervisedTask:
    """Return `transformer` with ReLU."""
    return transformer(nn.relu)


TASKS: Final[Mapping[str, Entry]] = {
    "mlp_gelu": Entry(mlp_gelu, 60, 2e-3),
    "conv_relu": Entry(conv_relu, 60, 3e-3),
    "autoencoder_relu": Entry(autoencoder_relu, 60, 1e-3),
    "transformer_gelu": Entry(transformer_gelu, 60, 2e-3),
    "mlp_relu": Entry(mlp_relu, 60, 2e-3),
    "autoencoder_gelu": Entry(autoencoder_gelu, 60, 1e-3),
    "conv_gelu": Entry(conv_gelu, 60, 3e-3),
    "transformer_relu": Entry(transformer_relu, 60, 2e-3),
}
"""Tasks by name; the first four, one of each kind, first."""
