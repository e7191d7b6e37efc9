"""Antithetic Gaussian noise on meta-parameters, and what a difference of losses says about it.

Evolution strategies evaluate pairs `meta_params + e` and `meta_params - e` that share everything
else, and estimate the gradient of the loss, smoothed by the noise, as the mean over pairs of
`e (L+ - L-) / (2 sigma^2)` (Salimans et al. 2017, arXiv 1703.03864).
"""

import dataclasses
import itertools
from typing import Any, final

import jax
import jax.numpy as jnp

from veldt.learned_opt.base import MetaParams
from veldt.meta import pytree
from veldt.tasks.common import types

# Shapes: P particles, each a pair.


@final
@dataclasses.dataclass(frozen=True)
class Antithetic(pytree.Pytree):
    """How pairs are drawn and compared.

    Attributes:
      sigma: Standard deviation of the noise.
      clip: The largest difference of losses that counts; larger ones count as this. None: any.
      sign: Whether only the sign of a difference counts, as in VeLO's meta-training.
    """

    sigma: float | jax.Array = 0.01
    clip: float | jax.Array | None = None
    sign: bool = dataclasses.field(default=False, metadata=pytree.STATIC)

    def sample(self, key: types.Key, meta_params: MetaParams, num_particles: int) -> MetaParams:
        """Draw noise e for each particle, leaves [P, ...]. The key is consumed.

        One draw for all leaves: every call of a generator is compiled for itself, and there may be
        dozens of leaves.
        """
        leaves, treedef = jax.tree.flatten(meta_params)
        sizes = [jnp.size(leaf) for leaf in leaves]
        shape = (num_particles, sum(sizes))
        flat = self.sigma * jax.random.normal(key, shape, jnp.result_type(*leaves))
        ends = list(itertools.accumulate(sizes))[:-1]
        noise = [
            part.reshape(num_particles, *jnp.shape(leaf)).astype(jnp.result_type(leaf))
            for part, leaf in zip(jnp.split(flat, ends, axis=1), leaves, strict=True)
        ]
        return jax.tree.unflatten(treedef, noise)

    def pair(self, meta_params: MetaParams, noise: MetaParams) -> MetaParams:
        """Return both sides of each particle, leaves [2, P, ...], from noise [P, ...]."""
        return jax.tree.map(lambda x, e: jnp.stack([x + e, x - e]), meta_params, noise)

    def difference(self, losses: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Compare the two sides.

        Args:
          losses: Losses of both sides, float [2, P].

        Returns:
          What the differences L+ - L- count as, float [P], and which of them were not finite, bool
          [P], and therefore count as 0. Clipped first, then reduced to the sign.
        """
        difference = losses[0] - losses[1]
        bad = ~jnp.isfinite(difference)
        difference = jnp.where(bad, 0.0, difference)
        if self.clip is not None:
            difference = jnp.clip(difference, -self.clip, self.clip)
        if self.sign:
            difference = jnp.sign(difference)
        return difference, bad

    def gradient(self, differences: jax.Array, noise: MetaParams) -> MetaParams:
        """Return the mean over particles of `noise * difference / (2 sigma^2)`.

        Args:
          differences: float [P].
          noise: What each is credited to, leaves [P, ...].
        """

        def leaf_gradient(e: jax.Array) -> jax.Array:
            weights = (differences / (2 * self.sigma**2 * differences.size)).astype(e.dtype)
            return jnp.tensordot(weights, e, axes=1)

        return jax.tree.map(leaf_gradient, noise)


def repeat(tree: Any, shape: tuple[int, ...]) -> Any:
    """Give every leaf new leading axes, along which it is the same."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *jnp.shape(x))), tree)


def add(a: Any, b: Any) -> Any:
    """Add two pytrees of one structure."""
    return jax.tree.map(jnp.add, a, b)


def where_particle(condition: jax.Array, if_true: Any, if_false: Any) -> Any:
    """Choose particle by particle: condition bool [P], leaves [P, ...]."""

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(condition.reshape(-1, *(1,) * (jnp.ndim(a) - 1)), a, b)

    return jax.tree.map(choose, if_true, if_false)
