"""The instruction set, as one table: `OPS`.

The 45 functions of Lion's search space (Chen et al. 2023, arXiv 2302.06675, appendix H, as released
in google/automl `hero/fn_lib.py` and `core.py`) with their defects corrected, plus comparison,
`where`, the per-tensor reductions `mean` and `amax`, and ops that rules over whole matrices need.
The defects were: `cbrt` returned a function; `invert` was bitwise and so never valid on floats
(here: logical not); `interp` demanded a scalar first argument; `power` was not mapped over trees.

Every op is written once, against an array module `xp` that is NumPy (in probes) or jax.numpy (in
training), and is *total*: it returns a value for every input. Where IEEE arithmetic would already
give NaN on ordinary inputs (0/0 of a parameter that never gets a gradient, the logarithm of a
negative number, arcsin outside its domain) a guard defines the result. Overflow gives infinity,
which training reports as a status. Derivatives with respect to a program's constants are meant to
stay finite too: that of a root at 0 is 0 (`veldt.tasks.common.safe_math`).

On the same arguments, float32 results are within `FLOAT32_TOLERANCE` of float64's, in NumPy and in
every JAX that veldt supports; arguments and results below float32's normal numbers may be treated
as 0.

Scopes: an `element` op works element by element; a `tensor` op reduces each parameter tensor to one
number; a `global` op reduces over all parameter tensors: `partial` gives each tensor's
contributions, which are added, and `fn` gets the totals first. A `matrix` op works on each tensor as
a matrix, whose rows lie along the last axis and whose columns go through all others (`shapes.py`),
and gives one that fits it, or a number; a `shape` op takes or gives values of other shapes. What
works on whole matrices is in `matrix_functions.py` and `sketching.py`.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, final

import jax
import jax.numpy as jnp

from veldt.learned_opt.blocks import newton_schulz
from veldt.search.language import matrix_functions, sketching
from veldt.search.language.types import ArrayModule
from veldt.tasks.common import spelling
from veldt.tasks.common.safe_math import safe_sqrt

FLOAT32_TOLERANCE: Final = 2.0**-16  # 128 units in the last place; exp10 needs 65 of them.

ArgKind = Literal["any", "tensor", "scalar"]
Scope = Literal["element", "tensor", "global", "matrix", "shape"]

_LION = "Lion appendix H"
_VELDT = "veldt"
_ADAFACTOR = "Adafactor, arXiv 1804.04235"
_SHAMPOO = "Shampoo, arXiv 1802.09568"
_SIDES = (
    "a square matrix of a vector or of a side beyond 8192 is one number, the mean of its diagonal"
)

# A float32 number: without a bound, saturation differs from that of float64 by its rounding, which
# the slope there multiplies (of arctanh by 5e5).
_BELOW_1: Final = 1.0 - 2.0**-20
# Number of halvings in `clip_by_quantile`: to float32's resolution of the largest entry.
_HALVINGS: Final = 24


@final
@dataclass(frozen=True, slots=True)
class Op:
    """One row of the instruction set.

    Attributes:
      name: Name of the op in a program.
      kinds: Kinds that each argument may have; one for each argument.
      fn: Function `fn(xp, *args)`; `fn(xp, totals, *args)` for a global op, and
        `fn(xp, shape, *args)` where `takes_shape`. Element ops broadcast.
      scope: Part of the parameters that the op works on at once (module docstring).
      guard: Result where plain arithmetic would fail.
      source: Origin of the op: a paper, or veldt.
      symbol: Infix form of the op, if it has one.
      commutative: Whether the two arguments may be swapped.
      products: Pairs of arguments of a global op: each product, summed over all tensors, is one of
        the totals.
      gives_scalar: Whether the result is a scalar for all arguments.
      takes_shape: Whether the function needs the parameter's shape (R, C).
      is_dear: Whether one call costs about as much as a training step of a small model, so that it
        is worth leaving out where its result is not used (`laziness.py`).
      meaning: Result in a few words, of the arguments x, y and z, where name and guard do not say
        it.
    """

    name: str
    kinds: tuple[ArgKind, ...]
    fn: Callable[..., Any]
    scope: Scope = "element"
    guard: str = ""
    source: str = _LION
    symbol: str | None = None
    commutative: bool = False
    products: tuple[tuple[int, int], ...] = ()
    gives_scalar: bool = False
    takes_shape: bool = False
    is_dear: bool = False
    meaning: str = ""

    @property
    def arity(self) -> int:
        return len(self.kinds)

    def partial(self, xp: ArrayModule, *args: Any) -> tuple[Any, ...]:
        """Return one tensor's contributions to the totals of a global op."""
        return tuple(xp.sum(args[i] * args[j]) for i, j in self.products)


