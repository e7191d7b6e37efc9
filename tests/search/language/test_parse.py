"""Reading programs: what is accepted, what is refused and where, and that nothing ever runs."""

import builtins
import contextlib
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.search import strategies
from veldt.search.errors import ProgramSyntaxError, ProgramTypeError
from veldt.search.language.ops import OPS
from veldt.search.language.parse import MAX_DEPTH, MAX_STATEMENTS, MAX_TEXT_BYTES
from veldt.search.language.statements import Statement
from veldt.search.program import Program


def body(*lines: str, head: str = "def rule(w, g, m, *, b1=0.9):") -> str:
    return "\n".join([head, *(f"    {line}" for line in lines)])


def test_nested_expressions_become_single_instructions() -> None:
    program = Program.parse(
        """
def lion(w, g, m, *, b1=0.9, b2=.99, wd=1e-3):
    '''Sign of the average.'''
    c = interp(g, m, b1)
    m = interp(g, m, b2)
    return sign(c) + wd * w, m
"""
    )
    assert program == Program(
        "lion",
        ("m",),
        (("b1", 0.9), ("b2", 0.99), ("wd", 0.001)),
        (
            Statement("c", "interp", ("g", "m", "b1")),
            Statement("m", "interp", ("g", "m", "b2")),
            Statement("t2", "sign", ("c",)),
            Statement("t3", "multiply", ("wd", "w")),
            Statement("t1", "add", ("t2", "t3")),
        ),
        ("t1", "m"),
        "Sign of the average.",
    )


@pytest.mark.parametrize(
    ("text", "statement"),
    [
        ("x = -g", Statement("x", "negative", ("g",))),
        ("x = -2.5", Statement("x", "copy", (-2.5,))),
        ("x = 3", Statement("x", "copy", (3.0,))),
        ("x = w", Statement("x", "copy", ("w",))),
        ("x = g > m", Statement("x", "less", ("m", "g"))),
        ("x = g >= m", Statement("x", "less_equal", ("m", "g"))),
        ("x = g <= 0", Statement("x", "less_equal", ("g", 0.0))),
        ("x = g == m", Statement("x", "equal", ("g", "m"))),
        ("x = g ** -2", Statement("x", "power", ("g", -2.0))),
        ("x = (w - b1)", Statement("x", "subtract", ("w", "b1"))),
        ("x = get_pi()", Statement("x", "get_pi", ())),
        ("x = step / 0x10", Statement("x", "divide", ("step", 16.0))),
    ],
)
def test_expressions(text: str, statement: Statement) -> None:
    assert Program.parse(body(text, "return x, m")).statements == (statement,)


def test_temporaries_avoid_the_names_of_the_text() -> None:
    head = "def rule(w, g, m, *, t1=0):"
    program = Program.parse(body("t2 = g", "return (g + m) * (t2 + t1), m", head=head))
    targets = [statement.target for statement in program.statements]
    assert len(set(targets)) == len(targets)
    assert not {"t1", "t2"} & set(targets[1:])


