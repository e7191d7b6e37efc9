"""Low-rank sketches of matrices, and histories of numbers: state smaller than the parameters.

A sketch is P X, where P [K, S] has orthonormal rows and S is the shorter side of X: what GaLore
(arXiv 2403.03507) calls the projected gradient, with a random basis as in APOLLO (2412.05270) and
FRUGAL (2411.07837). The basis is a *subsampled cosine transform with random signs* (as fast
Johnson-Lindenstrauss transforms have it): K rows of the orthonormal DCT-II, its columns' signs
drawn by lot. It costs a cosine for each entry and no decomposition, and it is a function of a
number (the seed) and of the size alone, so that nothing of it is kept, and NumPy and JAX agree.

A history holds the last `HISTORY` numbers given to it, newest first; 0 is an empty place.
"""

import math
from typing import Any, Final

import numpy as np

from veldt.search.language.types import ArrayModule

# Length of a history.
HISTORY: Final = 128
# A sketch has one row for so many of the matrix's shorter side.
RATIO: Final = 4
_LARGEST_SEED: Final = 2.0**30


def sketch_shape(rows: int, columns: int) -> tuple[int, int]:
    """Return the shape [K, L] of the sketch of a matrix: K of the shorter side, L the longer."""
    return -(-min(rows, columns) // RATIO), max(rows, columns)


def basis(xp: ArrayModule, seed: Any, size: int, dtype: Any) -> Any:
    """Return the projection P of a side of `size`, [K, size], with orthonormal rows.

    Args:
      xp: Module `numpy` or `jax.numpy`.
      seed: Number, of which the integer part counts; one that is not finite counts as 0.
      size: Length of the side; at 1 the projection is 1. Rows are orthonormal up to 46,340, where
        32-bit products end.
      dtype: Dtype of the result; computed in float32 at least.
    """
    if size == 1:
        return xp.ones((1, 1), dtype)
    rank = -(-size // RATIO)
    seed = xp.asarray(seed)
    seed = xp.where(xp.isfinite(seed), seed, 0.0)
    whole = xp.floor(xp.clip(seed, -_LARGEST_SEED, _LARGEST_SEED)).astype(xp.int32)
    key = xp.reshape(whole, (1,)).astype(xp.uint32)
    place = xp.arange(size, dtype=xp.uint32)
    signs = _hash(xp, place + _hash(xp, key + np.uint32(0x9E3779B9)))
    lots = _hash(xp, place + _hash(xp, key + np.uint32(0x7F4A7C15)))
    frequency = xp.argsort(lots, stable=True)[:rank].astype(xp.uint32)[:, None]
    angle = (frequency * (np.uint32(2) * place + np.uint32(1))) % np.uint32(4 * size)
    wide = xp.promote_types(dtype, xp.float32)
    wave = xp.cos(angle.astype(wide) * (math.pi / (2 * size)))
    length = xp.where(frequency == 0, math.sqrt(1.0 / size), math.sqrt(2.0 / size))
    sign = xp.where((signs >> np.uint32(31)) == 0, 1.0, -1.0)
    return (wave * length * sign).astype(dtype)


def _hash(xp: ArrayModule, number: Any) -> Any:
    """Mix the bits of numbers uint32 (the finaliser of MurmurHash3)."""
    number = (number ^ (number >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    number = (number ^ (number >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return number ^ (number >> np.uint32(16))


def sketch(xp: ArrayModule, x: Any, seed: Any) -> Any:
    """Return the sketch [K, L] of a matrix [R, C]: P X, or P X^T where X has more rows."""
    x = x.T if x.shape[0] > x.shape[1] else x
    return basis(xp, seed, x.shape[0], x.dtype) @ x


def unsketch(xp: ArrayModule, shape: tuple[int, int], s: Any, seed: Any) -> Any:
    """Return P^T S for a sketch, as a matrix of the shape [R, C] that was sketched."""
    found = basis(xp, seed, min(shape), s.dtype).T @ s
    return found.T if shape[0] > shape[1] else found


def sketch_norm(xp: ArrayModule, shape: tuple[int, int], s: Any) -> Any:
    """Return the norms of a sketch's columns, the same along the shorter side, as [R, C]."""
    square = xp.sum(s * s, axis=0, keepdims=True)
    zero = square == 0
    norm = xp.where(zero, 0.0, xp.sqrt(xp.where(zero, 1.0, square))).astype(s.dtype)
    return xp.broadcast_to(norm.T if shape[0] > shape[1] else norm, shape)


def remember(xp: ArrayModule, history: Any, x: Any) -> Any:
    """Return a history with a number put before all others; one that is not finite is not kept."""
    number = xp.asarray(x, history.dtype)
    pushed = xp.concatenate([xp.reshape(number, (1,)), history[:-1]])
    return xp.where(xp.isfinite(number), pushed, history)


def percentile(xp: ArrayModule, history: Any, q: Any) -> Any:
    """Return a quantile of the numbers in a history that are not 0; 0 if there are none.

    Args:
      xp: Module `numpy` or `jax.numpy`.
      history: Numbers, [HISTORY].
      q: Share of the numbers below, taken into [0, 1]; between two numbers it is interpolated.
    """
    used = history != 0
    count = xp.sum(xp.where(used, 1, 0))
    ordered = xp.sort(xp.where(used, history, xp.inf))
    share = xp.where(xp.isnan(q), 0.0, xp.clip(q, 0.0, 1.0))
    last = xp.maximum(count - 1, 0)
    position = share * last
    below = xp.floor(position)
    low = below.astype(xp.int32)
    ends = [xp.where(count > 0, ordered[xp.minimum(i, last)], 0.0) for i in (low, low + 1)]
    return ends[0] + (position - below) * (ends[1] - ends[0])
