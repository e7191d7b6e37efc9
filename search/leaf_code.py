"""Source lines for a lowered program: what is done to one parameter tensor, in jax.numpy.

The lines do what `execute.py` does, operation for operation, written as a person would: infix where
there is an operator, values used once nested into their users, the program's own names, and a guard
wherever the instruction set has one (`ops.py`) and it could matter. `export.py` puts a module
around them.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from veldt.search.dataflow import Constant, Dataflow, Input, Node
from veldt.search.ops import OPS
from veldt.search.program import STEP

LINE_LENGTH: Final = 100
# Longer right-hand sides are split into named steps.
MAX_EXPRESSION: Final = 72
# Scalars this short are written out wherever they are used, such as 1.0 - b2.
SHORT_SCALAR: Final = 12

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
_SUM: Final = 1
_PRODUCT: Final = 2
_NEGATION: Final = 3
_POWER: Final = 4
_ATOM: Final = 9

# Function calls: the function, and its arguments; `{0:2}` is the first argument of the op, in
# parentheses where it binds less tightly than 2.
_CALLS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
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
_INFIX: Final[dict[str, tuple[str, int]]] = {
    "add": ("{0:1} + {1:2}", _SUM),
    "subtract": ("{0:1} - {1:2}", _SUM),
    "multiply": ("{0:2} * {1:3}", _PRODUCT),
    "negative": ("-{0:4}", _NEGATION),
    "interp": ("(1 - {2}) * {0:3} + {2} * {1:3}", _SUM),
}
_COMPARISONS: Final = {"less": ("<", ">"), "less_equal": ("<=", ">="), "equal": ("==", "==")}
_NUMBERS: Final = {"get_pi": "jnp.pi", "get_e": "jnp.e", "get_eps": "1e-08"}

# Ops whose result is never negative, whatever their arguments; then those that only keep signs.
# fmt: off
_NONNEGATIVE: Final = frozenset((
    "abs", "square", "sqrt", "exp", "exp2", "exp10", "cosh", "log1p", "power", "arccos", "arccosh",
    "invert", "less", "less_equal", "equal", "norm", "global_norm",
))
# fmt: on
_SIGN_KEEPING: Final = frozenset(("add", "multiply", "divide", "reciprocal", "max", "min"))

_NAME: Final = r"[A-Za-z_]\w*"
_LITERAL: Final = r"\d[\d.]*(?:e-?\d+)?"
# What ruff and Black write without spaces around `**`.
_SIMPLE_OPERAND: Final = re.compile(rf"-?(?:{_NAME}|{_LITERAL})")


@final
@dataclass(frozen=True, slots=True)
class Code:
    """An expression in the exported source.

    Attributes:
      text: the expression on one line.
      level: how tightly it binds.
      call: if it is a call, the function, its arguments and what follows, for splitting it over
        lines.
    """

    text: str
    level: int = _ATOM
    call: tuple[str, tuple[str, ...], str] | None = None

    def __format__(self, level: str) -> str:
        return f"({self.text})" if self.level < int(level or 0) else self.text

    @classmethod
    def of_call(cls, function: str, args: Iterable[str], suffix: str = "") -> "Code":
        args = tuple(args)
        return cls(f"{function}({', '.join(args)}){suffix}", _ATOM, (function, args, suffix))


def number_text(number: float) -> str:
    """A number as Python source, in the form that formatters leave alone."""
    if not math.isfinite(number):
        return f'float("{float(number)}")'
    return repr(float(number)).replace("e+", "e")


def square_sums(flow: Dataflow) -> list[int]:
    """Indices of the values whose squares are summed over all tensors, in order of need."""
    nodes = (flow.values[index] for index in flow.live_nodes)
    found = [n.args[0] for n in nodes if isinstance(n, Node) and OPS[n.op].scope == "global"]
    return list(dict.fromkeys(found))


@final
class LeafWriter:
    """Writes the body of one per-tensor function.

    Attributes:
      lines: the statements so far.
      inputs: the tensors among `w`, `g` and the slots that the body reads.
      uses_step: whether it reads the step.
    """

    def __init__(
        self,
        flow: Dataflow,
        names: Mapping[int, str],
        temporary: frozenset[int],
        sums: Mapping[int, str],
        outputs: Sequence[int],
        indent: str,
    ):
        """Plans the body.

        Args:
          flow: the program.
          names: a distinct name for every live input, named constant and instruction.
          temporary: instructions whose names nobody chose; used once, they are nested.
          sums: names of the sums of squares over all tensors, by the squared value's index.
          outputs: indices of what the function returns.
          indent: what every line begins with.
        """
        self.flow = flow
        self.names = names
        self.temporary = temporary
        self.sums = sums
        self.outputs = outputs
        self.indent = indent
        self.lines: list[str] = []
        self.codes: dict[int, Code] = {}
        self.pending: set[int] = set()
        self.needed = self._needed()
        self.reads = Counter(arg for i in self.needed for arg in self._args(i))
        self.reads.update(outputs)
        inputs = {v.name for v in (flow.values[i] for i in self.needed) if isinstance(v, Input)}
        self.uses_step = STEP in inputs
        self.inputs = inputs - {STEP}
        self._strong = self._scalars_of_their_own_dtype()
        for index in self.needed:
            self._write(index)

    def results(self) -> list[str]:
        """What the function returns, one expression per output, shaped and typed as the tensor."""
        texts = []
        for index in self.outputs:
            if index in self.pending and self.flow.values[index].kind == "scalar":
                self._assign(index)
            text = self.codes[index].text
            scalar = self.flow.values[index].kind == "scalar"
            texts.append(f"jnp.full_like(g, {text})" if scalar else text)
        return texts

    def _args(self, index: int) -> tuple[int, ...]:
        value = self.flow.values[index]
        if not isinstance(value, Node):
            return ()
        # What is summed over all tensors comes in as a sum, computed before.
        return value.args[1:] if value.op == "global_norm" else value.args

    def _needed(self) -> list[int]:
        seen: set[int] = set()
        stack = list(self.outputs)
        while stack:
            index = stack.pop()
            if index not in seen:
                seen.add(index)
                stack.extend(self._args(index))
        return sorted(seen)

    def _scalars_of_their_own_dtype(self) -> frozenset[int]:
        """Scalars that may be wider than the tensor: those made from the step or a global sum."""
        found: set[int] = set()
        for index in self.needed:
            value = self.flow.values[index]
            if isinstance(value, Input):
                strong = value.name == STEP
            elif isinstance(value, Node) and value.kind == "scalar":
                from_scalar = OPS[value.op].scope == "element" and found & set(value.args)
                strong = value.op == "global_norm" or bool(from_scalar)
            else:
                strong = False
            if strong:
                found.add(index)
        return frozenset(found)

    def _write(self, index: int) -> None:
        value = self.flow.values[index]
        match value:
            case Input():
                self.codes[index] = Code(self.names[index])
            case Constant(value=number, name=None):
                text = number_text(number)
                self.codes[index] = Code(text, _NEGATION if text.startswith("-") else _ATOM)
            case Constant():
                self.codes[index] = Code(self.names[index])
            case Node(op=op, args=args):
                if op == "interp" and args[2] in self.pending:  # it is written twice
                    self._assign(args[2])
                self.codes[index] = self._expression(value)
                code = self.codes[index]
                if len(code.text) > MAX_EXPRESSION or not self._fits(self.names[index], code):
                    for arg in self._args(index):
                        if arg in self.pending:
                            self._assign(arg)
                    self.codes[index] = self._expression(value)
                self.pending.add(index)
                if not self._nests(index):
                    self._assign(index)

    def _nests(self, index: int) -> bool:
        """Whether a value is written where it is used, and not under a name."""
        if index not in self.temporary:
            return False
        length = len(self.codes[index].text)
        if self.reads[index] == 1:
            return length <= MAX_EXPRESSION
        return self.flow.values[index].kind == "scalar" and length <= SHORT_SCALAR

    def _assign(self, index: int) -> None:
        """Writes the pending expression of a value to its name."""
        name = self.names[index]
        value = self.flow.values[index]
        assert isinstance(value, Node)
        code = self.codes[index]
        if not self._fits(name, code):
            code = self._expression(value, as_calls=True)
        self.lines += self._statement(name, code)
        self.codes[index] = Code(name)
        self.pending.discard(index)

    def _fits(self, name: str, code: Code) -> bool:
        return len(f"{self.indent}{name} = {code.text}") <= LINE_LENGTH

    def _statement(self, name: str, code: Code) -> list[str]:
        """`name = code`, over several lines where it is too long for one."""
        if self._fits(name, code):
            return [f"{self.indent}{name} = {code.text}"]
        if code.call is None:
            return [f"{self.indent}{name} = (", f"{self.indent}    {code.text}", f"{self.indent})"]
        function, args, suffix = code.call
        inner = [f"{self.indent}    {arg}," for arg in args]
        return [f"{self.indent}{name} = {function}(", *inner, f"{self.indent}){suffix}"]

    def _expression(self, node: Node, *, as_calls: bool = False) -> Code:
        code = self._plain_expression(node, as_calls)
        if not self._needs_cast(node):
            return code
        if as_calls and code.call is None:
            return Code.of_call("jnp.asarray", (code.text, "g.dtype"))
        if code.call is None:
            return Code(f"({code.text}).astype(g.dtype)")
        function, args, _ = code.call
        return Code.of_call(function, args, ".astype(g.dtype)")

    def _needs_cast(self, node: Node) -> bool:
        """Whether a tensor's expression might have another dtype than the tensor."""
        if node.kind == "scalar" or node.op == "clip_by_global_norm":
            return False
        if node.op in _COMPARISONS or node.op == "invert":
            return True
        branches = node.args[1:] if node.op == "where" else node.args
        if all(self.flow.values[arg].kind == "scalar" for arg in branches):
            return True
        return any(arg in self._strong for arg in branches)

    def _plain_expression(self, node: Node, as_calls: bool) -> Code:
        codes = [self.codes.get(arg, Code("")) for arg in node.args]
        if node.op in _NUMBERS:
            return Code(_NUMBERS[node.op])
        if node.op == "global_norm":
            return Code.of_call("jnp.sqrt", [self.sums[node.args[0]]])
        if node.op == "clip_by_global_norm":
            args = (codes[0].text, self.sums[node.args[0]], codes[1].text)
            return Code.of_call("_clip_by_global_norm", args)
        if node.op in _COMPARISONS:
            return Code.of_call("jnp.where", (self._comparison(node), "1.0", "0.0"))
        if node.op == "divide" and self._nonzero_literal(node.args[1]):
            return Code("{:2} / {:3}".format(*codes), _PRODUCT)
        if node.op == "power" and not as_calls:
            return self._power(node, codes)
        if node.op in _INFIX and not (as_calls and node.op in _CALLS):
            template, level = _INFIX[node.op]
            return Code(template.format(*codes), level)
        function, templates = _CALLS[node.op]
        parts = [template.format(*codes) for template in templates]
        if node.op in ("sqrt", "log1p") and self._is_nonnegative(node.args[0]):
            parts = [codes[0].text]
        if node.op == "where" and node.args[0] in self.pending:
            condition = self.flow.values[node.args[0]]
            if isinstance(condition, Node) and condition.op in _COMPARISONS:
                parts[0] = self._comparison(condition)
        return Code.of_call(function, parts)

    def _comparison(self, node: Node) -> str:
        """The comparison with a number, if there is one, on the right."""
        left, right = (self.codes[arg].text for arg in node.args)
        forward, backward = _COMPARISONS[node.op]
        if _looks_constant(left) and not _looks_constant(right):
            return f"{right} {backward} {left}"
        return f"{left} {forward} {right}"

    def _power(self, node: Node, codes: Sequence[Code]) -> Code:
        base, exponent = codes
        # jnp.abs makes an array of it: two Python numbers would overflow with an exception.
        plain = self._is_nonnegative(node.args[0]) and self._is_array(node.args)
        left = f"{base:9}" if plain else f"jnp.abs({base})"
        right = f"{exponent:3}"
        simple = _SIMPLE_OPERAND.fullmatch(left) and _SIMPLE_OPERAND.fullmatch(right)
        return Code(f"{left}**{right}" if simple else f"{left} ** {right}", _POWER)

    def _is_array(self, args: Sequence[int]) -> bool:
        return any(self.flow.values[arg].kind == "tensor" or arg in self._strong for arg in args)

    def _nonzero_literal(self, index: int) -> bool:
        value = self.flow.values[index]
        return isinstance(value, Constant) and value.name is None and value.value != 0

    def _is_nonnegative(self, index: int) -> bool:
        """Whether a value is certain to be at least 0 (or NaN), so that |x| is x."""
        value = self.flow.values[index]
        match value:
            case Input(name=name):
                return name == STEP
            case Constant(value=number, name=name):
                return name is None and math.copysign(1.0, number) > 0
            case Node(op="where", args=(_, *branches)):
                return all(map(self._is_nonnegative, branches))
            case Node(op=op, args=args):
                if op in _SIGN_KEEPING:
                    return all(map(self._is_nonnegative, args))
                return op in _NONNEGATIVE


def _looks_constant(text: str) -> bool:
    """Whether linters take the expression for a constant: numbers and names in capitals."""
    without_numbers = re.sub(rf"(?<!\w){_LITERAL}", "", text)
    return without_numbers == without_numbers.upper()
