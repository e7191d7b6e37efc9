"""Functions of whole matrices: the arithmetic of the dear instructions (`ops.py`).

- `polar`: the polar factor, by matrix products alone: Muon's quintic (Jordan et al. 2024) lifts
  all singular values, then the quintic of Padé's family (Kenney and Laub 1991) takes them to 1.
- `inverse_root`: Shampoo's A^(-1/p) (Gupta et al. 2018, arXiv 1802.09568), by eigenvalues.
- `eigenbasis`: one step of SOAP's power iteration with QR (Vyas et al. 2024, arXiv 2409.11321,
  algorithm 4).
- `row_gram`, `column_gram`, `product`: matrix products, with what is said below of square ones.
- `sinkhorn`: alternating normalisation of columns and rows (SinkGD, arXiv 2502.06742, whose rows
  are those of PyTorch's weights [outputs, inputs], and so columns here).

All are total: matrices of zeros, of rank below their size and with infinite or NaN entries have a
result, the last all NaN. Derivatives stay finite too: JAX's own of eigenvectors and of QR divide by
differences of eigenvalues and by the diagonal of R, which are 0 for the matrices of an early step.
Here the first is a divided difference, and the second is 0 where R is singular.

Decompositions work in float32 or more, whatever the dtype of the matrix.

A square matrix over a side of a parameter is kept whole only where that makes sense: the side is at
most `LONGEST_SIDE`, and the parameter has a second side, so is no vector. Else it is the nearest
multiple of the identity, one number [1, 1]: the mean of its diagonal. So a rule that keeps [R, R]
and [C, C] needs one number for a bias or for the vocabulary's side of an embedding. (SOAP leaves
such sides alone from 10,000 on, Shampoo's users split them.)
"""

from collections.abc import Callable
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np

from veldt.learned_opt.blocks import newton_schulz
from veldt.search.language.types import ArrayModule
from veldt.tasks.common.safe_math import safe_sqrt

# Iterations that lift: singular values above 1.5e-4 of the Frobenius norm come near 1. More would
# also lift the rounding errors of a matrix of low rank.
LIFTING: Final = 7
# Iterations that converge, cubically: from [0.5, 1.2] to 1 within 1e-13.
CONVERGING: Final = 4
SINKHORN_ROUNDS: Final = 5
# Longest side whose square matrix is kept whole: 256 MiB in float32.
LONGEST_SIDE: Final = 8192


def kept_side(side: int, other: int) -> int:
    """Return the side of a parameter's square matrix as it is kept: the side itself, or 1.

    Args:
      side: Length of the side that the matrix is over.
      other: Length of the parameter's other side.
    """
    return side if other > 1 and side <= LONGEST_SIDE else 1


def product(xp: ArrayModule, x: Any, y: Any) -> Any:
    """Return x @ y, where a multiple of the identity [1, 1] fits every side."""
    if x.shape[1] != y.shape[0]:
        return x * y
    side, inner = x.shape
    if side == y.shape[1] and kept_side(side, inner) != side:
        return xp.reshape(xp.sum(x * y.T) / side, (1, 1)).astype(x.dtype)
    return x @ y


def row_gram(xp: ArrayModule, x: Any) -> Any:
    """Return the products of the rows of a matrix with one another."""
    return product(xp, x, x.T)


def column_gram(xp: ArrayModule, x: Any) -> Any:
    """Return the products of the columns of a matrix with one another."""
    return product(xp, x.T, x)


def polar(xp: ArrayModule, x: Any) -> Any:
    """Return the polar factor U V^T of a matrix [R, C]; directions without extent stay 0."""
    lifted = newton_schulz.orthogonalize(x, LIFTING, xp=xp)
    tall = lifted.shape[0] > lifted.shape[1]
    start = lifted.T if tall else lifted

    def iterate(_: int, y: Any) -> Any:
        gram = y @ y.T
        return 1.875 * y + (-1.25 * gram + 0.375 * (gram @ gram)) @ y

    found = _repeat(xp, CONVERGING, iterate, start)
    return found.T if tall else found


def nuclear_norm(xp: ArrayModule, x: Any) -> Any:
    """Return the sum of the singular values of a matrix, a number."""
    return xp.sum(x * polar(xp, x))


def sinkhorn(xp: ArrayModule, x: Any) -> Any:
    """Return a matrix [R, C] with columns near the norm sqrt(R) and rows of the norm sqrt(C)."""
    rows, columns = x.shape

    def normalise(y: Any, axis: int, size: int) -> Any:
        norm = safe_sqrt(xp, xp.sum(y * y, axis=axis, keepdims=True))
        zero = norm == 0
        return xp.where(zero, 0.0, y * (size**0.5 / xp.where(zero, 1.0, norm)))

    def iterate(_: int, y: Any) -> Any:
        return normalise(normalise(y, 0, rows), 1, columns).astype(x.dtype)

    return _repeat(xp, SINKHORN_ROUNDS, iterate, x)


def inverse_root(xp: ArrayModule, a: Any, p: Any, eps: Any) -> Any:
    """Return (A + |eps| I)^(-1/p) of a symmetric matrix [N, N], eigenvalues below 0 taken as 0.

    Eigenvalues that are 0 with eps stay 0.

    Args:
      xp: Module `numpy` or `jax.numpy`.
      a: Matrix; its symmetric part counts.
      p: Root, a number.
      eps: Number added to each eigenvalue.
    """
    matrix, is_finite = _prepared(xp, a)
    numbers = [xp.asarray(number, matrix.dtype) for number in (p, eps)]
    compute = _inverse_root if xp is jnp else _numpy_inverse_root
    return xp.where(is_finite, compute(0.5 * (matrix + matrix.T), *numbers), xp.nan).astype(a.dtype)


