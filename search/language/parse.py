"""Reading programs: a small part of Python's grammar, and nothing else.

    def lion(w, g, m, *, b1=0.9, b2=0.99, wd=1e-3):
        c = interp(g, m, b1)
        m = interp(g, m, b2)
        return sign(c) + wd * w, m

One function; `w`, `g`, then at most six state slots; keyword arguments with numeric defaults are
the tunable constants. The body is a docstring (optional), assignments of one name, and a final
`return` of the update and as many values as there are slots. Expressions are numbers, names, infix
arithmetic and comparison, and calls of the instruction set. Nested expressions are flattened into
single instructions with fresh names `t1, t2, ...`, in Python's order of evaluation.

The text is data: it goes through `ast.parse`, which builds a tree and runs nothing, and every node
that is not listed here is refused with its line and column.
"""

import ast
import inspect
import math
import warnings
from collections.abc import Iterable
from typing import Final, NoReturn

from veldt.search.errors import ProgramSyntaxError, ProgramTypeError
from veldt.search.language import dataflow
from veldt.search.language.ops import OPS
from veldt.search.language.statements import (
    COPY,
    INPUTS,
    MAX_SLOTS,
    READABLE,
    AnyProgram,
    Arg,
    Statement,
)
from veldt.tasks.common import spelling

MAX_TEXT_BYTES: Final = 100_000
MAX_STATEMENTS: Final = 1_000
MAX_DEPTH: Final = 50

# Arguments that optimizers have, or may have, beside the constants.
_TAKEN: Final = (*READABLE, "learning_rate", "roles", "num_steps", "state_dtype")
_BINARY: Final[dict[type[ast.operator], str]] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.Pow: "power",
}
# `a > b` is `less(b, a)`: the flag tells whether the two change places.
_COMPARE: Final[dict[type[ast.cmpop], tuple[str, bool]]] = {
    ast.Lt: ("less", False),
    ast.LtE: ("less_equal", False),
    ast.Gt: ("less", True),
    ast.GtE: ("less_equal", True),
    ast.Eq: ("equal", False),
}

# The usual names of the parts of Python that the language leaves out.
_KINDS: Final[dict[str, str]] = {
    "Attribute": "an attribute",
    "AugAssign": "an in-place assignment",
    "BoolOp": "`and`/`or`",
    "Call": "a call of a call",
    "ClassDef": "a class",
    "Constant": "this literal",
    "Dict": "a dict",
    "Expr": "a bare expression",
    "For": "a loop",
    "FunctionDef": "a nested function",
    "If": "`if`",
    "IfExp": "`if`",
    "Import": "an import",
    "ImportFrom": "an import",
    "Lambda": "a lambda",
    "List": "a list",
    "ListComp": "a comprehension",
    "Return": "an early return",
    "Starred": "a star",
    "Subscript": "an index",
    "Try": "`try`",
    "Tuple": "a tuple",
    "While": "a loop",
    "With": "`with`",
}


def parse_program(text: str, make: type[AnyProgram]) -> AnyProgram:
    """Parse and check one program of the class `make`. See `Program.parse`."""
    return read_tree(syntax_tree(text), make)


