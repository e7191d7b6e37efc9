"""What VeLO's per-tensor LSTM reads of a tensor: 12 numbers, on a logarithmic scale.

From `HyperV2.lstm_features_for_tensor` (google/learned_optimization, hyper_v2.py). Everything is
relative to the root mean square of the parameters.
"""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

from veldt.learned_opt.blocks import accumulators, reductions

_NUM_RANKS = 5

Form: TypeAlias = Literal["consistent", "published"]
"""How the averaged square is scaled and centred; see `statistics`."""


def count(num_momenta: int) -> int:
    """Return how many numbers `statistics` returns: 12 for three momenta."""
    return 1 + _NUM_RANKS + 2 * num_momenta


def statistics(param: jax.Array, moments: accumulators.Moments, form: Form) -> jax.Array:
    """Return mean of rms, rank, variance of each momentum, variance of rms (for each momentum).

    Two things in the original seem to be slips, and the published weights were trained with them:
    the averaged square is divided by the parameters' scale once, not squared, and its "variance" is
    taken around the means of the momenta. That is "published"; "consistent" divides by the square
    and takes the variance around its own mean (the same number for each momentum, so that weights
    keep their shape).

    Args:
      param: Parameters, [N...].
      moments: Averages before this step's gradient, with one decay of the square.
      form: Which of the two.

    Returns:
      float [1 + 5 + D + D].
    """
    assert moments.rms is not None
    momenta, rms = list(moments.momentum), moments.rms[0]
    *mean_momenta, mean_rms, square = reductions.means([*momenta, rms, jnp.square(param)])
    around = [*(m - mean for m, mean in zip(momenta, mean_momenta, strict=True)), rms - mean_rms]
    *var_momenta, var_rms = (v.reshape(()) for v in reductions.mean_squares(around))
    scale = jax.lax.rsqrt(jnp.maximum(1e-9, square.reshape(())))
    centre = mean_rms.reshape(())
    if form == "published":
        spread = [
            (var_rms + jnp.square(centre - mean.reshape(()))) * scale**2 for mean in mean_momenta
        ]
        centre = centre * scale
    else:
        spread = [var_rms * scale**4] * len(momenta)
        centre = centre * scale**2
    rank = jax.nn.one_hot(sum(size > 1 for size in param.shape), _NUM_RANKS, dtype=param.dtype)
    logs = _log(jnp.stack([centre, *(v * scale**2 for v in var_momenta), *spread]))
    return jnp.concatenate([logs[:1], rank, logs[1:]])


def _log(x: jax.Array) -> jax.Array:
    """Return half of log |10 x|, clipped."""
    return 0.5 * jnp.clip(jnp.log(1e-8 + jnp.abs(10 * x)), -5, 5)
