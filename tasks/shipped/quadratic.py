"""Noisy quadratic bowls: a procedural family that needs no data.

A member is `loss(x) = 0.5 (x - m)' H (x - m)` with `H = Q diag(eigenvalues) Q'`, and a training
batch is one draw of gradient noise `n`, which adds `n' (x - m)`: the gradient is `H (x - m) + n`.
The condition number is log-uniform, the largest eigenvalue 1, the rotation Q uniform (Haar) and the
minimum m standard normal, so that decay towards zero gains nothing. Evaluation is free of noise;
there being no data, the three splits are the same.
"""

import dataclasses
from typing import final

import flax.struct
import jax
import jax.numpy as jnp

from veldt.tasks import base
from veldt.tasks.common import types

# Shapes: D dimension.


@flax.struct.dataclass
class QuadraticConfig:
    """One bowl.

    Attributes:
      eigenvalues: Eigenvalues of the Hessian, float [D], in (0, 1].
      rotation: Orthogonal matrix, float [D, D]; the columns are the Hessian's eigenvectors.
      minimum: Point where the loss is zero, float [D].
      noise_scale: Standard deviation of each entry of the gradient noise, float [].
    """

    eigenvalues: jax.Array
    rotation: jax.Array
    minimum: jax.Array
    noise_scale: types.Scalar


@final
class QuadraticTask(base.Task):
    """Descend into one bowl from a standard normal start; parameters float [D]."""

    def __init__(self, cfg: QuadraticConfig, *, name: str) -> None:
        self.name = name
        self.hessian = (cfg.rotation * cfg.eigenvalues) @ cfg.rotation.T
        self.minimum = cfg.minimum
        self.noise_scale = cfg.noise_scale

    def init(self, key: types.Key) -> types.Params:
        return jax.random.normal(key, self.minimum.shape, self.minimum.dtype)

    def loss(
        self, params: types.Params, key: types.Key, batch: types.Batch
    ) -> tuple[types.Scalar, types.Aux]:
        """Return the height above the minimum, tilted by the batch's noise [D]."""
        del key
        offset = params - self.minimum
        return 0.5 * offset @ self.hessian @ offset + batch @ offset, {}

    def train_batch(self, key: types.Key) -> types.Batch:
        """Draw gradient noise [D]. The key is consumed."""
        return self.noise_scale * jax.random.normal(key, self.minimum.shape, self.minimum.dtype)

    def sample(self, key: types.Key) -> types.Selection:
        """Draw the noise itself, which is small enough to draw for all steps at once."""
        return self.train_batch(key)

    def gather(self, selection: types.Selection) -> types.Batch:
        return selection

    def eval_batch(self, split: types.Split) -> types.Batch:
        """Return noise of zero [D], for any split."""
        del split
        return jnp.zeros_like(self.minimum)

    def normalizer(self, loss: types.Scalar) -> types.Scalar:
        """Return the loss relative to that of the start, averaged over starts."""
        mean_start = 0.5 * (jnp.trace(self.hessian) + self.minimum @ self.hessian @ self.minimum)
        return base.clip_normalized(loss / mean_start)


@final
@dataclasses.dataclass(frozen=True)
class Quadratics(base.TaskFamily):
    """Bowls of one dimension.

    Attributes:
      dim: Number of dimensions D.
      condition_range: Least and largest condition number.
      noise_range: Least and largest noise scale; log-uniform in between, like the condition.
      name: Name in tables and errors.
    """

    dim: int = 32
    condition_range: tuple[float, float] = (1.0, 1e3)
    noise_range: tuple[float, float] = (1e-3, 1e-1)
    name: str = "quadratics"

    def sample(self, key: types.Key) -> QuadraticConfig:
        key_condition, key_spectrum, key_rotation, key_minimum, key_noise = jax.random.split(key, 5)
        condition = _log_uniform(key_condition, self.condition_range)
        # Eigenvalues are log-uniform between the two ends, which are always taken.
        inner = jax.random.uniform(key_spectrum, (self.dim,))
        exponents = inner.at[0].set(0.0).at[-1].set(1.0)
        basis, triangle = jnp.linalg.qr(jax.random.normal(key_rotation, (self.dim, self.dim)))
        return QuadraticConfig(
            eigenvalues=condition**-exponents,
            # The signs of the diagonal make QR unique and the rotation uniform (Mezzadri 2007).
            rotation=basis * jnp.sign(jnp.diagonal(triangle)),
            minimum=jax.random.normal(key_minimum, (self.dim,)),
            noise_scale=_log_uniform(key_noise, self.noise_range),
        )

    def task(self, cfg: QuadraticConfig) -> QuadraticTask:
        return QuadraticTask(cfg, name=self.name)


def quadratic() -> QuadraticTask:
    """Descend into one noisy bowl of 32 dimensions, condition number 100."""
    return _fixed("quadratic", dim=32, condition=1e2, noise_scale=0.01)


def quadratic_stiff() -> QuadraticTask:
    """Descend into one nearly noiseless bowl of 64 dimensions, condition number 10,000."""
    return _fixed("quadratic_stiff", dim=64, condition=1e4, noise_scale=1e-4)


def quadratic_noisy() -> QuadraticTask:
    """Descend into one very noisy bowl of 128 dimensions, condition number 10."""
    return _fixed("quadratic_noisy", dim=128, condition=10.0, noise_scale=1.0)


def quadratic_large() -> QuadraticTask:
    """Descend into one bowl of 1024 dimensions, condition number 1,000."""
    return _fixed("quadratic_large", dim=1024, condition=1e3, noise_scale=0.01)


def _fixed(name: str, *, dim: int, condition: float, noise_scale: float) -> QuadraticTask:
    family = Quadratics(dim, (condition, condition), (noise_scale, noise_scale))
    return QuadraticTask(_sample(family, jax.random.key(0)), name=name)


_sample = jax.jit(Quadratics.sample, static_argnums=0)


def _log_uniform(key: types.Key, bounds: tuple[float, float]) -> types.Scalar:
    low, high = bounds
    return low * (high / low) ** jax.random.uniform(key)