def _divide(xp: ArrayModule, x: Any, y: Any) -> Any:
    zero = y == 0
    # The inner `where` keeps NaN out of derivatives too.
    return xp.where(zero, 0.0, x / xp.where(zero, 1.0, y))


def _abs_floor(xp: ArrayModule, x: Any) -> Any:
    """Return |x| kept above the smallest normal float32, so that a logarithm stays finite."""
    return xp.maximum(xp.abs(x), 2.0**-126)


def _interp(xp: ArrayModule, x: Any, y: Any, a: Any) -> Any:
    return (1.0 - a) * x + a * y


def _cosine_sim(xp: ArrayModule, x: Any, y: Any) -> Any:
    norms = safe_sqrt(xp, xp.sum(x * x)) * safe_sqrt(xp, xp.sum(y * y))
    return _divide(xp, xp.sum(x * y), norms)


def _clip_by_global_norm(xp: ArrayModule, totals: tuple[Any], x: Any, limit: Any) -> Any:
    norm = safe_sqrt(xp, totals[0])
    return xp.where(norm > limit, x * _divide(xp, limit, norm), x)


def _global_cosine(xp: ArrayModule, totals: tuple[Any, Any, Any], x: Any, y: Any) -> Any:
    product, *squares = totals
    return _divide(xp, product, safe_sqrt(xp, squares[0]) * safe_sqrt(xp, squares[1]))


def _every(xp: ArrayModule, x: Any, period: Any) -> Any:
    period = xp.maximum(xp.round(xp.abs(period)), 1.0)
    return xp.where(xp.mod(xp.round(x), period) == 0, 1.0, 0.0)


def _row_axes(x: Any) -> tuple[int, ...]:
    """Return the axes of a reduction of each row: the last axis; none for a single number."""
    return tuple(range(x.ndim))[-1:]


def _column_axes(x: Any) -> tuple[int, ...]:
    """Return the axes of a reduction of each column: all axes before the last."""
    return tuple(range(x.ndim))[:-1]


def _row_mean(xp: ArrayModule, x: Any) -> Any:
    return xp.mean(x, axis=_row_axes(x), keepdims=True)


def _column_mean(xp: ArrayModule, x: Any) -> Any:
    return xp.mean(x, axis=_column_axes(x), keepdims=True)


def _row_norm(xp: ArrayModule, x: Any) -> Any:
    return safe_sqrt(xp, xp.sum(x * x, axis=_row_axes(x), keepdims=True))


def _column_norm(xp: ArrayModule, x: Any) -> Any:
    return safe_sqrt(xp, xp.sum(x * x, axis=_column_axes(x), keepdims=True))


def _factored(xp: ArrayModule, x: Any) -> Any:
    return _divide(xp, _row_mean(xp, x) * _column_mean(xp, x), xp.mean(x))


def _clip_by_quantile(xp: ArrayModule, x: Any, share: Any) -> Any:
    """Clip |x| at a quantile; the interval is halved and its upper end always covers the share."""
    size = xp.abs(x)

    def halve(_: int, ends: tuple[Any, Any]) -> tuple[Any, Any]:
        low, high = ends
        middle = 0.5 * (low + high)
        covers = xp.mean(xp.where(size <= middle, 1.0, 0.0)) >= share
        return xp.where(covers, low, middle), xp.where(covers, middle, high)

    largest = xp.max(size)
    ends = (xp.zeros_like(largest), largest)
    if xp is jnp:
        _, limit = jax.lax.fori_loop(0, _HALVINGS, halve, ends)
    else:
        for iteration in range(_HALVINGS):
            ends = halve(iteration, ends)
        _, limit = ends
    return xp.clip(x, -limit, limit)


