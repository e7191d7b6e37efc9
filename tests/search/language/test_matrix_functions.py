"""Functions of whole matrices against scipy-free closed forms: LAPACK by another way, by hand.

Oracles: the singular value decomposition, eigenvalues of scipy's and NumPy's own, Optax's coupled
Newton iteration, finite differences.
"""

import functools
from collections.abc import Callable
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st
from jax.test_util import check_grads

from veldt.search.language import matrix_functions, shapes, sketching
from veldt.search.language.ops import OPS

SHAPES = [(4, 6), (6, 4), (5, 5), (1, 5), (5, 1), (1, 1)]
INF, NAN = np.inf, np.nan


@functools.cache
def jitted(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function in jax.numpy; each shape of arguments is compiled once."""
    return jax.jit(functools.partial(function, jnp))


def both(function: Callable[..., Any], *args: Any) -> np.ndarray:
    """The function in NumPy, float64, after checking that jax.numpy gives the same."""
    with np.errstate(all="ignore"):
        ours = np.asarray(function(np, *args))
    with jax.enable_x64(True):
        theirs = np.asarray(jitted(function)(*map(jnp.asarray, args)))
    assert theirs.dtype == ours.dtype
    np.testing.assert_allclose(theirs, ours, rtol=1e-9, atol=1e-12)
    return ours


def draw(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def positive(size: int, seed: int = 0) -> np.ndarray:
    half = draw((size, size + 2), seed)
    return half @ half.T


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e4])
def test_the_polar_factor_is_that_of_the_decomposition(
    shape: tuple[int, int], scale: float
) -> None:
    x = scale * draw(shape)
    u, sizes, vt = np.linalg.svd(x, full_matrices=False)
    # A condition number of 30 at most, which Newton-Schulz's range covers by far.
    np.testing.assert_allclose(both(matrix_functions.polar, x), u @ vt, atol=3e-11)
    nuclear = both(matrix_functions.nuclear_norm, x)
    np.testing.assert_allclose(nuclear, sizes.sum(), rtol=1e-10)


def test_the_polar_factor_of_low_rank_leaves_the_rest_at_zero() -> None:
    left, right = draw((6, 2)), draw((2, 5), 1)
    x = left @ right
    u, sizes, vt = np.linalg.svd(x, full_matrices=False)
    for dtype, atol in ((np.float64, 1e-9), (np.float32, 2e-2)):
        found = matrix_functions.polar(np, x.astype(dtype))
        np.testing.assert_allclose(found, u[:, :2] @ vt[:2], atol=atol)
    assert sizes[2] < 1e-12
    np.testing.assert_array_equal(both(matrix_functions.polar, np.zeros((3, 4))), np.zeros((3, 4)))


@pytest.mark.parametrize("p", [1.0, 2.0, 4.0, -2.0])
@pytest.mark.parametrize("eps", [0.0, 0.3, -0.3])
def test_the_inverse_root_solves_its_equation(p: float, eps: float) -> None:
    a = positive(4)
    root = both(matrix_functions.inverse_root, a, p, eps)
    shifted = a + abs(eps) * np.eye(4)
    power = np.linalg.matrix_power(root, int(abs(p)))
    expected = np.linalg.inv(shifted) if p > 0 else shifted
    np.testing.assert_allclose(power, expected, rtol=1e-9, atol=1e-9)


def test_the_inverse_root_agrees_with_optax_s_newton_iteration() -> None:
    a = positive(5)
    with jax.enable_x64(True):
        theirs, _ = optax.matrix_inverse_pth_root(jnp.asarray(a), 4, ridge_epsilon=0.0)
    np.testing.assert_allclose(both(matrix_functions.inverse_root, a, 4.0, 0.0), theirs, rtol=1e-4)


def test_the_inverse_root_of_singular_matrices() -> None:
    a = np.diag([4.0, 0.0, -1e-9])
    expected = np.diag([0.5, 0.0, 0.0])
    np.testing.assert_allclose(both(matrix_functions.inverse_root, a, 2.0, 0.0), expected)
    nothing = np.zeros((3, 3))
    np.testing.assert_array_equal(both(matrix_functions.inverse_root, nothing, 4.0, 0.0), nothing)
    found = both(matrix_functions.inverse_root, nothing, 4.0, 1e-8)
    np.testing.assert_allclose(found, 100.0 * np.eye(3))


def test_the_basis_turns_to_the_eigenvectors() -> None:
    a = positive(5)
    basis = np.zeros((5, 5))
    for _ in range(400):
        basis = matrix_functions.eigenbasis(np, a, basis)
    values, vectors = np.linalg.eigh(a)
    np.testing.assert_allclose(np.abs(basis.T @ vectors[:, ::-1]), np.eye(5), atol=1e-8)
    np.testing.assert_allclose(np.diag(basis.T @ a @ basis), values[::-1], rtol=1e-8)


def test_one_step_of_the_basis_is_the_orthonormal_factor() -> None:
    a, q = positive(4), draw((4, 4), 1)
    found = both(matrix_functions.eigenbasis, a, q)
    np.testing.assert_allclose(found.T @ found, np.eye(4), atol=1e-12)
    triangle = found.T @ (a @ q)
    np.testing.assert_allclose(np.tril(triangle, -1), 0.0, atol=1e-10 * np.abs(triangle).max())
    assert np.all(np.diag(triangle) > 0)
    first = both(matrix_functions.eigenbasis, a, np.zeros((4, 4)))
    np.testing.assert_allclose(first, matrix_functions.eigenbasis(np, a, np.eye(4)))
    np.testing.assert_array_equal(
        both(matrix_functions.eigenbasis, np.zeros((3, 3)), np.zeros((3, 3))), np.eye(3)
    )


def test_derivatives_are_those_of_finite_differences() -> None:
    with jax.enable_x64(True):
        a, q, x = (jnp.asarray(m) for m in (positive(4), draw((4, 4), 1), draw((4, 6), 2)))
        for function, args in (
            (matrix_functions.inverse_root, (a, 4.0, 0.1)),
            (matrix_functions.eigenbasis, (a, q)),
            (matrix_functions.polar, (x,)),
            (matrix_functions.sinkhorn, (x,)),
        ):
            check_grads(jitted(function), args, 1, modes=["rev"], eps=1e-5)


def test_derivatives_stay_finite_where_textbook_ones_do_not() -> None:
    """Equal eigenvalues, rank below the size, zeros: what the first steps of a run are made of."""
    zeros, thin = jnp.zeros((4, 4)), jnp.ones((4, 1)) @ jnp.ones((1, 4))

    def all_of(m: jax.Array) -> jax.Array:
        return sum(
            jnp.sum(found * jnp.arange(4.0))
            for found in (
                matrix_functions.inverse_root(jnp, m, 4.0, 1e-6),
                matrix_functions.inverse_root(jnp, m, 2.0, 0.0),
                matrix_functions.eigenbasis(jnp, m, jnp.zeros((4, 4))),
                matrix_functions.polar(jnp, m),
                matrix_functions.sinkhorn(jnp, m),
            )
        )

    slope = jax.jit(jax.grad(all_of))
    for matrix in (zeros, thin, jnp.eye(4)):
        assert np.all(np.isfinite(slope(matrix)))


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5)])
def test_sinkhorn_leaves_rows_exact_and_columns_near(shape: tuple[int, int]) -> None:
    x = draw(shape)
    found = both(matrix_functions.sinkhorn, x)
    rows, columns = shape
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.sqrt(columns))
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), np.sqrt(rows), rtol=0.05)
    # By hand, from the definition.
    expected = x.copy()
    for _ in range(5):
        expected *= np.sqrt(rows) / np.linalg.norm(expected, axis=0)
        expected *= np.sqrt(columns) / np.linalg.norm(expected, axis=1)[:, None]
    np.testing.assert_allclose(found, expected)
    x[1] = 0.0
    assert not both(matrix_functions.sinkhorn, x)[1].any()


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_matrices_that_are_not_finite_give_nan_and_no_error(bad: float) -> None:
    a = np.eye(3)
    a[0, 1] = bad
    good = np.eye(3)
    assert np.isnan(both(matrix_functions.inverse_root, a, 2.0, 0.1)).all()
    assert np.isnan(both(matrix_functions.eigenbasis, a, good)).all()
    assert np.isnan(both(matrix_functions.eigenbasis, good, a)).all()


@pytest.mark.parametrize("name", ["inverse_root", "eigenbasis", "polar", "sinkhorn", "sketch"])
def test_half_precision_comes_back_as_it_was(name: str) -> None:
    x = jnp.asarray(positive(4), jnp.bfloat16)
    rest = {"inverse_root": (4.0, 0.1), "eigenbasis": (x,), "sketch": (1.0,)}.get(name, ())
    found = OPS[name].fn(jnp, x, *rest)
    assert found.dtype == jnp.bfloat16
    assert np.isfinite(np.asarray(found, np.float32)).all()


# --- square matrices that are kept as one number


def test_square_matrices_of_vectors_and_long_sides_are_the_mean_of_their_diagonal() -> None:
    wide = draw((1, 5))
    np.testing.assert_allclose(both(matrix_functions.row_gram, wide), wide @ wide.T)
    found = both(matrix_functions.column_gram, wide)
    np.testing.assert_allclose(found, [[np.trace(wide.T @ wide) / 5]])
    long = np.ones((matrix_functions.LONGEST_SIDE + 1, 2))
    np.testing.assert_allclose(matrix_functions.row_gram(np, long), [[2.0]])
    np.testing.assert_allclose(matrix_functions.column_gram(np, long), long.T @ long)
    # No other multiple of the identity is nearer in the Frobenius norm.
    outer = wide.T @ wide
    near = [np.linalg.norm(outer - (found + d) * np.eye(5)) for d in (-1e-3, 0.0, 1e-3)]
    assert near[1] < min(near[0], near[2])


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (3, 4), (1, 1)])
def test_products_fit_whatever_is_kept(shape: tuple[int, int]) -> None:
    """Chains as in Shampoo and SOAP give the shapes that the program promises."""
    x = draw(shape)
    left, right = (f(np, x) for f in (matrix_functions.row_gram, matrix_functions.column_gram))
    product = functools.partial(matrix_functions.product, np)
    turned = product(product(left, x), right)
    assert turned.shape == shape
    kept = shapes.full_shape("row_pairs", shape), shapes.full_shape("column_pairs", shape)
    assert (left.shape, right.shape) == kept
    assert product(turned, x.T).shape == kept[0] and product(turned.T, x).shape == kept[1]
    assert product(left, left).shape == kept[0]
    assert product(right, x.T).shape == shape[::-1] == product(x.T, left).shape


# --- sketches


def basis_of_5(xp: Any, seed: Any) -> Any:
    return sketching.basis(xp, seed, 5, np.float64)


@hypothesis.given(size=st.integers(2, 70), seed=st.floats(-1e6, 1e6, allow_subnormal=False))
def test_the_basis_of_a_sketch_is_orthonormal(size: int, seed: float) -> None:
    both(basis_of_5, seed)
    found = sketching.basis(np, seed, size, np.float64)
    assert found.shape == (-(-size // 4), size)
    np.testing.assert_allclose(found @ found.T, np.eye(len(found)), atol=1e-12)
    np.testing.assert_array_equal(found, sketching.basis(np, np.floor(seed), size, np.float64))


def test_the_basis_of_a_sketch_is_drawn_evenly() -> None:
    """Over seeds, the projection of a fixed direction keeps a fourth of its square on average."""
    x = draw((32,))
    kept = [np.sum((sketching.basis(np, s, 32, np.float64) @ x) ** 2) for s in range(400)]
    share = np.array(kept) / np.sum(x**2)
    assert abs(share.mean() - 0.25) < 4 * share.std() / np.sqrt(len(share))
    assert share.std() > 0.02


@pytest.mark.parametrize("shape", [(8, 12), (12, 8), (1, 5), (5, 1), (3, 3)])
def test_a_sketch_goes_back_to_the_shape_it_came_from(shape: tuple[int, int]) -> None:
    x = draw(shape)
    sketch = both(sketching.sketch, x, 3.0)
    assert sketch.shape == sketching.sketch_shape(*shape)
    back = sketching.unsketch(np, shape, sketch, 3.0)
    assert back.shape == shape
    # It is a projection: what is kept is kept again, and the rest is orthogonal to it.
    np.testing.assert_allclose(sketching.sketch(np, back, 3.0), sketch, atol=1e-12)
    assert abs(np.sum(back * (x - back))) < 1e-10
    norms = sketching.sketch_norm(np, shape, sketch)
    longer = np.linalg.norm(sketch, axis=0)
    expected = np.broadcast_to(longer[:, None] if shape[0] > shape[1] else longer, shape)
    np.testing.assert_allclose(norms, expected)


# --- histories


@hypothesis.given(
    st.lists(st.floats(-1e3, 1e3, width=32).filter(bool), max_size=150), st.floats(0.0, 1.0)
)
def test_percentiles_are_numpy_s_of_what_is_remembered(values: list[float], q: float) -> None:
    history = np.zeros(sketching.HISTORY)
    for value in values:
        history = sketching.remember(np, history, value)
    kept = values[-sketching.HISTORY :]
    np.testing.assert_array_equal(history[: len(kept)], kept[::-1])
    expected = np.quantile(kept, q) if kept else 0.0
    found = both(sketching.percentile, history, q)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_what_is_not_finite_is_not_remembered() -> None:
    history = sketching.remember(np, np.zeros(sketching.HISTORY), 2.0)
    for bad in (NAN, INF, -INF):
        np.testing.assert_array_equal(both(sketching.remember, history, bad), history)
    assert both(sketching.percentile, history, NAN) == 2.0