def syntax_tree(text: str) -> ast.Module:
    """Return the tree of a text in Python's grammar; nothing is executed.

    Raises:
      ProgramSyntaxError: The text is no Python, or too long.
    """
    if len(text.encode("utf-8", errors="replace")) > MAX_TEXT_BYTES:
        raise ProgramSyntaxError(f"the text is longer than {MAX_TEXT_BYTES} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Python's warnings about odd literals; such text is refused below
            return ast.parse(text)
    except SyntaxError as error:
        raise ProgramSyntaxError(
            f"not valid Python: {error.msg}", line=error.lineno, column=error.offset
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ProgramSyntaxError(f"cannot be read: {error or type(error).__name__}") from None


def read_tree(tree: ast.Module, make: type[AnyProgram]) -> AnyProgram:
    """Read and check the one program of a tree.

    Raises:
      ProgramSyntaxError: The tree is outside the language.
      ProgramTypeError: An argument has the wrong kind.
    """
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    others = [
        node for node in tree.body if not isinstance(node, ast.FunctionDef) and not _is_doc(node)
    ]
    if others:
        _refuse(others[0], "a rule file holds one function and nothing else")
    if len(functions) != 1:
        raise ProgramSyntaxError(
            f"a rule file holds exactly one function, this one holds {len(functions)}"
        )
    return _Reader(functions[0]).read(make)


class _Reader:
    """Reads one function definition; holds the names seen so far."""

    def __init__(self, function: ast.FunctionDef):
        self.function = function
        self.statements: list[Statement] = []
        self.places: list[tuple[int, int]] = []
        self.defined: set[str] = set()
        self.slots: tuple[str, ...] = ()
        self.constants: tuple[tuple[str, float], ...] = ()
        self.taken = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        self.num_temporaries = 0

    def read(self, make: type[AnyProgram]) -> AnyProgram:
        function = self.function
        if function.decorator_list:
            _refuse(function.decorator_list[0], "decorators are not allowed")
        if function.returns is not None:
            _refuse(function.returns, "annotations are not allowed")
        if getattr(function, "type_params", None):
            _refuse(function, "type parameters are not allowed")
        self.read_signature(function.args)
        body = list(function.body)
        doc = ""
        if body and _is_doc(body[0]):
            doc = _clean_doc(ast.get_docstring(function, clean=False) or "")
            body = body[1:]
        if not body or not isinstance(body[-1], ast.Return):
            _refuse(body[-1] if body else function, "a rule ends with `return update, ...`")
        for node in body[:-1]:
            self.read_assignment(node)
        final = body[-1]
        assert isinstance(final, ast.Return)
        returns = self.read_return(final)
        program = make(
            function.name, self.slots, self.constants, tuple(self.statements), returns, doc
        )
        try:
            dataflow.lower(program)
        except dataflow.LoweringError as error:
            line, column = (
                self.places[error.statement] if error.statement is not None else (final.lineno, 1)
            )
            raise ProgramTypeError(error.message, line=line, column=column) from None
        return program

    def read_signature(self, args: ast.arguments) -> None:
        if args.vararg or args.kwarg:
            _refuse(
                args.vararg or args.kwarg or self.function, "*args and **kwargs are not allowed"
            )
        if args.defaults:
            _refuse(
                args.defaults[0], "w, g and the slots take no default; constants come after `*`"
            )
        positional = [*args.posonlyargs, *args.args]
        names = [arg.arg for arg in positional]
        if tuple(names[:2]) != INPUTS:
            _refuse(
                self.function, f"the first two arguments are `w, g`, not `{', '.join(names[:2])}`"
            )
        if len(names) - 2 > MAX_SLOTS:
            _refuse(
                positional[2 + MAX_SLOTS],
                f"at most {MAX_SLOTS} state slots, here are {len(names) - 2}",
            )
        for arg in [*positional, *args.kwonlyargs]:
            if arg.annotation is not None:
                _refuse(arg.annotation, "annotations are not allowed")
            if arg.arg in OPS or arg.arg in _TAKEN:
                _refuse(arg, f"the name {arg.arg!r} is taken by the language")
            if arg.arg in self.defined:
                _refuse(arg, f"the name {arg.arg!r} is given twice")
            self.defined.add(arg.arg)
        constants = []
        for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
            value = None if default is None else _number(default)
            if value is None:
                _refuse(default or arg, f"the constant {arg.arg!r} needs a number as its default")
            constants.append((arg.arg, value))
        self.slots = tuple(names[2:])
        self.constants = tuple(constants)
        self.defined.update(READABLE)
        self.taken |= self.defined

    def read_assignment(self, node: ast.stmt) -> None:
        if not isinstance(node, ast.Assign):
            _refuse(
                node,
                f"{_describe(node)} is not allowed; a rule is made of assignments and one return",
            )
        if len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
            _refuse(node, "assign to one plain name, as in `m = interp(g, m, b1)`")
        target = node.targets[0].id
        if target in OPS or target in READABLE:
            _refuse(node, f"the name {target!r} is taken by the language")
        if any(target == name for name, _ in self.constants):
            _refuse(node, f"{target!r} is a constant and cannot be assigned")
        self.emit(node.value, target)
        self.defined.add(target)

    def read_return(self, node: ast.Return) -> tuple[Arg, ...]:
        if node.value is None:
            _refuse(node, "return the update and the slots")
        values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
        if len(values) != 1 + len(self.slots):
            slots = ", ".join(self.slots) or "none"
            wanted = f"{1 + len(self.slots)} values, not {len(values)}"
            _refuse(node, f"return the update and one value for each slot ({slots}): {wanted}")
        return tuple(self.read_arg(value, 0) for value in values)

    def emit(self, node: ast.expr, target: str, depth: int = 0) -> None:
        """Append the instructions that leave the value of `node` in `target`."""
        op, args = self.read_expression(node, depth)
        if len(self.statements) >= MAX_STATEMENTS:
            _refuse(node, f"more than {MAX_STATEMENTS} instructions")
        self.statements.append(Statement(target, op, args))
        self.places.append((node.lineno, node.col_offset + 1))

    def read_expression(self, node: ast.expr, depth: int) -> tuple[str, tuple[Arg, ...]]:
        if depth > MAX_DEPTH:
            _refuse(node, f"expressions nest deeper than {MAX_DEPTH}")
        if _number(node) is not None or isinstance(node, ast.Name):
            return COPY, (self.read_arg(node, depth),)
        match node:
            case ast.BinOp(left, operator, right):
                if type(operator) not in _BINARY:
                    _refuse(
                        node,
                        f"the operator {type(operator).__name__} is not allowed; "
                        "allowed: + - * / **",
                    )
                if isinstance(operator, ast.Pow):
                    left = _without_abs(left)  # A power works on the size of its base anyway.
                return _BINARY[type(operator)], self.read_args([left, right], depth)
            case ast.UnaryOp(ast.USub(), operand):
                return "negative", self.read_args([operand], depth)
            case ast.Compare(left, [comparison], [right]):
                if type(comparison) not in _COMPARE:
                    _refuse(
                        node,
                        f"the comparison {type(comparison).__name__} is not allowed; "
                        "allowed: < <= > >= ==",
                    )
                op, swapped = _COMPARE[type(comparison)]
                args = self.read_args([left, right], depth)
                return op, args[::-1] if swapped else args
            case ast.Call(func, call_args, keywords):
                if not isinstance(func, ast.Name):
                    _refuse(
                        node,
                        "only functions of the instruction set can be called, "
                        f"not {_describe(func)}",
                    )
                if func.id not in OPS:
                    allowed = ", ".join(sorted(OPS))
                    hint = spelling.did_you_mean(func.id, OPS)
                    _refuse(node, f"unknown function {func.id!r}{hint}; allowed: {allowed}")
                if keywords:
                    _refuse(node, f"{func.id} takes no keyword arguments")
                if len(call_args) != OPS[func.id].arity:
                    _refuse(
                        node,
                        f"{func.id} takes {OPS[func.id].arity} argument(s), not {len(call_args)}",
                    )
                return func.id, self.read_args(call_args, depth)
        _refuse(
            node,
            f"{_describe(node)} is not allowed; allowed are numbers, names, + - * / **, "
            "comparisons and calls of the instruction set",
        )

    def read_args(self, nodes: Iterable[ast.expr], depth: int) -> tuple[Arg, ...]:
        return tuple(self.read_arg(node, depth + 1) for node in nodes)

    def read_arg(self, node: ast.expr, depth: int) -> Arg:
        number = _number(node)
        if number is not None:
            return number
        if isinstance(node, ast.Name):
            if node.id in self.defined:
                return node.id
            if node.id in OPS:
                _refuse(
                    node,
                    f"{node.id!r} is a function; call it with {OPS[node.id].arity} argument(s)",
                )
            hint, defined = (
                spelling.did_you_mean(node.id, self.defined),
                ", ".join(sorted(self.defined)),
            )
            _refuse(node, f"the name {node.id!r} is not defined here{hint}; defined: {defined}")
        temporary = self.fresh_name()
        self.emit(node, temporary, depth)
        return temporary

    def fresh_name(self) -> str:
        while True:
            self.num_temporaries += 1
            name = f"t{self.num_temporaries}"
            if name not in self.taken:
                self.defined.add(name)
                return name


def _without_abs(node: ast.expr) -> ast.expr:
    match node:
        case ast.Call(ast.Name("abs"), [inner], []):
            return inner
    return node


def _number(node: ast.AST) -> float | None:
    """Return the value of a numeric literal, with its sign; None for anything else."""
    match node:
        case ast.Constant(value) if isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if not math.isfinite(number):
                _refuse(node, "numbers must be finite")
            return number
        case ast.UnaryOp(ast.USub(), ast.Constant() as operand):
            number_or_none = _number(operand)
            return None if number_or_none is None else -number_or_none
    return None


def _is_doc(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _clean_doc(doc: str) -> str:
    """Return the docstring in a form that Python's clean-up does not change, to print it back."""
    while (cleaned := inspect.cleandoc(doc).strip()) != doc:
        doc = cleaned
    return doc


def _describe(node: ast.AST) -> str:
    kind = type(node).__name__
    return _KINDS.get(kind, kind)


def _refuse(node: ast.AST, message: str) -> NoReturn:
    line = getattr(node, "lineno", None)
    column = getattr(node, "col_offset", None)
    raise ProgramSyntaxError(message, line=line, column=None if column is None else column + 1)