def as_matrix(x: Any) -> Any:
    """Return a parameter-shaped array as [R, C]; see `shapes.py`."""
    return x.reshape(-1, x.shape[-1]) if x.ndim else x.reshape(1, 1)


def _orthogonalize(xp: ArrayModule, x: Any) -> Any:
    return newton_schulz.orthogonalize(as_matrix(x), xp=xp).reshape(x.shape)


def _polar(xp: ArrayModule, x: Any) -> Any:
    return matrix_functions.polar(xp, as_matrix(x)).reshape(x.shape)


def _sinkhorn(xp: ArrayModule, x: Any) -> Any:
    return matrix_functions.sinkhorn(xp, as_matrix(x)).reshape(x.shape)


def _nuclear_norm(xp: ArrayModule, x: Any) -> Any:
    return matrix_functions.nuclear_norm(xp, as_matrix(x))


def _unary(name: str, fn: Callable[[ArrayModule, Any], Any], guard: str = "") -> Op:
    return Op(name, ("any",), fn, guard=guard)


_ROWS: tuple[Op, ...] = (
    # --- constants of the paper (arity 0)
    Op("get_pi", (), lambda xp: math.pi, meaning="pi"),
    Op("get_e", (), lambda xp: math.e, meaning="e"),
    Op("get_eps", (), lambda xp: 1e-8, guard="1e-8"),
    # --- arithmetic
    Op("add", ("any", "any"), lambda xp, x, y: x + y, symbol="+", commutative=True),
    Op("subtract", ("any", "any"), lambda xp, x, y: x - y, symbol="-"),
    Op("multiply", ("any", "any"), lambda xp, x, y: x * y, symbol="*", commutative=True),
    Op("divide", ("any", "any"), _divide, symbol="/", guard="x / 0 = 0"),
    Op("power", ("any", "any"), lambda xp, x, y: xp.power(xp.abs(x), y), symbol="**", guard="|x| ** y"),
    Op("max", ("any", "any"), lambda xp, x, y: xp.maximum(x, y), commutative=True, meaning="larger of the two"),
    Op("min", ("any", "any"), lambda xp, x, y: xp.minimum(x, y), commutative=True, meaning="smaller of the two"),
    # --- element by element
    _unary("negative", lambda xp, x: -x),
    _unary("abs", lambda xp, x: xp.abs(x)),
    _unary("sign", lambda xp, x: xp.sign(x), guard="sign(0) = 0"),
    _unary("square", lambda xp, x: x * x),
    _unary("cube", lambda xp, x: x * x * x),
    _unary("sqrt", lambda xp, x: safe_sqrt(xp, xp.abs(x)), guard="sqrt(|x|)"),
    _unary("cbrt", lambda xp, x: xp.cbrt(x)),
    _unary("reciprocal", lambda xp, x: _divide(xp, 1.0, x), guard="1 / 0 = 0"),
    _unary("exp", lambda xp, x: xp.exp(x), guard="overflows to inf"),
    _unary("exp2", lambda xp, x: xp.exp2(x), guard="overflows to inf"),
    _unary("exp10", lambda xp, x: xp.exp(x * math.log(10.0)), guard="overflows to inf"),
    _unary("expm1", lambda xp, x: xp.expm1(x), guard="overflows to inf"),
    _unary("log", lambda xp, x: xp.log(_abs_floor(xp, x)), guard="log(|x|), |x| at least 2^-126"),
    _unary("log2", lambda xp, x: xp.log2(_abs_floor(xp, x)), guard="log2(|x|), |x| at least 2^-126"),
    _unary("log10", lambda xp, x: xp.log10(_abs_floor(xp, x)), guard="log10(|x|), |x| at least 2^-126"),
    _unary("log1p", lambda xp, x: xp.log1p(xp.abs(x)), guard="log(1 + |x|)"),
    _unary("sin", lambda xp, x: xp.sin(x)),
    _unary("cos", lambda xp, x: xp.cos(x)),
    _unary("tan", lambda xp, x: xp.tan(x)),
    _unary("arcsin", lambda xp, x: xp.arcsin(xp.clip(x, -1.0, 1.0)), guard="x clipped to [-1, 1]"),
    _unary("arccos", lambda xp, x: xp.arccos(xp.clip(x, -1.0, 1.0)), guard="x clipped to [-1, 1]"),
    _unary("arctan", lambda xp, x: xp.arctan(x)),
    _unary("sinh", lambda xp, x: xp.sinh(x), guard="overflows to inf"),
    _unary("cosh", lambda xp, x: xp.cosh(x), guard="overflows to inf"),
    _unary("tanh", lambda xp, x: xp.tanh(x)),
    _unary("arcsinh", lambda xp, x: xp.arcsinh(x)),
    _unary("arccosh", lambda xp, x: xp.arccosh(xp.maximum(x, 1.0)), guard="x at least 1"),
    _unary("arctanh", lambda xp, x: xp.arctanh(xp.clip(x, -_BELOW_1, _BELOW_1)), guard="|x| at most 1 - 2^-20"),
    _unary("invert", lambda xp, x: xp.where(x > 0, 0.0, 1.0), guard="logical not: 1 where x <= 0, else 0"),
    # --- comparison and choice; truth is 1.0 and 0.0, and anything above 0 counts as true
    Op("less", ("any", "any"), lambda xp, x, y: xp.where(x < y, 1.0, 0.0), symbol="<", source=_VELDT, guard="NaN: 0", meaning="1 where x < y, else 0"),
    Op("less_equal", ("any", "any"), lambda xp, x, y: xp.where(x <= y, 1.0, 0.0), symbol="<=", source=_VELDT, guard="NaN: 0", meaning="1 where x <= y, else 0"),
    Op("equal", ("any", "any"), lambda xp, x, y: xp.where(x == y, 1.0, 0.0), symbol="==", source=_VELDT, commutative=True, meaning="1 where x == y, else 0"),
    Op("where", ("any", "any", "any"), lambda xp, c, x, y: xp.where(c > 0, x, y), source=_VELDT, guard="NaN condition: the last", meaning="y where x > 0, else z"),
    Op("interp", ("any", "any", "any"), _interp, guard="(1 - z) * x + z * y", meaning="average that keeps the share z of y, as in m = interp(g, m, 0.9)"),
    Op("every", ("any", "any"), _every, source=_VELDT, guard="1 where x is a multiple of y; both rounded, |y| at least 1"),
    # --- per parameter tensor
    Op("norm", ("tensor",), lambda xp, x: safe_sqrt(xp, xp.sum(x * x)), scope="tensor", gives_scalar=True, meaning="square root of the sum of squares"),
    Op("mean", ("tensor",), lambda xp, x: xp.mean(x), scope="tensor", gives_scalar=True, source=_VELDT, meaning="mean of the entries"),
    Op("amax", ("tensor",), lambda xp, x: xp.max(x), scope="tensor", gives_scalar=True, source=_VELDT, meaning="largest entry"),
    Op("dot", ("tensor", "tensor"), lambda xp, x, y: xp.sum(x * y), scope="tensor", gives_scalar=True, commutative=True, meaning="sum of x * y"),
    Op("cosine_sim", ("tensor", "tensor"), _cosine_sim, scope="tensor", gives_scalar=True, commutative=True, guard="0 where a norm is 0", meaning="dot(x, y) / (norm(x) * norm(y))"),
    # --- over all parameter tensors
    Op("global_norm", ("tensor",), lambda xp, totals, x: safe_sqrt(xp, totals[0]), scope="global", gives_scalar=True, products=((0, 0),), meaning="norm over all tensors together"),
    Op("clip_by_global_norm", ("tensor", "scalar"), _clip_by_global_norm, scope="global", products=((0, 0),), guard="unchanged at norm 0", meaning="x scaled down so that its global_norm is at most y"),
    Op("global_dot", ("tensor", "tensor"), lambda xp, totals, x, y: totals[0], scope="global", gives_scalar=True, commutative=True, products=((0, 1),), source=_VELDT, meaning="dot over all tensors together"),
    Op("global_cosine", ("tensor", "tensor"), _global_cosine, scope="global", gives_scalar=True, commutative=True, products=((0, 1), (0, 0), (1, 1)), source=_VELDT, guard="0 where a norm is 0", meaning="cosine_sim over all tensors together"),
    # --- per parameter tensor as a matrix
    Op("row_mean", ("tensor",), _row_mean, scope="matrix", source=_ADAFACTOR, meaning="mean of each row, along the last axis"),
    Op("column_mean", ("tensor",), _column_mean, scope="matrix", source=_ADAFACTOR, meaning="mean of each column"),
    Op("row_norm", ("tensor",), _row_norm, scope="matrix", source="SCALE, arXiv 2506.16659", meaning="norm of each row, along the last axis"),
    Op("column_norm", ("tensor",), _column_norm, scope="matrix", source="SCALE, arXiv 2506.16659", meaning="norm of each column"),
    Op("row_max", ("tensor",), lambda xp, x: xp.max(x, axis=_row_axes(x), keepdims=True), scope="matrix", source="SM3, arXiv 1901.11150", meaning="largest entry of each row, along the last axis"),
    Op("column_max", ("tensor",), lambda xp, x: xp.max(x, axis=_column_axes(x), keepdims=True), scope="matrix", source="SM3, arXiv 1901.11150", meaning="largest entry of each column"),
    Op("factored", ("tensor",), _factored, scope="matrix", source=_ADAFACTOR, guard="row_mean * column_mean / mean; 0 where the mean is 0", meaning="rank-one estimate of x"),
    Op("clip_by_quantile", ("tensor", "scalar"), _clip_by_quantile, scope="matrix", source=_VELDT, guard="|x| at most its y-quantile, to 2^-24 of the largest", meaning="x clipped by size"),
    Op("orthogonalize", ("tensor",), _orthogonalize, scope="matrix", source="Muon, Jordan et al. 2024", guard="0 stays 0", meaning="x with singular values near 1, by five Newton-Schulz steps as in Muon"),
    Op("polar", ("tensor",), _polar, scope="matrix", source="PolarGrad, arXiv 2505.21799", is_dear=True, guard="singular values below 1.5e-4 of the norm stay below 1; 0 stays 0", meaning="x with singular values 1: U V^T"),
    Op("nuclear_norm", ("tensor",), _nuclear_norm, scope="matrix", gives_scalar=True, source="PolarGrad, arXiv 2505.21799", is_dear=True, guard="the sum of x * polar(x)", meaning="sum of the singular values"),
    Op("sinkhorn", ("tensor",), _sinkhorn, scope="matrix", source="SinkGD, arXiv 2502.06742", guard="five rounds; a row or column of zeros stays", meaning="rows and columns scaled to equal norms"),
    # --- other shapes
    Op("transpose", ("tensor",), lambda xp, x: xp.swapaxes(x, 0, 1), scope="shape", source=_VELDT, meaning="transpose of x"),
    Op("matmul", ("tensor", "tensor"), matrix_functions.product, scope="shape", source=_VELDT, guard=_SIDES, meaning="matrix product of x and y"),
    Op("row_gram", ("tensor",), matrix_functions.row_gram, scope="shape", source=_SHAMPOO, guard=_SIDES, meaning="x times its transpose"),
    Op("column_gram", ("tensor",), matrix_functions.column_gram, scope="shape", source=_SHAMPOO, guard=_SIDES, meaning="transpose of x times x"),
    Op("inverse_root", ("tensor", "scalar", "scalar"), matrix_functions.inverse_root, scope="shape", source=_SHAMPOO, is_dear=True, guard="eigenvalues e become (max(e, 0) + |z|) ** (-1 / y), 0 where that sum is 0", meaning="(x + |z| I) ** (-1 / y) of a symmetric matrix"),
    Op("eigenbasis", ("tensor", "tensor"), matrix_functions.eigenbasis, scope="shape", source="SOAP, arXiv 2409.11321", is_dear=True, guard="y all 0 counts as the identity", meaning="orthonormal factor of x times y, a step of power iteration"),
    Op("sketch", ("tensor", "scalar"), sketching.sketch, scope="shape", source="APOLLO, arXiv 2412.05270", guard="a random cosine basis; y is rounded down", meaning="projection of x on a fourth of its shorter side; y is the seed"),
    Op("unsketch", ("tensor", "scalar"), sketching.unsketch, scope="shape", takes_shape=True, source="GaLore, arXiv 2403.03507", guard="the basis of `sketch`, transposed", meaning="sketch x brought back to the parameter's shape; y is the seed"),
    Op("sketch_norm", ("tensor",), sketching.sketch_norm, scope="shape", takes_shape=True, source="APOLLO, arXiv 2412.05270", meaning="norm of each column of a sketch"),
    # --- histories of numbers
    Op("remember", ("tensor", "scalar"), sketching.remember, scope="shape", source="AutoClip, arXiv 2007.14469", guard="what is not finite is not kept", meaning="history x with the number y added"),
    Op("percentile", ("tensor", "scalar"), sketching.percentile, scope="shape", gives_scalar=True, source="AutoClip, arXiv 2007.14469", guard="of what is not 0; 0 if nothing is", meaning="y-quantile of the history x, y from 0 to 1"),
)  # fmt: skip

