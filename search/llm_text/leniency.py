"""Reading what a model writes for what it plainly means, where the language is stricter.

Models know Python, NumPy and PyTorch better than the language of programs. What they add and what
changes no meaning is taken away or rewritten in the tree, which keeps the places of the text for
errors: type hints, decorators, imports, defaults of the state (which always starts at zero),
constants that stand before the `*`, `m += x`, `a if c else b` with a comparison, `jnp.sqrt(x)`,
`maximum`, and brackets around what is returned. Everything else is left as it is, and the parser
decides.
"""

import ast
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar, final

from veldt.search.language.ops import OPS

_Node = TypeVar("_Node", bound=ast.AST)

_MODULES: Final = frozenset(("jnp", "np", "jax", "numpy", "torch", "math", "lax", "linalg"))
_SAME: Final = {
    "maximum": "max",
    "minimum": "min",
    "absolute": "abs",
    "fabs": "abs",
    "pow": "power",
    "neg": "negative",
}
_DROPPED: Final = (ast.Pass, ast.Import, ast.ImportFrom)


def rewrite(tree: ast.Module) -> ast.Module:
    """Return a tree in which each function is in the language's own form, as far as it can be.

    Raises:
      RecursionError: The tree is too deep.
    """
    return ast.Module([_Rewriter().visit(node) for node in tree.body], tree.type_ignores)


@final
class _Rewriter(ast.NodeTransformer):
    """Rewrites the nodes named in the module's docstring; places stay."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.decorator_list, node.returns = [], None
        body = [*_statements(node.body)]
        node.body = [self.visit(statement) for statement in body] or node.body
        _rewrite_signature(node)
        return node

    def visit_Return(self, node: ast.Return) -> ast.AST:
        self.generic_visit(node)
        values = [*_flat(node.value)] if node.value is not None else []
        if node.value is not None and isinstance(node.value, ast.Tuple | ast.List):
            whole = node.value
            node.value = _at(ast.Tuple(values, ast.Load()), whole) if len(values) > 1 else whole
            if len(values) == 1:
                node.value = values[0]
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.target, ast.Name):
            return node
        old = _at(ast.Name(node.target.id, ast.Load()), node.target)
        value = self.visit(_at(ast.BinOp(old, node.op, node.value), node))
        return _at(ast.Assign([node.target], value), node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return node.operand if isinstance(node.op, ast.UAdd) else node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.MatMult):
            return _call("matmul", [node.left, node.right], node)
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.test, ast.Compare):
            return _call("where", [node.test, node.body, node.orelse], node)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = _function_name(node.func)
        name = _SAME.get(name, name)
        if name in OPS:
            node.func = _at(ast.Name(name, ast.Load()), node.func)
        return node


def _function_name(node: ast.expr) -> str:
    """Return the last part of a name such as `jnp.linalg.norm`; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    name = node.attr if isinstance(node, ast.Attribute) else ""
    while isinstance(node, ast.Attribute):
        node = node.value
        part = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
        if part not in _MODULES:
            return ""
    return name


def _statements(body: Sequence[ast.stmt]) -> Iterable[ast.stmt]:
    """Yield a function's statements without those that do nothing, and one target at a time."""
    for position, node in enumerate(body):
        match node:
            case ast.Expr(ast.Constant(str())) if position > 0:
                continue
            case ast.AnnAssign(target=ast.Name() as target, value=value):
                if value is not None:
                    yield _at(ast.Assign([target], value), node)
            case ast.Assign([ast.Tuple(targets)], ast.Tuple(values)) if _apart(targets, values):
                for each, part in zip(targets, values, strict=True):
                    yield _at(ast.Assign([each], part), node)
            case ast.Assign([ast.Name(name) as first, *others], value) if others:
                yield _at(ast.Assign([first], value), node)
                for other in others:
                    yield _at(ast.Assign([other], _at(ast.Name(name, ast.Load()), node)), node)
            case _ if not isinstance(node, _DROPPED):
                yield node


def _apart(targets: Sequence[ast.expr], values: Sequence[ast.expr]) -> bool:
    """Return whether assigning one after the other is the same as assigning all at once."""
    if len(targets) != len(values):
        return False
    assigned: set[str] = set()
    for target, value in zip(targets, values, strict=True):
        read = {node.id for node in ast.walk(value) if isinstance(node, ast.Name)}
        if not isinstance(target, ast.Name) or read & assigned:
            return False
        assigned.add(target.id)
    return True


def _rewrite_signature(node: ast.FunctionDef) -> None:
    """Drop hints and the state's defaults, and put constants behind the `*`.

    How many values are returned says which of the arguments with defaults are state.
    """
    args = node.args
    for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs):
        arg.annotation = None
    positional = [*args.posonlyargs, *args.args]
    last = node.body[-1]
    if not args.defaults or args.vararg or not isinstance(last, ast.Return):
        return
    returned = len([*_flat(last.value)]) if last.value is not None else 0
    without_default = len(positional) - len(args.defaults)
    num_state = max(returned + 1, without_default)  # w and g, and one for each value but the update
    defaults = args.defaults[num_state - without_default :]
    if any(not _is_zero(default) for default in args.defaults[: num_state - without_default]):
        return
    args.posonlyargs, args.args, args.defaults = [], positional[:num_state], []
    args.kwonlyargs = [*positional[num_state:], *args.kwonlyargs]
    args.kw_defaults = [*defaults, *args.kw_defaults]


def _is_zero(node: ast.expr) -> bool:
    """Return whether a default is nothing: 0, 0.0 or None."""
    return isinstance(node, ast.Constant) and not node.value and node.value in (0, None)


def _flat(node: ast.expr | None) -> Iterable[ast.expr]:
    """Yield the values of tuples and lists within one another."""
    if isinstance(node, ast.Tuple | ast.List):
        for each in node.elts:
            yield from _flat(each)
    elif node is not None:
        yield node


def _call(name: str, args: list[ast.expr], place: ast.AST) -> ast.Call:
    return _at(ast.Call(_at(ast.Name(name, ast.Load()), place), args, []), place)


def _at(node: _Node, place: ast.AST) -> _Node:
    return ast.copy_location(node, place)
