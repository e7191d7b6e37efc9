r"""Programs as formulas in LaTeX.

`formula` writes what a program computes at step t as a list of equations: live instructions only,
under the program's own names, nested where nobody gave a name and the line stays short, as in
exports (`search/export/leaf_code.py`). Slots and other values that change have the step as index:
m_{t-1} is the state before the step and m_t after it, w_t and g_t are the parameter and its
gradient at the step. The last line is training's: w_{t+1} = w_t - eta u_t.

The symbols are those of `symbols.py`, the notation that of `notation.py`. The environment is
`aligned`, which stands in any display of LaTeX with amsmath, of MathJax and of KaTeX.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final, final

from veldt.search.language import constant_axes, dataflow, statements
from veldt.search.language.dataflow import Constant, Input, Node
from veldt.search.language.latex import notation, ranges
from veldt.search.language.latex.notation import CONDITIONS, FORMS, Form, Tex
from veldt.search.language.latex.symbols import (
    GRADIENT,
    LOSS,
    NUM_STEPS,
    PROGRESS,
    RATE,
    STEP,
    WEIGHTS,
    Symbol,
    Symbols,
)
from veldt.search.language.statements import ROLES, AbstractProgram

# Longer expressions are split into named steps. Scalars this short, such as 1 - beta_2, and tensors
# this short, such as g_t^2, are written wherever they are used. All in characters.
MAX_WIDTH: Final = 50
SHORT_SCALAR: Final = 10
SHORT_TENSOR: Final = 3
# The parser's names for the parts of nested expressions, which nobody chose.
_TEMPORARY: Final = re.compile(r"t\d+")
_STEP_BASE: Final = "z"
# How instructions join conditions.
_JOINS: Final = {"multiply": "and", "min": "and", "max": "or"}
_MINUS: Final = Form("#1 - #2", notation.SUM, (notation.SUM, notation.SLASH))
_PLUS: Final = FORMS["add"]
# A name in upright letters before a parenthesis would be read as a function.
_WORD: Final = re.compile(r"\\(?:mathrm|operatorname)\{[^{}]*\}'*(?:_\{[^{}]*\})?$")


def formula(program: AbstractProgram) -> str:
    """Return a program as an `aligned` block of LaTeX.

    Raises:
      LoweringError: The program is not well formed.
    """
    lines = list(_Formula(program).lines())
    return "\n".join([r"\begin{aligned}", " \\\\\n".join(lines), r"\end{aligned}"])


def constants(program: AbstractProgram) -> dict[str, float]:
    """Return the symbols of the live constants with their defaults."""
    written = _Formula(program)
    return {
        written.texts[index].shown.text: value.value
        for index, value in written.values()
        if isinstance(value, Constant) and value.name is not None
    }


@final
class _Formula:
    """The equations of one program.

    Attributes:
      texts: What each live value is written as where it is used.
      pending: Instructions that are nested so far, and could still get a line of their own.
    """

    def __init__(self, program: AbstractProgram):
        self.flow, targets = dataflow.lower_with_targets(program)
        flow = self.flow
        self.ranges = ranges.ranges(flow)
        extents = constant_axes.value_extents(flow, constant_axes.slot_extents(flow))
        # Numbers, and tensors that hold one number.
        self.numbers = {index for index in flow.live if extents[index] == constant_axes.NUMBER}
        self.symbols = Symbols()
        self.slots: dict[str, Symbol] = {}
        self.changing: set[int] = set()
        self.texts: dict[int, Tex] = {}
        self.names: dict[int, Tex] = {}
        self.pending: set[int] = set()
        self.equations: list[str] = []
        self.reads = Counter(a for i in flow.live_nodes for a in flow.node(i).args)
        self.reads.update((flow.update, *flow.slot_updates.values()))
        self._name_inputs()
        self._name_steps(program, targets)

    def values(self) -> Iterator[tuple[int, dataflow.Value]]:
        """Yield the live values with their indices."""
        for index in sorted(self.flow.live):
            yield index, self.flow.values[index]

    def lines(self) -> Iterator[str]:
        """Yield the equations."""
        flow = self.flow
        if self.slots:
            yield " = ".join([*(slot.at("0") for slot in self.slots.values()), "0"]).replace(
                " =", " &=", 1
            )
        if Input(statements.PROGRESS, "scalar") in (value for _, value in self.values()):
            yield rf"{PROGRESS} &= \min(1, {STEP} / {NUM_STEPS})"
        for index in flow.live_nodes:
            self._write(index)
        state = zip(self.slots.values(), flow.slot_updates.values(), strict=True)
        for new, index in ((symbol.at(STEP), index) for symbol, index in state):
            if self.texts[index].shown.text != new:
                self._equate(new, self.texts[index])
        yield from self.equations
        now = notation.plain(WEIGHTS.at(STEP))
        update = self.texts[flow.update]
        step = _multiply(notation.plain(RATE), True, update, False)
        yield f"{WEIGHTS.at('t+1')} &= {_MINUS.fill([now, step]).shown.text}"

    def _name_inputs(self) -> None:
        fixed = {
            "w": WEIGHTS.at(STEP),
            "g": GRADIENT.at(STEP),
            statements.STEP: STEP,
            statements.PROGRESS: PROGRESS,
            statements.LOSS: f"{LOSS}_{{{STEP}}}",
        }
        for name in self.flow.live_slots:
            self.slots[name] = self.symbols.of_slot(name)
        for index, value in self.values():
            match value:
                case Input(name=name) if name in self.slots:
                    self.texts[index] = _symbol(self.slots[name], "t-1")
                case Input(name=name) if name in ROLES:
                    self.texts[index] = notation.plain(notation.upright(name))
                case Input(name=name):
                    self.texts[index] = notation.plain(fixed[name])
                case Constant(value=number, name=None):
                    self.texts[index] = notation.number(number)
                case Constant(name=str(name)):
                    symbol = self.symbols.choose(name, changes=False, is_constant=True)
                    self.texts[index] = _symbol(symbol, None)
            reads = value.args if isinstance(value, Node) else ()
            is_variable = isinstance(value, Input) and value.name not in ROLES
            if is_variable or not self.changing.isdisjoint(reads):
                self.changing.add(index)

    def _name_steps(self, program: AbstractProgram, targets: tuple[int, ...]) -> None:
        """Choose the names of instructions that somebody named, of new state and of the update."""
        flow = self.flow
        for name, index in zip(flow.live_slots, flow.slot_updates.values(), strict=True):
            if isinstance(flow.values[index], Node):
                self.names.setdefault(index, _symbol(self.slots[name], STEP))
        wished: dict[int, str] = {}
        for index, statement in zip(targets, program.statements, strict=True):
            if index not in wished or _TEMPORARY.fullmatch(wished[index]):
                wished[index] = statement.target
        for index in flow.live_nodes:
            name = wished[index]
            if index not in self.names and index != flow.update and not _TEMPORARY.fullmatch(name):
                symbol = self.symbols.choose(name, changes=index in self.changing)
                self.names[index] = self._at_its_time(index, symbol)
        if isinstance(flow.values[flow.update], Node) and flow.update not in self.names:
            symbol = self.symbols.first_free("u", r"\Delta")
            self.names[flow.update] = _symbol(symbol, STEP)

    def _at_its_time(self, index: int, symbol: Symbol) -> Tex:
        return _symbol(symbol, STEP if index in self.changing else None)

    def _write(self, index: int) -> None:
        """Write an instruction's equation, or keep it for where it is used."""
        node = self.flow.node(index)
        self._name_arguments(node)
        tex = self._expression(node)
        while tex.shown.width > MAX_WIDTH:
            nested = [arg for arg in node.args if arg in self.pending]
            if not nested:
                break
            self._assign(max(nested, key=lambda arg: self.texts[arg].shown.width))
            tex = self._expression(node)
        self.texts[index] = tex
        self.pending.add(index)
        if index in self.names or not self._nests(index):
            self._assign(index)

    def _nests(self, index: int) -> bool:
        if self.flow.node(index).op == "where":
            return False
        width = self.texts[index].shown.width
        if self.reads[index] == 1:
            return width <= MAX_WIDTH
        return width <= (SHORT_SCALAR if index in self.numbers else SHORT_TENSOR)

    def _name_arguments(self, node: Node) -> None:
        """Give names to what would be written twice."""
        for place in FORMS[node.op].repeated:
            if node.args[place] in self.pending:
                self._assign(node.args[place])

    def _assign(self, index: int) -> None:
        if index not in self.names:
            symbol = self.symbols.number(_STEP_BASE)
            self.names[index] = self._at_its_time(index, symbol)
        self._equate(self.names[index].shown.text, self.texts[index])
        self.texts[index] = self.names[index]
        self.pending.discard(index)

    def _equate(self, name: str, tex: Tex) -> None:
        self.equations.append(f"{name} &= {tex.shown.text}")

    def _expression(self, node: Node) -> Tex:
        args = [self.texts[arg] for arg in node.args]
        place = notation.OF_SIZE.get(node.op)
        if place is not None and self.ranges[node.args[place]].low < 0.0:
            args[place] = notation.SIZE.fill([args[place]])
        if node.op in (*CONDITIONS, *_JOINS) and self._is_truth(node):
            return notation.plain(rf"\mathbf{{1}}[{self._truth(node)}]")
        match node.op:
            case "add":
                return _sum(*args)
            case "multiply":
                return self._product(*node.args)
            case "matmul":
                return _beside(args[0], args[1], notation.PRODUCT)
            case "interp":
                return self._average(node)
            case "where":
                condition = notation.plain(self._condition(node.args[0]), notation.CHOICE)
                return FORMS["where"].fill([condition, *args[1:]])
            case "square" | "cube" | "power" if node.kind in ("row_pairs", "column_pairs"):
                return notation.ELEMENTWISE_POWER[node.op].fill(args)
            case "inverse_root":
                return notation.root_form(args[1], args[2]).fill(args)
            case op:
                return FORMS[op].fill(args, notation.FLAT.get(op))

    def _product(self, left: int, right: int) -> Tex:
        x, y = self.texts[left], self.texts[right]
        if left == right:
            return FORMS["square"].fill([x])
        return _multiply(x, left in self.numbers, y, right in self.numbers)

    def _average(self, node: Node) -> Tex:
        first, second, weight = node.args
        share = self.texts[weight]
        rest = FORMS["subtract"].fill([notation.number(1.0), share])
        scalar = weight in self.numbers
        return _sum(
            _multiply(rest, scalar, self.texts[first], first in self.numbers, keep_order=True),
            _multiply(share, scalar, self.texts[second], second in self.numbers, keep_order=True),
        )

    def _condition(self, index: int, within: str = "") -> str:
        """Return what has to hold for a value to be above zero; `within` is the op that joins."""
        text, value = self.texts[index].flat.text, self.flow.values[index]
        if not isinstance(value, Node) or not self._is_truth(value):
            return f"{text} > 0"
        if index not in self.pending:
            return f"{text} = 1"
        truth = self._truth(value)
        return f"({truth})" if within and value.op in _JOINS and value.op != within else truth

    def _truth(self, node: Node) -> str:
        """Return what has to hold for an instruction to give 1, where it gives 1 or 0."""
        if node.op in _JOINS:
            parts = [self._condition(arg, node.op) for arg in node.args]
            return rf" \text{{ {_JOINS[node.op]} }} ".join(parts)
        form = CONDITIONS[node.op]
        if node.op in notation.BACKWARD and self._constancy(node, 0) > self._constancy(node, 1):
            form = notation.BACKWARD[node.op]
        return form.fill([self.texts[arg] for arg in node.args]).flat.text

    def _constancy(self, node: Node, place: int) -> int:
        """Return 2 for a number, 1 for what does not change, else 0."""
        value = self.flow.values[node.args[place]]
        if isinstance(value, Constant) and value.name is None:
            return 2
        return int(node.args[place] not in self.changing and isinstance(value, Constant))

    def _is_truth(self, node: Node) -> bool:
        """Return whether an instruction gives 1 or 0 for certain."""
        if node.op not in _JOINS:
            return node.op in CONDITIONS
        args = [self.flow.values[arg] for arg in node.args]
        return all(isinstance(arg, Node) and self._is_truth(arg) for arg in args)


