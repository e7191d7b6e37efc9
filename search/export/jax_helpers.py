"""The functions that an exported module may need, as source text.

Those that it uses are written out, in this order, so that a function may call those before it. They
compute what the instruction set's own functions compute (`ops.py`, `matrix_functions.py`,
`sketching.py`), for jax.numpy alone and without their care for derivatives.
"""

from typing import Final

HELPERS: Final[dict[str, str]] = {
    "_safe_divide": '''\
def _safe_divide(x, y):
    """Return x / y, and 0 where y is 0."""
    zero = y == 0
    return jnp.where(zero, 0.0, x / jnp.where(zero, 1.0, y))
''',
    "_interp": '''\
def _interp(x, y, a):
    """Return (1 - a) * x + a * y."""
    return (1 - a) * x + a * y
''',
    "_cube": '''\
def _cube(x):
    """Return x to the third power."""
    return x * x * x
''',
    "_floored": '''\
def _floored(x):
    """Return |x|, kept above the smallest normal float32: logarithms stay finite."""
    return jnp.maximum(jnp.abs(x), 2.0**-126)
''',
    "_norm": '''\
def _norm(x):
    """Return the Euclidean norm of a tensor."""
    return jnp.sqrt(jnp.sum(x * x))
''',
    "_cosine_similarity": '''\
def _cosine_similarity(x, y):
    """Return the cosine of the angle between two tensors, 0 where one of them is 0."""
    return _safe_divide(jnp.sum(x * y), jnp.sqrt(jnp.sum(x * x)) * jnp.sqrt(jnp.sum(y * y)))
''',
    "_clip_by_global_norm": '''\
def _clip_by_global_norm(x, square_sum, limit):
    """Return x, scaled down where the norm over all tensors is above the limit."""
    norm = jnp.sqrt(square_sum)
    return jnp.where(norm > limit, x * _safe_divide(limit, norm), x).astype(x.dtype)
''',
    "_every": '''\
def _every(x, period):
    """Return 1 where x is a multiple of the period, else 0; both are rounded."""
    period = jnp.maximum(jnp.round(jnp.abs(period)), 1.0)
    return jnp.where(jnp.mod(jnp.round(x), period) == 0, 1.0, 0.0)
''',
    "_row_axes": '''\
def _row_axes(x):
    """Return the axis of each row: the last one."""
    return tuple(range(x.ndim))[-1:]
''',
    "_column_axes": '''\
def _column_axes(x):
    """Return the axes of each column: all but the last."""
    return tuple(range(x.ndim))[:-1]
''',
    "_row_mean": '''\
def _row_mean(x):
    """Return the mean of each row."""
    return jnp.mean(x, axis=_row_axes(x), keepdims=True)
''',
    "_column_mean": '''\
def _column_mean(x):
    """Return the mean of each column."""
    return jnp.mean(x, axis=_column_axes(x), keepdims=True)
''',
    "_row_norm": '''\
def _row_norm(x):
    """Return the Euclidean norm of each row."""
    return jnp.sqrt(jnp.sum(x * x, axis=_row_axes(x), keepdims=True))
''',
    "_column_norm": '''\
def _column_norm(x):
    """Return the Euclidean norm of each column."""
    return jnp.sqrt(jnp.sum(x * x, axis=_column_axes(x), keepdims=True))
''',
    "_row_max": '''\
def _row_max(x):
    """Return the largest entry of each row."""
    return jnp.max(x, axis=_row_axes(x), keepdims=True)
''',
    "_column_max": '''\
def _column_max(x):
    """Return the largest entry of each column."""
    return jnp.max(x, axis=_column_axes(x), keepdims=True)
''',
    "_factored": '''\
def _factored(x):
    """Return the product of the means of rows and columns, over the mean; 0 where that is 0."""
    return _safe_divide(_row_mean(x) * _column_mean(x), jnp.mean(x))
''',
    "_clip_by_quantile": '''\
def _clip_by_quantile(x, share):
    """Return x, clipped where |x| is above its quantile, which is found by halving intervals."""
    size = jnp.abs(x)

    def halve(_, ends):
        low, high = ends
        middle = 0.5 * (low + high)
        covers = jnp.mean(jnp.where(size <= middle, 1.0, 0.0)) >= share
        return jnp.where(covers, low, middle), jnp.where(covers, middle, high)

    largest = jnp.max(size)
    _, limit = jax.lax.fori_loop(0, 24, halve, (jnp.zeros_like(largest), largest))
    return jnp.clip(x, -limit, limit)
''',
    "_as_matrix": '''\
def _as_matrix(x):
    """Return x as a matrix: its last axis is the columns; a vector is one row."""
    return x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)
''',
    "_orthogonalize": '''\
def _orthogonalize(x, num_iterations=5):
    """Return x as a matrix with its singular values moved near 1, by Newton-Schulz steps."""
    matrix = _as_matrix(x)
    tall = matrix.shape[0] > matrix.shape[1]
    matrix = matrix.T if tall else matrix
    square = jnp.sum(jnp.square(matrix), axis=(-2, -1), keepdims=True)
    matrix = matrix / (jnp.sqrt(jnp.maximum(square, 1e-30)) + 1e-8)

    def iterate(_, matrix):
        gram = matrix @ matrix.T
        return 3.4445 * matrix + (-4.775 * gram + 2.0315 * (gram @ gram)) @ matrix

    matrix = jax.lax.fori_loop(0, num_iterations, iterate, matrix)
    return (matrix.T if tall else matrix).reshape(x.shape)
''',
    "_polar": '''\
def _polar(x):
    """Return the polar factor of x as a matrix: all singular values are 1, zeros stay 0."""
    matrix = _orthogonalize(_as_matrix(x), 7)
    tall = matrix.shape[0] > matrix.shape[1]

    def iterate(_, matrix):
        gram = matrix @ matrix.T
        return 1.875 * matrix + (-1.25 * gram + 0.375 * (gram @ gram)) @ matrix

    matrix = jax.lax.fori_loop(0, 4, iterate, matrix.T if tall else matrix)
    return (matrix.T if tall else matrix).reshape(x.shape)
''',
    "_nuclear_norm": '''\
def _nuclear_norm(x):
    """Return the sum of the singular values of x as a matrix."""
    matrix = _as_matrix(x)
    return jnp.sum(matrix * _polar(matrix))
''',
    "_sinkhorn": '''\
def _sinkhorn(x):
    """Return x as a matrix, its columns and rows scaled to norms near sqrt(their length)."""
    matrix = _as_matrix(x)
    rows, columns = matrix.shape

    def normalise(y, axis, size):
        norm = jnp.sqrt(jnp.sum(y * y, axis=axis, keepdims=True))
        zero = norm == 0
        return jnp.where(zero, 0.0, y * (size**0.5 / jnp.where(zero, 1.0, norm)))

    def iterate(_, y):
        return normalise(normalise(y, 0, rows), 1, columns).astype(x.dtype)

    return jax.lax.fori_loop(0, 5, iterate, matrix).reshape(x.shape)
''',
    "_global_cosine": '''\
def _global_cosine(product, left, right):
    """Return the cosine from sums over all tensors: of x * y, x * x and y * y."""
    return _safe_divide(product, jnp.sqrt(left) * jnp.sqrt(right))
''',
    "_kept_side": '''\
def _kept_side(side, other):
    """Return the side of a square matrix: 1 for vectors and sides too long, kept as one number."""
    return side if other > 1 and side <= 8192 else 1
''',
    "_matmul": '''\
def _matmul(x, y):
    """Return x @ y; a square matrix that is too large is one number, the mean of its diagonal."""
    if x.shape[1] != y.shape[0]:
        return x * y
    side, inner = x.shape
    if side == y.shape[1] and _kept_side(side, inner) != side:
        return jnp.reshape(jnp.sum(x * y.T) / side, (1, 1)).astype(x.dtype)
    return x @ y
''',
    "_pairs": '''\
def _pairs(x, of_rows):
    """Return the shape of a square matrix over the rows or columns of x."""
    rows, columns = _as_matrix(x).shape
    return 2 * (_kept_side(rows, columns) if of_rows else _kept_side(columns, rows),)
''',
    "_row_gram": '''\
def _row_gram(x):
    """Return the products of the rows of a matrix with one another."""
    return _matmul(x, x.T)
''',
    "_column_gram": '''\
def _column_gram(x):
    """Return the products of the columns of a matrix with one another."""
    return _matmul(x.T, x)
''',
    "_prepared": '''\
def _prepared(a):
    """Return a matrix in a dtype that decompositions take, and whether it is finite."""
    is_finite = jnp.all(jnp.isfinite(a))
    wide = a.astype(jnp.promote_types(a.dtype, jnp.float32))
    return jnp.where(is_finite, wide, jnp.zeros_like(wide)), is_finite
''',
    "_inverse_root": '''\
def _inverse_root(a, p, eps):
    """Return (a + |eps|) ** (-1 / p) of a symmetric matrix; eigenvalues of 0 stay 0."""
    matrix, is_finite = _prepared(a)
    p, eps = (jnp.asarray(number, matrix.dtype) for number in (p, eps))
    values, vectors = jnp.linalg.eigh(0.5 * (matrix + matrix.T), symmetrize_input=False)
    shifted = jnp.maximum(values, 0.0) + jnp.abs(eps)
    zero = shifted == 0
    safe = jnp.where(zero, 1.0, shifted)
    root = jnp.where(zero, 0.0, safe ** (-1.0 / jnp.where(p == 0, 1.0, p)))
    return jnp.where(is_finite, (vectors * root) @ vectors.T, jnp.nan).astype(a.dtype)
''',
    "_eigenbasis": '''\
def _eigenbasis(a, q):
    """Return the orthonormal factor of a @ q; a basis of zeros counts as the identity."""
    matrix, a_is_finite = _prepared(a)
    basis, q_is_finite = _prepared(q)
    start = jnp.where(jnp.any(basis != 0), basis, jnp.eye(len(basis), dtype=basis.dtype))
    largest = jnp.max(jnp.abs(matrix))
    scaled = matrix / jnp.where(largest == 0, 1.0, largest)
    found, triangle = jnp.linalg.qr((scaled @ start).astype(matrix.dtype))
    found = found * jnp.where(jnp.diagonal(triangle) < 0, -1.0, 1.0).astype(found.dtype)
    return jnp.where(a_is_finite & q_is_finite, found, jnp.nan).astype(a.dtype)
''',
    "_sketch_shape": '''\
def _sketch_shape(x):
    """Return the shape of the sketch of x: a fourth of the shorter side, the longer side."""
    shape = _as_matrix(x).shape
    return -(-min(shape) // 4), max(shape)
''',
    "_mixed": '''\
def _mixed(number):
    """Mix the bits of 32-bit numbers."""
    number = (number ^ (number >> jnp.uint32(16))) * jnp.uint32(0x85EBCA6B)
    number = (number ^ (number >> jnp.uint32(13))) * jnp.uint32(0xC2B2AE35)
    return number ^ (number >> jnp.uint32(16))
''',
    "_basis": '''\
def _basis(seed, size, dtype):
    """Return orthonormal rows: a fourth of a cosine transform, with random signs."""
    if size == 1:
        return jnp.ones((1, 1), dtype)
    seed = jnp.asarray(seed)
    seed = jnp.where(jnp.isfinite(seed), seed, 0.0)
    whole = jnp.floor(jnp.clip(seed, -(2.0**30), 2.0**30)).astype(jnp.int32)
    key = jnp.reshape(whole, (1,)).astype(jnp.uint32)
    place = jnp.arange(size, dtype=jnp.uint32)
    signs = _mixed(place + _mixed(key + jnp.uint32(0x9E3779B9)))
    lots = _mixed(place + _mixed(key + jnp.uint32(0x7F4A7C15)))
    frequency = jnp.argsort(lots, stable=True)[: -(-size // 4)].astype(jnp.uint32)[:, None]
    angle = (frequency * (jnp.uint32(2) * place + jnp.uint32(1))) % jnp.uint32(4 * size)
    wave = jnp.cos(angle.astype(jnp.promote_types(dtype, jnp.float32)) * (math.pi / (2 * size)))
    length = jnp.where(frequency == 0, math.sqrt(1.0 / size), math.sqrt(2.0 / size))
    return (wave * length * jnp.where((signs >> jnp.uint32(31)) == 0, 1.0, -1.0)).astype(dtype)
''',
    "_sketch": '''\
def _sketch(x, seed):
    """Return the projection of the shorter side of a matrix."""
    x = x.T if x.shape[0] > x.shape[1] else x
    return _basis(seed, x.shape[0], x.dtype) @ x
''',
    "_unsketch": '''\
def _unsketch(shape, s, seed):
    """Return a projection in the shape of the matrix again."""
    found = _basis(seed, min(shape), s.dtype).T @ s
    return found.T if shape[0] > shape[1] else found
''',
    "_sketch_norm": '''\
def _sketch_norm(shape, s):
    """Return the norm of each column of a projection, spread along the shorter side."""
    norm = jnp.sqrt(jnp.sum(s * s, axis=0, keepdims=True)).astype(s.dtype)
    return jnp.broadcast_to(norm.T if shape[0] > shape[1] else norm, shape)
''',
    "_remember": '''\
def _remember(history, x):
    """Return the history with a finite number put before all others."""
    number = jnp.asarray(x, history.dtype)
    pushed = jnp.concatenate([jnp.reshape(number, (1,)), history[:-1]])
    return jnp.where(jnp.isfinite(number), pushed, history)
''',
    "_percentile": '''\
def _percentile(history, q):
    """Return a quantile of the numbers that are not 0; 0 if there are none."""
    used = history != 0
    count = jnp.sum(jnp.where(used, 1, 0))
    ordered = jnp.sort(jnp.where(used, history, jnp.inf))
    last = jnp.maximum(count - 1, 0)
    position = jnp.where(jnp.isnan(q), 0.0, jnp.clip(q, 0.0, 1.0)) * last
    below = jnp.floor(position)
    low = below.astype(jnp.int32)
    ends = [jnp.where(count > 0, ordered[jnp.minimum(i, last)], 0.0) for i in (low, low + 1)]
    return ends[0] + (position - below) * (ends[1] - ends[0])
''',
    "_thin": '''\
def _thin(shape, rows, columns):
    """Return the shape of a value that varies only along the rows, the columns or neither."""
    if not shape:
        return shape
    leading = shape[:-1] if rows else (1,) * (len(shape) - 1)
    return (*leading, shape[-1] if columns else 1)
''',
    "_spread": '''\
def _spread(x, g, rows, columns):
    """Return x in the thin shape of the given directions, typed as the gradient."""
    return jnp.broadcast_to(x, _thin(g.shape, rows, columns)).astype(g.dtype)
''',
    "_zeros": '''\
def _zeros(params, rows, columns):
    """Return zeros that broadcast to the parameters and vary in the given directions."""

    def zeros(p):
        ends = () if columns or not p.ndim else (p.ndim - 1,)
        axes = ends if rows else (*range(p.ndim - 1), *ends)
        return jnp.zeros_like(jnp.sum(p, axis=axes, keepdims=True))

    return jax.tree.map(zeros, params)
''',
    # The same as `tasks.trainable.skip_untrainable`.
    "_skip_untrainable": '''\
def _skip_untrainable(tx):
    """Treat leaves that are empty, or no real numbers, as None, and leave them unchanged."""
    tx = optax.with_extra_args_support(tx)

    def prune(tree, likes):
        def keep(leaf, like):
            is_real = jnp.issubdtype(jnp.result_type(like), jnp.inexact)
            return leaf if is_real and jnp.size(like) else None

        return jax.tree.map(keep, tree, likes)

    def init_fn(params):
        return tx.init(prune(params, params))

    def update_fn(updates, state, params=None, **extra_args):
        def restore(_, like, update):
            if update is not None:
                return update
            dtype = jnp.result_type(like)  # float0, to which nothing can be added, or another
            return jnp.zeros(jnp.shape(like), dtype if jnp.issubdtype(dtype, jnp.number) else bool)

        likes = updates if params is None else params
        kept = None if params is None else prune(params, params)
        moved, state = tx.update(prune(updates, likes), state, kept, **extra_args)
        return jax.tree.map(restore, updates, likes, moved), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
''',
}
