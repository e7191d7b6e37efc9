r"""How each instruction is written in a formula: the tables of `formula.py`.

A form is LaTeX with `#1`, `#2`, ... for the arguments, like a macro. The notation is the field's:
products of tensors are element by element where a circled dot stands between them, and products
of matrices where none does; fractions, powers, roots and functions go element by element. The
guards of the instruction set (`ops.py`) that matter for ordinary arguments are written out; that
x / 0 counts as 0, and log 0 as the logarithm of the smallest normal number, is not.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, final

# How tightly expressions bind, from loose to tight; CLOSED ones only need parentheses in powers.
CHOICE, SUM, NEGATION, SLASH, ELEMENTWISE, PRODUCT, CLOSED, ATOM = range(8)

_PLACE: Final = re.compile(r"#(\d)")
_UNSEEN: Final = re.compile(
    r"\\(?:left|right|mathrm|operatorname|text|frac|sqrt|hat|bar|tilde)(?![A-Za-z])|[{}_^ ]"
)
_COMMAND: Final = re.compile(r"\\(?:[A-Za-z]+|.)")


class Piece(NamedTuple):
    """A piece of LaTeX.

    Attributes:
      text: LaTeX.
      level: How tightly it binds.
      width: Number of characters side by side, about.
    """

    text: str
    level: int
    width: int

    def within(self, need: int) -> str:
        """Return the text, in parentheses where it must bind at least as tightly as `need`."""
        if self.level >= need:
            return self.text
        return rf"\left({self.text}\right)" if _is_tall(self.text) else f"({self.text})"


class Tex(NamedTuple):
    """An expression: as it is shown on its own, and as it is in fractions and exponents."""

    shown: Piece
    flat: Piece


@final
@dataclass(frozen=True, slots=True)
class Form:
    """How an instruction is written.

    Attributes:
      text: LaTeX with `#1`, `#2`, ... for the arguments.
      level: How tightly the result binds.
      needs: How tightly each argument must bind to stand without parentheses; 0 for those left out.
      inline: Whether arguments are written as in fractions.
    """

    text: str
    level: int = CLOSED
    needs: tuple[int, ...] = ()
    inline: bool = False

    @property
    def repeated(self) -> frozenset[int]:
        """Positions of the arguments that are written more than once."""
        places = re.findall(r"#(\d)", self.text)
        return frozenset(int(place) - 1 for place in places if places.count(place) > 1)

    def fill(self, args: Sequence[Tex], in_fractions: "Form | None" = None) -> Tex:
        """Return the form with its arguments.

        Args:
          args: Arguments.
          in_fractions: Form in fractions and exponents, where that is another.
        """
        flat = [arg.flat for arg in args]
        shown = flat if self.inline else [arg.shown for arg in args]
        return Tex(self._fill(shown, flat), (in_fractions or self)._fill(flat, flat))

    def _fill(self, pieces: Sequence[Piece], flat: Sequence[Piece]) -> Piece:
        used: list[Piece] = []

        def put(match: re.Match[str]) -> str:
            place = int(match[1]) - 1
            raised = self.text[: match.start()].endswith("^{")
            piece = flat[place] if raised else pieces[place]
            used.append(piece)
            if self.text.startswith("^", match.end()):
                return piece.within(ATOM)
            return piece.within(self.needs[place] if place < len(self.needs) else 0)

        text = _PLACE.sub(put, self.text)
        if not _is_tall(text):
            text = text.replace(r"\left", "").replace(r"\right", "")
        widths = [piece.width for piece in used]
        width = max(widths) if self.text == FRACTION.text else sum(widths)
        level = min(self.level, NEGATION) if text.startswith("-") else self.level
        return Piece(text, level, width + measure(_PLACE.sub("", self.text)))


def plain(text: str, level: int = ATOM) -> Tex:
    """Return an expression that is the same everywhere."""
    piece = Piece(text, level, measure(text))
    return Tex(piece, piece)


def measure(text: str) -> int:
    """Return the number of characters that LaTeX without fractions shows, about."""
    return len(_COMMAND.sub("x", _UNSEEN.sub("", text)))


_NAMED: Final = {math.pi: r"\pi", math.e: r"\mathrm{e}", math.inf: r"\infty"}


def number(value: float) -> Tex:
    """Return a number in full, with a power of ten where its shortest decimal has one."""
    if math.isnan(value):
        return plain(r"\mathrm{NaN}")
    sign = "-" if math.copysign(1.0, value) < 0.0 else ""
    text, level = repr(abs(value)).removesuffix(".0"), ATOM
    if abs(value) in _NAMED:
        text = _NAMED[abs(value)]
    elif "e" in text:
        digits, exponent = text.split("e")
        power = f"10^{{{int(exponent)}}}"
        text, level = (power, CLOSED) if digits == "1" else (rf"{digits} \cdot {power}", PRODUCT)
    return plain(sign + text, NEGATION if sign else level)


def _is_tall(text: str) -> bool:
    return r"\frac" in text


def _call(name: str, arity: int = 1) -> Form:
    return Form(rf"{name}\left({', '.join(f'#{i}' for i in range(1, arity + 1))}\right)")


def upright(name: str) -> str:
    """Return the name of a function or of a role in upright letters."""
    # MathJax spreads what \operatorname has around an underscore.
    command = "mathrm" if "_" in name else "operatorname"
    return rf"\{command}{{{name}}}".replace("_", r"\_")


def _operator(name: str, arity: int = 1) -> Form:
    return _call(upright(name), arity)


def _indicator(condition: str) -> Form:
    return Form(rf"\mathbf{{1}}[{condition}]", ATOM, (), inline=True)


SIZE: Final = Form(r"\left\lvert #1 \right\rvert", ATOM)
FRACTION: Final = Form(r"\frac{#1}{#2}", inline=True)
CASES: Final = Form(
    r"\begin{cases} #2 & \text{if } #1 \\ #3 & \text{otherwise} \end{cases}", CHOICE
)
# Of square matrices, whose powers are products otherwise.
ELEMENTWISE_POWER: Final[dict[str, Form]] = {
    "square": Form(r"#1^{\odot 2}"),
    "cube": Form(r"#1^{\odot 3}"),
    "power": Form(r"#1^{\odot (#2)}"),
}


def root_form(root: Tex, added: Tex) -> Form:
    """Return the form of `inverse_root`, without what does nothing."""
    multiple = "" if added.shown.text == "1" else "#3 "
    inner = "#1" if added.shown.text == "0" else rf"\left(#1 + {multiple}I\right)"
    power = "-1" if root.shown.text == "1" else "-1 / #2"
    return Form(f"{inner}^{{{power}}}", CLOSED, (SUM, CLOSED, ELEMENTWISE))


# Ops with an argument that counts by its size, and the position of that.
OF_SIZE: Final = {
    "power": 0, "sqrt": 0, "log": 0, "log2": 0, "log10": 0, "log1p": 0, "inverse_root": 2,
}  # fmt: skip

FORMS: Final[dict[str, Form]] = {
    "get_pi": Form(r"\pi", ATOM),
    "get_e": Form(r"\mathrm{e}", ATOM),
    "get_eps": Form("10^{-8}"),
    # --- arithmetic
    "add": Form("#1 + #2", SUM, (SUM, SUM)),
    "subtract": Form("#1 - #2", SUM, (SUM, SLASH)),
    "multiply": Form(r"#1 \odot #2", ELEMENTWISE, (ELEMENTWISE, ELEMENTWISE)),
    "divide": FRACTION,
    "power": Form("#1^{#2}"),
    "max": _call(r"\max", 2),
    "min": _call(r"\min", 2),
    # --- element by element
    "negative": Form("-#1", NEGATION, (SLASH,)),
    "abs": SIZE,
    "sign": _operator("sign"),
    "square": Form("#1^{2}"),
    "cube": Form("#1^{3}"),
    "sqrt": Form(r"\sqrt{#1}"),
    "cbrt": Form(r"\sqrt[3]{#1}"),
    "reciprocal": Form(r"\frac{1}{#1}", inline=True),
    "exp": _call(r"\exp"),
    "exp2": Form("2^{#1}"),
    "exp10": Form("10^{#1}"),
    "expm1": Form(r"\exp\left(#1\right) - 1", SUM),
    "log": _call(r"\log"),
    "log2": _call(r"\log_{2}"),
    "log10": _call(r"\log_{10}"),
    "log1p": Form(r"\log\left(1 + #1\right)", CLOSED, (SLASH,)),
    "sin": _call(r"\sin"),
    "cos": _call(r"\cos"),
    "tan": _call(r"\tan"),
    "arcsin": Form(r"\arcsin\left(\max\left(-1, \min\left(1, #1\right)\right)\right)"),
    "arccos": Form(r"\arccos\left(\max\left(-1, \min\left(1, #1\right)\right)\right)"),
    "arctan": _call(r"\arctan"),
    "sinh": _call(r"\sinh"),
    "cosh": _call(r"\cosh"),
    "tanh": _call(r"\tanh"),
    "arcsinh": _operator("arsinh"),
    "arccosh": Form(r"\operatorname{arcosh}\left(\max\left(1, #1\right)\right)"),
    "arctanh": Form(
        r"\operatorname{artanh}\left(\max\left(2^{-20} - 1, "
        r"\min\left(1 - 2^{-20}, #1\right)\right)\right)"
    ),
    "invert": _indicator(r"#1 \le 0"),
    # --- comparison and choice; in a condition only what stands between the brackets
    "less": _indicator("#1 < #2"),  # see `CONDITIONS`
    "less_equal": _indicator(r"#1 \le #2"),
    "equal": _indicator("#1 = #2"),
    "where": CASES,
    "interp": Form("(1 - #3) #1 + #3 #2", SUM),  # from its parts: see `formula.py`
    "every": _indicator(r"#2 \mid #1"),
    # --- per parameter tensor
    "norm": Form(r"\left\lVert #1 \right\rVert", ATOM),
    "mean": _operator("mean"),
    "amax": Form(r"\max_{i,j}\left(#1\right)"),
    "dot": Form(r"\left\langle #1, #2 \right\rangle", ATOM),
    "cosine_sim": _call(r"\cos\angle", 2),
    "nuclear_norm": Form(r"\left\lVert #1 \right\rVert_{*}", ATOM),
    # --- over all parameter tensors
    "global_norm": Form(r"\left\lVert #1 \right\rVert_{\mathrm{all}}", ATOM),
    "clip_by_global_norm": Form(
        r"\min\left(1, \frac{#2}{\lVert #1 \rVert_{\mathrm{all}}}\right) #1", PRODUCT,
        (ELEMENTWISE,), inline=True,
    ),
    "global_dot": Form(r"\left\langle #1, #2 \right\rangle_{\mathrm{all}}", ATOM),
    "global_cosine": _call(r"\cos\angle_{\mathrm{all}}", 2),
    # --- per parameter tensor as a matrix
    "row_mean": _call(r"\operatorname{mean}_{\mathrm{row}}"),
    "column_mean": _call(r"\operatorname{mean}_{\mathrm{column}}"),
    "row_norm": Form(r"\left\lVert #1 \right\rVert_{\mathrm{row}}", ATOM),
    "column_norm": Form(r"\left\lVert #1 \right\rVert_{\mathrm{column}}", ATOM),
    "row_max": _call(r"\max_{\mathrm{row}}"),
    "column_max": _call(r"\max_{\mathrm{column}}"),
    "factored": _operator("factored"),
    "clip_by_quantile": _operator("clip_by_quantile", 2),
    "orthogonalize": _operator("orthogonalize"),
    "polar": _operator("polar"),
    "sinkhorn": _operator("sinkhorn"),
    # --- other shapes
    "transpose": Form(r"#1^{\top}"),
    "matmul": Form("#1 #2", PRODUCT, (PRODUCT, PRODUCT)),
    "row_gram": Form(r"#1 #1^{\top}", PRODUCT, (PRODUCT,)),
    "column_gram": Form(r"#1^{\top} #1", PRODUCT, (PRODUCT,)),
    "inverse_root": Form(
        r"\left(#1 + #3 I\right)^{-1 / #2}", CLOSED, (SUM, CLOSED, ELEMENTWISE)
    ),
    "eigenbasis": _operator("eigenbasis", 2),
    # --- history and sketches
    "remember": _operator("remember", 2),
    "percentile": _operator("percentile", 2),
    "sketch": _operator("sketch", 2),
    "unsketch": _operator("unsketch", 2),
    "sketch_norm": _operator("sketch_norm"),
}  # fmt: skip

# What instructions with fractions are in fractions and exponents.
FLAT: Final[dict[str, Form]] = {
    "divide": Form("#1 / #2", SLASH, (SLASH, CLOSED)),
    "reciprocal": Form("1 / #1", SLASH, (CLOSED,)),
    "clip_by_global_norm": Form(
        r"\min\left(1, #2 / \lVert #1 \rVert_{\mathrm{all}}\right) #1", PRODUCT,
        (ELEMENTWISE, SLASH),
    ),
}  # fmt: skip
# What stands in a condition for instructions that give 1 or 0; comparisons also from right to left.
CONDITIONS: Final[dict[str, Form]] = {
    "less": Form("#1 < #2", CHOICE, (SUM, SUM), inline=True),
    "less_equal": Form(r"#1 \le #2", CHOICE, (SUM, SUM), inline=True),
    "equal": Form("#1 = #2", CHOICE, (SUM, SUM), inline=True),
    "every": Form(r"#2 \mid #1", CHOICE, (SUM, ATOM), inline=True),
    "invert": Form(r"#1 \le 0", CHOICE, (SUM,), inline=True),
}
BACKWARD: Final[dict[str, Form]] = {
    "less": Form("#2 > #1", CHOICE, (SUM, SUM), inline=True),
    "less_equal": Form(r"#2 \ge #1", CHOICE, (SUM, SUM), inline=True),
    "equal": Form("#2 = #1", CHOICE, (SUM, SUM), inline=True),
}
