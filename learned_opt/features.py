"""What a per-parameter network is told of a parameter: blocks of features, and their scaling.

A block is a function from what is known of a tensor to a list of arrays, one for each feature; each
array broadcasts to the tensor's shape (a row's feature is stored once for the row). A rule is a
tuple of blocks, in the order of its first layer's weights. The definitions are those of
google/learned_optimization (`adafac_mlp_lopt.py`, `hyper_v2.py`); D below is the number of decays.

The arrays are expressions, not stored values: XLA computes them where they are read. See
`normalized`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from veldt.learned_opt import accumulators, reductions, tensors


class Known(NamedTuple):
    """What is known of a tensor at a step; of rank 1 or more."""

    grad: jax.Array  # [N...]
    param: jax.Array  # [N...]
    moments: accumulators.Moments  # after this gradient
    factors: accumulators.Factors | None = None  # of `moments.factored`


Block: TypeAlias = Callable[[Known], list[jax.Array]]


def known(grad: jax.Array, param: jax.Array, moments: accumulators.Moments) -> Known:
    """Return what the blocks read, with the factors of the factored averages."""
    factored = moments.factored
    factors = None if factored is None else accumulators.factors(factored, grad.shape)
    return Known(grad, param, moments, factors)


def gradient(x: Known) -> list[jax.Array]:
    """The gradient: 1."""
    return [x.grad]


def clipped_gradient(x: Known) -> list[jax.Array]:
    """The gradient, clipped to +-0.1: 1."""
    return [jnp.clip(x.grad, -0.1, 0.1)]


def parameter(x: Known) -> list[jax.Array]:
    """The parameter: 1."""
    return [x.param]


def log_parameter(x: Known) -> list[jax.Array]:
    """log(|p| + 1e-8): 1."""
    return [jnp.log(jnp.abs(x.param) + 1e-8)]


def momentum(x: Known) -> list[jax.Array]:
    """The averaged gradients: D."""
    return list(x.moments.momentum)


def rms(x: Known) -> list[jax.Array]:
    """The averaged squares: D."""
    return list(_squares(x))


def inverse_rms(x: Known, *, eps: float = 1e-6) -> list[jax.Array]:
    """1 / sqrt(rms + eps): D."""
    return [jax.lax.rsqrt(square + eps) for square in _squares(x)]


def momentum_over_rms(x: Known, *, eps: float = 1e-6) -> list[jax.Array]:
    """Averaged gradients over the root of averaged squares, decay by decay if there are many: D."""
    momenta, inverses = momentum(x), inverse_rms(x, eps=eps)
    if len(inverses) == 1:
        inverses *= len(momenta)
    return [m * inverse for m, inverse in zip(momenta, inverses, strict=True)]


def gradient_over_rms(x: Known, *, eps: float = 1e-6) -> list[jax.Array]:
    """The gradient over the root of averaged squares: D."""
    return [x.grad * inverse for inverse in inverse_rms(x, eps=eps)]


def factored_gradient(x: Known) -> list[jax.Array]:
    """The gradient over its factored root mean square: D."""
    assert x.factors is not None
    row, col = x.factors
    if col is None:
        return [x.grad * r for r in row]
    return [x.grad * r * c for r, c in zip(row, col, strict=True)]


def factored_momentum(x: Known, *, full_eps: float = 0.0) -> list[jax.Array]:
    """Averaged gradients over their factored root mean square, decay by decay: D.

    Args:
      x: What is known.
      full_eps: Added to the unfactored average of a tensor of rank 1, which takes no other guard.
    """
    assert x.factors is not None
    row, col = x.factors
    if col is None:
        row = jax.lax.rsqrt(accumulators.expand_row(_factored(x), x.grad.shape) + full_eps)
        return [m * r for m, r in zip(momentum(x), row, strict=True)]
    return [m * r * c for m, r, c in zip(momentum(x), row, col, strict=True)]


def rows(x: Known) -> list[jax.Array]:
    """The factored averages along the largest dimension: D."""
    return list(accumulators.expand_row(_factored(x), x.grad.shape))


def cols(x: Known) -> list[jax.Array]:
    """The factored averages along the second largest dimension: D."""
    return list(accumulators.expand_col(_factored(x), x.grad.shape))


def inverse_rows(x: Known) -> list[jax.Array]:
    """1 / sqrt(rows + 1e-8): D."""
    return [jax.lax.rsqrt(row + 1e-8) for row in rows(x)]


def inverse_cols(x: Known) -> list[jax.Array]:
    """1 / sqrt(cols + 1e-8): D."""
    return [jax.lax.rsqrt(col + 1e-8) for col in cols(x)]


FACTORED: tuple[Block, ...] = (rows, cols, inverse_rows, inverse_cols, factored_momentum)

# The 30 features of VeLO and Celo; Celo2 has them with other guards.
VELO: tuple[Block, ...] = (
    gradient,
    clipped_gradient,
    parameter,
    momentum,
    rms,
    momentum_over_rms,
    inverse_rms,
    factored_gradient,
    gradient_over_rms,
    *FACTORED,
)

# The 28 of `small_fc_lopt`.
ADAFAC: tuple[Block, ...] = (
    gradient,
    parameter,
    momentum,
    rms,
    momentum_over_rms,
    inverse_rms,
    factored_gradient,
    *FACTORED[:-1],
    functools.partial(factored_momentum, full_eps=1e-6),
)


def normalized(
    blocks: Sequence[Block],
    x: Known,
    *,
    axes: Sequence[int] | None = None,
    eps: float = 1e-5,
) -> list[jax.Array]:
    """Return every feature over the root of its mean square.

    The features of a large tensor are written down twice, once to be summed and once to be used,
    with a barrier between: left to itself, XLA would see that both are the same and store all of
    them. Those of a small one are stored, which takes half as long to compile.

    Args:
      blocks: Which features, in order.
      x: What is known of the tensor.
      axes: The axes of the mean square, from 0; None for all.
      eps: Added to the mean square.

    Returns:
      Arrays that broadcast to the tensor's shape.
    """
    if x.grad.size < tensors.SMALL:
        written = [f for block in blocks for f in block(x)]
        stacked = jnp.stack([jnp.broadcast_to(f, x.grad.shape) for f in written])
        over = range(x.grad.ndim) if axes is None else axes
        square = jnp.mean(jnp.square(stacked), axis=tuple(a + 1 for a in over), keepdims=True)
        return list(stacked * jax.lax.rsqrt(square + eps))
    x = jax.lax.optimization_barrier(x)
    squares = reductions.mean_squares([f for block in blocks for f in block(x)], axes)
    scales = [jax.lax.rsqrt(square + eps) for square in squares]
    x, scales = jax.lax.optimization_barrier((x, scales))
    return [
        f * scale
        for f, scale in zip((f for block in blocks for f in block(x)), scales, strict=True)
    ]


def scale(param: jax.Array) -> jax.Array:
    """Return the root mean square of a tensor's parameters, sqrt(mean(p^2) + 1e-9), shape []."""
    return jnp.sqrt(reductions.mean_squares([param])[0].reshape(()) + 1e-9)


def count(
    blocks: Sequence[Block],
    momentum_decays: Sequence[float],
    rms_decays: Sequence[float],
    factored_decays: Sequence[float],
) -> int:
    """Return how many features the blocks are, for a tensor of rank 2."""

    def run() -> list[jax.Array]:
        tensor = jnp.zeros((2, 2), jnp.float32)
        decays = accumulators.fixed_decays(
            tuple(momentum_decays), tuple(rms_decays), tuple(factored_decays)
        )
        x = known(tensor, tensor, accumulators.init(tensor, decays))
        return [f for block in blocks for f in block(x)]

    return len(jax.eval_shape(run))


def _squares(x: Known) -> jax.Array:
    assert x.moments.rms is not None
    return x.moments.rms


def _factored(x: Known) -> accumulators.Factored:
    assert x.moments.factored is not None
    return x.moments.factored