# Each refusal: the text, what the message says, line and column (1-based).
REFUSED = [
    (body("for i in g:", "    m = i", "return g, m"), "a loop is not allowed", 2, 5),
    (body("while g:", "    m = g", "return g, m"), "a loop is not allowed", 2, 5),
    (body("import os", "return g, m"), "an import is not allowed", 2, 5),
    ("import os\n" + body("return g, m"), "one function and nothing else", 1, 1),
    ("from os import path\n" + body("return g, m"), "one function and nothing else", 1, 1),
    (body("return g, m") + "\nopen('x', 'w')", "one function and nothing else", 3, 1),
    (body("m = sine(g)", "return g, m"), r"unknown function 'sine' \(did you mean 'sin'\?\)", 2, 9),
    (body("m = sqt(g)", "return g, m"), "did you mean 'sqrt'", 2, 9),
    (body("m = __import__('os')", "return g, m"), "unknown function '__import__'", 2, 9),
    (body("m = eval('1')", "return g, m"), "unknown function 'eval'", 2, 9),
    (body("m = sign(g, g)", "return g, m"), r"sign takes 1 argument\(s\), not 2", 2, 9),
    (body("m = interp(g, m)", "return g, m"), r"interp takes 3 argument\(s\), not 2", 2, 9),
    (body("m = get_pi(g)", "return g, m"), r"get_pi takes 0 argument\(s\), not 1", 2, 9),
    (body("m = sign(x=g)", "return g, m"), "sign takes no keyword arguments", 2, 9),
    (body("m = sign(*g)", "return g, m"), "a star is not allowed", 2, 14),
    (body("m = gg + 1", "return g, m"), r"'gg' is not defined here \(did you mean 'g'\?\)", 2, 9),
    (body("m = g + x", "x = g", "return g, m"), "'x' is not defined here", 2, 13),
    (body("return update, m"), "'update' is not defined here", 2, 12),
    (body("m = sign", "return g, m"), "'sign' is a function; call it with 1", 2, 9),
    (body("b1 = g", "return g, m"), "'b1' is a constant and cannot be assigned", 2, 5),
    (body("step = g", "return g, m"), "'step' is taken by the language", 2, 5),
    (body("sign = g", "return g, m"), "'sign' is taken by the language", 2, 5),
    (body("m += g", "return g, m"), "an in-place assignment is not allowed", 2, 5),
    (body("m: float = g", "return g, m"), "not allowed", 2, 5),
    (body("x, m = g, m", "return g, m"), "assign to one plain name", 2, 5),
    (body("x = m = g", "return g, m"), "assign to one plain name", 2, 5),
    (body("m[0] = g", "return g, m"), "assign to one plain name", 2, 5),
    (body("m.x = g", "return g, m"), "assign to one plain name", 2, 5),
    (body("m = g if m else w", "return g, m"), "`if` is not allowed", 2, 9),
    (body("if g:", "    m = g", "return g, m"), "`if` is not allowed", 2, 5),
    (body("m = (lambda: g)()", "return g, m"), "only functions of the instruction set", 2, 9),
    (body("m = lambda x: x", "return g, m"), "a lambda is not allowed", 2, 9),
    (body("m = g.T", "return g, m"), "an attribute is not allowed", 2, 9),
    (body("m = g.sum()", "return g, m"), "can be called, not an attribute", 2, 9),
    (body("m = ().__class__.__bases__", "return g, m"), "an attribute is not allowed", 2, 9),
    (body("m = g[0]", "return g, m"), "an index is not allowed", 2, 9),
    (body("m = [g][0]", "return g, m"), "an index is not allowed", 2, 9),
    (body("m = [x for x in g]", "return g, m"), "a comprehension is not allowed", 2, 9),
    (body("m = f'{open(1)}'", "return g, m"), "not allowed", 2, 9),
    (body("m = (n := g)", "return g, m"), "NamedExpr is not allowed", 2, 10),
    (body("m = 'text'", "return g, m"), "this literal is not allowed", 2, 9),
    (body("m = True", "return g, m"), "this literal is not allowed", 2, 9),
    (body("m = -True", "return g, m"), "this literal is not allowed", 2, 10),
    (body("m = None", "return g, m"), "this literal is not allowed", 2, 9),
    (body("m = 1j", "return g, m"), "this literal is not allowed", 2, 9),
    (body("m = 1e999", "return g, m"), "numbers must be finite", 2, 9),
    (body("m = 0x" + "f" * 400, "return g, m"), "numbers must be finite", 2, 9),
    (body("m = g and m", "return g, m"), "`and`/`or` is not allowed", 2, 9),
    (body("m = not g", "return g, m"), "not allowed", 2, 9),
    (body("m = +g", "return g, m"), "not allowed", 2, 9),
    (body("m = g % m", "return g, m"), "the operator Mod is not allowed", 2, 9),
    (body("m = g @ m", "return g, m"), "the operator MatMult is not allowed", 2, 9),
    (body("m = g != m", "return g, m"), "the comparison NotEq is not allowed", 2, 9),
    (body("m = w < g < m", "return g, m"), "not allowed", 2, 9),
    (body("m = g is m", "return g, m"), "the comparison Is is not allowed", 2, 9),
    (body("yield g", "return g, m"), "a bare expression is not allowed", 2, 5),
    (body("m = yield", "return g, m"), "Yield is not allowed", 2, 9),
    (body("print(g)", "return g, m"), "a bare expression is not allowed", 2, 5),
    (body("global m", "return g, m"), "Global is not allowed", 2, 5),
    (body("del m", "return g, m"), "Delete is not allowed", 2, 5),
    (body("pass", "return g, m"), "Pass is not allowed", 2, 5),
    (body("assert g", "return g, m"), "Assert is not allowed", 2, 5),
    (body("raise g", "return g, m"), "Raise is not allowed", 2, 5),
    (body("with g:", "    m = g", "return g, m"), "`with` is not allowed", 2, 5),
    (body("try:", "    m = g", "finally:", "    m = g", "return g, m"), "`try` is not", 2, 5),
    (body("def f(): pass", "return g, m"), "a nested function is not allowed", 2, 5),
    (body("class C: pass", "return g, m"), "a class is not allowed", 2, 5),
    (body("return g, m", "return g, m"), "an early return is not allowed", 2, 5),
    (body("m = g"), "a rule ends with `return update, ...`", 2, 5),
    (body("'''Only words.'''"), "a rule ends with `return update, ...`", 1, 1),
    (body("return"), "return the update and the slots", 2, 5),
    (body("return g"), r"one value for each slot \(m\): 2 values, not 1", 2, 5),
    (body("return g, m, m"), r"one value for each slot \(m\): 2 values, not 3", 2, 5),
    (body("return g, *m"), "a star is not allowed", 2, 15),
    ("@open('x', 'w')\n" + body("return g, m"), "decorators are not allowed", 1, 2),
    (body("return g", head="def rule(w, g) -> open('x', 'w'):"), "annotations are not", 1, 19),
    (body("return g", head="def rule(w: open('x', 'w'), g):"), "annotations are not", 1, 13),
    (body("return g", head="def rule(w, g, *, a=open('x')):"), "'a' needs a number", 1, 21),
    (body("return g", head="def rule(w, g, *, a='x'):"), "'a' needs a number", 1, 21),
    (body("return g", head="def rule(w, g, *, a):"), "'a' needs a number", 1, 19),
    (body("return g", head="def rule(w, g=open('x')):"), "take no default", 1, 15),
    (body("return g", head="def rule(w, g, *args):"), r"\*args and \*\*kwargs", 1, 17),
    (body("return g", head="def rule(w, g, **kwargs):"), r"\*args and \*\*kwargs", 1, 18),
    (body("return g", head="def rule(g, w):"), "the first two arguments are `w, g`", 1, 1),
    (body("return g", head="def rule():"), "the first two arguments are `w, g`", 1, 1),
    (body("return g", head="def rule(w, g, a, b, c, d, e, f, h):"), "at most 6 state", 1, 34),
    (body("return g, g", head="def rule(w, g, ndim):"), "'ndim' is taken", 1, 16),
    (body("is_last = g", "return g"), "'is_last' is taken", 2, 5),
    (body("return g, g", head="def rule(w, g, sign):"), "'sign' is taken", 1, 16),
    (body("return g", head="def rule(w, g, *, step=1):"), "'step' is taken", 1, 19),
    (body("return g, g", head="def rule(w, g, g):"), "'g' is given twice", 1, 16),
    (body("return g", head="async def rule(w, g):"), "one function and nothing else", 1, 1),
    (body("return g") + "\n" + body("return g"), "exactly one function", None, None),
    ("", "exactly one function", None, None),
    ("x = 1", "one function and nothing else", 1, 1),
    ("def rule(w, g)\n    return g", "not valid Python: expected ':'", 1, 15),
    ("def rule(w, g):\nreturn g", "not valid Python", 2, 1),
    ("def rule(w, g):\n    return g\0", "null bytes", None, None),
    ("def rule(w, g):\n    return " + "(" * 300 + "g" + ")" * 300, "not valid Python", 2, None),
    ("def rule(w, g):\n    return " + "-" * 2000 + "g", "nest deeper|cannot be read", None, None),
    ("def rule(w, g):\n    return " + "9" * 5000, "not valid Python|cannot be read", None, None),
    ("#" * (MAX_TEXT_BYTES + 1), "longer than 100000 bytes", None, None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message", "line", "column"), REFUSED)
def test_refusals(text: str, message: str, line: int | None, column: int | None) -> None:
    with pytest.raises(ProgramSyntaxError, match=message) as info:
        Program.parse(text)
    if line is not None:
        assert info.value.line == line
        assert str(info.value).startswith(f"line {line}, column ")
    if column is not None:
        assert info.value.column == column


@pytest.mark.parametrize(
    ("text", "message", "line", "column"),
    [
        (body("x = norm(step)", "return g, m"), "argument 1 of norm must be a tensor", 2, 9),
        (body("x = g", "y = dot(x, mean(g))", "return g, m"), "argument 2 of dot must be a", 3, 9),
        (body("return clip_by_global_norm(g, m), m"), "argument 2 of clip_by_global_norm", 2, 12),
        (body("return norm(global_norm(g)), m"), "argument 1 of norm must be a tensor", 2, 12),
        (body("x = g + transpose(g)", "return x, m"), r"a \[R, C\] tensor with a \[C, R\]", 2, 9),
        (body("return matmul(g, w), m"), "the columns of the first must be the rows", 2, 12),
        (body("return transpose(g), m"), r"the update is a \[R, C\] tensor, and what", 2, 1),
    ],
)
def test_wrong_kinds(text: str, message: str, line: int, column: int) -> None:
    with pytest.raises(ProgramTypeError, match=message) as info:
        Program.parse(text)
    assert (info.value.line, info.value.column) == (line, column)


def test_limits_on_depth_and_length() -> None:
    def deep(n: int) -> str:
        return body(f"return {'sin(' * n}g{')' * n}, m")

    assert len(Program.parse(deep(MAX_DEPTH)).statements) == MAX_DEPTH
    with pytest.raises(ProgramSyntaxError, match=f"nest deeper than {MAX_DEPTH}"):
        Program.parse(deep(MAX_DEPTH + 2))
    long = ["m = m + g"] * MAX_STATEMENTS
    assert len(Program.parse(body(*long, "return g, m")).statements) == MAX_STATEMENTS
    with pytest.raises(ProgramSyntaxError, match=f"more than {MAX_STATEMENTS} instructions"):
        Program.parse(body(*long, "m = m + g", "return g, m"))


# Ways to make a file at the moment of reading, if anything ran.
SMUGGLERS = [
    "def rule(w, g, *, a=open({path!r}, 'w')):\n    return g",
    "def rule(w, g=open({path!r}, 'w')):\n    return g",
    "@open({path!r}, 'w').close\ndef rule(w, g):\n    return g",
    "def rule(w, g) -> open({path!r}, 'w'):\n    return g",
    "def rule(w: open({path!r}, 'w'), g):\n    return g",
    "def rule(w, g):\n    return g\n\nopen({path!r}, 'w')",
    "open({path!r}, 'w')\ndef rule(w, g):\n    return g",
    "f'{{open({path!r}, \"w\")}}'\ndef rule(w, g):\n    return g",
    "def rule(w, g):\n    f'{{open({path!r}, \"w\")}}'\n    return g",
    "def rule(w, g):\n    x = sin((y := open({path!r}, 'w')))\n    return g",
    "def rule(w, g):\n    x = __import__('pathlib').Path({path!r}).touch()\n    return g",
    "def rule(w, g):\n    x = [open(p, 'w') for p in [{path!r}]]\n    return g",
    "def rule(w, g):\n    class C(open({path!r}, 'w')): pass\n    return g",
    "import pathlib; pathlib.Path({path!r}).touch()\ndef rule(w, g):\n    return g",
    "if open({path!r}, 'w'):\n    pass\ndef rule(w, g):\n    return g",
]


@pytest.mark.parametrize("text", SMUGGLERS)
def test_smuggled_code_never_runs(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*args: object) -> None:
        raise AssertionError("code was run")

    path = tmp_path / "smuggled"
    for name in ("exec", "eval"):
        monkeypatch.setattr(builtins, name, forbidden)
    with pytest.raises(ProgramSyntaxError):
        Program.parse(text.format(path=str(path)))
    assert not path.exists()


def read(text: str) -> None:
    """Reads any text; only the two errors that say what is wrong with it may come out."""
    with contextlib.suppress(ProgramSyntaxError, ProgramTypeError):
        Program.parse(text)


@hypothesis.settings(max_examples=200)
@hypothesis.given(st.text())
def test_any_text_is_a_program_or_a_program_error(text: str) -> None:
    read(text)
    read(f"def rule(w, g):\n    {text}\n    return g")
    read(f"def rule(w, g, *, {text}):\n    return g")


PUNCTUATION = ["(", ")", ",", "=", "-", "*", "**", "[", "]", ":", ".", "'", '"', "@", "#", "\\"]
WORDS = [
    "lambda ",
    "if ",
    "for ",
    "not ",
    "import ",
    "step",
    "\n",
    "    ",
    "def rule(w, g):\n",
    "return ",
    "g",
    "w",
    "m",
    "1.5",
]
fragments = st.lists(st.sampled_from([*OPS, *PUNCTUATION, *WORDS]), max_size=30).map("".join)


@hypothesis.settings(max_examples=200)
@hypothesis.given(fragments)
def test_any_mixture_of_fragments_is_a_program_or_a_program_error(text: str) -> None:
    read(text)
    read("def rule(w, g):\n    " + text)


@hypothesis.given(program=strategies.programs(), data=st.data())
def test_a_damaged_program_is_a_program_or_a_program_error(program: Program, data: Any) -> None:
    text = str(program)
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(len(text), start + 10)))
    read(text[:start] + data.draw(st.text(max_size=5)) + text[stop:])


@pytest.mark.parametrize(
    "nest",
    ["-" * 90_000, "(" * 50_000, "not " * 20_000, "lambda: " * 10_000, "f(" * 30_000, "[" * 90_000],
)
def test_absurd_nesting_is_an_error_and_no_crash(nest: str) -> None:
    with pytest.raises(ProgramSyntaxError):
        Program.parse(f"def rule(w, g):\n    return {nest}g")


def test_long_chains_are_an_error_and_no_crash() -> None:
    for link in (" + g", ".a", "(g)", "[0]", " if g else g", " < g", " and g"):
        with pytest.raises(ProgramSyntaxError):
            Program.parse(f"def rule(w, g):\n    return g{link * (80_000 // len(link))}")
