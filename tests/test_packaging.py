"""The wheel holds all of veldt, a Ray worker can run from it alone, and an install wins."""

import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import veldt
from veldt.tasks.pool import config, ray_cluster
from veldt.tasks.pool.base import PoolError

ROOT = Path(__file__).parents[1]

# A driver as a user's: in a folder of its own, with the checkout importable but not the workers'
# first choice.
DRIVER = """
import sys
from veldt.tasks.pool import config as pool_config
from veldt.tasks.pool.base import Job


class Asked:
    def __call__(self, payload):
        import importlib, sys
        import jax, ray, veldt

        if payload == "where":
            return [module.__file__ for module in (veldt, ray, jax)]
        return importlib.import_module(payload).__file__


ray_config = pool_config.RayConfig(wheel=sys.argv[1])
config = pool_config.PoolConfig("ray", 1, ray=ray_config)
with pools.make_pool(config, Asked) as pool:
    asked = ("where", "veldt.search.run.run_search", "veldt.tasks.pool.base")
    for index, payload in enumerate(asked):
        pool.submit(Job(index, payload))
    values = {result.id: result.value for result in pool.results()}
import veldt, ray, jax
print(*[module.__file__ for module in (veldt, ray, jax)], *values[0], sep="\\n")
print(values[1], values[2], sep="\\n")
"""


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# What a newcomer writes first, beside the clone.
SCRIPT = """
import importlib.util, pathlib, veldt
print(pathlib.Path(veldt.__file__).resolve())
rooms = "tasks", "search", "meta", "learned_opt"
print(*[room for room in rooms if importlib.util.find_spec(room)])
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the checkout, named as a clone is, with nothing of an earlier build in it."""
    source = tmp_path_factory.mktemp("beside") / "veldt"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_symlink():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).symlink_to(path.readlink())
        elif path.is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(path.read_bytes())
    return source


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    """Built as by `make wheel`."""
    output = tmp_path_factory.mktemp("dist")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "-w", str(output), str(source)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    (built,) = output.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_every_room_its_data_rules_and_configs(wheel):
    assert wheel.name == f"veldt-{veldt.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    wanted = {f"veldt/{path.name}" for path in (ROOT / "veldt").iterdir() if path.is_file()}
    assert "veldt/py.typed" in wanted
    wanted |= {f"veldt/configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")}
    for room in ("tasks", "learned_opt", "meta", "search"):
        wanted |= {
            f"veldt/{path.relative_to(ROOT)}"
            for path in (ROOT / room).rglob("*")
            if path.is_file() and path.suffix != ".pyc"
        }
    assert len(wanted) > 80
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside == wanted


@pytest.mark.slow
@pytest.mark.ray
def test_ray_workers_run_from_the_wheel_and_with_the_nodes_own_packages(wheel, tmp_path):
    (tmp_path / "driver.py").write_text(DRIVER)
    done = subprocess.run(
        [sys.executable, "driver.py", str(wheel)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    here, ray_here, jax_here, there, ray_there, jax_there, *modules = done.stdout.split()
    assert Path(here).resolve() == ROOT / "veldt" / "__init__.py"
    copy = Path(there).parent
    assert copy.name == "veldt" and "py_modules_files" in copy.parts
    assert all(Path(module).is_relative_to(copy) for module in modules)
    # No second Ray or JAX came along.
    assert (ray_there, jax_there) == (ray_here, jax_here)


@pytest.mark.parametrize("name", ["missing.whl", "text.whl", "veldt.zip"])
def test_what_is_no_wheel_is_refused_before_ray_starts_anything(name, tmp_path):
    (tmp_path / "text.whl").write_text("no archive")
    with zipfile.ZipFile(tmp_path / "veldt.zip", "w") as archive:
        archive.writestr("veldt/__init__.py", "")
    settings = config.RayConfig(wheel=str(tmp_path / name))
    with pytest.raises(PoolError, match=r"pool\.ray\.wheel: .* is no wheel; make one with `make w"):
        ray_cluster._runtime_env(settings, tmp_path)


def test_an_editable_install_puts_a_folder_on_the_path_that_holds_veldt_alone():
    # A hook in its place would come after the path, and lose to any folder called `veldt`.
    assert PROJECT["tool"]["setuptools"]["package-dir"] == {"": "src"}
    assert PROJECT["tool"]["setuptools"]["packages"]["find"]["where"] == ["src"]
    inside = [path for path in (ROOT / "src").iterdir() if path.suffix != ".egg-info"]
    assert [str(path.readlink()) for path in inside] == ["../veldt"]
    assert inside[0].resolve() == ROOT / "veldt"


def test_a_script_beside_a_folder_called_veldt_imports_veldt(tmp_path):
    (tmp_path / "veldt" / "veldt").mkdir(parents=True)
    (tmp_path / "script.py").write_text(SCRIPT)
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    done = _python(sys.executable, tmp_path, "script.py", PYTHONPATH=path)
    assert done.stdout.splitlines()[0] == str(ROOT / "veldt" / "__init__.py"), done.stderr
    done = _python(sys.executable, tmp_path, "-m", "veldt", "--version", PYTHONPATH=path)
    assert done.stdout == f"veldt {veldt.__version__}\n", done.stderr


@pytest.mark.slow
def test_an_editable_install_beside_the_clone_wins_and_makes_nothing_else_importable(
    source, tmp_path
):
    venv.create(tmp_path / "env", symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    (packages,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    # The packages of this environment, pip included, but not its veldt.
    (packages / "others.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--ignore-installed"]
    done = _python(python, tmp_path, "-m", "pip", "install", *options, "-e", str(source))
    assert done.returncode == 0, done.stderr
    (source.parent / "script.py").write_text(SCRIPT)
    done = _python(python, source.parent, "script.py")
    assert done.stdout == f"{source / 'veldt' / '__init__.py'}\n\n", done.stderr
    for command in ([python, "-m", "veldt"], [python.parent / "veldt"]):
        done = _python(*command[:1], source.parent, *command[1:], "--version")
        assert done.stdout == f"veldt {veldt.__version__}\n", done.stderr


def _python(python, folder, *words, **environment):
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [python, *words],
        cwd=folder,
        env=clean | environment,
        text=True,
        capture_output=True,
        timeout=300,
    )


def test_what_an_index_shows_has_no_picture_or_link_that_only_a_checkout_has():
    text = (ROOT / PROJECT["project"]["readme"]).read_text()
    targets = re.findall(r"\]\(([^)\s]+)", text) + re.findall(r"(?:src|href)=\"([^\"]+)", text)
    assert targets and all(target.startswith("https://") for target in targets), targets


def test_a_type_checker_sees_veldts_types_and_an_index_its_classifiers():
    assert (ROOT / "veldt" / "py.typed").is_file()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["veldt"]
    classifiers = PROJECT["project"]["classifiers"]
    assert {"Typing :: Typed", "Programming Language :: Python :: 3.13"} <= set(classifiers)
