"""Tasks on tables of measurements: logistic regression on the Wisconsin tumours."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from veldt.tasks import dataset, supervised, types


def breast_cancer_logistic() -> supervised.SupervisedTask:
    """Tell benign from malignant tumours by logistic regression on 30 features."""
    return supervised.SupervisedTask(
        name="breast_cancer_logistic",
        module=nn.Dense(1),
        criterion=binary_cross_entropy,
        splits=supervised.on_device(dataset.load_breast_cancer()),
        batch_size=32,
        eval_size=512,
        reference_loss=jnp.asarray(math.log(2), jnp.float32),
    )


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> types.Scalar:
    """Return the mean cross-entropy in nats of logits [B, 1] for class 1 against labels 0/1 [B]."""
    logit = logits[:, 0]
    return jnp.mean(jax.nn.softplus(logit) - labels * logit)
