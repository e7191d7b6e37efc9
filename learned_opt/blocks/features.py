"""What a per-parameter network reads of a parameter: blocks of features, and their scaling.

A block is a function from what is known of a tensor to an array of features [D, ...], which
broadcasts to [D, N...], the tensor's shape (a row's feature is there once for the row). A rule is a
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

from veldt.learned_opt.blocks import accumulators, reductions, tensors


class Known(NamedTuple):
    """Everything known of a tensor at a step; of rank 1 or more."""

    grad: jax.Array  # [N...]
    param: jax.Array  # [N...]
    moments: accumulators.Moments  # after this gradient
    factors: accumulators.Factors | None = None  # of `moments.factored`


Block: TypeAlias = Callable[[Known], jax.Array]
"""From what is known to features [D, ...] that broadcast to [D, N...]."""


class Features(NamedTuple):
    """Features of a large tensor, and what is left to multiply them by."""

    blocks: list[jax.Array]  # [D, ...], each broadcasts to [D, N...]
    scales: list[jax.Array]  # [D, 1...] for each block

    def scaled(self) -> list[jax.Array]:
        """Return the blocks multiplied by their scales."""
        return [block * scale for block, scale in zip(self.blocks, self.scales, strict=True)]


def known(grad: jax.Array, param: jax.Array, moments: accumulators.Moments) -> Known:
    """Return what the blocks read, with the factors of the factored averages."""
    factored = moments.factored
    factors = None if factored is None else accumulators.factors(factored, grad.shape)
    return Known(grad, param, moments, factors)


def gradient(x: Known) -> jax.Array:
    """Return the gradient: 1."""
    return x.grad[None]


def clipped_gradient(x: Known) -> jax.Array:
    """Return the gradient, clipped to +-0.1: 1."""
    return jnp.clip(x.grad, -0.1, 0.1)[None]


def parameter(x: Known) -> jax.Array:
    """Return the parameter: 1."""
    return x.param[None]


def log_parameter(x: Known) -> jax.Array:
    """Return log(|p| + 1e-8): 1."""
    return jnp.log(jnp.abs(x.param) + 1e-8)[None]


def momentum(x: Known) -> jax.Array:
    """Return the averaged gradients: D."""
    return x.moments.momentum


def rms(x: Known) -> jax.Array:
    """Return the averaged squares: D."""
    assert x.moments.rms is not None
    return x.moments.rms


def inverse_rms(x: Known, *, eps: float = 1e-6) -> jax.Array:
    """Return 1 / sqrt(rms + eps): D."""
    return jax.lax.rsqrt(rms(x) + eps)


def momentum_over_rms(x: Known, *, eps: float = 1e-6) -> jax.Array:
    """Return averaged gradients over the root of averaged squares, each by its decay: D."""
    return momentum(x) * inverse_rms(x, eps=eps)


def gradient_over_rms(x: Known, *, eps: float = 1e-6) -> jax.Array:
    """Return the gradient over the root of averaged squares: D."""
    return x.grad * inverse_rms(x, eps=eps)


def factored_gradient(x: Known) -> jax.Array:
    """Return the gradient over its factored root mean square: D."""
    assert x.factors is not None
    row, col = x.factors
    return x.grad * row if col is None else x.grad * row * col


def factored_momentum(x: Known, *, full_eps: float = 0.0) -> jax.Array:
    """Return averaged gradients over their factored root mean square, decay by decay: D.

    Args:
      x: What is known.
      full_eps: Number that is added to the unfactored average of a tensor of rank 1, which takes no
        other guard.
    """
    assert x.factors is not None
    row, col = x.factors
    if col is None:
        return momentum(x) * jax.lax.rsqrt(rows(x) + full_eps)
    return momentum(x) * row * col


def rows(x: Known) -> jax.Array:
    """Return the factored averages along the largest dimension: D."""
    return accumulators.expand_row(_factored(x), x.grad.shape)


def cols(x: Known) -> jax.Array:
    """Return the factored averages along the second largest dimension: D."""
    return accumulators.expand_col(_factored(x), x.grad.shape)


def inverse_rows(x: Known) -> jax.Array:
    """Return 1 / sqrt(rows + 1e-8): D."""
    return jax.lax.rsqrt(rows(x) + 1e-8)


def inverse_cols(x: Known) -> jax.Array:
    """Return 1 / sqrt(cols + 1e-8): D."""
    return jax.lax.rsqrt(cols(x) + 1e-8)


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
) -> list[jax.Array] | Features:
    """Return every feature over the root of its mean square.

    The features of a large tensor are written down twice, once to be summed and once to be used,
    with a barrier between: left to itself, XLA would see that both are the same and store all of
    them. For the same reason each decay's are written by themselves. Those of a small one are
    stored, which takes a third of the time to compile.

    Args:
      blocks: Which features, in order.
      x: What is known of the tensor.
      axes: The axes of the mean square, from 0; None for all.
      eps: Number that is added to the mean square.

    Returns:
      Arrays [D, ...] that broadcast to [D, N...], in order: those of a small tensor are normalized,
      those of a large one come with their scales.
    """
    over = tuple(a + 1 for a in (range(x.grad.ndim) if axes is None else axes))
    if x.grad.size < tensors.SMALL:
        written = [block(x) for block in blocks]
        squares = [jnp.mean(jnp.square(f), axis=over, keepdims=True) for f in written]
        return [f * jax.lax.rsqrt(square + eps) for f, square in zip(written, squares, strict=True)]
    x = jax.lax.optimization_barrier(x)
    squares = reductions.mean_squares(_apart(blocks, x), over)
    scales = [jax.lax.rsqrt(square + eps) for square in squares]
    x, scales = jax.lax.optimization_barrier((x, scales))
    return Features(_apart(blocks, x), scales)


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
        return [block(x) for block in blocks]

    return sum(block.shape[0] for block in jax.eval_shape(run))


def _apart(blocks: Sequence[Block], x: Known) -> list[jax.Array]:
    """Features [D, ...]: those that are as large as the tensor one by one (D = 1)."""
    apart = []
    for block in blocks:
        num, *shape = jax.eval_shape(block, x).shape
        if tuple(shape) == x.grad.shape:
            apart += [block(_of_decay(x, decay)) for decay in range(num)]
        else:
            apart.append(block(x))
    return apart


def _of_decay(x: Known, decay: int) -> Known:
    """Return what is known by one decay; what there is one of is for all decays."""
    moments, factors = jax.tree.map(
        lambda a: a if a.shape[0] == 1 else a[decay : decay + 1], (x.moments, x.factors)
    )
    return x._replace(moments=moments, factors=factors)


def _factored(x: Known) -> accumulators.Factored:
    assert x.moments.factored is not None
    return x.moments.factored
