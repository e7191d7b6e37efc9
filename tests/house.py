"""How the rooms, their folders and their modules import one another.

As a script it prints a table, of the checkout or of a commit:

    python tests/house.py [COMMIT]

The level of a module is 0 where it imports none of veldt's, else one more than the highest that it
imports; all modules of a circle count as one. Imports inside functions count like all others.
"""

import ast
import io
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOMS = ("tasks", "learned_opt", "meta", "search", "veldt")  # Each may import those before it.
Graph = Mapping[str, frozenset[str]]


def find_modules(root: Path) -> dict[str, Path]:
    """Return the modules below `root` by name, such as `search.evolution.engine`.

    Links are left out, since they lead to the rooms; shipped rules are programs, data to veldt.
    """
    found = {}
    for path in sorted(path for room in ROOMS for path in (root / room).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        is_rule = parts[:2] == ("search", "rules") and parts[-1] != "__init__"
        is_linked = any(root.joinpath(*parts[:i]).is_symlink() for i in range(1, len(parts)))
        if not is_rule and not is_linked:
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_names(path: Path) -> Iterator[str]:
    """Yield all that the import statements of a file name, in full, also those in functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def find_imports(root: Path) -> Graph:
    """Return by module which modules of veldt it imports."""
    modules = find_modules(root)

    def module(name: str) -> str | None:
        first, _, rest = name.partition(".")
        name = rest if first == "veldt" and rest.partition(".")[0] in ROOMS else name
        while name and name not in modules:
            name = name.rpartition(".")[0]
        return name or None

    return {
        name: frozenset(filter(None, map(module, imported_names(path)))) - {name, "veldt"}
        for name, path in modules.items()
    }


def folder(module: str, packages: frozenset[str]) -> str:
    """Return the folder of a module; a module that lies in a room itself stands for itself."""
    if module in packages:
        return module
    parent = module.rpartition(".")[0]
    return module if parent in ROOMS else parent


def between_folders(root: Path, graph: Graph) -> Graph:
    """Return by folder which other folders it imports."""
    packages = frozenset(
        name for name, path in find_modules(root).items() if path.name == "__init__.py"
    )
    edges: dict[str, set[str]] = {}
    for module, imported in graph.items():
        here = folder(module, packages)
        edges.setdefault(here, set()).update(folder(name, packages) for name in imported)
    return {here: frozenset(others - {here}) for here, others in edges.items()}


def circles(graph: Graph) -> list[list[str]]:
    """Return the groups of nodes that import one another, by Tarjan's algorithm."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in order:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == order[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


def levels(graph: Graph) -> dict[str, int]:
    """Return the level of each node."""
    group_of = {node: tuple(group) for group in circles(graph) for node in group}
    known: dict[object, int] = {}

    def level(node: str) -> int:
        group = group_of.get(node, (node,))
        if group not in known:
            below = {other for each in group for other in graph.get(each, ())} - {*group}
            known[group] = max((level(other) + 1 for other in below), default=0)
        return known[group]

    return {node: level(node) for node in graph}


def num_lines(root: Path) -> dict[str, int]:
    """Return the lines of code of each module: no blank lines, comments or docstrings."""
    counts = {}
    for name, path in find_modules(root).items():
        text = path.read_text(encoding="utf-8")
        docs: set[int] = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                docs |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        lines = enumerate(text.splitlines(), 1)
        counts[name] = sum(
            bool(line.strip()) and not line.lstrip().startswith("#") and number not in docs
            for number, line in lines
        )
    return counts


def table(root: Path) -> str:
    """Return a table of the rooms and their folders, and what is true of the whole."""
    graph = find_imports(root)
    level, lines = levels(graph), num_lines(root)
    by_folder = {name: name.rpartition(".")[0] or name for name in graph}
    modules = {name for name, path in find_modules(root).items() if path.name != "__init__.py"}
    sizes = Counter(by_folder[name] for name in modules)
    rows = [("folder", "modules", "lines of code", "levels", "imports from")]
    edges: dict[str, set[str]] = {}
    for name, imported in graph.items():
        edges.setdefault(by_folder[name], set()).update(by_folder[other] for other in imported)
    for place in sorted(sizes, key=lambda name: (ROOMS.index(name.partition(".")[0]), name)):
        inside = [name for name in modules if by_folder[name] == place]
        span = f"{min(level[name] for name in inside)}-{max(level[name] for name in inside)}"
        others = ", ".join(sorted(edges[place] - {place}))
        code = str(sum(lines[name] for name in inside))
        rows.append((place, str(sizes[place]), code, span, others))
    found, folders_found = circles(graph), circles(between_folders(root, graph))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    text = [
        "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[4]])
        for row in rows
    ]
    return "\n".join(
        [
            *(line.rstrip() for line in text),
            "",
            f"modules: {len(modules)}, lines of code: {sum(lines.values())}, "
            f"levels: {max(level.values()) + 1}",
            f"circles of modules: {len(found)} {found or ''}".rstrip(),
            f"circles of folders: {len(folders_found)} {folders_found or ''}".rstrip(),
        ]
    )


def main(arguments: list[str]) -> None:
    """Print the table of the checkout, or of the commit that is named."""
    root = Path(__file__).resolve().parents[1]
    if not arguments:
        print(table(root))
        return
    archive = subprocess.run(
        ["git", "archive", arguments[0]], cwd=root, check=True, capture_output=True
    ).stdout
    with tempfile.TemporaryDirectory() as place, tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(place, filter="data")
        print(table(Path(place)))


if __name__ == "__main__":
    main(sys.argv[1:])
