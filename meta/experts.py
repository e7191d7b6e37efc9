"""Optimizers worth imitating at the start of a meta-training: `num_steps -> transform`.

Their settings are common defaults and are not tuned on anything; `num_steps` may be traced.
"""

import jax.numpy as jnp
import optax

from veldt.tasks import types

_WARMUP = 0.05  # share of the run


def adam(num_steps: types.Scalar) -> optax.GradientTransformation:
    """Adam at 3e-3, constant."""
    del num_steps
    return optax.adam(3e-3)


def adamw(num_steps: types.Scalar) -> optax.GradientTransformation:
    """AdamW at 3e-3 with a warm-up over a twentieth of the run and a cosine decay to 0."""
    return optax.adamw(lambda step: 3e-3 * warmup_cosine(step, num_steps), weight_decay=1e-4)


def relative_adam(num_steps: types.Scalar) -> optax.GradientTransformation:
    """Adam's direction at 1% of each tensor's size, constant: an optimizer without a scale.

    As Adafactor's relative step (Shazeer and Stern 2018, arXiv 1804.04235); tensors smaller than
    1e-3 are moved as if they were so large.
    """
    del num_steps
    return optax.chain(
        optax.scale_by_adam(), optax.scale_by_param_block_rms(1e-3), optax.scale(-0.01)
    )


def relative_adam_cosine(num_steps: types.Scalar) -> optax.GradientTransformation:
    """`relative_adam` at 2% with a warm-up and a cosine decay to 0."""
    return optax.chain(
        optax.scale_by_adam(),
        optax.scale_by_param_block_rms(1e-3),
        optax.scale_by_schedule(lambda step: -0.02 * warmup_cosine(step, num_steps)),
    )


def warmup_cosine(step: types.Scalar, num_steps: types.Scalar) -> types.Scalar:
    """Return the share of the peak learning rate at a step (from 0), float []."""
    fraction = (step + 1) / num_steps
    rising = fraction / _WARMUP
    falling = 0.5 * (1 + jnp.cos(jnp.pi * (fraction - _WARMUP) / (1 - _WARMUP)))
    return jnp.clip(jnp.minimum(rising, falling), 0.0, 1.0)
