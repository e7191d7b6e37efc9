"""The house rules: imports go one way, one copy of every module, a light front door."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("tasks", "learned_opt", "meta", "search")  # Each may import those before it.
MODULES = sorted(
    path
    for folder in ("veldt", *ROOMS)
    for path in (ROOT / folder).rglob("*.py")
    # Shipped rules are programs, data to veldt; the links are walked as the rooms they point to.
    if not (ROOT / "search" / "rules" in path.parents and path.name != "__init__.py")
    and not any(parent.is_symlink() for parent in path.parents if ROOT in parent.parents)
)
EACH_MODULE = pytest.mark.parametrize(
    "path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES]
)


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "veldt" else ("veldt", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(path):
    """All that a file's import statements name, in full, also those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def python(code):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, timeout=300
    )


def test_the_walk_finds_the_rooms():
    names = {module_name(path) for path in MODULES}
    assert {"veldt", "veldt.cli", "veldt.tasks.pool.base", "veldt.search.program"} <= names
    assert len(names) == len(MODULES)


@EACH_MODULE
def test_imports_go_one_way(path):
    room = path.relative_to(ROOT).parts[0]
    for name in imported_names(path):
        first, *rest = name.split(".")
        assert first not in ROOMS, f"{path}: imports {name}, not veldt.{name}"
        if first == "veldt" and room != "veldt":
            assert rest[:1] and rest[0] in ROOMS[: ROOMS.index(room) + 1], (
                f"{path}: {room} may not import {name}"
            )


@EACH_MODULE
def test_every_module_is_one_idea_with_a_docstring(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 500, f"{path} is too long: split it"
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring, f"{path} has no docstring"


def tracked_texts():
    """Files that git knows or would add, with their text."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        text=True,
        capture_output=True,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_symlink() or not path.is_file():
            continue
        try:
            yield name, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def test_no_file_names_a_machines_paths():
    # Built from parts, so that this file does not name them.
    places = re.compile(
        "(?<![\\w.~])/(?:" + "|".join(["ro" + "ot", "ho" + "me", "wo" + "rk", "t" + "mp"]) + ")/"
    )
    addresses = re.compile(r"--(?:extra-)?(?:index-url|find-links)|file:///")
    found = [
        f"{name}: {match.group()}"
        for name, text in tracked_texts()
        # Those of a cluster's machines are in its own files.
        if name != "LICENSE" and not name.startswith("examples/cluster/")
        for match in [places.search(text) or (addresses.search(text) if "txt" in name else None)]
        if match
    ]
    assert found == []


@pytest.mark.parametrize("name", [*ROOMS, "configs"])
def test_the_rooms_are_linked_into_the_package(name):
    link = ROOT / "veldt" / name
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{name}"
    assert link.resolve() == ROOT / name
    assert name == "configs" or (link / "__init__.py").is_file()  # Without it mypy sees no modules.


def test_no_room_is_ever_imported_from_the_top():
    """Everything is loaded, from the checkout's root, where `import tasks` would succeed."""
    names = [module_name(path) for path in MODULES if path.name != "__main__.py"]
    done = python(
        "import importlib, sys\n"
        "import veldt\n"
        f"for name in {names}: importlib.import_module(name)\n"
        "for name in veldt.__all__: getattr(veldt, name)\n"
        f"found = [m for m in sys.modules if m.partition('.')[0] in {ROOMS}]\n"
        "sys.exit(str(found) if found else 0)"
    )
    assert done.returncode == 0, done.stderr


def test_no_module_asks_jax_for_its_devices():
    """A driver of workers elsewhere says "cpu" after its imports; a backend made before is a GPU's.

    An array or a key at the top of a module, or of what it imports, would make one.
    """
    names = [module_name(path) for path in MODULES if path.name != "__main__.py"]
    done = python(
        "import importlib, sys\n"
        "import jax\n"
        "from jax._src import xla_bridge\n"
        f"for name in {names}:\n"
        "    importlib.import_module(name)\n"
        "    if xla_bridge.backends_are_initialized(): sys.exit(f'{name} makes a backend')\n"
        "arrays = [f'{name}: {key}' for name, module in sorted(sys.modules.items())\n"
        "          if name.partition('.')[0] == 'veldt'\n"
        "          for key, value in vars(module).items() if isinstance(value, jax.Array)]\n"
        "sys.exit(f'arrays of modules: {arrays}' if arrays else 0)"
    )
    assert done.returncode == 0, done.stderr


def test_the_front_door_is_light():
    done = python(
        "import sys\n"
        "import veldt\n"
        "heavy = {'ray', 'evosax', 'matplotlib', 'rich', 'sklearn', 'yaml'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    assert done.returncode == 0, done.stderr


def test_unknown_names_are_attribute_errors():
    done = python("import veldt; assert not hasattr(veldt, 'x'); veldt.load_rules")
    assert "module 'veldt' has no attribute 'load_rules'; it has FunctionTraining" in done.stderr


def test_the_front_door_shows_its_public_names_and_nothing_else():
    done = python(
        "import veldt; before = dir(veldt)\n"
        "for name in veldt.__all__: getattr(veldt, name)\n"
        "assert dir(veldt) == before == sorted(veldt.__all__), dir(veldt)\n"
        "assert {'Any', 'importlib'}.isdisjoint(before)"
    )
    assert done.returncode == 0, done.stderr
