"""Where a soak's workers live: hosts in network namespaces, or raylets on one address.

Both have a head, without workers, and nodes. Nodes that end by themselves, as those do that the
head has given up, are started again by `tend`, as a supervisor would.
"""

import abc
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, final

import soak_network

NUM_CPUS: Final = 2  # Of a node.
PORT: Final = 6379
START_S: Final = 180.0
TRIES: Final = 3  # Of the head's start.
# How soon the head gives up a node that it does not reach: after about 15 s instead of a minute.
HEALTH: Final = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "3",
}
Rest = Callable[[float], object]


class Cluster(abc.ABC):
    """A head and nodes, and what can happen to them.

    Attributes:
      address: Address of the head.
      about: Description of the cluster.
    """

    address: str
    about: str

    def on_head(self, command: Sequence[str]) -> list[str]:
        """Return the command line that runs a command beside the head."""
        return list(command)

    @abc.abstractmethod
    def kill_node(self, rng: random.Random) -> None:
        """Kill a node, as a power cut would; add another a little later."""

    @abc.abstractmethod
    def kill_head(self) -> None:
        """Kill the head's server; its host stays."""

    @abc.abstractmethod
    def close(self) -> None:
        """End all nodes; may be called twice."""

    @abc.abstractmethod
    def tend(self) -> None:
        """Start again what has ended by itself."""


@final
class Raylets(Cluster):
    """Separate raylets on this machine's own loopback address."""

    def __init__(self, num_nodes: int):
        """Start a head and nodes."""
        # Nobody else on this machine's network can reach them.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        from ray import cluster_utils

        self._cluster = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        self._nodes = [self._cluster.add_node(num_cpus=NUM_CPUS) for _ in range(num_nodes)]
        self.address = str(self._cluster.address)
        self.about = f"a head and {num_nodes} nodes, as raylets on one machine"

    def kill_node(self, rng: random.Random) -> None:
        victim = self._nodes.pop(rng.randrange(len(self._nodes)))
        self._cluster.remove_node(victim, allow_graceful=False)
        time.sleep(rng.uniform(0.0, 3.0))
        self._nodes.append(self._cluster.add_node(num_cpus=NUM_CPUS))

    def kill_head(self) -> None:
        if self._cluster.head_node is not None:
            self._cluster.head_node.kill_gcs_server(check_alive=False)

    def tend(self) -> None:
        for node in list(self._nodes):
            if not node.live_processes():
                self._nodes.remove(node)
                self._nodes.append(self._cluster.add_node(num_cpus=NUM_CPUS))

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._cluster.shutdown()


@final
class Hosts(Cluster):
    """Hosts with addresses of their own; see `soak_network`. A driver runs on the head's host."""

    def __init__(self, num_nodes: int, folder: Path):
        """Start a head, and nodes that join when they are up.

        Args:
          num_nodes: Number of nodes beside the head.
          folder: Folder of the hosts' files, with a short path: sockets are in it.
        """
        os.environ.pop("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", None)
        os.environ.update(HEALTH)
        self._folder = folder
        self._shared = folder / "ray"  # Each host has a folder of its own under this name.
        self._network = soak_network.Network()
        self._starts: dict[int, subprocess.Popen[bytes]] = {}
        try:
            self._head = self._network.add_host()
            self.address = f"{self._network.address(self._head)}:{PORT}"
            self.about = f"a head and {num_nodes} hosts in network namespaces of one machine"
            self._start_head()
            for _ in range(num_nodes):
                self._add_node()
        except BaseException:
            self.close()
            raise

    @property
    def nodes(self) -> list[int]:
        """The hosts that run workers."""
        return sorted(self._starts)

    @property
    def slowed_by(self) -> str:
        """The kind of slow link that there was; empty before any."""
        return self._network.slowed_by

    def on_head(self, command: Sequence[str]) -> list[str]:
        return self._network.on(self._head, self._in_own_folder(self._head, command))

    def kill_node(self, rng: random.Random) -> None:
        self._remove_node(rng.choice(self.nodes))
        time.sleep(rng.uniform(0.0, 3.0))
        self._add_node()

    def replace_all(self, rest: Rest) -> None:
        for node in self.nodes:
            self._add_node()
            rest(4.0)
            self._remove_node(node)

    def kill_head(self) -> None:
        for pid in self._network.processes(self._head):
            if "gcs_server" in _command(pid):
                os.kill(pid, signal.SIGKILL)

    def cut_link(self, rng: random.Random, rest: Rest) -> None:
        node = rng.choice(self.nodes)
        self._network.cut(node)
        try:
            rest(rng.choice((rng.uniform(1.0, 6.0), rng.uniform(15.0, 25.0))))
        finally:
            self._network.heal(node)

    def slow_link(self, rng: random.Random, rest: Rest) -> None:
        node = rng.choice(self.nodes)
        self._network.slow(node)
        try:
            rest(rng.uniform(4.0, 12.0))
        finally:
            self._network.heal(node)

    def tend(self) -> None:
        for node, start in list(self._starts.items()):
            if start.poll() is not None and not any(
                "raylet/raylet" in _command(pid) for pid in self._network.processes(node)
            ):
                self._kill_all(node)  # Agents of a raylet that is no more.
                self._starts[node] = self._start(node, "--address", self.address, cpus=NUM_CPUS)

    def close(self) -> None:
        for start in self._starts.values():
            start.kill()
            start.wait()
        self._network.close()

    def _start_head(self) -> None:
        for _ in range(TRIES):  # On a busy machine, Ray's own limits of time are short.
            start = self._start(self._head, "--head", "--port", str(PORT), cpus=0)
            if not start.wait(START_S):
                return
            self._kill_all(self._head)
        log = self._folder / f"host{self._head}.txt"
        raise SystemExit(f"the head did not start:\n{log.read_text(encoding='utf-8')[-3000:]}")

    def _kill_all(self, host: int) -> None:
        for pid in self._network.processes(host):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _add_node(self) -> None:
        node = self._network.add_host()
        self._starts[node] = self._start(node, "--address", self.address, cpus=NUM_CPUS)

    def _remove_node(self, node: int) -> None:
        start = self._starts.pop(node)
        self._network.remove(node)
        start.wait()

    def _start(self, host: int, *words: str, cpus: int) -> "subprocess.Popen[bytes]":
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", *words),
            *("--node-ip-address", self._network.address(host), "--num-cpus", str(cpus)),
            "--disable-usage-stats",
        ]
        if "--head" in words:
            command += ["--include-dashboard", "false", "--temp-dir", str(self._shared)]
        with open(self._folder / f"host{host}.txt", "ab") as log:
            words_on = self._network.on(host, self._in_own_folder(host, command))
            return subprocess.Popen(words_on, stdout=log, stderr=log)

    def _in_own_folder(self, host: int, command: Sequence[str]) -> list[str]:
        """Return the command line with a folder of its own mounted where Ray keeps its files."""
        own = self._folder / f"host{host}"
        own.mkdir(exist_ok=True)
        self._shared.mkdir(exist_ok=True)
        mount = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
        return ["sh", "-c", mount, "sh", str(own), str(self._shared), *command]


def make(num_nodes: int, folder: Path, *, links: bool) -> Cluster:
    """Start a cluster whose hosts have links that can fail, or else one on one address."""
    return Hosts(num_nodes, folder) if links else Raylets(num_nodes)


def _command(pid: int) -> str:
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    except OSError:
        return ""
