"""Newton-Schulz iteration: the nearest matrix with singular values near 1, by matrix products only.

The quintic of Jordan et al. 2024 (Muon, https://kellerjordan.github.io/posts/muon/), with its
coefficients: five iterations bring singular values from (0, 1] to about [0.7, 1.2], no closer.
"""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_EPS = 1e-8


def orthogonalize(x: Any, num_iterations: int = 5, *, xp: ModuleType = jnp) -> Any:
    """Return x with its singular values moved towards 1.

    Args:
      x: Matrices over the last two axes, [..., rows, columns]. A matrix of zeros stays.
      num_iterations: Products of x with a quintic's worth of x^T x.
      xp: The array module that x belongs to: `jax.numpy` or `numpy`.

    Raises:
      ValueError: x has fewer than two dimensions.
    """
    if x.ndim < 2:
        raise ValueError(f"only matrices can be made orthogonal; got shape {x.shape}")
    tall = x.shape[-2] > x.shape[-1]
    x = xp.swapaxes(x, -2, -1) if tall else x
    square = xp.sum(xp.square(x), axis=(-2, -1), keepdims=True)
    # A floor below the root: its derivative at 0 is infinite.
    x = x / (xp.sqrt(xp.maximum(square, 1e-30)) + _EPS)
    linear, cubic, quintic = _COEFFICIENTS

    def iterate(_: int, x: Any) -> Any:
        gram = x @ xp.swapaxes(x, -2, -1)
        return linear * x + (cubic * gram + quintic * (gram @ gram)) @ x

    if xp is jnp:
        # The bounds are known, so this is a scan and can be differentiated.
        x = jax.lax.fori_loop(0, num_iterations, iterate, x)
    else:
        for iteration in range(num_iterations):
            x = iterate(iteration, x)
    return xp.swapaxes(x, -2, -1) if tall else x
