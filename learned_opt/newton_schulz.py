"""Newton-Schulz iteration: the nearest matrix with singular values near 1, by matrix products only.

The quintic of Jordan et al. 2024 (Muon, https://kellerjordan.github.io/posts/muon/), with its
coefficients: five iterations bring singular values from (0, 1] to about [0.7, 1.2], no closer.
"""

import jax
import jax.numpy as jnp

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_EPS = 1e-8


def orthogonalize(x: jax.Array, num_iterations: int = 5) -> jax.Array:
    """Return x with its singular values moved towards 1.

    Args:
      x: Matrices over the last two axes, [..., rows, columns]. A matrix of zeros stays.
      num_iterations: Products of x with a quintic's worth of x^T x.

    Raises:
      ValueError: x has fewer than two dimensions.
    """
    if x.ndim < 2:
        raise ValueError(f"only matrices can be made orthogonal; got shape {x.shape}")
    tall = x.shape[-2] > x.shape[-1]
    x = jnp.swapaxes(x, -2, -1) if tall else x
    square = jnp.sum(jnp.square(x), axis=(-2, -1), keepdims=True)
    # A floor below the root: its derivative at 0 is infinite.
    x = x / (jnp.sqrt(jnp.maximum(square, 1e-30)) + _EPS)
    linear, cubic, quintic = _COEFFICIENTS

    def iterate(_: int, x: jax.Array) -> jax.Array:
        gram = x @ jnp.swapaxes(x, -2, -1)
        return linear * x + (cubic * gram + quintic * (gram @ gram)) @ x

    # The bounds are known, so this is a scan and can be differentiated.
    x = jax.lax.fori_loop(0, num_iterations, iterate, x)
    return jnp.swapaxes(x, -2, -1) if tall else x
