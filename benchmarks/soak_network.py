"""Several hosts on one machine: network namespaces with addresses of their own, behind a switch.

Each host is a namespace with a link of its own to a switch, which is a namespace with a bridge. So
a host's link can be cut, slowed and brought back, and a host can be killed with all its processes,
while the others go on. Nothing of it touches the machine's own network. It needs Linux, root, and
`ip` of iproute2; `missing` says what is not there.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Final, final

SUBNET: Final = "10.77.0"
BRIDGE: Final = "bridge0"
# The first that the kernel has: a long and lossy way, or one of little bandwidth.
SLOW: Final = (
    ("netem", "delay", "100ms", "30ms", "loss", "2%"),
    ("tbf", "rate", "1mbit", "burst", "32kbit", "latency", "400ms"),
)
END_S: Final = 10.0


class NetworkError(Exception):
    """A namespace or a link cannot be made or changed."""


def missing() -> str:
    """Return why this machine cannot have a `Network`; empty if it can."""
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "there is no `ip` or `tc` (Debian's package iproute2)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with Network() as network:
            network.slow(network.add_host())
    except NetworkError as error:
        return f"{error}"
    return ""


@final
class Network:
    """A switch and hosts; a context manager that ends all of them."""

    def __init__(self) -> None:
        """Make a switch without hosts.

        Raises:
          NetworkError: This machine does not allow it.
        """
        self._mark = f"v{secrets.token_hex(3)}"
        self._switch = f"{self._mark}sw"
        self._hosts: dict[int, str] = {}  # Namespaces by the last number of the address.
        self._num_hosts = 0
        self.slowed_by = ""  # The kind of slow link that this kernel has, once one was slowed.
        _ip("netns", "add", self._switch)
        try:
            _ip("-n", self._switch, "link", "add", "name", BRIDGE, "type", "bridge")
            _ip("-n", self._switch, "link", "set", BRIDGE, "up")
        except NetworkError:
            self.close()
            raise

    def add_host(self) -> int:
        """Add a host with a link, and return its number, which is never used again.

        Raises:
          NetworkError: It cannot be made.
        """
        self._num_hosts += 1
        host = self._num_hosts
        name = f"{self._mark}h{host}"
        _ip("netns", "add", name)
        self._hosts[host] = name
        switch = self._switch
        _ip("-n", switch, "link", "add", f"port{host}", "type", "veth", "peer", "name", "eth0",
            "netns", name)  # fmt: skip
        _ip("-n", switch, "link", "set", f"port{host}", "master", BRIDGE)
        _ip("-n", switch, "link", "set", f"port{host}", "up")
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
        _ip("-n", name, "link", "set", "eth0", "up")
        return host

    @property
    def hosts(self) -> list[int]:
        """The hosts that there are."""
        return sorted(self._hosts)

    def address(self, host: int) -> str:
        """Return a host's address."""
        return f"{SUBNET}.{host}"

    def on(self, host: int, command: Sequence[str]) -> list[str]:
        """Return the command line that runs a command on a host."""
        return ["ip", "netns", "exec", self._hosts[host], *command]

    def cut(self, host: int) -> None:
        """Cut a host's link: what is sent is lost, and nobody is told."""
        _ip("-n", self._switch, "link", "set", f"port{host}", "down")

    def slow(self, host: int) -> None:
        """Slow a host's link in both directions, by what the kernel has.

        Raises:
          NetworkError: It has nothing to slow a link with.
        """
        errors = []
        for way in SLOW:
            try:
                _queue(self._switch, f"port{host}", "replace", *way)
                _queue(self._hosts[host], "eth0", "replace", *way)
                self.slowed_by = " ".join(way)
                return
            except NetworkError as error:
                errors.append(str(error))
        raise NetworkError("; ".join(errors))

    def heal(self, host: int) -> None:
        """Bring a host's link back, at full speed."""
        for namespace, device in ((self._switch, f"port{host}"), (self._hosts[host], "eth0")):
            with contextlib.suppress(NetworkError):  # It was not slowed.
                _queue(namespace, device, "del")
        _ip("-n", self._switch, "link", "set", f"port{host}", "up")

    def processes(self, host: int) -> list[int]:
        """Return the processes on a host."""
        found = _run("ip", "netns", "pids", self._hosts[host])
        return [int(word) for word in found.split()]

    def remove(self, host: int) -> None:
        """End a host as a power cut does: first its link, then all its processes at once."""
        with contextlib.suppress(NetworkError):
            self.cut(host)
        end = time.monotonic() + END_S
        while (pids := self.processes(host)) and time.monotonic() < end:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        _ip("netns", "del", self._hosts.pop(host))
        with contextlib.suppress(NetworkError):  # With the namespace goes the link, a bit later.
            _ip("-n", self._switch, "link", "del", f"port{host}")

    def close(self) -> None:
        """End all hosts and the switch."""
        for host in self.hosts:
            with contextlib.suppress(NetworkError):
                self.remove(host)
        with contextlib.suppress(NetworkError):
            _ip("netns", "del", self._switch)

    def __enter__(self) -> "Network":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _ip(*words: str) -> None:
    _run("ip", *words)


def _queue(namespace: str, device: str, action: str, *way: str) -> None:
    _run("tc", "-n", namespace, "qdisc", action, "dev", device, "root", *way)


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NetworkError(f"`{' '.join(words)}` failed: {done.stderr.strip()}")
    return done.stdout
