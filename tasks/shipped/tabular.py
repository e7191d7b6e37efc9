"""Tasks on tables of measurements: the Wisconsin tumours, and printed letters in many fonts."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from veldt.tasks.common import types
from veldt.tasks.data import dataset
from veldt.tasks.shipped import image_models, supervised

_NUM_LETTERS = 26


def breast_cancer_logistic() -> supervised.SupervisedTask:
    """Tell benign from malignant tumours by logistic regression on 30 features."""
    return _tumours("breast_cancer_logistic", nn.Dense(1), batch_size=32)


def breast_cancer_mlp() -> supervised.SupervisedTask:
    """Tell benign from malignant tumours with a 30-64-64-1 tanh perceptron, batch 8."""
    module = image_models.Mlp((64, 64, 1), nn.tanh, output_variance=0.01)
    return _tumours("breast_cancer_mlp", module, batch_size=8)


def letters_logistic() -> supervised.SupervisedTask:
    """Classify 26 letters by logistic regression on 16 measurements, batch 128."""
    return _letters("letters_logistic", nn.Dense(_NUM_LETTERS), batch_size=128)


def letters_mlp() -> supervised.SupervisedTask:
    """Classify 26 letters from 16 measurements with a 16-64-64-26 GELU perceptron, batch 128."""
    module = image_models.Mlp((64, 64, _NUM_LETTERS), nn.gelu)
    return _letters("letters_mlp", module, batch_size=128)


def letters_mlp_deep() -> supervised.SupervisedTask:
    """Classify 26 letters from 16 measurements with six SiLU layers of width 128, batch 256."""
    module = image_models.Mlp((128,) * 6 + (_NUM_LETTERS,), nn.silu)
    return _letters("letters_mlp_deep", module, batch_size=256)


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> types.Scalar:
    """Return the mean cross-entropy in nats of logits [B, 1] for class 1 against labels 0/1 [B]."""
    logit = logits[:, 0]
    return jnp.mean(jax.nn.softplus(logit) - labels * logit)


def _tumours(name: str, module: nn.Module, batch_size: int) -> supervised.SupervisedTask:
    return supervised.SupervisedTask(
        name=name,
        module=module,
        criterion=binary_cross_entropy,
        splits=supervised.on_device(dataset.load_breast_cancer()),
        batch_size=batch_size,
        eval_size=512,
        reference_loss=jnp.asarray(math.log(2), jnp.float32),
    )


def _letters(name: str, module: nn.Module, batch_size: int) -> supervised.SupervisedTask:
    return supervised.SupervisedTask(
        name=name,
        module=module,
        criterion=supervised.cross_entropy,
        splits=supervised.on_device(dataset.load_letters()),
        batch_size=batch_size,
        eval_size=1024,
        reference_loss=jnp.asarray(math.log(_NUM_LETTERS), jnp.float32),
    )