def eigenbasis(xp: ArrayModule, a: Any, q: Any) -> Any:
    """Return the orthonormal factor of a @ q, for a diagonal of R that is not negative.

    Repeated, this turns q towards the eigenvectors of a symmetric matrix a.

    Args:
      xp: Module `numpy` or `jax.numpy`.
      a: Matrix [N, N].
      q: Basis of the last step, [N, N]; all zero counts as the identity.
    """
    matrix, a_is_finite = _prepared(xp, a)
    basis, q_is_finite = _prepared(xp, q)
    start = xp.where(xp.any(basis != 0), basis, xp.eye(len(basis), dtype=basis.dtype))
    # The scale has no part in Q; without it, products of small gradients would underflow.
    largest = xp.max(xp.abs(matrix))
    scaled = matrix / xp.where(largest == 0, 1.0, largest)
    compute = _orthonormal if xp is jnp else _numpy_orthonormal
    found = compute((scaled @ start).astype(matrix.dtype))
    return xp.where(a_is_finite & q_is_finite, found, xp.nan).astype(a.dtype)


def _repeat(xp: ArrayModule, times: int, iterate: Callable[[int, Any], Any], start: Any) -> Any:
    if xp is jnp:
        return jax.lax.fori_loop(0, times, iterate, start)
    for number in range(times):
        start = iterate(number, start)
    return start


def _prepared(xp: ArrayModule, a: Any) -> tuple[Any, Any]:
    """Return a matrix in a dtype that decompositions take, without NaN, and whether it had none."""
    is_finite = xp.all(xp.isfinite(a))
    wide = a.astype(xp.promote_types(a.dtype, xp.float32))
    return xp.where(is_finite, wide, xp.zeros_like(wide)), is_finite


def _root_and_slope(xp: ArrayModule, values: Any, p: Any, eps: Any) -> tuple[Any, Any, Any]:
    """Return e^(-1/p) for shifted eigenvalues e, its derivative by e, and the shifted values."""
    shifted = xp.maximum(values, 0.0) + xp.abs(eps)
    zero = shifted == 0
    safe = xp.where(zero, 1.0, shifted)
    root = xp.where(zero, 0.0, safe ** (-1.0 / xp.where(p == 0, 1.0, p)))
    slope = xp.where(values > 0, -root / (safe * xp.where(p == 0, 1.0, p)), 0.0)
    return root, slope, safe


def _numpy_inverse_root(a: Any, p: Any, eps: Any) -> Any:
    values, vectors = np.linalg.eigh(a)
    root, _, _ = _root_and_slope(np, values, p, eps)
    return (vectors * root) @ vectors.T


@jax.custom_jvp
def _inverse_root(a: jax.Array, p: jax.Array, eps: jax.Array) -> jax.Array:
    values, vectors = jnp.linalg.eigh(a, symmetrize_input=False)
    root, _, _ = _root_and_slope(jnp, values, p, eps)
    return (vectors * root) @ vectors.T


@_inverse_root.defjvp
def _inverse_root_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    """Differentiate a function of a matrix by divided differences (Daleckii and Krein 1965)."""
    a, p, eps = primals
    da, dp, deps = tangents
    values, vectors = jnp.linalg.eigh(a, symmetrize_input=False)
    root, slope, safe = _root_and_slope(jnp, values, p, eps)
    difference = values[:, None] - values[None, :]
    scale = jnp.max(jnp.abs(values))
    near = jnp.abs(difference) <= 1e-4 * jnp.maximum(scale, jnp.finfo(a.dtype).tiny)
    divided = jnp.where(
        near,
        0.5 * (slope[:, None] + slope[None, :]),
        (root[:, None] - root[None, :]) / jnp.where(near, 1.0, difference),
    )
    turned = vectors.T @ (0.5 * (da + da.T)) @ vectors
    order = jnp.where(p == 0, 1.0, p)
    by_eps = -root / (safe * order) * jnp.sign(eps)
    by_p = jnp.where(p == 0, 0.0, root * jnp.log(safe) / order**2)
    inner = divided * turned + jnp.diag(by_eps * deps + by_p * dp)
    return (vectors * root) @ vectors.T, vectors @ inner @ vectors.T


def _with_signs(xp: ArrayModule, q: Any, r: Any) -> tuple[Any, Any]:
    """Return Q and R with the signs at which the diagonal of R is not negative."""
    sign = xp.where(xp.diagonal(r) < 0, -1.0, 1.0).astype(q.dtype)
    return q * sign, r * sign[:, None]


def _numpy_orthonormal(s: Any) -> Any:
    return _with_signs(np, *np.linalg.qr(s))[0]


@jax.custom_jvp
def _orthonormal(s: jax.Array) -> jax.Array:
    return _with_signs(jnp, *jnp.linalg.qr(s))[0]


@_orthonormal.defjvp
def _orthonormal_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (s,), (ds,) = primals, tangents
    q, r = _with_signs(jnp, *jnp.linalg.qr(s))
    size = jnp.abs(jnp.diagonal(r))
    regular = jnp.min(size) > 1e-6 * jnp.max(size)
    safe = jnp.where(regular, r, jnp.eye(len(r), dtype=r.dtype))
    # ds @ inv(r), from the transposed triangular system.
    scaled = jax.scipy.linalg.solve_triangular(safe, ds.T, trans="T", lower=False).T
    inner = q.T @ scaled
    lower = jnp.tril(inner, -1)
    tangent = q @ (lower - lower.T - inner) + scaled
    return q, jnp.where(regular, tangent, 0.0)
