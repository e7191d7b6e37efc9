"""What a soak does to a command: kinds of faults, and how each is committed.

worker killed      SIGKILL to a worker's process, in the middle of its job
worker crashed     a job reads a null pointer
worker hung        SIGSTOP to a worker's process: alive, and silent
out of memory      a job grows past the memory limit
host killed        a node and all that runs on it; a new node joins later
hosts replaced     node by node, each by one that was started before
link cut           a node's link, for seconds, or until the head has given the node up
link slowed        a node's link, to little bandwidth or to long and lossy ways
driver killed      SIGKILL to the command; it is started again and resumes
driver terminated  SIGTERM, as in a pre-emption: exit code 143, and it resumes
head lost          the head dies, the command stops cleanly; a new cluster, and it resumes
"""

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Final, final

import soak_clusters
import soak_driver

MARK: Final = "VELDT_SOAK"  # In the environment of every process of a soak's clusters.
WEIGHTS: Final = {
    "worker killed": 6,
    "worker crashed": 3,
    "worker hung": 3,
    "out of memory": 3,
    "host killed": 3,
    "hosts replaced": 1,
    "link cut": 4,
    "link slowed": 3,
    "driver killed": 4,
    "driver terminated": 4,
    "head lost": 1,
}
LINKS: Final = ("hosts replaced", "link cut", "link slowed")  # Faults of hosts in namespaces only.
ENDING: Final = (
    "driver killed",
    "driver terminated",
    "head lost",
)  # After one of them the driver is started again.
STOP_S: Final = 120.0
TERMINATED: Final = 143
TAKEN_S: Final = 10.0


class Unexpected(Exception):
    """A command did not do what it has to do after a fault."""


def kinds(*, has_links: bool) -> dict[str, int]:
    """Return the kinds of faults that a command can meet, with weights."""
    return {name: weight for name, weight in WEIGHTS.items() if has_links or name not in LINKS}


@final
class Faults:
    """What commits faults on one driver and the cluster that it uses."""

    def __init__(self, rng: random.Random, mark: str, cluster: soak_clusters.Cluster):
        """Prepare.

        Args:
          rng: Source of what is hit and for how long.
          mark: Value of `MARK` in the environment of the cluster's processes.
          cluster: Cluster that is struck.
        """
        self._rng = rng
        self._mark = mark
        self._cluster = cluster

    @property
    def _hosts(self) -> soak_clusters.Hosts:
        if not isinstance(self._cluster, soak_clusters.Hosts):
            raise ValueError("this cluster has no hosts of its own, whose links could be cut")
        return self._cluster

    def commit(self, kind: str, driver: subprocess.Popen[bytes], orders: Path, said: Path) -> bool:
        """Commit a fault; return whether there was something to hit.

        Args:
          kind: Kind of the fault.
          driver: Process of the command.
          orders: Folder in which workers look for orders.
          said: File of what this driver has written.

        Raises:
          Unexpected: The command did not end as it has to.
        """
        match kind:
            case "worker killed" | "worker hung":
                return self._signal_worker(kind)
            case "worker crashed":
                return self._order(orders / soak_driver.CRASH, driver)
            case "out of memory":
                return self._order(orders / soak_driver.GROW, driver)
            case "host killed":
                self._cluster.kill_node(self._rng)
            case "hosts replaced":
                self._hosts.replace_all(lambda seconds: rest(driver, seconds))
            case "link cut":
                self._hosts.cut_link(self._rng, lambda seconds: rest(driver, seconds))
            case "link slowed":
                self._hosts.slow_link(self._rng, lambda seconds: rest(driver, seconds))
            case "driver killed":
                driver.kill()
                driver.wait()
            case "driver terminated":
                return _terminate(driver, said)
            case "head lost":
                self._cluster.kill_head()
                code = driver.wait(timeout=STOP_S)
                if code not in (0, 1):  # It ended or stopped with a message; not by Ray.
                    raise Unexpected(f"without its head, the command ended with {code}")
            case _:
                raise ValueError(kind)
        return True

    def _signal_worker(self, kind: str) -> bool:
        found = workers(self._mark)
        if not found:
            return False
        signum = signal.SIGKILL if kind == "worker killed" else signal.SIGSTOP
        try:
            os.kill(self._rng.choice(found), signum)
        except ProcessLookupError:
            return False
        return True

    def _order(self, order: Path, driver: subprocess.Popen[bytes]) -> bool:
        """Order a fault, and wait until a worker has taken it."""
        order.touch()
        end = time.monotonic() + TAKEN_S
        while time.monotonic() < end and not rest(driver, 0.1):
            if not order.exists():
                return True
        try:
            order.unlink()
        except FileNotFoundError:
            return True
        return False


def _terminate(driver: subprocess.Popen[bytes], said: Path) -> bool:
    """Terminate a driver that has begun to work, and see that it ends as it should."""
    if not said.exists() or not said.stat().st_size:
        return False  # Python itself is starting.
    driver.terminate()
    code = driver.wait(timeout=STOP_S)
    text = said.read_text(encoding="utf-8", errors="replace")
    if code != TERMINATED and not (code == 0 and "stopped by" not in text):
        raise Unexpected(f"after SIGTERM, the command ended with {code}:\n{text[-3000:]}")
    if code == TERMINATED and ("To go on: veldt " not in text or "Traceback" in text):
        raise Unexpected(f"after SIGTERM, the command said:\n{text[-3000:]}")
    return True


def rest(driver: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait; return whether the driver has ended."""
    try:
        driver.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def workers(mark: str) -> list[int]:
    """Return the processes of veldt's workers on this soak's nodes."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            title = (process / "cmdline").read_bytes()
            if title.startswith((b"ray::Host", b"ray::worker-")):
                environment = (process / "environ").read_bytes()
                if f"{MARK}={mark}".encode() in environment:
                    found.append(int(process.name))
    return found
