"""How each instruction is written in exported source: the tables of `leaf_code.py`.

Every form here computes what the instruction's `fn` in `ops.py` computes, guards and all;
`tests/search/export/test_optax_module.py` compares the two bit for bit.
"""

import math
from typing import Final

# Private functions of the exported module; those that are used are written out, in this order.
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
def _orthogonalize(x):
    """Return x as a matrix with its singular values moved near 1: five Newton-Schulz steps."""
    matrix = _as_matrix(x)
    tall = matrix.shape[0] > matrix.shape[1]
    matrix = matrix.T if tall else matrix
    square = jnp.sum(jnp.square(matrix), axis=(-2, -1), keepdims=True)
    matrix = matrix / (jnp.sqrt(jnp.maximum(square, 1e-30)) + 1e-8)

    def iterate(_, matrix):
        gram = matrix @ matrix.T
        return 3.4445 * matrix + (-4.775 * gram + 2.0315 * (gram @ gram)) @ matrix

    matrix = jax.lax.fori_loop(0, 5, iterate, matrix)
    return (matrix.T if tall else matrix).reshape(x.shape)
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
    return jax.tree.map(lambda p: jnp.zeros(_thin(p.shape, rows, columns), p.dtype), params)
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

# How tightly an expression binds, as in Python.
SUM: Final = 1
PRODUCT: Final = 2
NEGATION: Final = 3
POWER: Final = 4
ATOM: Final = 9

# Function calls: the function, and its arguments; `{0:2}` is the first argument of the op, in
# parentheses where it binds less tightly than 2.
CALLS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "divide": ("_safe_divide", ("{0}", "{1}")),
    "power": ("jnp.power", ("jnp.abs({0})", "{1}")),
    "max": ("jnp.maximum", ("{0}", "{1}")),
    "min": ("jnp.minimum", ("{0}", "{1}")),
    "abs": ("jnp.abs", ("{0}",)),
    "sign": ("jnp.sign", ("{0}",)),
    "square": ("jnp.square", ("{0}",)),
    "cube": ("_cube", ("{0}",)),
    "sqrt": ("jnp.sqrt", ("jnp.abs({0})",)),
    "cbrt": ("jnp.cbrt", ("{0}",)),
    "reciprocal": ("_safe_divide", ("1.0", "{0}")),
    "exp": ("jnp.exp", ("{0}",)),
    "exp2": ("jnp.exp2", ("{0}",)),
    "exp10": ("jnp.exp", (f"{{0:2}} * {math.log(10.0)!r}",)),
    "expm1": ("jnp.expm1", ("{0}",)),
    "log": ("jnp.log", ("_floored({0})",)),
    "log2": ("jnp.log2", ("_floored({0})",)),
    "log10": ("jnp.log10", ("_floored({0})",)),
    "log1p": ("jnp.log1p", ("jnp.abs({0})",)),
    "sin": ("jnp.sin", ("{0}",)),
    "cos": ("jnp.cos", ("{0}",)),
    "tan": ("jnp.tan", ("{0}",)),
    "arcsin": ("jnp.arcsin", ("jnp.clip({0}, -1.0, 1.0)",)),
    "arccos": ("jnp.arccos", ("jnp.clip({0}, -1.0, 1.0)",)),
    "arctan": ("jnp.arctan", ("{0}",)),
    "sinh": ("jnp.sinh", ("{0}",)),
    "cosh": ("jnp.cosh", ("{0}",)),
    "tanh": ("jnp.tanh", ("{0}",)),
    "arcsinh": ("jnp.arcsinh", ("{0}",)),
    "arccosh": ("jnp.arccosh", ("jnp.maximum({0}, 1.0)",)),
    "arctanh": ("jnp.arctanh", ("jnp.clip({0}, -0.9999990463256836, 0.9999990463256836)",)),
    "invert": ("jnp.where", ("{0} > 0", "0.0", "1.0")),
    "where": ("jnp.where", ("{0} > 0", "{1}", "{2}")),
    "interp": ("_interp", ("{0}", "{1}", "{2}")),
    "norm": ("_norm", ("{0}",)),
    "mean": ("jnp.mean", ("{0}",)),
    "amax": ("jnp.max", ("{0}",)),
    "dot": ("jnp.sum", ("{0:2} * {1:3}",)),
    "cosine_sim": ("_cosine_similarity", ("{0}", "{1}")),
    "every": ("_every", ("{0}", "{1}")),
    "row_mean": ("_row_mean", ("{0}",)),
    "column_mean": ("_column_mean", ("{0}",)),
    "row_norm": ("_row_norm", ("{0}",)),
    "column_norm": ("_column_norm", ("{0}",)),
    "row_max": ("_row_max", ("{0}",)),
    "column_max": ("_column_max", ("{0}",)),
    "factored": ("_factored", ("{0}",)),
    "clip_by_quantile": ("_clip_by_quantile", ("{0}", "{1}")),
    "orthogonalize": ("_orthogonalize", ("{0}",)),
    "transpose": ("jnp.transpose", ("{0}",)),
    "matmul": ("jnp.matmul", ("{0}", "{1}")),
}

# Values in a leaf function that follow from the shape of its tensor.
SHAPE_ROLES: Final = {
    "ndim": "float(g.ndim)",
    "fan_in": "float(math.prod(g.shape[:-1]))",
    "fan_out": "float(g.shape[-1]) if g.ndim else 1.0",
}
# The full shape of a value of each kind that is no scalar.
FULL_SHAPES: Final = {
    "tensor": "g.shape",
    "transposed": "_as_matrix(g).shape[::-1]",
    "row_pairs": "2 * _as_matrix(g).shape[:1]",
    "column_pairs": "2 * _as_matrix(g).shape[1:]",
}

# Operators: the expression and how tightly it binds. They replace the calls above where they fit.
INFIX: Final[dict[str, tuple[str, int]]] = {
    "add": ("{0:1} + {1:2}", SUM),
    "subtract": ("{0:1} - {1:2}", SUM),
    "multiply": ("{0:2} * {1:3}", PRODUCT),
    "negative": ("-{0:5}", NEGATION),
    "interp": ("(1 - {2}) * {0:3} + {2} * {1:3}", SUM),
}
COMPARISONS: Final = {"less": ("<", ">"), "less_equal": ("<=", ">="), "equal": ("==", "==")}
NUMBERS: Final = {"get_pi": "jnp.pi", "get_e": "jnp.e", "get_eps": "1e-08"}
