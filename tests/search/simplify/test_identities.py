"""What the algebra says of every instruction, against the instruction itself on numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veldt.search.errors import LoweringError
from veldt.search.language import dataflow
from veldt.search.language.ops import OPS
from veldt.search.program import Program
from veldt.search.simplify import choices, identities
from veldt.search.simplify.forms import Algebra, Atom, FormError

# Elements: exact zeros, ones, tiny, large, and ordinary ones of both signs.
_RNG = np.random.default_rng(3)
TENSORS = {
    "x": np.array([[0.0, 1.0, -1.0, 1e-30], [2.5, -0.3, 7.0, -40.0], *_RNG.normal(size=(2, 4))]),
    "y": np.array([[0.0, 0.0, 2.0, 3.0], [-1e-20, 0.7, 0.0, 11.0], *_RNG.normal(size=(2, 4))]),
}
SCALARS = {"k": np.float64(0.37)}


def compute(op, args):
    """The instruction itself, on one parameter tensor; reductions see tensors at full size."""
    if op.scope != "element":
        shape = TENSORS["x"].shape
        args = [np.broadcast_to(arg, shape) if np.ndim(arg) else arg for arg in args]
    with np.errstate(all="ignore"):
        if op.products:
            return op.fn(np, op.partial(np, *args), *args)
        return op.fn(np, *args)


def evaluate(algebra, form, inputs):
    """A form's value, by the meaning of sums and powers in `forms.py`."""
    total = 0.0
    with np.errstate(all="ignore"):
        for monomial, coefficient in form.terms:
            term = coefficient
            for index, odd, exponent in monomial:
                atom = algebra.atoms[index]
                if atom.op == "input":
                    base = inputs[atom.label]
                elif atom.op == "sum":
                    base = evaluate(algebra, atom.args[0], inputs)
                else:
                    args = [evaluate(algebra, arg, inputs) for arg in atom.args]
                    while len(args) > OPS[atom.op].arity:  # max and min of many
                        args[:2] = [compute(OPS[atom.op], args[:2])]
                    base = compute(OPS[atom.op], args)
                size = np.abs(base) ** exponent
                term = term * np.where(base == 0, 0.0, size * np.sign(base) ** odd)
            total = total + term
    return total


def leaf(algebra, name):
    if name in TENSORS:
        return algebra.atom(Atom("input", (), name)), TENSORS[name]
    bounds = (1e-6, 1.0 - 1e-6)
    atom = Atom("input", (), name, kind="scalar", bounds=bounds, constant=True, uniform=True)
    return algebra.atom(atom), SCALARS[name]


def arguments(algebra, op, first):
    """Arguments of the kinds that an op wants, `first` among them."""
    others = [leaf(algebra, "y"), leaf(algebra, "k"), leaf(algebra, "x")]
    scalar = leaf(algebra, "k")
    given = [scalar if kind == "scalar" else others[i] for i, kind in enumerate(op.kinds)]
    for place, kind in enumerate(op.kinds):
        if (algebra.kind(first[0]) == "scalar") <= (kind != "tensor") and kind != "scalar":
            yield [*given[:place], first, *given[place + 1 :]]
    if op.arity == 2 and op.kinds[1] != "scalar":
        yield [first, first]


def assert_equal(algebra, form, expected):
    actual = evaluate(algebra, form, TENSORS | SCALARS)
    expected = np.asarray(expected)
    # Where nothing overflowed or underflowed on the way.
    size = np.abs(expected)
    fine = (
        np.isfinite(expected)
        & np.isfinite(actual)
        & (size < 1e100)
        & ((size == 0) | (size > 1e-100))
    )
    expected, actual = np.broadcast_arrays(expected, actual)
    # arccos(1 - 1e-16) is 1e-8.
    np.testing.assert_allclose(actual[fine], expected[fine], rtol=1e-7, atol=1e-7)


def check_composed(outer, inner):
    """Checks `outer` on the result of `inner`; returns how many ways there are to do so."""
    algebra = Algebra()
    start = leaf(algebra, "x") if OPS[inner].kinds else None
    checked = 0
    for inner_args in arguments(algebra, OPS[inner], start) if start else [[]]:
        try:
            form = identities.apply(algebra, inner, [form for form, _ in inner_args])
        except (FormError, LoweringError):
            continue
        value = compute(OPS[inner], [number for _, number in inner_args])
        assert_equal(algebra, form, value)
        if np.max(np.abs(value), where=~np.isnan(value), initial=0.0) > 1e5:
            continue
        for args in arguments(algebra, OPS[outer], (form, value)):
            try:
                result = identities.apply(algebra, outer, [form for form, _ in args])
            except (FormError, LoweringError):
                continue
            expected = np.asarray(compute(OPS[outer], [number for _, number in args]))
            assert_equal(algebra, result, expected)
            low, high = algebra.bounds(result)
            seen = expected[np.isfinite(expected)]
            slack = 1e-6 * np.abs(seen)
            assert np.all(seen >= low - slack) and np.all(seen <= high + slack)
            checked += 1
    return checked