def _symbol(symbol: Symbol, time: str | None) -> Tex:
    # A prime is a superscript: powers need parentheses.
    return notation.plain(symbol.at(time), notation.CLOSED if symbol.primes else notation.ATOM)


def _sum(x: Tex, y: Tex) -> Tex:
    """Return x + y; a minus sign of y is the sum's."""
    if y.shown.text.startswith("-") and y.flat.text.startswith("-"):
        without = Tex(*(piece._replace(text=piece.text[1:], level=notation.ATOM) for piece in y))
        return _MINUS.fill([x, without])
    return _PLUS.fill([x, y])


def _multiply(x: Tex, x_scalar: bool, y: Tex, y_scalar: bool, *, keep_order: bool = False) -> Tex:
    """Return a product, scalars first, and of these numbers."""
    if not x_scalar and not y_scalar:
        return FORMS["multiply"].fill([x, y])
    if not keep_order and y_scalar and (not x_scalar or _starts_with_digit(y)):
        x, y = y, x
    return _beside(x, y, notation.ELEMENTWISE)


def _beside(x: Tex, y: Tex, need: int) -> Tex:
    """Return two factors side by side, apart where they could be read as one."""
    left, right = x.shown.within(need), y.shown.within(need)
    between = " "
    if _starts_with_digit(y) or (_WORD.search(left) and right.startswith(("(", r"\left"))):
        between = r" \cdot "
    elif _WORD.search(left) or right.startswith(r"\mathrm"):
        between = r" \, "
    return Form(f"#1{between}#2", notation.PRODUCT, (need, need)).fill([x, y])


def _starts_with_digit(tex: Tex) -> bool:
    return any(piece.within(notation.ELEMENTWISE)[0].isdigit() for piece in tex)
