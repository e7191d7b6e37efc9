"""How each instruction is written in exported source: the tables of `leaf_code.py`.

Every form here computes what the instruction's `fn` in `ops.py` computes, guards and all;
`tests/search/test_export.py` compares the two bit for bit.
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
    "arctanh": ("jnp.arctanh", ("jnp.clip({0}, -0.999999, 0.999999)",)),
    "invert": ("jnp.where", ("{0} > 0", "0.0", "1.0")),
    "where": ("jnp.where", ("{0} > 0", "{1}", "{2}")),
    "interp": ("_interp", ("{0}", "{1}", "{2}")),
    "norm": ("_norm", ("{0}",)),
    "mean": ("jnp.mean", ("{0}",)),
    "amax": ("jnp.max", ("{0}",)),
    "dot": ("jnp.sum", ("{0:2} * {1:3}",)),
    "cosine_sim": ("_cosine_similarity", ("{0}", "{1}")),
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

# Ops whose result is never negative, whatever their arguments; then those that only keep signs.
# fmt: off
NONNEGATIVE: Final = frozenset((
    "abs", "square", "sqrt", "exp", "exp2", "exp10", "cosh", "log1p", "power", "arccos", "arccosh",
    "invert", "less", "less_equal", "equal", "norm", "global_norm",
))
# fmt: on
SIGN_KEEPING: Final = frozenset(("add", "multiply", "divide", "reciprocal", "max", "min"))