# Other shapes are opaque to the algebra, and so is what amplifies rounding.
AMPLIFYING = ("orthogonalize", "polar", "nuclear_norm", "sinkhorn")
NAMES = [name for name, op in OPS.items() if op.scope != "shape" and name not in AMPLIFYING]
PARTS = 8


@pytest.mark.parametrize(
    "part", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in range(1, PARTS))]
)
def test_every_instruction_on_the_result_of_every_other(part):
    for position, outer in enumerate(NAMES):
        inners = [name for i, name in enumerate(NAMES) if (i + position) % PARTS == part]
        checked = sum(check_composed(outer, inner) for inner in inners)
        assert checked or not OPS[outer].arity, outer


numbers = st.sampled_from([0.0, 1.0, -1.0, 0.5, 2.0, -3.0, 0.9, 1e-8]) | st.floats(-10.0, 10.0)
POWERS = (
    "multiply",
    "divide",
    "square",
    "sqrt",
    "abs",
    "sign",
    "reciprocal",
    "add",
    "cbrt",
    "negative",
)


@given(st.lists(st.tuples(st.sampled_from(POWERS), st.integers(0, 4), numbers), max_size=8))
def test_long_chains_of_powers_and_sums_keep_their_value(chain):
    algebra = Algebra()
    values = [leaf(algebra, "x"), leaf(algebra, "y"), leaf(algebra, "k")]
    for name, which, number in chain:
        try:
            other = values[which] if which < len(values) else (algebra.number(number), number)
            args = [values[-1], other][: OPS[name].arity]
            value = compute(OPS[name], [number for _, number in args])
            form = identities.apply(algebra, name, [form for form, _ in args])
        except FormError:
            return
        size = np.abs(value)
        if np.any((size > 1e6) | (size < 1e-6) & (size > 0)):  # cancelled, or soon out of range
            return
        values.append((form, value))
        assert_equal(algebra, form, value)


def are_one(*texts):
    """Whether two expressions in w, g, m and v have one form."""
    lines = "".join(f"    x{i} = {text}\n" for i, text in enumerate(texts))
    flow = dataflow.lower(
        Program.parse(f"def f(w, g, m, v):\n{lines}    return where(w, x0, x1), m, v\n")
    )
    _, one, other = flow.node(flow.update).args
    values, of = choices.values_of(Algebra(), flow, {}, frozenset())
    return values.forms[of[one]] == values.forms[of[other]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("m / sqrt(m * m)", "sign(m)"),
        ("m / abs(m)", "sign(m)"),
        ("abs(g) * sign(g)", "g"),
        ("g * m / (m * m)", "g / m"),
        ("(g + m) / (2.0 * g + 2.0 * m) * (g + m)", "0.5 * (g + m)"),
        ("interp(g, interp(g, m, 0.9), 0.5)", "interp(g, m, 0.45)"),
        ("sqrt(dot(g, g))", "norm(g)"),
        ("dot(g, m) / (norm(g) * norm(m))", "cosine_sim(g, m)"),
        ("norm(-3.0 * g)", "3.0 * norm(g)"),
        ("mean(2.0 * g - m)", "2.0 * mean(g) - mean(m)"),
        ("max(max(g, m), g)", "max(m, g)"),
        ("max(g, -g)", "abs(g)"),
        ("min(max(g, 2.0), max(3.0, 5.0))", "min(5.0, max(2.0, g))"),
        ("where(invert(g), m, v)", "where(g, v, m)"),
        ("cos(-g)", "cos(abs(g))"),
        ("sin(-2.0 * g)", "-sin(2.0 * g)"),
        ("abs(exp(g))", "exp(g)"),
        ("where(exp(g) + 1.0, m, v)", "m"),
        ("(g + 1e-3) * square(1.0 / cube(m)) * m ** 6.0", "(g + 1e-3) * abs(m / m)"),
    ],
)
def test_equal_expressions_have_one_form(one, other):
    assert are_one(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("g / g", "1.0"),  # 0 at 0
        ("sqrt(g * g)", "g"),
        ("square(sqrt(g))", "g"),
        ("m * (g / g)", "m"),
        ("g ** 1.0", "g"),
        ("g ** -1.0", "1.0 / abs(g)"),  # infinite at 0, and not 0
        ("exp(log(g))", "abs(g)"),  # log is bounded from below
        ("g - 1e-9 * g", "g"),
        ("max(g, 0.0)", "abs(g)"),
    ],
)
def test_what_is_not_equal_keeps_apart(one, other):
    assert not are_one(one, other)
