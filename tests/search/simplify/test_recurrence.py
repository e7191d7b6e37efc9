"""What holds of slots at every step: guessed from a run, kept only where induction proves it."""

import pytest

from veldt.search.program import Program
from veldt.search.simplify import choices, recurrence, verification
from veldt.search.simplify.forms import Algebra, Atom, FormError


def facts(body, slots):
    program = Program.parse(f"def f(w, g, {slots}):\n    {body}\n    return u, {slots}\n")
    flow = program.lower()

    def lower(algebra, inputs):
        return choices.values_of(algebra, flow, inputs, frozenset())

    return recurrence.find(flow, verification.trace(flow), lower)


@pytest.mark.parametrize(
    ("body", "multiples"),
    [
        ("m = g + 0.9 * m\n    v = interp(g, v, 0.9)\n    u = m + v", {"v": ("m", 0.1)}),
        ("m = g - m\n    v = v - g\n    u = m + v", {}),
        ("m = g - m\n    v = -g - v\n    u = m + v", {"v": ("m", -1.0)}),
        # each is zero because the other is
        (
            "x = v * g\n    v = m * w\n    m = x\n    u = m + v + g",
            {"m": ("m", 0.0), "v": ("v", 0.0)},
        ),
        # equal until far beyond the run
        ("m = interp(g, m, 0.9)\n    v = where(step < 1e4, m, g)\n    u = m + v", {}),
    ],
)
def test_multiples_of_other_slots(body, multiples):
    assert dict(facts(body, "m, v").multiples) == multiples


@pytest.mark.parametrize(
    ("new", "nonnegative"),
    [
        ("interp(square(g), m, 0.9)", True),
        ("max(m, abs(g))", True),
        ("m + exp(w) - 1e-30", False),  # true of the run, but it does not follow
        ("interp(square(g), m, 1.5)", False),
        ("m + g", False),
    ],
)
def test_slots_that_are_never_negative(new, nonnegative):
    found = facts(f"m = {new}\n    u = m", "m")
    assert (found.nonnegative == {"m"}) == nonnegative


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(
    ("constant", "is_offered"),
    [("0.1", True), ("1e-10", True), ("1e12", True), ("1e-25", False), ("1e25", False)],
)
def test_a_slot_is_not_kept_at_a_scale_whose_square_is_no_float32(constant, is_offered, named):
    c, parameters = ("c", f", *, c={constant}") if named else (constant, "")
    flow = Program.parse(
        f"def f(w, g, m{parameters}):\n    m = {c} * interp(g, m, 0.9)\n    return m / {c}, m\n"
    ).lower()
    algebra = Algebra()
    atom = Atom("constant", label="c", kind="scalar", bounds=(1e-99, 1e99), constant=True)
    named_c = algebra.atom(atom)
    values, of = choices.values_of(algebra, flow, {"c": named_c}, frozenset())
    scales = [scale for _, scale in recurrence.scales(values, flow, of)]
    wanted = named_c if named else algebra.number(float(constant))
    assert (wanted in scales) == bool(scales) == is_offered


@pytest.mark.parametrize("number", [1e-205, 1e-320, 1e-170, 1e205, -1e-205])
def test_numbers_beyond_the_algebra_stay_as_they_are(number):
    program = Program.parse(
        "def f(w, g, m, v):\n"
        f"    m = {number} * g + 0.9 * m\n"
        f"    v = 0.9 * v + g\n"
        f"    x = square({number} * g)\n"
        "    return m + v + x + -(-w), m, v\n"
    )
    found = program.simplify()
    assert len(found.statements) <= len(program.statements) - 2  # The rest is simplified.
    assert verification.Reference(program, fold=False).agrees(found)


def test_a_product_that_underflows_is_no_zero():
    algebra = Algebra()
    tiny = algebra.number(1e-170)
    with pytest.raises(FormError):
        algebra.multiply(tiny, tiny)
    with pytest.raises(FormError):
        algebra.power(tiny, 2.0, odd=False)
    assert algebra.subtract(tiny, tiny) == algebra.zero
