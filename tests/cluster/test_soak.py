"""What a soak is made of: hosts in namespaces, commands that end alike, a plan of faults."""

import json
import os
import random
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soak_commands
import soak_faults
import soak_network
import soak_plan

ROOT = Path(__file__).parents[2]

SERVER = """
import socket, sys
listener = socket.create_server((sys.argv[1], 7000))
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    connection.sendall(b"hello")
    connection.close()
"""
CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], 7000), timeout=float(sys.argv[2])) as connection:
    print(connection.recv(5).decode())
"""


@pytest.fixture(scope="module")
def why_not():
    return soak_network.missing()


@pytest.fixture
def network(why_not):
    if why_not:
        pytest.skip(f"no network namespaces here: {why_not}")
    with soak_network.Network() as network:
        yield network


def hello(network, of, to, timeout_s=30.0):
    """Whether host `of` gets a greeting from the server on host `to`."""
    address = network.address(to)
    command = network.on(of, [sys.executable, "-S", "-c", CLIENT, address, str(timeout_s)])
    return subprocess.run(command, text=True, capture_output=True).stdout.strip() == "hello"


def serve(network, host):
    command = network.on(host, [sys.executable, "-S", "-c", SERVER, network.address(host)])
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "ready\n"
    return server


def queues(network, host):
    """What the kernel says of how a host's link is queued."""
    command = network.on(host, ["tc", "qdisc", "show", "dev", "eth0"])
    return subprocess.run(command, text=True, capture_output=True, check=True).stdout


def test_links_of_hosts_are_cut_slowed_and_brought_back_one_by_one(network):
    one, two, three = (network.add_host() for _ in range(3))
    servers = [serve(network, host) for host in (two, three)]
    assert hello(network, one, two)
    network.cut(two)
    assert not hello(network, one, two, timeout_s=0.5)
    assert hello(network, one, three)
    network.heal(two)
    assert hello(network, one, two)
    network.slow(two)
    kind = network.slowed_by.split()[0]
    assert kind in ("netem", "tbf")
    assert kind in queues(network, two) and kind not in queues(network, three)
    assert hello(network, one, two)
    network.heal(two)
    assert kind not in queues(network, two)
    for server in servers:
        server.kill()
        server.communicate()


def test_a_host_ends_with_all_its_processes_and_the_others_go_on(network):
    one, two = network.add_host(), network.add_host()
    servers = [serve(network, host) for host in (one, two)]
    assert network.processes(two) == [servers[1].pid]  # `ip` has become the server.
    network.remove(two)
    assert servers[1].wait(10) < 0
    assert servers[0].poll() is None
    assert network.hosts == [one]
    three = network.add_host()
    assert three not in (one, two)  # Nobody takes the new host for the old one.
    assert hello(network, three, one)
    network.close()
    assert servers[0].wait(10) < 0
    names = subprocess.run(["ip", "netns"], text=True, capture_output=True).stdout
    assert network._mark not in names
    for server in servers:
        server.communicate()


