"""A reader of the formulas that veldt writes: LaTeX back into numbers.

It knows mathematics and not the language: roots and logarithms of negative numbers are NaN, so
that a formula without a guard that it needs is found. A slash divides by what follows, up to the
next operator; what stands side by side is multiplied, two matrices as matrices, and a square matrix
has powers as a matrix. Names of functions
that no other field has (`\\operatorname{sinkhorn}`) are looked up among the instructions.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from veldt.search.language.ops import OPS

TOKEN = re.compile(r"\\[A-Za-z]+\*?|\\[^A-Za-z]|\d+(?:\.\d+)?|[A-Za-z]|\S")
SPACES = (r"\,", r"\left", r"\right")
RELATIONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": np.less,
    r"\le": np.less_equal,
    "=": np.equal,
    ">": np.greater,
    r"\ge": np.greater_equal,
    r"\mid": lambda k, x: np.mod(np.round(x), np.maximum(np.round(np.abs(k)), 1.0)) == 0,
}
NAMED = {
    "arsinh": np.arcsinh,
    "arcosh": np.arccosh,
    "artanh": np.arctanh,
    "sign": np.sign,
    "mean": np.mean,
}
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    r"\exp": np.exp,
    r"\sin": np.sin,
    r"\cos": np.cos,
    r"\tan": np.tan,
    r"\arcsin": np.arcsin,
    r"\arccos": np.arccos,
    r"\arctan": np.arctan,
    r"\sinh": np.sinh,
    r"\cosh": np.cosh,
    r"\tanh": np.tanh,
    r"\max": np.maximum,
    r"\min": np.minimum,
    r"\log": lambda x: _log(x, np.log),
    r"\log_{2}": lambda x: _log(x, np.log2),
    r"\log_{10}": lambda x: _log(x, np.log10),
    r"\max_{i,j}": np.max,
    r"\max_{\mathrm{row}}": lambda x: _spread(np.max, x, -1),
    r"\max_{\mathrm{column}}": lambda x: _spread(np.max, x, 0),
    r"\operatorname{mean}_{\mathrm{row}}": lambda x: _spread(np.mean, x, -1),
    r"\operatorname{mean}_{\mathrm{column}}": lambda x: _spread(np.mean, x, 0),
    r"\cos\angle": lambda x, y: _cosine(x, y),
    r"\cos\angle_{\mathrm{all}}": lambda x, y: _cosine(x, y),
}
NORMS = {
    "": lambda x: np.sqrt(np.sum(x * x)),
    r"_{\mathrm{all}}": lambda x: np.sqrt(np.sum(x * x)),
    r"_{\mathrm{row}}": lambda x: _spread(np.linalg.norm, x, -1),
    r"_{\mathrm{column}}": lambda x: _spread(np.linalg.norm, x, 0),
    "_{*}": lambda x: np.sum(np.linalg.svd(x, compute_uv=False)),
}


def evaluate(block: str, values: dict[str, Any]) -> Any:
    """Work through a block of equations; the update is returned, and `values` gets all the rest."""
    body = block.removeprefix("\\begin{aligned}\n").removesuffix("\n\\end{aligned}")
    assert body != block
    lines = body.split(" \\\\\n")
    for line in lines[bool(initial(block)) : -1]:
        name, right = line.split(" &= ", 1)
        values[name] = Reader(right, values).right_side()
    head = r"w_{t+1} &= w_{t} - \eta "
    assert lines[-1].startswith(head)
    rest = lines[-1].removeprefix(head).removeprefix(r"\cdot ")
    return Reader(rest, values).right_side()


def initial(block: str) -> list[str]:
    """The names of the slots, from the line with what they start at."""
    first = block.splitlines()[1].removesuffix(r" \\")
    if not re.fullmatch(r"\S+[{,]0\} &= (\S+[{,]0\} = )*0", first):
        return []
    return [part.removesuffix("0}") for part in re.split(r" &?= ", first)[:-1]]


class Identity:
    """A multiple of the identity, of the size that it is added to."""

    __array_ufunc__ = None

    def __init__(self, scale: float = 1.0):
        self.scale = scale

    def __rmul__(self, scale: Any) -> "Identity":
        return Identity(scale * self.scale)

    def __radd__(self, matrix: Any) -> Any:
        return matrix + self.scale * np.eye(len(matrix))


class Reader:
    """Reads one expression."""

    def __init__(self, text: str, values: Mapping[str, Any]):
        self.tokens = [token for token in TOKEN.findall(text) if token not in SPACES]
        self.values = values
        self.place = 0

    def right_side(self) -> Any:
        if self.peek(r"\begin"):
            found = self.cases()
        else:
            found = self.sum()
        assert self.place == len(self.tokens), self.tokens[self.place :]
        return found

    def peek(self, *wanted: str) -> bool:
        return self.tokens[self.place : self.place + len(wanted)] == [*wanted]

    def take(self, *wanted: str) -> bool:
        found = self.peek(*wanted)
        self.place += len(wanted) * found
        return found

    def demand(self, *wanted: str) -> None:
        assert self.take(*wanted), (wanted, self.tokens[self.place :])

    def words(self, text: str) -> bool:
        """Take a command with its text, such as `\\text{if }`."""
        return self.take(*TOKEN.findall(text))

    def cases(self) -> Any:
        self.words(r"\begin{cases}")
        first = self.sum()
        self.demand("&")
        assert self.words(r"\text{if }")
        condition = self.condition()
        self.demand(r"\\")
        second = self.sum()
        assert self.words(r"& \text{otherwise} \end{cases}")
        return np.where(condition, first, second)

    def condition(self) -> Any:
        found = self.conjunction()
        while self.words(r"\text{ or }"):
            found = np.logical_or(found, self.conjunction())
        return found

    def conjunction(self) -> Any:
        found = self.relation()
        while self.words(r"\text{ and }"):
            found = np.logical_and(found, self.relation())
        return found

    def relation(self) -> Any:
        before = self.place
        try:
            left = self.sum()
            relation = RELATIONS[self.tokens[self.place]]
            self.place += 1
            return relation(left, self.sum())
        except (AssertionError, KeyError, IndexError):
            self.place = before  # a condition in parentheses
            self.demand("(")
            found = self.condition()
            self.demand(")")
            return found

    def sum(self) -> Any:
        found = -self.quotient() if self.take("-") else self.quotient()
        while self.peek("+") or self.peek("-"):
            negative = self.take("-") or not self.take("+")
            term = self.quotient()
            found = found - term if negative else found + term
        return found

    def quotient(self) -> Any:
        found = self.elementwise()
        while self.take("/"):
            found = _divide(found, self.power())
        return found

    def elementwise(self) -> Any:
        found = self.product()
        while self.take(r"\odot"):
            found = found * self.product()
        return found

    def product(self) -> Any:
        found = self.power()
        while self.place < len(self.tokens) and not self.ends():
            self.take(r"\cdot")
            found = _multiply(found, self.power())
        return found

    def ends(self) -> bool:
        stops = ("+", "-", "/", ",", ")", "]", "}", "&", r"\\", r"\odot", r"\text", r"\end")
        closing = (r"\rvert", r"\rVert", r"\rangle")
        return self.tokens[self.place] in (*stops, *closing, *RELATIONS)

    def power(self) -> Any:
        found = self.atom()
        if self.take("^", "{", r"\top", "}"):
            return found.T
        if self.take("^", "{"):
            by_element = self.take(r"\odot")
            exponent = self.sum()
            self.demand("}")
            assert not self.peek("^")
            square = np.ndim(found) == 2 and len(set(found.shape)) == 1 < np.size(found)
            return np.power(found, exponent) if by_element or not square else _root(found, exponent)
        return found

    def group(self, start: str = "{", end: str = "}") -> Any:
        self.demand(start)
        found = self.sum()
        self.demand(end)
        return found

    def atom(self) -> Any:
        token = self.tokens[self.place]
        if token[0].isdigit():
            self.place += 1
            return np.float64(token)
        if token == "(":
            return self.group("(", ")")
        if self.take(r"\frac"):
            return _divide(self.group(), self.group())
        if self.take(r"\sqrt", "[", "3", "]"):
            return np.cbrt(self.group())
        if self.take(r"\sqrt"):
            return np.sqrt(self.group())
        if self.take(r"\lvert"):
            found = np.abs(self.sum())
            self.demand(r"\rvert")
            return found
        if self.take(r"\lVert"):
            found = self.sum()
            self.demand(r"\rVert")
            return NORMS[self.below()](found)
        if self.take(r"\langle"):
            first = self.sum()
            self.demand(",")
            second = self.sum()
            self.demand(r"\rangle")
            self.below()
            return np.sum(first * second)
        if self.take(r"\mathbf", "{", "1", "}", "["):
            found = self.condition()
            self.demand("]")
            return np.where(found, 1.0, 0.0)
        if self.take(r"\infty"):
            return np.float64(np.inf)
        return self.name()

    def name(self) -> Any:
        name = self.tokens[self.place]
        self.place += 1
        if name in (r"\mathrm", r"\operatorname", r"\hat", r"\bar", r"\tilde"):
            name += self.braced()
        if self.take(r"\angle"):
            name += r"\angle"
        while self.take("'"):
            name += "'"
        name += self.below()
        if name in self.values:
            return self.values[name]
        function = self.function(name)
        self.demand("(")
        args = [self.sum()]
        while self.take(","):
            args.append(self.sum())
        self.demand(")")
        return function(*args)

    def function(self, name: str) -> Callable[..., Any]:
        if name in FUNCTIONS:
            return FUNCTIONS[name]
        known = re.fullmatch(r"\\(?:operatorname|mathrm)\{(.+)\}", name)
        assert known, name
        plain = known[1].replace(r"\_", "_")
        shape = [self.values["w_{t}"].shape] if plain in OPS and OPS[plain].takes_shape else []
        return NAMED[plain] if plain in NAMED else lambda *args: OPS[plain].fn(np, *shape, *args)

    def below(self) -> str:
        return "_" + self.braced() if self.take("_") else ""

    def braced(self) -> str:
        """Take a group as it is written, without spaces."""
        assert self.peek("{")
        text, depth = "", 0
        while True:
            token = self.tokens[self.place]
            self.place += 1
            text += token
            depth += (token == "{") - (token == "}")
            if depth == 0:
                return text


def _divide(x: Any, y: Any) -> Any:
    """x / y; formulas leave out that x / 0 counts as 0."""
    return np.where(y == 0, 0.0, x / np.where(y == 0, 1.0, y))


def _log(x: Any, function: Callable[[Any], Any]) -> Any:
    """The logarithm; formulas leave out the smallest number that it takes."""
    return np.where(x < 0, np.nan, function(np.maximum(np.abs(x), 2.0**-126)))


def _multiply(x: Any, y: Any) -> Any:
    """A product: of two matrices, unless one of them holds one number."""
    if (
        isinstance(y, Identity)
        or min(np.size(x), np.size(y)) == 1
        or (np.shape(x) == np.shape(y) and _is_number(x, y))
    ):
        return x * y
    return x @ y


def _cosine(x: Any, y: Any) -> Any:
    return _divide(np.sum(x * y), np.linalg.norm(x) * np.linalg.norm(y))


def _root(x: Any, exponent: Any) -> Any:
    """A power of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(x)
    return (vectors * np.where(values > 0, values, np.inf) ** exponent) @ vectors.T


def _is_number(*arrays: Any) -> bool:
    return any(np.unique(x).size == 1 for x in arrays)


def _spread(function: Callable[..., Any], x: Any, axis: int) -> Any:
    """The result of a reduction of rows or columns, at full size."""
    return np.broadcast_to(function(x, axis=axis, keepdims=True), x.shape)
