"""Loading "module:name": what is found and where, what is said when nothing is."""

import pathlib
import sys

import optax
import pytest

from veldt.tasks.common import errors
from veldt.tasks.common.user_code import imports

MODULES = {
    "own_found.py": "def make():\n    return 'made here'\n\nclass Made:\n    pass\n\nVALUE = 3\n",
    "own_package/__init__.py": "",
    "own_package/inner.py": "from own_package import helper\nmake = helper.make\n",
    "own_package/helper.py": "def make():\n    return 'made inside'\n",
    "own_divides.py": "1 / 0\n",
    "own_imports.py": "import a_package_that_nobody_has\n",
    "own_syntax.py": "def make(:\n",
    # A module of the standard library that nothing here imports; the user's own goes first.
    "tabnanny.py": "def make():\n    return 'made here'\n",
}


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A current directory with modules of the user's; they are forgotten afterwards."""
    for name, text in MODULES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    tops = {name.partition("/")[0].removesuffix(".py") for name in MODULES}
    for module in [name for name in sys.modules if name.partition(".")[0] in tops]:
        del sys.modules[module]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("own_found:make", "made here"),
        ("own_package.inner:make", "made inside"),
        ("tabnanny:make", "made here"),
    ],
)
def test_modules_and_packages_of_the_current_directory_are_found(own_folder, name, value):
    path_before = list(sys.path)
    assert imports.load_object("task", name)() == value
    assert sys.path == path_before


def test_classes_and_installed_packages_are_found(own_folder):
    assert imports.load_object("task", "own_found:Made").__name__ == "Made"
    assert imports.load_object("optimizer", "optax:adam") is optax.adam
    assert imports.load_object("optimizer", "optax.contrib:muon") is optax.contrib.muon
    assert (
        imports.load_object("task", "veldt.tasks.common.user_code.imports:load_object")
        is imports.load_object
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "own_foundd:make",
            r"No module named 'own_foundd' \(did you mean 'own_found'\?\); looked in the curr",
        ),
        ("own_package.outer:make", "No module named 'own_package.outer'"),
        ("own_imports:make", "No module named 'a_package_that_nobody_has'"),
        ("own_found:mak", r"own_found has no function or class 'mak' \(did you mean 'make'\?\)"),
        ("own_found:VALUE", "no function or class 'VALUE'"),
        ("own_divides:make", "importing own_divides failed: ZeroDivisionError: division by zero"),
        ("own_syntax:make", "importing own_syntax failed: SyntaxError"),
        ("own_found", 'write "module:factory"'),
        ("", 'write "module:factory"'),
        ("own_found:", 'write "module:factory"'),
        (":make", 'write "module:factory"'),
        ("own_found:make:make", 'write "module:factory"'),
        ("own_found:make()", 'write "module:factory"'),
        ("own_package/inner:make", 'write "module:factory"'),
        (".own_found:make", 'write "module:factory"'),
        ("own_package..inner:make", 'write "module:factory"'),
    ],
)
def test_what_is_wrong_is_said_of_the_kind_that_was_asked_for(own_folder, name, message):
    path_before = list(sys.path)
    with pytest.raises(errors.TaskError, match=message) as caught:
        imports.load_object("optimizer", name)
    assert str(caught.value).startswith(f"optimizer {name!r}")
    assert sys.path == path_before


def test_a_module_that_failed_can_be_put_right(own_folder):
    with pytest.raises(errors.TaskError, match="SyntaxError"):
        imports.load_object("task", "own_syntax:make")
    (own_folder / "own_syntax.py").write_text("def make():\n    return 'made right'\n")
    assert imports.load_object("task", "own_syntax:make")() == "made right"


def test_the_import_path_is_as_before_whatever_happens_inside(own_folder):
    path_before = list(sys.path)
    with imports.current_directory_importable():
        assert sys.path == [str(own_folder), *path_before]
    with pytest.raises(KeyError), imports.current_directory_importable():
        raise KeyError
    assert sys.path == path_before


@pytest.mark.parametrize("name", ["tasks.imports:load_object", "search.program:Program"])
def test_veldts_own_checkout_is_not_imported_a_second_time(monkeypatch, name):
    monkeypatch.chdir(pathlib.Path(imports.__file__).resolve().parents[3])
    with pytest.raises(errors.TaskError, match=f"write 'veldt.{name}'"):
        imports.load_object("task", name)
    assert not {"tasks", "search"} & set(sys.modules)


def test_a_module_of_the_users_may_have_the_name_of_a_package(tmp_path, monkeypatch):
    (tmp_path / "tasks.py").write_text("def make():\n    return 'made here'\n")
    monkeypatch.chdir(tmp_path)
    try:
        assert imports.load_object("task", "tasks:make")() == "made here"
    finally:
        sys.modules.pop("tasks", None)
