"""The instruction set against formulas in plain `math`, NumPy against jax.numpy, and totality."""

import functools
import math
from collections.abc import Callable

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st

from veldt.search import rule_sources
from veldt.search.language.ops import FLOAT32_TOLERANCE, INFIX, OP_SETS, OPS, expand
from veldt.search.language.statements import COPY

INF, NAN = math.inf, math.nan
TINY = 2.0**-126
# Where functions change their minds, and ordinary numbers.
POINTS = [
    -INF, -1e5, -88.5, -3.5, -1.0, -0.75, -1e-6, -0.0, 0.0,
    1e-40, 1e-6, 0.3, 0.5, 1.0, 1.5, 2.7, 10.0, 1e5, INF, NAN,
]  # fmt: skip


def clip(x: float, low: float, high: float) -> float:
    return x if math.isnan(x) else min(max(x, low), high)


def log_argument(x: float) -> float:
    return x if math.isnan(x) else max(abs(x), TINY)


def periodic(f: Callable[[float], float]) -> Callable[[float], float]:
    return lambda x: NAN if math.isinf(x) else f(x)


def overflowing(f: Callable[[float], float], below: float) -> Callable[[float], float]:
    """`f` with infinity (on the left: `below`) where math raises OverflowError."""

    def total(x: float) -> float:
        try:
            return f(x)
        except OverflowError:
            return INF if x > 0 else below

    return total


# Written from the definitions; nothing here comes from the table.
UNARY: dict[str, Callable[[float], float]] = {
    "negative": lambda x: -x,
    "abs": math.fabs,
    "sign": lambda x: x if x == 0 or math.isnan(x) else math.copysign(1.0, x),
    "square": lambda x: x * x,
    "cube": lambda x: x * x * x,
    "sqrt": lambda x: math.sqrt(abs(x)),
    "cbrt": lambda x: math.cbrt(x),
    "reciprocal": lambda x: 0.0 if x == 0 else 1.0 / x,
    "exp": overflowing(math.exp, 0.0),
    "exp2": overflowing(lambda x: 2.0**x, 0.0),
    "exp10": overflowing(lambda x: 10.0**x, 0.0),
    "expm1": overflowing(math.expm1, -1.0),
    "log": lambda x: math.log(log_argument(x)),
    "log2": lambda x: math.log2(log_argument(x)),
    "log10": lambda x: math.log10(log_argument(x)),
    "log1p": lambda x: math.log1p(abs(x)),
    "sin": periodic(math.sin),
    "cos": periodic(math.cos),
    "tan": periodic(math.tan),
    "arcsin": lambda x: math.asin(clip(x, -1.0, 1.0)),
    "arccos": lambda x: math.acos(clip(x, -1.0, 1.0)),
    "arctan": math.atan,
    "sinh": overflowing(math.sinh, -INF),
    "cosh": overflowing(math.cosh, INF),
    "tanh": math.tanh,
    "arcsinh": math.asinh,
    "arccosh": lambda x: math.acosh(clip(x, 1.0, INF)),
    "arctanh": lambda x: math.atanh(clip(x, 2.0**-20 - 1.0, 1.0 - 2.0**-20)),
    "invert": lambda x: 0.0 if x > 0 else 1.0,
}


def greatest(x: float, y: float) -> float:
    return NAN if math.isnan(x) or math.isnan(y) else max(x, y)


def power(x: float, y: float) -> float:
    if x == 0 and y < 0:
        return INF
    return overflowing(lambda y: abs(x) ** y, INF)(y)


BINARY: dict[str, Callable[[float, float], float]] = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: 0.0 if y == 0 else x / y,
    "power": power,
    "max": greatest,
    "min": lambda x, y: -greatest(-x, -y),
    "less": lambda x, y: float(x < y),
    "less_equal": lambda x, y: float(x <= y),
    "equal": lambda x, y: float(x == y),
}

# What Lion's appendix H and its released code hold: 45 functions.
LION = [
    "get_pi", "get_e", "get_eps",
    "abs", "cos", "sin", "tan", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh",
    "arcsinh", "arccosh", "arctanh", "exp", "exp2", "exp10", "expm1", "log", "log10", "log2",
    "log1p", "square", "sqrt", "cube", "cbrt", "sign", "reciprocal", "norm", "invert", "negative",
    "global_norm", "interp", "dot", "cosine_sim", "clip_by_global_norm", "power",
    "add", "subtract", "multiply", "divide", "max", "min",
]  # fmt: skip


