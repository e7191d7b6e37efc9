"""The files of `examples/cluster` are what Ray and KubeRay take, with options that veldt has."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

import veldt
from veldt import cli
from veldt.tasks.pool import config

ROOT = Path(__file__).parents[1]
HOME = "/".join(["", "home", "ubuntu"])  # On the nodes.
FOLDER = ROOT / "examples" / "cluster"
RAY_UP = FOLDER / "ray-up.yaml"
WHEEL = f"veldt-{veldt.__version__}-py3-none-any.whl"


def pinned(package):
    """The version that constraints.txt names."""
    found = re.search(rf"^{package}==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


class Called(BaseException):
    """What `veldt search` would have run."""

    def __init__(self, settings, run_dir, *, resume, **_):
        self.settings, self.run_dir, self.resume = settings, run_dir, resume


@pytest.fixture
def called(monkeypatch):
    """What a command line comes to; one that veldt refuses fails the test."""

    def run_search(*args, **kwargs):
        raise Called(*args, **kwargs)

    def called(command):
        program, *words = shlex.split(command)
        assert program == "veldt"
        with pytest.raises(Called) as caught:
            assert cli.main(words) == cli.OK
        return caught.value

    monkeypatch.setattr("veldt.search.run.run_search.run_search", run_search)
    return called


def test_the_ray_up_file_fits_rays_own_schema():
    from ray.autoscaler._private import util

    described = yaml.safe_load(RAY_UP.read_text())
    filled = util.prepare_config(described)
    util.validate_config(filled)
    nodes = filled["available_node_types"]
    assert nodes[filled["head_node_type"]]["resources"] == {"CPU": 0}
    assert nodes["worker"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in nodes["head"]["node_config"]
    with pytest.raises(Exception, match="max_wokers"):
        util.validate_config({**filled, "max_wokers": 3})


def test_the_ray_up_file_starts_ray_with_a_token_and_mounts_what_it_installs():
    described = yaml.safe_load(RAY_UP.read_text())
    starts = [*described["head_start_ray_commands"], *described["worker_start_ray_commands"]]
    starts = [command for command in starts if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token ray start" in command for command in starts)
    mounts = described["file_mounts"]
    assert f"{HOME}/.ray/auth_token" in mounts
    assert f"dist/{WHEEL}" in mounts.values()
    assert (ROOT / mounts[f"{HOME}/veldt/constraints.txt"]).is_file()
    installs = " ".join(described["setup_commands"])
    assert f"ray[default]=={pinned('ray')}" in installs
    for path in re.findall(r"~/veldt/[\w.-]+\.(?:whl|txt)", installs):
        assert path.replace("~", HOME) in mounts


def test_the_ray_up_files_search_is_one(called):
    comment = re.sub(r"\\\n#\s*", "", RAY_UP.read_text())
    (command,) = re.findall(r'"(veldt search [^"]*)"', comment)
    found = called(command)
    assert found.resume
    settings = found.settings
    described = yaml.safe_load(RAY_UP.read_text())
    assert settings.pool.num_workers == 8 * described["max_workers"]
    assert settings.window >= 8 * settings.pool.num_workers
    assert config.choose_backend(settings.pool) == "ray"


@pytest.fixture
def objects():
    text = (FOLDER / "rayjob.yaml").read_text()
    return {described["kind"]: described for described in yaml.safe_load_all(text)}


def test_the_rayjob_is_one(objects):
    job = objects["RayJob"]
    assert job["apiVersion"] == "ray.io/v1"
    spec = job["spec"]
    # The fields of KubeRay's own type that are used here.
    assert set(spec) == {
        "entrypoint",
        "backoffLimit",
        "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished",
        "rayClusterSpec",
    }
    cluster = spec["rayClusterSpec"]
    assert set(cluster) == {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    assert cluster["rayVersion"] == pinned("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    for group in (head, workers):
        # KubeRay passes them to `ray start`: text, all of them.
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"].endswith(f"veldt:{veldt.__version__}")
        assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_rayjobs_run_directory_is_on_the_volume_and_its_workers_fit(objects, called):
    found = called(objects["RayJob"]["spec"]["entrypoint"])
    assert found.resume
    cluster = objects["RayJob"]["spec"]["rayClusterSpec"]
    pod = cluster["headGroupSpec"]["template"]["spec"]
    (mount,) = pod["containers"][0]["volumeMounts"]
    assert Path(mount["mountPath"]) in found.run_dir.parents
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
    claim = volume["persistentVolumeClaim"]["claimName"]
    assert claim == objects["PersistentVolumeClaim"]["metadata"]["name"]

    (group,) = cluster["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    settings = found.settings
    ray = settings.pool.ray
    each = int(float(limits["nvidia.com/gpu"]) / ray.num_gpus)
    assert settings.pool.num_workers == each * group["replicas"]
    assert float(limits["cpu"]) > each * ray.num_cpus
    assert float(limits["memory"].removesuffix("Gi")) > each * ray.memory_limit_gib
    assert settings.window >= 8 * settings.pool.num_workers
    assert config.choose_backend(settings.pool) == "ray"


def test_the_image_has_the_drivers_ray_and_the_wheel():
    text = (FOLDER / "Dockerfile").read_text()
    assert f"FROM rayproject/ray:{pinned('ray')}-py311" in text
    assert f"dist/{WHEEL}" in text and "constraints.txt" in text