def test_a_machine_that_does_not_allow_it_says_why(monkeypatch):
    monkeypatch.setattr(soak_network.shutil, "which", lambda name: None)
    assert "iproute2" in soak_network.missing()
    monkeypatch.setattr(soak_network.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert soak_network.missing() == "network namespaces need root"
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    def fail(*words):
        raise soak_network.NetworkError("`ip netns add` failed: Operation not permitted")

    monkeypatch.setattr(soak_network, "_run", fail)
    assert "not permitted" in soak_network.missing()


@pytest.mark.parametrize("has_links", [True, False])
def test_a_plan_holds_every_fault_that_a_command_can_meet(has_links):
    names = list(soak_plan.SHARES)
    rounds = soak_plan.plan(random.Random(3), names, 100, has_links=has_links)
    met = [(each.command, kind) for each in rounds for kind in each.kinds]
    assert len(met) == 100
    for name in names:
        kinds = {kind for command, kind in met if command == name}
        assert kinds == set(soak_faults.kinds(has_links=has_links))
    assert all(0 < len(each.kinds) <= soak_plan.ROUND for each in rounds)
    # Rounds of all commands come before second rounds of any.
    assert [each.command for each in rounds[:4]] == names
    assert rounds == soak_plan.plan(
        random.Random(3), list(soak_plan.SHARES), 100, has_links=has_links
    )
    once = soak_plan.plan(random.Random(3), ["search"], None, has_links=has_links)
    kinds = sorted(kind for each in once for kind in each.kinds)
    assert kinds == sorted(soak_faults.kinds(has_links=has_links))


def test_the_summary_counts_by_command_and_fault():
    rounds = [
        {"command": "search", "faults": {"link cut": 2}, "runs_compared": 1, "checks": 3},
        {"command": "tune", "faults": {"driver killed": 1}, "runs_compared": 2, "checks": 1},
        {"command": "search", "faults": {"link cut": 1, "head lost": 1},
         "runs_compared": 1, "checks": 0},
    ]  # fmt: skip
    assert soak_plan.summary(rounds) == {
        "faults": {"driver killed": 1, "head lost": 1, "link cut": 3},
        "num_faults": 5,
        "commands": {
            "search": {"faults": {"head lost": 1, "link cut": 3}, "runs_compared": 2, "checks": 3},
            "tune": {"faults": {"driver killed": 1}, "runs_compared": 2, "checks": 1},
        },
    }


def driver(code, text, said):
    """A process that says something and ends with `code` when it is terminated."""
    program = (
        "import signal, sys, time\n"
        f"def end(*_): print({text!r}, flush=True); sys.exit({code})\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('begun', flush=True)\ntime.sleep(60)"
    )
    with open(said, "w") as log:
        process = subprocess.Popen([sys.executable, "-S", "-c", program], stdout=log)
    while said.stat().st_size == 0:
        time.sleep(0.01)
    return process


def test_a_driver_that_ends_wrongly_after_sigterm_is_found(tmp_path):
    said = tmp_path / "said.txt"
    right = driver(143, "stopped by SIGTERM; To go on: veldt tune x", said)
    assert soak_faults._terminate(right, said)
    for code, text in [
        (15, "To go on: veldt tune x"),
        (1, "error"),
        (143, "silent"),
        (0, "stopped by SIGTERM"),
    ]:
        process = driver(code, text, said)
        with pytest.raises(soak_faults.Unexpected, match="after SIGTERM"):
            soak_faults._terminate(process, said)
    process = driver(143, "", said)
    said.write_text("")
    assert not soak_faults._terminate(process, said)  # It has not begun: nothing to hit.
    process.kill()
    process.wait()


def changed(path, change):
    """Changes what a JSON file, or each line of one, holds."""
    text = path.read_text()
    parts = [json.loads(part) for part in ([text] if path.suffix == ".json" else text.splitlines())]
    for part in parts:
        change(part)
    path.write_text("".join(json.dumps(part) + "\n" for part in parts))


@pytest.mark.parametrize(
    ("name", "log", "array"),
    [
        ("meta-train", "metrics.jsonl", "last.npz"),
        ("tune", "metrics.jsonl", "tuned.npz"),
        ("evaluate", "results.json", None),
    ],
)
def test_ends_are_compared_in_everything_but_times(name, log, array, tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    file = ROOT / "tests" / "golden" / "0.2.0" / f"{name.replace('-', '_')}.zip"
    for place in (ours, theirs):
        with zipfile.ZipFile(file) as archive:
            archive.extractall(place)
    if not (ours / log).exists():  # The run is a folder of the archive.
        ours, theirs = (next(place.glob(f"*/{log}")).parent for place in (ours, theirs))
    command = soak_commands.COMMANDS[name]()
    command.check(ours)
    assert len(command.contents(ours)) >= 3
    assert command.differences(ours, theirs) == []
    if name == "evaluate":
        changed(theirs / log, lambda line: line["effort"].update(wall_s=1e9, compile_s=1e9))
        assert command.differences(ours, theirs) == []
        changed(theirs / log, lambda line: line["rows"][0].update(won=0.123))
        assert command.differences(ours, theirs) == ["results: rows differs"]
        sweep = next((theirs / "sweeps").glob("*.npz"))
        sweep.unlink()
        missing = command.differences(ours, theirs)
        assert f"{sweep.name}/0.losses differs" in missing
        return
    changed(theirs / log, lambda line: line.update(wall_s=1e9))
    assert command.differences(ours, theirs) == []
    changed(theirs / log, lambda line: line.update(update=line["update"] + 1))
    assert command.differences(ours, theirs) == ["log differs"]
    with np.load(ours / array) as archive:
        arrays = {key: archive[key] for key in archive.files if not key.endswith(".json")}
    key = next(key for key, value in arrays.items() if value.dtype == np.float32)
    arrays[key] = np.nextafter(arrays[key], np.float32(np.inf))  # The least that there can be.
    np.savez(theirs / array, **arrays)
    assert set(command.differences(ours, theirs)) == {f"{array}/{key} differs", "log differs"}
    (theirs / array).write_bytes((ours / array).read_bytes()[:100])
    with pytest.raises(zipfile.BadZipFile):
        command.check(theirs)


SIZES = {"meta-train": 12, "evaluate": 25, "tune": 6}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("name", sorted(SIZES))
def test_a_command_ends_alike_inline_in_threads_and_on_ray(name, tmp_path):
    command = soak_commands.COMMANDS[name](SIZES[name])
    pools = [("inline", 1), ("inline", 3), ("ray", 2)]

    def run(number, variant, pool):
        place = tmp_path / f"run{number}"
        orders = tmp_path / f"orders{number}"
        orders.mkdir()
        words = command.words(tmp_path, variant, place)
        words += ["--pool.backend", pool[0], "--pool.num-workers", str(pool[1])]
        done = subprocess.run(
            [sys.executable, ROOT / "benchmarks" / "soak_driver.py", orders, *words],
            text=True,
            capture_output=True,
            timeout=600,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert "% busy" in done.stderr
        assert (orders / "work.jsonl").exists()
        command.check(place)
        return place

    first, *others = [run(number, 0, pool) for number, pool in enumerate(pools)]
    assert command.contents(first)
    for other in others:
        assert command.differences(other, first) == []
    # Other seeds end otherwise, so that equal ends are no accident.
    assert command.differences(run(9, 1, pools[0]), first)
