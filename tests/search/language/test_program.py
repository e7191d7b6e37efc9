"""Programs as values: equal, hashable, printable, and read back equal from what they print."""

import dataclasses

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.search import strategies
from veldt.search import rule_sources
from veldt.search.errors import ProgramError
from veldt.search.language.ops import OPS
from veldt.search.language.statements import Statement, format_arg
from veldt.search.program import Program


@hypothesis.settings(max_examples=200)
@hypothesis.given(strategies.programs())
def test_what_is_printed_is_read_back_equal(program: Program) -> None:
    text = str(program)
    again = Program.parse(text)
    assert again == program
    assert hash(again) == hash(program)
    assert str(again) == text


@pytest.mark.parametrize("op", OPS)
def test_every_op_is_printed_and_read_back(op: str) -> None:
    args = tuple({"tensor": "g", "scalar": -0.5, "any": -2.0}[kind] for kind in OPS[op].kinds)
    others = {"matmul": "transpose", "inverse_root": "row_gram", "eigenbasis": "row_gram"}
    others |= {"unsketch": "sketch", "sketch_norm": "sketch"}
    kind = others.get(op, "transpose")
    first = Statement("t", kind, ("g", 0.5)[: OPS[kind].arity])
    if op in others:
        args = ("g", "t") if op == "matmul" else ("t", *args[1:])
    if op == "eigenbasis":
        args = ("t", "t")
    slots = ()
    if op in ("remember", "percentile"):
        slots, args = ("h",), ("h", *args[1:])
    returns = ("g", *("r" for _ in slots))
    kept = [Statement("r", "remember", ("h", 1.0))] if slots else []
    statements = (first, *kept, Statement("x", op, args))
    program = Program("rule", slots, (), statements, returns)
    assert Program.parse(str(program)) == program


# Docstrings that a rule file could hold: what Python's own clean-up leaves as it is.
@hypothesis.settings(max_examples=200)
@hypothesis.given(
    st.text() | st.sampled_from(['"', '"""', "\\", "a\n  b\n\nc", "'''", "\\n", "\r\n"])
)
def test_any_docstring_is_printed_safely(doc: str) -> None:
    program = Program("rule", (), (), (), ("g",), doc)
    once = Program.parse(str(program))
    assert dataclasses.replace(once, doc="") == dataclasses.replace(program, doc="")
    assert Program.parse(str(once)) == once


@pytest.mark.parametrize("name", rule_sources.RULE_NAMES)
def test_docstrings_of_rules_survive(name: str) -> None:
    rule = rule_sources.load_rule(name)
    assert Program.parse(str(rule)).doc == rule.doc


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        (Statement("x", "add", ("w", 1.0)), "x = w + 1.0"),
        (Statement("x", "power", (-2.0, "w")), "x = (-2.0) ** w"),
        (Statement("x", "subtract", ("w", -2.0)), "x = w - -2.0"),
        (Statement("x", "less_equal", ("w", "g")), "x = w <= g"),
        (Statement("x", "copy", ("w",)), "x = w"),
        (Statement("x", "get_pi", ()), "x = get_pi()"),
        (Statement("x", "interp", ("w", "g", 0.9)), "x = interp(w, g, 0.9)"),
    ],
)
def test_statements_are_printed_as_python(statement: Statement, text: str) -> None:
    assert str(statement) == text


@hypothesis.given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_printed_without_loss(number: float) -> None:
    assert float(format_arg(number)) == number


def test_with_constants() -> None:
    adam = rule_sources.load_rule("adam")
    changed = adam.with_constants(b1=0.5, eps=1)
    assert dict(changed.constants) == {"b1": 0.5, "b2": 0.999, "eps": 1.0}
    assert dict(adam.constants)["b1"] == 0.9
    assert changed.statements == adam.statements
    with pytest.raises(ProgramError, match="adam has no constant 'beta'; it has: b1, b2, eps"):
        adam.with_constants(beta=0.5)
    with pytest.raises(ProgramError, match="it has: none"):
        rule_sources.load_rule("sgd").with_constants(beta=0.5)


def test_programs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule_sources.load_rule("adam").name = "other"  # type: ignore[misc]


def test_a_notebook_shows_the_formula_and_ipython_the_text() -> None:
    program = rule_sources.load_rule("lion")
    assert program._repr_latex_() == f"$$\n{program.latex()}\n$$"

    class Printer:
        def text(self, text: str) -> None:
            self.said = text

    printer = Printer()
    program._repr_pretty_(printer, False)
    assert Program.parse(printer.said).statements == Program.parse(program.pretty()).statements