OPS: dict[str, Op] = {op.name: op for op in _ROWS}
INFIX: dict[str, Op] = {op.symbol: op for op in _ROWS if op.symbol is not None}
_BASE_SCOPES: Final = ("element", "tensor", "global")
_NOT_IN_BASE: Final = ("every", "global_dot", "global_cosine")
# The ops that the interpreter can run: every value fits a register of one number per parameter.
INTERPRETED: Final[tuple[str, ...]] = tuple(op.name for op in _ROWS if op.scope != "shape")
# The instruction set in parts, with which a search names the ops that it uses (`expand`). "base" is
# Lion's with comparison and `where`; "products" cannot be interpreted. Parts may overlap.
OP_SETS: Final[dict[str, tuple[str, ...]]] = {
    "base": tuple(
        op.name for op in _ROWS if op.scope in _BASE_SCOPES and op.name not in _NOT_IN_BASE
    ),
    # The ops of the shipped rules: no trigonometry, few elementary functions.
    "published": (
        "add",
        "subtract",
        "multiply",
        "divide",
        "power",
        "max",
        "min",
        "negative",
        "abs",
        "sign",
        "square",
        "sqrt",
        "cbrt",
        "exp",
        "less",
        "less_equal",
        "equal",
        "where",
        "interp",
        "every",
        "norm",
        "mean",
        "amax",
        "dot",
        "global_norm",
        "row_mean",
        "column_mean",
        "column_norm",
        "orthogonalize",
    ),
    "periodic": ("every",),
    "axes": (
        "row_mean",
        "column_mean",
        "row_norm",
        "column_norm",
        "row_max",
        "column_max",
        "factored",
    ),
    "quantiles": ("clip_by_quantile",),
    "spectral": ("orthogonalize",),
    "products": ("transpose", "matmul"),
    "globals": ("global_dot", "global_cosine"),
    "whitening": ("polar", "nuclear_norm", "sinkhorn"),
    "grams": ("row_gram", "column_gram", "inverse_root", "eigenbasis"),
    "sketches": ("sketch", "unsketch", "sketch_norm"),
    "history": ("remember", "percentile"),
}


def expand(names: Iterable[str]) -> tuple[str, ...]:
    """Return ops by name or by part of the instruction set, each once; no name means "base".

    Raises:
      ValueError: A name is neither an op nor a part.
    """
    found: dict[str, None] = {}
    for name in tuple(names) or ("base",):
        if name not in OPS and name not in OP_SETS:
            hint = spelling.did_you_mean(name, [*OPS, *OP_SETS])
            raise ValueError(
                f"ops names {name!r}, which is neither an instruction nor a part of the "
                f"instruction set{hint}; parts: {', '.join(OP_SETS)}; "
                f"instructions: {', '.join(OPS)}"
            )
        found |= dict.fromkeys(OP_SETS.get(name, (name,)))
    return tuple(found)