def both(op: str, *args: np.ndarray) -> np.ndarray:
    """The op in NumPy and in jax.numpy, float64, after checking that they agree."""
    with np.errstate(all="ignore"):
        ours = np.asarray(OPS[op].fn(np, *args), np.float64)
    with jax.enable_x64(True):
        theirs = np.asarray(OPS[op].fn(jnp, *map(jnp.asarray, args)))
    assert theirs.dtype == np.float64
    np.testing.assert_allclose(theirs, ours, rtol=1e-11, atol=1e-15)
    return ours


def test_lions_45_functions_are_all_there() -> None:
    assert len(LION) == 45
    assert {name for name, op in OPS.items() if op.source == "Lion appendix H"} == set(LION)
    base = {"less", "less_equal", "equal", "where", "mean", "amax"}
    assert set(OP_SETS["base"]) - set(LION) == base
    # Each op is in one part, but for "published", which cuts across them.
    parts = [names for part, names in OP_SETS.items() if part != "published"]
    assert sorted(name for names in parts for name in names) == sorted(OPS)
    assert set(UNARY) | set(BINARY) < set(OPS)


@pytest.mark.parametrize("op", UNARY)
def test_unary(op: str) -> None:
    expected = [UNARY[op](x) for x in POINTS]
    np.testing.assert_allclose(both(op, np.array(POINTS)), expected, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("op", BINARY)
def test_binary(op: str) -> None:
    pairs = [(x, y) for x in POINTS for y in POINTS]
    x, y = np.array(pairs).T
    expected = [BINARY[op](a, b) for a, b in pairs]
    np.testing.assert_allclose(both(op, x, y), expected, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("op", [*UNARY, *BINARY])
def test_float32_is_as_near_to_float64_as_the_table_states(op: str) -> None:
    """In NumPy and in the JAX that is installed: guards saturate at the same value in both."""
    points = np.float32([x for x in POINTS if not 0 < abs(x) < TINY])
    points = np.concatenate([points, np.nextafter(points, np.float32(0))])
    points = points[(points == 0) | ~(np.abs(points) < TINY)]
    args = [arg.ravel() for arg in np.meshgrid(*[points] * OPS[op].arity)]
    with np.errstate(all="ignore"):
        exact = np.asarray(OPS[op].fn(np, *map(np.float64, args)))
        ours = np.float64(OPS[op].fn(np, *args))
        exact = np.where(np.abs(exact) > np.finfo(np.float32).max, np.copysign(INF, exact), exact)
    theirs = np.float64(jax.jit(functools.partial(OPS[op].fn, jnp))(*args))
    for found in (ours, theirs):
        np.testing.assert_allclose(found, exact, rtol=FLOAT32_TOLERANCE, atol=2 * TINY)


def test_constants() -> None:
    assert [float(both(op)) for op in ("get_pi", "get_e", "get_eps")] == [math.pi, math.e, 1e-8]


def test_where_and_interp() -> None:
    condition = np.array([1.0, 0.5, 0.0, -1.0, NAN])
    np.testing.assert_array_equal(
        both("where", condition, np.ones(5), np.zeros(5)), [1, 1, 0, 0, 0]
    )
    x, y, a = np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.array(0.25)
    np.testing.assert_allclose(both("interp", x, y, a), [1.5, 2.5])


X = np.array([[3.0, -4.0], [0.0, 12.0]])
Y = np.array([[1.0, 0.5], [2.0, -1.0]])


def test_reductions_over_a_tensor() -> None:
    assert both("norm", X) == 13.0
    assert both("mean", X) == 2.75
    assert both("amax", X) == 12.0
    assert both("dot", X, Y) == -11.0
    np.testing.assert_allclose(both("cosine_sim", X, Y), -11.0 / (13.0 * math.sqrt(6.25)))
    assert both("cosine_sim", X, 0.0 * Y) == 0.0
    for op in ("norm", "mean", "amax"):
        assert both(op, np.array(-2.0)).shape == ()


Z = np.arange(24.0).reshape(2, 3, 4) - 7.0


def test_reductions_over_rows_and_columns() -> None:
    """Rows lie along the last axis; what is left broadcasts to the tensor."""
    matrix = Z.reshape(6, 4)
    for op, reduce in (
        ("mean", np.mean),
        ("max", np.max),
        ("norm", lambda x, axis: np.sqrt(np.sum(x**2, axis=axis))),
    ):
        rows, columns = both(f"row_{op}", Z), both(f"column_{op}", Z)
        assert rows.shape == (2, 3, 1) and columns.shape == (1, 1, 4)
        np.testing.assert_allclose(rows.ravel(), reduce(matrix, axis=1))
        np.testing.assert_allclose(columns.ravel(), reduce(matrix, axis=0))
        # A vector is one row, a number is one by one.
        vector, number = Z[0, 0], np.array(-2.0)
        np.testing.assert_allclose(both(f"row_{op}", vector), [reduce(vector, axis=0)])
        expected = [reduce(x[None], axis=0) for x in vector]
        np.testing.assert_allclose(both(f"column_{op}", vector), expected)
        assert both(f"row_{op}", number).shape == both(f"column_{op}", number).shape == ()


def test_factored_is_exact_for_outer_products_and_vectors() -> None:
    outer = np.outer([1.0, 2.0, 0.5], [3.0, 0.1])
    np.testing.assert_allclose(both("factored", outer), outer)
    np.testing.assert_allclose(both("factored", Z[0, 0]), Z[0, 0])
    np.testing.assert_array_equal(both("factored", 0.0 * outer), 0.0 * outer)
    squares = (Z**2).reshape(6, 4)
    expected = np.outer(squares.mean(1), squares.mean(0)) / squares.mean()
    np.testing.assert_allclose(both("factored", Z**2).reshape(6, 4), expected)


@hypothesis.given(
    st.lists(st.floats(-100.0, 100.0, width=32), min_size=1, max_size=30), st.floats(0.01, 1.0)
)
def test_clips_at_the_quantile(values: list[float], share: float) -> None:
    """The least size that covers the share, from sorting, to 2^-24 of the largest."""
    x = np.array(values)
    sizes = np.sort(np.abs(x))
    limit = sizes[math.ceil(share * len(x) - 1e-12) - 1]
    clipped = OPS["clip_by_quantile"].fn(np, x, share)
    np.testing.assert_allclose(clipped, np.clip(x, -limit, limit), atol=2.0**-23 * sizes[-1])
    if share == 1.0:
        np.testing.assert_array_equal(clipped, x)


def test_clips_alike_in_numpy_and_jax() -> None:
    both("clip_by_quantile", Z, np.array(0.8))


def test_orthogonalizes_as_optax_does() -> None:
    matrix = np.sin(Z * Z).reshape(6, 4)
    for x in (matrix, matrix.T, matrix.reshape(2, 3, 4)):
        ours = both("orthogonalize", x)
        with jax.enable_x64(True):
            theirs = optax.contrib._muon.orthogonalize_via_newton_schulz(
                jnp.asarray(x.reshape(-1, x.shape[-1])), jnp.array([3.4445, -4.7750, 2.0315])
            )
        np.testing.assert_allclose(ours, np.reshape(theirs, x.shape), rtol=1e-9)
    np.testing.assert_array_equal(both("orthogonalize", 0.0 * matrix), 0.0 * matrix)


def test_every() -> None:
    steps = np.arange(1.0, 9.0)
    np.testing.assert_array_equal(both("every", steps, np.array(3.0)), [0, 0, 1, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(both("every", steps, np.array(-2.6)), [0, 0, 1, 0, 0, 1, 0, 0])
    for once in (0.0, 1.0, 0.3):  # periods below 1 are 1
        np.testing.assert_array_equal(both("every", steps, np.array(once)), np.ones(8))
    for never in (NAN, INF):
        np.testing.assert_array_equal(both("every", steps, np.array(never)), np.zeros(8))


def test_products() -> None:
    np.testing.assert_allclose(both("matmul", X, Y), [[-5.0, 5.5], [24.0, -12.0]])
    np.testing.assert_array_equal(both("transpose", X), [[3.0, 0.0], [-4.0, 12.0]])


def test_parts_of_the_instruction_set() -> None:
    assert not set(OP_SETS) & set(OPS)  # a name means one thing
    assert expand(()) == OP_SETS["base"]
    assert expand(("sign", "products", "sign")) == ("sign", "transpose", "matmul")
    with pytest.raises(ValueError, match=r"'axs', which is neither.*did you mean 'axes'"):
        expand(("axs",))


def test_reductions_over_all_tensors() -> None:
    leaves = [X, Y, np.array(-2.0)]
    totals = (sum(OPS["global_norm"].partial(np, leaf)[0] for leaf in leaves),)
    norm = math.sqrt(169.0 + 6.25 + 4.0)
    np.testing.assert_allclose(OPS["global_norm"].fn(np, totals, X), norm)
    clipped = OPS["clip_by_global_norm"].fn(np, totals, X, 1.0)
    np.testing.assert_allclose(clipped, X / norm)
    np.testing.assert_array_equal(OPS["clip_by_global_norm"].fn(np, totals, X, 20.0), X)
    np.testing.assert_array_equal(OPS["clip_by_global_norm"].fn(np, (0.0,), 0.0 * X, 0.0), 0.0 * X)


def test_products_over_all_tensors() -> None:
    """The dot product and the cosine of two trees are those of the vectors that they make."""
    pairs = [(X, Y), (Z, np.cos(Z)), (np.array(-2.0), np.array(0.5))]
    left, right = (np.concatenate([np.ravel(pair[i]) for pair in pairs]) for i in (0, 1))
    for name, expected in (
        ("global_dot", left @ right),
        ("global_cosine", left @ right / np.linalg.norm(left) / np.linalg.norm(right)),
    ):
        parts = [OPS[name].partial(np, *pair) for pair in pairs]
        totals = tuple(map(sum, zip(*parts, strict=True)))
        for x, y in pairs:
            np.testing.assert_allclose(OPS[name].fn(np, totals, x, y), expected, rtol=1e-12)
    assert OPS["global_cosine"].fn(np, (0.0, 0.0, 4.0), 0.0 * X, Y) == 0.0


def test_infix_forms() -> None:
    assert {symbol: op.name for symbol, op in INFIX.items()} == {
        "+": "add", "-": "subtract", "*": "multiply", "/": "divide", "**": "power",
        "<": "less", "<=": "less_equal", "==": "equal",
    }  # fmt: skip
    # What the table calls commutative is.
    for name, op in OPS.items():
        if op.commutative and op.scope != "global":
            np.testing.assert_array_equal(op.fn(np, X, Y), op.fn(np, Y, X), err_msg=name)


wild = st.floats(width=32) | st.sampled_from(POINTS)


@hypothesis.given(
    st.lists(st.tuples(wild, wild, wild), min_size=1, max_size=6), st.sampled_from(list(OPS))
)
def test_every_op_is_total(rows: list[tuple[float, float, float]], name: str) -> None:
    """Any numbers whatever: a value comes out, of the arguments' dtype, without a warning."""
    op = OPS[name]
    args = list(np.array(rows, np.float32).T[: op.arity])
    if name in ("clip_by_global_norm", "clip_by_quantile"):
        args[1] = args[1][0]
    if op.scope == "shape" and name not in ("remember", "percentile"):
        args = [np.broadcast_to(arg, (len(rows), len(rows))) for arg in args]
    if op.scope == "shape":
        kinds = zip(args, op.kinds, strict=True)
        args = [np.ravel(arg)[0] if kind == "scalar" else arg for arg, kind in kinds]
    for xp in (np, jnp):
        with np.errstate(all="ignore"):
            values = [xp.asarray(arg) for arg in args]
            before = (op.partial(xp, *values),) if op.products else ()
            before += (2 * (len(rows),),) if op.takes_shape else ()
            if name in ("unsketch", "sketch_norm"):
                values[0] = values[0][: -(-len(rows) // 4)]
            result = xp.asarray(op.fn(xp, *before, *values))
        assert (
            result.dtype == np.float32
            or op.arity == 0
            or name in ("less", "less_equal", "equal", "invert", "every")
        )
        if op.gives_scalar or op.arity == 0:
            assert result.shape == ()
        elif name == "sketch":
            assert result.shape == (-(-len(rows) // 4), len(rows))
        elif name.startswith("row_") and op.scope == "matrix":  # one number for the one row
            assert result.shape == (1,)
        else:
            assert result.shape == args[0].shape


def test_guards_keep_nan_out_where_inputs_are_finite() -> None:
    """A parameter that never gets a gradient must not poison the run."""
    zeros = np.zeros(3)
    for name, op in OPS.items():
        if op.scope == "element" and op.arity:
            assert np.all(np.isfinite(both(name, *[zeros] * op.arity))), name


def test_the_derivative_of_division_by_zero_is_zero() -> None:
    slope = jax.grad(lambda x: OPS["divide"].fn(jnp, 1.0, x) + OPS["reciprocal"].fn(jnp, x))(0.0)
    assert float(slope) == 0.0


def test_the_published_part_is_what_the_shipped_rules_are_made_of() -> None:
    programs = (rule_sources.load_rule(name) for name in rule_sources.RULE_NAMES)
    used = {statement.op for program in programs for statement in program.statements}
    later = ("globals", "whitening", "grams", "sketches", "history", "products")
    new = {name for part in later for name in OP_SETS[part]}
    # The warm-up of spam has a cosine; searches that draw from this part are without trigonometry.
    assert set(OP_SETS["published"]) == used - {COPY, "cos"} - new
