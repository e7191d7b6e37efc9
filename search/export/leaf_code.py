"""Source lines for a lowered program: the computation on one parameter tensor.

The lines do what `execute.py` does, operation for operation, written as a person would: infix where
there is an operator, values used once nested into their users, the program's own names, and a guard
wherever the instruction set has one (`ops.py`) and it could matter. The array library is a dialect
(`dialect.py`). `optax_module.py` and `torch_module.py` put modules around the lines.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, final

from veldt.search.export import dialect as dialects
from veldt.search.export.dialect import Code, Dialect
from veldt.search.export.source_text import LINE_LENGTH, number_text
from veldt.search.language import constant_axes, laziness, signs
from veldt.search.language.constant_axes import Extent
from veldt.search.language.dataflow import Constant, Dataflow, Input, Node
from veldt.search.language.ops import OPS
from veldt.search.language.statements import OF_RUN, PROGRESS, STEP
from veldt.search.language.types import Kind

# Longer right-hand sides are split into named steps.
MAX_EXPRESSION: Final = 72
# Scalars this short are written out wherever they are used, such as 1.0 - b2.
SHORT_SCALAR: Final = 12

_NAME: Final = r"[A-Za-z_]\w*"
_LITERAL: Final = r"\d[\d.]*(?:e-?\d+)?"
# What ruff and Black write without spaces around `**`.
_SIMPLE_OPERAND: Final = re.compile(rf"-?(?:{_NAME}|{_LITERAL})")


def summed_products(flow: Dataflow) -> list[tuple[int, int]]:
    """Return the pairs of values whose products are summed over all tensors, in order of need."""
    found: dict[tuple[int, int], None] = {}
    for index in flow.live_nodes:
        node = flow.node(index)
        found |= dict.fromkeys((node.args[i], node.args[j]) for i, j in OPS[node.op].products)
    return list(found)


@final
class LeafWriter:
    """Writes the body of one per-tensor function.

    Attributes:
      lines: Statements so far.
      inputs: Tensors among `w`, `g` and the slots that the body reads.
      of_run: Values among `step`, `progress` and `loss` that the body needs.
      roles: Roles that the body reads.
    """

    def __init__(
        self,
        dialect: Dialect,
        flow: Dataflow,
        names: Mapping[int, str],
        temporary: frozenset[int],
        sums: Mapping[tuple[int, int], str],
        outputs: Sequence[int],
        indent: str,
    ):
        """Plan the body.

        Args:
          dialect: Array library that the source is for.
          flow: Lowered program.
          names: Distinct name for every live input, named constant and instruction.
          temporary: Instructions without a chosen name; they are nested where they are used once.
          sums: Names of the sums of products over all tensors, by the indices of the two factors.
          outputs: Indices of the values that the function returns.
          indent: Spaces at the beginning of every line.
        """
        self.dialect = dialect
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
        needs = {STEP} if PROGRESS in inputs else set()
        self.of_run = tuple(name for name in (STEP, *OF_RUN) if name in inputs | needs)
        self.roles = tuple(name for name in flow.live_roles if name in inputs)
        self.inputs = inputs - {STEP, *OF_RUN, *self.roles}
        self.slots = constant_axes.slot_extents(flow)
        self.extents = constant_axes.value_extents(flow, self.slots)
        self._strong = self._scalars_of_their_own_dtype()
        self._lazy = {
            index: own
            for index, own in laziness.lazy_branches(flow).items()
            if index in self.needed
        }
        self._write_all(self.needed, self._lazy.values())

    def results(self, wanted: Sequence[Extent]) -> list[str]:
        """Return the function's results, one expression per output, typed as the tensor.

        Args:
          wanted: Extent of each output's array, which gives the shape.
        """
        return [
            self._result(index, extent) for index, extent in zip(self.outputs, wanted, strict=True)
        ]

    def _result(self, index: int, wanted: Extent, full: Kind = "tensor") -> str:
        """Return a value as an array of some extent, typed as the tensor; scalars as `full`."""
        kind = self.flow.values[index].kind
        if kind != "scalar" and self.extents[index] == wanted:
            return self.codes[index].text
        if index in self.pending:
            self._assign(index)
        code = self.codes[index]
        if wanted != constant_axes.FULL:
            return self.dialect.spread(code, wanted)
        if kind == "scalar":
            return self.dialect.scalar(code, full)
        return f"{self.dialect.broadcast}({code}, {self.dialect.full_shapes[kind]})"

    def _keeps_number(self, is_number: bool) -> bool:
        return is_number and self.dialect.keeps_numbers

    def _args(self, index: int) -> tuple[int, ...]:
        value = self.flow.values[index]
        if not isinstance(value, Node):
            return ()
        # Sums over all tensors are computed before and come in as arguments.
        op = OPS[value.op]
        return () if op.scope == "global" and op.gives_scalar else value.args

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
        """Return the scalars that may be wider than the tensor: of the run, or from global sums."""
        found: set[int] = set()
        for index in self.needed:
            value = self.flow.values[index]
            if isinstance(value, Input):
                strong = value.name in (STEP, *OF_RUN) and value.kind == "scalar"
            elif isinstance(value, Node) and value.kind == "scalar":
                passes = OPS[value.op].scope == "element" or value.op == "percentile"
                strong = OPS[value.op].scope == "global" or bool(passes and found & set(value.args))
            else:
                strong = False
            if strong:
                found.add(index)
        return frozenset(found)

    def _write_all(self, indices: Iterable[int], lazy: Iterable[frozenset[int]]) -> None:
        """Write values in order; those of lazy branches come with their choice."""
        for index in sorted(frozenset(indices).difference(*lazy)):
            if index in self._lazy:
                self._write_choice(index)
            else:
                self._write(index)

    def _write_choice(self, index: int) -> None:
        """Write a choice whose first branch is a function that runs only where it is chosen."""
        node = self.flow.node(index)
        condition, new, old = node.args
        wanted = self.extents[index]
        for arg in (condition, old):
            if arg in self.pending:
                self._assign(arg)
        chosen = f"{self.codes[condition]:1} > 0"
        otherwise = self._result(old, wanted, node.kind)
        before, indent = self.lines, self.indent
        self.lines, self.indent = [], f"{indent}    "
        inner = [own for choice, own in self._lazy.items() if choice in self._lazy[index]]
        self._write_all(self._lazy[index], inner)
        result = self._result(new, wanted, node.kind)
        if (
            len(f"{self.indent}{self.names[index]} = {result}") > LINE_LENGTH
            and new in self.pending
        ):
            self._assign(new)
            result = self._result(new, wanted, node.kind)
        body, self.lines, self.indent = self.lines, before, indent
        self.lines += self.dialect.choice(
            self.names[index], chosen, (body, result), otherwise, indent
        )
        self.codes[index] = Code(self.names[index])

    def _write(self, index: int) -> None:
        value = self.flow.values[index]
        match value:
            case Input():
                is_number = self._keeps_number(value.name in self.roles)
                self.codes[index] = Code(self.names[index], is_number=is_number)
            case Constant(value=number, name=None):
                text = number_text(number)
                level = dialects.NEGATION if text.startswith("-") else dialects.ATOM
                self.codes[index] = Code(text, level, is_number=self._keeps_number(True))
            case Constant():
                self.codes[index] = Code(self.names[index], is_number=self._keeps_number(True))
            case Node(op=op, args=args):
                if op == "interp" and args[2] in self.pending:  # it is written twice
                    self._assign(args[2])
                # Linters report -(-x) as a mistake.
                if (
                    op == "negative"
                    and args[0] in self.pending
                    and self.codes[args[0]].text[0] == "-"
                ):
                    self._assign(args[0])
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
        """Return whether a value is written where it is used, and not under a name."""
        if index not in self.temporary:
            return False
        length = len(self.codes[index].text)
        if self.reads[index] == 1:
            return length <= MAX_EXPRESSION
        return self.flow.values[index].kind == "scalar" and length <= SHORT_SCALAR

    def _assign(self, index: int) -> None:
        """Write the pending expression of a value to its name."""
        name = self.names[index]
        value = self.flow.values[index]
        assert isinstance(value, Node)
        code = self.codes[index]
        if not self._fits(name, code):
            code = self._expression(value, as_calls=True)
        self.lines += dialects.statement(self.indent, name, code)
        self.codes[index] = Code(name, is_number=code.is_number)
        self.pending.discard(index)

    def _fits(self, name: str, code: Code) -> bool:
        return len(f"{self.indent}{name} = {code.text}") <= LINE_LENGTH

    def _expression(self, node: Node, *, as_calls: bool = False) -> Code:
        code = self._plain_expression(node, as_calls)
        if not self._needs_cast(node):
            return code
        cast = f".{self.dialect.cast}(g.dtype)"
        if as_calls and code.call is None and self.dialect.as_typed:
            return Code.of_call(self.dialect.as_typed, (code.text, "g.dtype"))
        if code.call is None:
            return Code(f"({code.text}){cast}")
        function, args, _ = code.call
        return Code.of_call(function, args, cast)

    def _needs_cast(self, node: Node) -> bool:
        """Return whether a tensor's expression might have another dtype than the tensor."""
        if node.kind == "scalar" or OPS[node.op].scope != "element":
            return False
        if node.op in self.dialect.retyping:
            return True
        if node.op in dialects.COMPARISONS:
            return False
        branches = node.args[1:] if node.op == "where" else node.args
        if all(self.flow.values[arg].kind == "scalar" for arg in branches):
            return True
        return self.dialect.scalars_widen and any(arg in self._strong for arg in branches)

    def _plain_expression(self, node: Node, as_calls: bool) -> Code:
        codes = [self._argument(node, arg) for arg in node.args]
        if OPS[node.op].scope == "shape":
            function, templates = self.dialect.calls[node.op]
            suffix = ".reshape(g.shape)" if node.kind == "tensor" else ""
            return Code.of_call(function, [part.format(*codes) for part in templates], suffix)
        if node.op in self.dialect.constants:
            return Code(self.dialect.constants[node.op], is_number=self._keeps_number(True))
        sums = [self.sums[node.args[i], node.args[j]] for i, j in OPS[node.op].products]
        if node.op == "global_norm":
            return Code.of_call(self.dialect.calls["sqrt"][0], sums)
        if node.op == "global_dot":
            return Code(sums[0])
        if node.op == "global_cosine":
            return Code.of_call("_global_cosine", sums)
        if node.op == "clip_by_global_norm":
            args = (codes[0].text, sums[0], codes[1].text)
            return Code.of_call("_clip_by_global_norm", args)
        numbers = self._keeps_number(all(code.is_number for code in codes))
        if node.op in dialects.COMPARISONS:
            code = self.dialect.truth(self._comparison(node), node.kind, is_number=numbers)
            return replace(code, is_number=numbers)
        if node.op == "divide" and self._nonzero_literal(node.args[1]):
            return Code("{:2} / {:3}".format(*codes), dialects.PRODUCT, is_number=numbers)
        if node.op == "power" and not as_calls:
            return self._power(node, codes)
        if node.op in dialects.INFIX and not (as_calls and node.op in self.dialect.calls):
            template, level = dialects.INFIX[node.op]
            return Code(template.format(*codes), level, is_number=numbers)
        function, templates = self.dialect.calls[node.op]
        parts = [template.format(*codes) for template in templates]
        if node.op in ("sqrt", "log1p") and self._is_nonnegative(node.args[0]):
            parts = [f"{codes[0]:t}"]
        if node.op == "where" and node.args[0] in self.pending:
            condition = self.flow.values[node.args[0]]
            if isinstance(condition, Node) and condition.op in dialects.COMPARISONS:
                parts[0] = self._comparison(condition)
        if node.op == "where" and self._keeps_number(codes[0].is_number):
            condition_text = parts[0] if node.args[0] in self.pending else f"{codes[0]} > 0"
            text = f"{codes[1]:1} if {condition_text} else {codes[2]}"
            return Code(text, dialects.CHOICE, is_number=codes[1].is_number and codes[2].is_number)
        if node.op == "where" and self._keeps_number(codes[1].is_number and codes[2].is_number):
            parts[1] = f"{codes[1]:t}"
        return Code.of_call(function, parts)

    def _argument(self, node: Node, index: int) -> Code:
        """Return an argument's code; ops that are not elementwise need it at full size."""
        code = self.codes.get(index)
        if code is None:  # summed over all tensors, before
            return Code("")
        kind = self.flow.values[index].kind
        scope = OPS[node.op].scope
        if scope == "element" or kind == "scalar":
            return code
        if self.extents[index] != constant_axes.FULL:
            code = Code.of_call(self.dialect.broadcast, (code.text, self.dialect.full_shapes[kind]))
        if scope == "shape" and kind == "tensor":
            code = Code.of_call("_as_matrix", (code.text,))
        return code

    def _comparison(self, node: Node) -> str:
        """Return a comparison; a number, if there is one, is on the right."""
        left, right = (f"{self.codes[arg]:1}" for arg in node.args)
        forward, backward = dialects.COMPARISONS[node.op]
        if _constancy(left) > _constancy(right):
            return f"{right} {backward} {left}"
        return f"{left} {forward} {right}"

    def _power(self, node: Node, codes: Sequence[Code]) -> Code:
        base, exponent = codes
        # `abs` makes an array of it: two Python numbers would overflow with an exception.
        plain = self._is_nonnegative(node.args[0]) and self._is_array(node.args)
        function = (
            "abs" if base.is_number and not exponent.is_number else self.dialect.calls["abs"][0]
        )
        left = (
            f"{base:9}"
            if plain
            else f"{function}({base if function == 'abs' else format(base, 't')})"
        )
        right = f"{exponent:3}"
        simple = _SIMPLE_OPERAND.fullmatch(left) and _SIMPLE_OPERAND.fullmatch(right)
        return Code(f"{left}**{right}" if simple else f"{left} ** {right}", dialects.POWER)

    def _is_array(self, args: Sequence[int]) -> bool:
        return any(self.flow.values[arg].kind == "tensor" or arg in self._strong for arg in args)

    def _nonzero_literal(self, index: int) -> bool:
        value = self.flow.values[index]
        return isinstance(value, Constant) and value.name is None and value.value != 0

    def _is_nonnegative(self, index: int) -> bool:
        """Return whether a value is certain to be at least 0 (or NaN), so that |x| is x."""
        value = self.flow.values[index]
        match value:
            case Input(name=name):
                return name in (STEP, PROGRESS) or name in self.roles
            case Constant(value=number, name=name):
                return name is None and math.copysign(1.0, number) > 0
            case Node(op="where", args=(_, *branches)):
                return all(map(self._is_nonnegative, branches))
            case Node(op=op, args=args):
                if op in signs.SIGN_KEEPING:
                    return all(map(self._is_nonnegative, args))
                return op in signs.NONNEGATIVE


def _constancy(text: str) -> int:
    """Return how constant an expression is for linters: 2 for numbers, 1 for names in capitals."""
    without_numbers = re.sub(rf"(?<!\w){_LITERAL}", "", text)
    if not re.search(r"[A-Za-z]", without_numbers):
        return 2
    return int(without_numbers == without_numbers.upper())
