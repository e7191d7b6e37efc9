"""The house rules: imports go one way, one copy of every module, a light front door."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests import house

ROOT = Path(__file__).parent.parent
ROOMS = house.ROOMS[:-1]
PATHS = house.find_modules(ROOT)
NAMES = sorted(name if name.startswith("veldt") else f"veldt.{name}" for name in PATHS)
MAX_ENTRIES = 17  # Of a folder, its `__init__.py` and what it holds besides modules counted.
# What every room or engine has one of, under one name.
ROLES = {"base", "config", "display", "errors", "registry", "report", "types"}


def python(code):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, timeout=300
    )


def test_the_walk_finds_the_rooms():
    assert {"veldt", "veldt.cli", "veldt.tasks.pool.base", "veldt.search.program"} <= {*NAMES}
    assert len(NAMES) == len({*NAMES}) == len(PATHS)


def test_imports_go_one_way():
    """Between rooms, between the folders of a room, and between modules; also inside functions."""
    graph = house.find_imports(ROOT)
    wrong = [
        f"{name} imports {other}"
        for name, imported in graph.items()
        for other in imported
        if house.ROOMS.index(other.partition(".")[0]) > house.ROOMS.index(name.partition(".")[0])
    ]
    assert wrong == []
    assert house.circles(graph) == []
    assert house.circles(house.between_folders(ROOT, graph)) == []
    bare = [
        f"{path}: import veldt.{name}, not {name}"
        for path in PATHS.values()
        for name in house.imported_names(path)
        if name.partition(".")[0] in ROOMS
    ]
    assert bare == []


def test_a_circle_is_found(tmp_path):
    """The walk that the test above relies on sees what is hidden in functions."""
    for path, text in {
        "tasks/a.py": "from veldt.tasks import b",
        "tasks/b.py": "from veldt.tasks.c import x",
        "tasks/c.py": "def f():\n    import veldt.tasks.a",
        "tasks/one/d.py": "from veldt.tasks.two import e",
        "tasks/two/e.py": "",
        "tasks/two/f.py": "from veldt.tasks.one import d",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    graph = house.find_imports(tmp_path)
    assert house.circles(graph) == [["tasks.a", "tasks.b", "tasks.c"]]
    assert house.circles(house.between_folders(tmp_path, graph)) == [
        ["tasks.a", "tasks.b", "tasks.c"],
        ["tasks.one", "tasks.two"],
    ]
    assert house.levels(graph) == {
        "tasks.a": 0, "tasks.b": 0, "tasks.c": 0,
        "tasks.one.d": 1, "tasks.two.e": 0, "tasks.two.f": 2,
    }  # fmt: skip


def test_every_module_is_one_idea_with_a_docstring():
    wrong = []
    for path in PATHS.values():
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > 500:
            wrong.append(f"{path} is too long: split it")
        if not ast.get_docstring(ast.parse(text)):
            wrong.append(f"{path} has no docstring")
    assert wrong == []


def test_no_module_uses_a_private_word():
    """Words that a stranger would not understand; stored names of old versions stay."""
    private = re.compile(
        r"\b(sittings?|shel(f|ves)|rivals?|reigns?|duels?|whom|knock-?out|told apart)\b", re.I
    )
    found = [
        f"{name}: {match.group()}"
        for name, path in PATHS.items()
        if name != "search.storage.schema"
        for match in private.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_no_two_modules_share_a_name():
    """But for those that have the same part in different rooms."""
    names = Counter(
        name.rpartition(".")[2] for name, path in PATHS.items() if path.stem != "__init__"
    )
    assert {name for name, count in names.items() if count > 1} <= ROLES


def test_no_folder_is_a_heap():
    folders = {path.parent for path in PATHS.values()}
    sizes = {
        str(folder.relative_to(ROOT)): sum(
            not each.name.startswith(("__pycache__", ".")) for each in folder.iterdir()
        )
        for folder in folders
        if folder != ROOT / "search" / "rules"  # Data, and no code.
    }
    assert {folder: size for folder, size in sizes.items() if size > MAX_ENTRIES} == {}


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
    names = [name for name in NAMES if not name.endswith("__main__")]
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
    names = [name for name in NAMES if not name.endswith("__main__")]
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
    assert "module 'veldt' has no attribute 'load_rules'; it has Discovery" in done.stderr


def test_the_front_door_shows_its_public_names_and_nothing_else():
    done = python(
        "import veldt; before = dir(veldt)\n"
        "for name in veldt.__all__: getattr(veldt, name)\n"
        "assert dir(veldt) == before == sorted(veldt.__all__), dir(veldt)\n"
        "assert {'Any', 'importlib'}.isdisjoint(before)"
    )
    assert done.returncode == 0, done.stderr
