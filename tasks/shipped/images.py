"""Image classification: perceptrons, convolutions, residual convolutions, patch transformers.

Digits are the 8x8 images embedded with veldt; Fashion-MNIST is read from disk where present (see
`dataset.load_fashion_mnist`). The models are in `image_models`.
"""

import math

import flax.linen as nn
import jax.numpy as jnp

from veldt.tasks.data import dataset
from veldt.tasks.shipped import image_models, supervised

_NUM_CLASSES = 10
_FASHION_MAX = 255.0  # Fashion-MNIST's pixels are bytes.


def digits_mlp() -> supervised.SupervisedTask:
    """Classify 8x8 digits with a 64-32-10 perceptron."""
    return _digits("digits_mlp", image_models.Mlp((32, _NUM_CLASSES)))


def digits_mlp_deep() -> supervised.SupervisedTask:
    """Classify 8x8 digits with eight tanh layers of width 32, batch 16."""
    module = image_models.Mlp((32,) * 8 + (_NUM_CLASSES,), nn.tanh)
    return _digits("digits_mlp_deep", module, batch_size=16)


def digits_mlp_wide() -> supervised.SupervisedTask:
    """Classify 8x8 digits with a 64-512-512-10 ELU perceptron, batch 256."""
    module = image_models.Mlp((512, 512, _NUM_CLASSES), nn.elu)
    return _digits("digits_mlp_wide", module, batch_size=256)


def digits_conv() -> supervised.SupervisedTask:
    """Classify 8x8 digits with two small convolutions."""
    return _digits("digits_conv", image_models.Conv((8, 16)))


def digits_conv_wide() -> supervised.SupervisedTask:
    """Classify 8x8 digits with two convolutions of 32 and 64 channels, GELU, batch 128."""
    module = image_models.Conv((32, 64), activation=nn.gelu)
    return _digits("digits_conv_wide", module, batch_size=128)


def digits_resnet() -> supervised.SupervisedTask:
    """Classify 8x8 digits with two stages of one residual block, batch 16."""
    module = image_models.ResidualConv((8, 16), num_blocks=1)
    return _digits("digits_resnet", module, batch_size=16, eval_size=128)


def digits_vit() -> supervised.SupervisedTask:
    """Classify 8x8 digits with a transformer over 16 patches, width 32, two blocks, batch 16."""
    module = image_models.VisionTransformer(patch=2, width=32, num_heads=2, num_layers=2)
    return _digits("digits_vit", module, batch_size=16, eval_size=128)


def digits_mixer() -> supervised.SupervisedTask:
    """Classify 8x8 digits with an MLP-mixer over 16 patches, width 32, four blocks."""
    return _digits("digits_mixer", image_models.Mixer(patch=2, width=32, num_layers=4))


def fashion_mlp() -> supervised.SupervisedTask:
    """Classify 28x28 garments with a 784-64-10 perceptron."""
    return _fashion("fashion_mlp", image_models.Mlp((64, _NUM_CLASSES), pixel_max=_FASHION_MAX))


def fashion_mlp_wide() -> supervised.SupervisedTask:
    """Classify 28x28 garments with three GELU layers of width 1024, batch 512."""
    module = image_models.Mlp((1024,) * 3 + (_NUM_CLASSES,), nn.gelu, _FASHION_MAX)
    return _fashion("fashion_mlp_wide", module, batch_size=512)


def fashion_conv() -> supervised.SupervisedTask:
    """Classify 28x28 garments, halved to 14x14, with two small convolutions."""
    module = image_models.Conv((8, 16), pool=2, pixel_max=_FASHION_MAX)
    return _fashion("fashion_conv", module)


def fashion_conv_wide() -> supervised.SupervisedTask:
    """Classify 28x28 garments with three convolutions of 32 to 128 channels, SiLU, batch 128."""
    module = image_models.Conv((32, 64, 128), activation=nn.silu, pixel_max=_FASHION_MAX)
    return _fashion("fashion_conv_wide", module, batch_size=128)


def fashion_resnet() -> supervised.SupervisedTask:
    """Classify 28x28 garments with three stages of two residual blocks, 16 to 64 channels."""
    module = image_models.ResidualConv((16, 32, 64), num_blocks=2, pixel_max=_FASHION_MAX)
    return _fashion("fashion_resnet", module, batch_size=128)


def fashion_vit() -> supervised.SupervisedTask:
    """Classify 28x28 garments with a transformer over 49 patches, width 96, four blocks."""
    module = image_models.VisionTransformer(
        patch=4, width=96, num_heads=4, num_layers=4, pixel_max=_FASHION_MAX
    )
    return _fashion("fashion_vit", module, batch_size=128)


def _classifier(
    name: str, module: nn.Module, splits: dataset.Splits, batch_size: int, eval_size: int
) -> supervised.SupervisedTask:
    return supervised.SupervisedTask(
        name=name,
        module=module,
        criterion=supervised.cross_entropy,
        splits=supervised.on_device(splits),
        batch_size=batch_size,
        eval_size=eval_size,
        reference_loss=jnp.asarray(math.log(_NUM_CLASSES), jnp.float32),
    )


def _digits(
    name: str, module: nn.Module, batch_size: int = 64, eval_size: int = 1024
) -> supervised.SupervisedTask:
    return _classifier(name, module, dataset.load_digits(), batch_size, eval_size)


def _fashion(name: str, module: nn.Module, batch_size: int = 64) -> supervised.SupervisedTask:
    return _classifier(name, module, dataset.load_fashion_mnist(), batch_size, eval_size=1024)
