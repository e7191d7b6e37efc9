"""Optimizers worth imitating at the start of a meta-training: `num_steps -> transform`.

Their settings are common defaults and are not tuned on anything; `num_steps` may be traced.
"""

import jax
import jax.numpy as jnp
import optax

from veldt.learned_opt.architectures import celo, celo2
from veldt.learned_opt.blocks import matrices, newton_schulz
from veldt.tasks.common import types

_WARMUP = 0.05  # share of the run
_MIN_SCALE = 0.1  # of relative steps


def adam(num_steps: types.Scalar) -> optax.GradientTransformation:
    """Adam at 3e-3, constant."""
    del num_steps
    return optax.adam(3e-3)


def adamw(num_steps: types.Scalar) -> optax.GradientTransformation:
    """AdamW at 3e-3 with a warm-up over a twentieth of the run and a cosine decay to 0."""
    return optax.adamw(lambda step: 3e-3 * warmup_cosine(step, num_steps), weight_decay=1e-4)


def muon(num_steps: types.Scalar) -> optax.GradientTransformation:
    """Muon at 0.02 with a warm-up over a twentieth of the run and a linear decay to 0.

    Momentum 0.95 with Nesterov's step, made orthogonal (Jordan et al. 2024), for matrices; Adam at
    the same rate for vectors. Its steps are those of `Celo2` with `scaling="width"`.
    """
    config = celo2.Celo2(scaling="width")
    routes = {
        "network": optax.chain(
            optax.trace(0.95, nesterov=True), optax.stateless(_orthogonalize_each)
        ),
        "adam": optax.scale_by_adam(0.9, 0.95),
    }
    return optax.chain(
        optax.multi_transform(routes, config.routes),
        optax.scale_by_schedule(lambda step: -0.02 * warmup_linear(step, num_steps)),
    )


def _orthogonalize_each(updates: types.Grads, params: types.Params | None) -> types.Grads:
    del params

    def of_tensor(update: jax.Array) -> jax.Array:
        direction = newton_schulz.orthogonalize(matrices.as_matrices(update))
        square = jnp.mean(jnp.square(direction), axis=(-2, -1), keepdims=True)
        size = matrices.orthogonal_size(direction)
        return (direction * size * jax.lax.rsqrt(square + 1e-9)).reshape(update.shape)

    return jax.tree.map(of_tensor, updates)


def relative_adam(num_steps: types.Scalar) -> optax.GradientTransformation:
    """Adam's direction at 1% of each tensor's size, constant: an optimizer without a scale.

    As Adafactor's relative step (Shazeer and Stern 2018, arXiv 1804.04235); small tensors are moved
    as if they were larger, as by `Celo` with a `min_scale` of 0.1.
    """
    del num_steps
    return optax.chain(optax.scale_by_adam(), optax.stateless(_times_size), optax.scale(-0.01))


def relative_adam_cosine(num_steps: types.Scalar) -> optax.GradientTransformation:
    """`relative_adam` at 4% with a warm-up and a cosine decay to 0.

    4% is the best of 1, 2, 4, 8 and 16% on the meta-validation tasks of `configs/celo.yaml`.
    """
    return optax.chain(
        optax.scale_by_adam(),
        optax.stateless(_times_size),
        optax.scale_by_schedule(lambda step: -0.04 * warmup_cosine(step, num_steps)),
    )


def _times_size(updates: types.Grads, params: types.Params | None) -> types.Grads:
    return jax.tree.map(lambda u, p: u * celo.size_of(p, _MIN_SCALE), updates, params)


def warmup_cosine(step: types.Scalar, num_steps: types.Scalar) -> types.Scalar:
    """Return the share of the peak learning rate at a step (from 0), float []."""
    fraction, rising = _progress(step, num_steps)
    falling = 0.5 * (1 + jnp.cos(jnp.pi * (fraction - _WARMUP) / (1 - _WARMUP)))
    return jnp.clip(jnp.minimum(rising, falling), 0.0, 1.0)


def warmup_linear(step: types.Scalar, num_steps: types.Scalar) -> types.Scalar:
    """Likewise with a linear decay."""
    fraction, rising = _progress(step, num_steps)
    return jnp.clip(jnp.minimum(rising, (1 - fraction) / (1 - _WARMUP)), 0.0, 1.0)


def _progress(step: types.Scalar, num_steps: types.Scalar) -> tuple[types.Scalar, types.Scalar]:
    fraction = (step + 1) / num_steps
    return fraction, fraction / _WARMUP
