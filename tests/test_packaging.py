"""The wheel holds all of veldt, and a Ray worker can run from it alone."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import veldt
from veldt.tasks import pool_config, ray_cluster
from veldt.tasks.pool import PoolError

ROOT = Path(__file__).parents[1]

# A driver as a user's: in a folder of its own, with the checkout importable but not the workers'
# first choice.
DRIVER = """
import sys
from veldt.tasks import pool_config
from veldt.tasks.pool import Job


class Asked:
    def __call__(self, payload):
        import importlib, sys
        import jax, ray, veldt

        if payload == "where":
            return [module.__file__ for module in (veldt, ray, jax)]
        return importlib.import_module(payload).__file__


ray_config = pool_config.RayConfig(wheel=sys.argv[1])
config = pool_config.PoolConfig("ray", 1, ray=ray_config)
with pool_config.make_pool(config, Asked) as pool:
    for index, payload in enumerate(("where", "veldt.search.run", "veldt.tasks.pool")):
        pool.submit(Job(index, payload))
    values = {result.id: result.value for result in pool.results()}
import veldt, ray, jax
print(*[module.__file__ for module in (veldt, ray, jax)], *values[0], sep="\\n")
print(values[1], values[2], sep="\\n")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built as by `make wheel`, from a copy, so that nothing of an earlier build is in it."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
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
    wanted = {f"veldt/{path.name}" for path in (ROOT / "veldt").glob("*.py")}
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
    assert here == str(ROOT / "veldt" / "__init__.py")
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
    settings = pool_config.RayConfig(wheel=str(tmp_path / name))
    with pytest.raises(PoolError, match=r"pool\.ray\.wheel: .* is no wheel; make one with `make w"):
        ray_cluster._runtime_env(settings, tmp_path)
