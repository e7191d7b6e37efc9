"""Formulas in LaTeX: read back into numbers, whole whatever the names are, and as people write."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

from tests.search import latex_reader, strategies
from veldt.search import rule_sources
from veldt.search.language import roles
from veldt.search.language.dataflow import Dataflow, lower
from veldt.search.language.latex import formula, notation, ranges, symbols
from veldt.search.language.ops import INTERPRETED, OPS
from veldt.search.language.statements import ROLES
from veldt.search.program import Program
from veldt.search.runtime import execute

GOLDEN = Path(__file__).parents[1] / "golden" / "latex"
SHAPE = (3, 4)
COMMANDS = r"""
\alpha \angle \arccos \arcsin \arctan \begin \beta \cdot \chi \cos \cosh \Delta \delta \end \epsilon
\eta \exp \frac \Gamma \gamma \ge \hat \bar \tilde \infty \iota \kappa \Lambda \lambda \langle \le
\left \ell \log \lVert \lvert \mathbf \mathrm \max \mid \min \mu \nu \odot \Omega \omega
\operatorname \phi \Phi \pi \psi \Psi \rangle \rho \right \rVert \rvert \Sigma \sigma \sin \sinh
\sqrt \tan \tanh \tau \text \Theta \theta \top \varepsilon \Xi \xi \zeta \\ \_ \,
"""
"""Commands of LaTeX and amsmath, all of which MathJax and KaTeX have."""
PAIRS = (
    (r"\left", r"\right"), (r"\lvert", r"\rvert"), (r"\lVert", r"\rVert"),
    (r"\langle", r"\rangle"), ("(", ")"), ("[", "]"),
)  # fmt: skip


def check_whole(block: str) -> None:
    """Braces, environments and delimiters are balanced, and all commands are known."""
    commands = set(re.findall(r"\\(?:[A-Za-z]+|.)", block))
    assert commands <= {*COMMANDS.split()}, commands
    depth = 0
    for char in block:
        depth += (char == "{") - (char == "}")
        assert depth >= 0
    assert depth == 0
    words = re.findall(r"\\[A-Za-z]+|[()\[\]]", block)
    for left, right in PAIRS:
        assert words.count(left) == words.count(right), left
    for line in block.splitlines()[1:-1]:
        outside = re.sub(r"\\begin\{cases\}.*?\\end\{cases\}", "", line)
        assert outside.count("&") == 1 and outside.count(r"\\") <= 1, line
    assert block.count(r"\begin{cases}") == block.count(r"\end{cases}")
    assert "{{" not in block  # The site's templates would take it for theirs.


def run(program: Program, num_steps: int, jitter: float = 0.0) -> tuple[list[Any], list[Any]]:
    """The updates of `execute` on random numbers, and those that the formula gives."""
    flow, block = lower(program), formula.formula(program)
    rng = np.random.default_rng(0)
    marks = {**roles.of_shape(SHAPE), "is_last": 1.0, "is_embedding": 0.0}
    slots = {name: np.zeros(shape) for name, (shape,) in slot_shapes(flow).items()}
    symbols_of_slots = dict(zip(slots, latex_reader.initial(block), strict=True))
    known = {symbol: np.float64(value) for symbol, value in formula.constants(program).items()}
    known |= {rf"\mathrm{{{name}}}".replace("_", r"\_"): marks[name] for name in ROLES}
    known[r"\operatorname{ndim}"] = marks["ndim"]
    known |= {r"\pi": np.pi, r"\mathrm{e}": np.e, "T": np.float64(10), "I": latex_reader.Identity()}
    state = {
        f"{symbol}t-1}}": np.zeros(
            SHAPE if flow.values[flow.input_index(name)].kind == "tensor" else slots[name].shape
        )
        for name, symbol in symbols_of_slots.items()
    }
    updates, formulas = [], []
    for step in range(1, num_steps + 1):
        w, g = (rng.normal(size=SHAPE) * (1.0 + jitter) for _ in range(2))
        loss = rng.normal()
        inputs = {"w": w, "g": g, "progress": step / 10, "loss": loss, **marks, **slots}
        values = known | state | {"w_{t}": w, "g_{t}": g, r"\ell_{t}": loss, "t": np.float64(step)}
        with np.errstate(all="ignore"):
            update, new = execute.execute(
                flow, np, {k: [v] for k, v in inputs.items()}, [np.float64(step)], {}
            )
            formulas.append(np.broadcast_to(latex_reader.evaluate(block, values), SHAPE))
            new = [slot + jitter * (1.0 + np.abs(slot)) for (slot,) in new]
        updates.append(update[0])
        slots = dict(zip(slots, new, strict=True))
        state = {
            old: np.broadcast_to(values[old.replace("t-1}", "t}")], array.shape)
            for old, array in state.items()
        }
    return updates, formulas


def slot_shapes(flow: Dataflow) -> Mapping[str, list[tuple[int, ...]]]:
    return execute.slot_shapes(flow, [SHAPE])


def close(first: list[Any], second: list[Any]) -> bool:
    return np.allclose(first, second, rtol=1e-7, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("name", rule_sources.RULE_NAMES)
def test_shipped_rules_read_back(name: str) -> None:
    program = rule_sources.load_rule(name)
    check_whole(formula.formula(program))
    updates, formulas = run(program, num_steps=4)
    np.testing.assert_allclose(formulas, updates, rtol=1e-9, atol=1e-12)
    assert np.isfinite(updates).all()


@pytest.mark.parametrize("name", INTERPRETED)
def test_every_instruction_reads_back(name: str) -> None:
    kinds = OPS[name].kinds
    tensors = ", ".join(
        {"scalar": "k"}.get(kind, arg) for kind, arg in zip(kinds, "gwm", strict=False)
    )
    scalars = ", ".join({"tensor": "w"}.get(kind, "step") for kind in kinds)
    program = Program.parse(
        "def rule(w, g, m, *, k=0.7):\n"
        f"    m = {name}({tensors}) - 0.5 * m\n    return m * {name}({scalars}), m\n"
    )
    updates, formulas = run(program, num_steps=3)
    np.testing.assert_allclose(formulas, updates, rtol=1e-9)


# Their formulas, exp(x) - 1 and log(1 + x), are for numbers without rounding.
@hypothesis.given(
    strategies.programs(ops=tuple(op for op in INTERPRETED if op not in ("expm1", "log1p")))
)
def test_random_programs_read_back(program: Program) -> None:
    check_whole(formula.formula(program))
    updates, formulas = run(program, num_steps=3)
    if not close(formulas, updates):
        # Sums in another order differ by rounding, and a sign or a comparison makes much of it.
        nearby = [run(program, 3, jitter)[0] for jitter in (1e-13, -1e-13)]
        assert not all(close(updates, other) for other in nearby)


@hypothesis.given(strategies.expressions)
def test_nested_expressions_read_back(text: str) -> None:
    program = Program.parse(f"def rule(w, g, m, *, k=0.7):\n    m = {text}\n    return m + g, m\n")
    updates, formulas = run(program, num_steps=2)
    if not close(formulas, updates):
        nearby = [run(program, 2, jitter)[0] for jitter in (1e-13, -1e-13)]
        assert not all(close(updates, other) for other in nearby)


def test_every_instruction_has_a_form() -> None:
    assert set(OPS) == set(notation.FORMS)
    for name, op in OPS.items():
        form = notation.FORMS[name]
        places = {int(place) for place in re.findall(r"#(\d)", form.text)}
        assert places == set(range(1, op.arity + 1)), name
        args = [notation.plain(letter) for letter in "abcd"[: op.arity]]
        filled = form.fill(args, notation.FLAT.get(name))
        for piece in filled:
            check_whole(
                f"\n{piece.text.replace('&', '')} &\n\n" if "cases" not in piece.text else ""
            )


@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
def test_formulas_are_as_people_write_them(name: str) -> None:
    golden = (GOLDEN / f"{name}.tex").read_text(encoding="utf-8")
    assert f"{rule_sources.load_rule(name).latex()}\n" == golden


def test_matrix_products_stand_side_by_side() -> None:
    program = Program.parse(
        "def rule(w, g, p, *, k=0.5):\n"
        "    p = interp(matmul(g, transpose(g)), p, k)\n"
        "    return matmul(p + p, g * w) * (g * 2.0), p\n"
    )
    block = program.latex()
    assert r"p_{t} &= (1 - k) g_{t} g_{t}^{\top} + k p_{t-1} \\" in block
    assert r"u_{t} &= (p_{t} + p_{t}) (g_{t} \odot w_{t}) \odot 2 g_{t} \\" in block
    updates, formulas = run(program, num_steps=3)
    np.testing.assert_allclose(formulas, updates, rtol=1e-9)


TRICKY = (GOLDEN / "expressions.txt").read_text(encoding="utf-8").splitlines()
"""Expressions whose formulas are wrong without the right parentheses, each with its formula."""


@pytest.mark.parametrize("place", range(0, len(TRICKY), 2), ids=TRICKY[::2])
def test_nothing_is_read_wrongly(place: int) -> None:
    text, written = TRICKY[place : place + 2]
    program = Program.parse(
        f"def rule(w, g, m, *, k=0.7):\n    x = {text}\n    return x - m, g - 0.3 * m\n"
    )
    check_whole(program.latex())
    (right,) = re.findall(r"^x_\{t\} &= (.*) \\\\$", program.latex(), re.MULTILINE)
    assert right == written.strip()
    updates, formulas = run(program, num_steps=4)
    np.testing.assert_allclose(formulas, updates, rtol=1e-9)


SHAPED = {
    "inverse_root": (
        "def rule(w, g, p, *, eps=1e-3):\n    p = interp(row_gram(g), p, 0.9)\n"
        "    return matmul(inverse_root(p, 4.0, eps), g), p\n",
        r"u_{t} &= (p_{t} + \varepsilon I)^{-1 / 4} g_{t} \\",
    ),
    "root without eps": (
        "def rule(w, g):\n    p = row_gram(g)\n    return matmul(inverse_root(p, 2.0, 0.0), g)\n",
        r"u_{t} &= p_{t}^{-1 / 2} g_{t} \\",
    ),
    "inverse": (
        "def rule(w, g):\n    return matmul(inverse_root(row_gram(g), 1.0, 1.0), g)\n",
        r"u_{t} &= (g_{t} g_{t}^{\top} + I)^{-1} g_{t} \\",
    ),
    "column_gram": (
        "def rule(w, g):\n    return matmul(g + w, square(column_gram(g - w)))\n",
        r"u_{t} &= (g_{t} + w_{t}) (z_{1,t}^{\top} z_{1,t})^{\odot 2} \\",
    ),
    "eigenbasis": (
        "def rule(w, g, a, q):\n    a = a + row_gram(g)\n    q = eigenbasis(a, q)\n"
        "    return matmul(transpose(q), g), a, q\n",
        r"u_{t} &= q_{t}^{\top} g_{t} \\",
    ),
    "polar": (
        "def rule(w, g):\n    return polar(g) * nuclear_norm(g)\n",
        r"u_{t} &= \lVert g_{t} \rVert_{*} \operatorname{polar}(g_{t}) \\",
    ),
    "sketch": (
        "def rule(w, g, s):\n    s = interp(sketch(g, step / 2), s, 0.5)\n"
        "    return unsketch(s, step / 2) + g * sketch_norm(s), s\n",
        r"s_{t} &= (1 - 0.5) \operatorname{sketch}\left(g_{t}, \frac{t}{2}\right) + 0.5 s_{t-1} \\",
    ),
    "history": (
        "def rule(w, g, h, *, q=0.1):\n    h = remember(h, global_norm(g))\n"
        "    return clip_by_global_norm(g, percentile(h, q)), h\n",
        r"u_{t} &= \min\left(1, \frac{\operatorname{percentile}(h_{t}, q)}"
        r"{\lVert g_{t} \rVert_{\mathrm{all}}}\right) g_{t} \\",
    ),
    "readable values": (
        "def rule(w, g):\n    return g * (1 - progress) * loss * global_cosine(g, w)\n",
        r"\tau &= \min(1, t / T) \\",
    ),
}


@pytest.mark.parametrize("name", SHAPED)
def test_instructions_of_other_shapes_read_back(name: str) -> None:
    text, line = SHAPED[name]
    program = Program.parse(text)
    check_whole(program.latex())
    assert line in program.latex().splitlines()
    updates, formulas = run(program, num_steps=3)
    np.testing.assert_allclose(formulas, updates, rtol=1e-6)


def test_long_expressions_are_split() -> None:
    terms = " + ".join(f"sin({i}.5 * g) * cos({i}.25 * w)" for i in range(1, 12))
    program = Program.parse(f"def rule(w, g):\n    return {terms}\n")
    block = program.latex()
    assert "z_{2,t}" in block
    assert max(notation.measure(line) for line in block.splitlines()) < 2 * formula.MAX_WIDTH
    updates, formulas = run(program, num_steps=1)
    np.testing.assert_allclose(formulas, updates, rtol=1e-9)


def test_dead_code_is_left_out() -> None:
    program = Program.parse(
        "def rule(w, g, m, n, *, b1=0.9, b2=0.5):\n"
        "    n = interp(g, n, b2)\n    m = interp(g, m, b1)\n    return m, m, n\n"
    )
    assert program.latex() == (
        "\\begin{aligned}\nm_{0} &= 0 \\\\\n"
        "m_{t} &= (1 - \\beta_{1}) g_{t} + \\beta_{1} m_{t-1} \\\\\n"
        "w_{t+1} &= w_{t} - \\eta m_{t}\n\\end{aligned}"
    )


STRANGE = (
    "u", "t", "T", "eta", "tau", "ell", "pi", "e", "I", "m_t", "m_hat", "m_hat_hat", "m__x", "_x",
    "_1", "b1", "beta1", "beta_1", "eps", "varepsilon", "z", "z1", "Delta", "x" * 60, "ß", "名前",
    "alpha_2_max", "w0", "g_prev",
)  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_any_name_gets_a_symbol_of_its_own(name: str) -> None:
    """As a slot, as a constant and as a local name, beside one that is like it."""
    slots = {"m": name, "v": "m"}
    constants = {"k": name, "k2": f"{name}_"}
    for renamed in (slots, constants, {"a": name, "b": "u"}, {"a": f"{name}1", "b": f"{name}_1"}):
        program = strategies.rename(
            Program.parse(
                "def rule(w, g, m, v, *, k=0.7, k2=0.3):\n"
                "    a = abs(g) + k\n    b = a * a + k2\n    m = interp(g, m, k)\n"
                "    v = v + b / a\n    c = m * v\n    return a + c / b + c, m, v\n"
            ),
            renamed,
        )
        check_whole(program.latex())
        updates, formulas = run(program, num_steps=2)
        np.testing.assert_allclose(formulas, updates, rtol=1e-9)


def test_symbols_are_those_of_the_field() -> None:
    taken = symbols.Symbols()
    found = {
        name: taken.choose(name, changes=True).at("t")
        for name in ("m", "v_hat", "w0", "m_slow", "rows")
    }
    assert found == {
        "m": "m_{t}",
        "v_hat": r"\hat{v}_{t}",
        "w0": "w_{0,t}",
        "m_slow": r"m_{\mathrm{slow},t}",
        "rows": r"\mathrm{rows}_{t}",
    }
    constants = {
        name: taken.choose(name, changes=False, is_constant=True).at()
        for name in ("b1", "eps", "wd", "gamma", "decay")
    }
    assert constants == {
        "b1": r"\beta_{1}",
        "eps": r"\varepsilon",
        "wd": r"\lambda",
        "gamma": r"\gamma",
        "decay": r"\mathrm{decay}",
    }
    assert taken.choose("m", changes=True).at("t") == "m'_{t}"


def test_the_start_of_a_slot_is_no_constants_symbol() -> None:
    """Prodigy has a slot d and a constant d0."""
    block = rule_sources.load_rule("prodigy").latex()
    assert block.count("d_{0}") == 1
    assert r"\mathrm{d0} & \text{if } t < 2" in block


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (1.0, "1"), (0.9, "0.9"), (1e-8, "10^{-8}"), (2.5e-7, r"2.5 \cdot 10^{-7}"), (-2.0, "-2"),
        (1e22, "10^{22}"), (float("inf"), r"\infty"), (-float("inf"), r"-\infty"), (-0.0, "-0"),
        (-np.pi, r"-\pi"),
    ],
)  # fmt: skip
def test_numbers_are_written_in_full(value: float, written: str) -> None:
    assert notation.number(value).shown.text == written


@hypothesis.given(strategies.programs())
def test_values_lie_in_their_ranges(program: Program) -> None:
    """Where nothing is NaN: the update's range holds for what `execute` gives, but for rounding."""
    flow = lower(program)
    found = ranges.ranges(flow)[flow.update]
    updates, _ = run(program, num_steps=3)
    update = np.array(updates)
    update = update[~np.isnan(update)]
    slack = 1e-9 * np.abs(update)
    assert (update >= found.low - slack).all()
    assert (update <= found.high + slack).all()
