"""A Ray cluster as the pool uses it: connect or start one, resources, live nodes.

A cluster started here lives on this machine only and ends with this process. It listens on loopback
alone, with a random token that only processes of this run know: whoever can reach a Ray cluster and
has its token can run any code on it, so nothing is left open by default. A cluster that is there
already is used as it is; its owner is responsible for its security (docs/how-to/security.md).
"""

import contextlib
import logging
import math
import os
import secrets
import socket
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any, Final, final

from veldt.tasks.common import errors, private_folder, stopping
from veldt.tasks.pool import devices
from veldt.tasks.pool.base import PoolError
from veldt.tasks.pool.config import PoolConfig, RayConfig, num_usable_cores

HEAD_CHECK_S: Final = 2.0
CONNECT_S: Final = 10.0
ANSWER_S: Final = 3.0  # Time limit for the first bytes from an address.
_HTTP2_GREETING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_HTTP2_HEADER: Final = 9  # Bytes of a frame's header; the fourth gives its kind.
_HTTP2_SETTINGS: Final = 4
# Ray itself ends a process whose head has been away for a minute; a run stops before, cleanly.
HEAD_TIMEOUT_S: Final = 30.0


@final
class Cluster:
    """A connection to Ray, made by `connect`."""

    def __init__(
        self, config: PoolConfig, *, owned: bool, local: bool, session_dir: str | None = None
    ):
        """Wrap the connection that Ray keeps for this process.

        Args:
          config: Config of the pool.
          session_dir: Folder of the cluster's files since it was started, if known.
          owned: Whether `close` ends the connection.
          local: Whether the cluster was started for this pool.
        """
        import ray

        self._config = config
        self._owned = owned
        self.local = local
        self.session = "" if session_dir is None else Path(session_dir).name
        address = ray.get_runtime_context().gcs_address
        host, _, port = address.rpartition(":")
        self._head = (host.strip("[]"), int(port))
        # Through `ray://` the head's own address means nothing here; Ray's client checks itself.
        self._watched = not ray.util.client.ray.is_connected()
        self._checked = time.monotonic()
        self._away_since: float | None = None

    @property
    def address(self) -> str:
        """The head's address."""
        return f"{self._head[0]}:{self._head[1]}"

    def shape(self) -> dict[str, float]:
        """Return the resources of one worker, by Ray's names."""
        return devices.worker_shape(self._config.ray, [node["Resources"] for node in _nodes()])

    def max_workers(self) -> int:
        """Return the number of workers that fit on the nodes that are alive, if all were idle."""
        shape = self.shape()
        total = 0
        for node in _nodes():
            fits = [node["Resources"].get(name, 0) / amount for name, amount in shape.items()]
            # Fractions such as 1 / 0.1 must not lose a worker to rounding.
            total += int(min(fits, default=1.0) + 1e-6)
        return total

    def has_node(self, node: str) -> bool:
        """Whether a node is alive."""
        return any(row["NodeID"] == node for row in _nodes())

    def check_head(self) -> str:
        """Check from time to time whether the head answers.

        Returns:
          Empty, or one line of news: that it is away, that it is back.

        Raises:
          PoolError: It has been away for too long.
        """
        now = time.monotonic()
        if not self._watched or now - self._checked < HEAD_CHECK_S:
            return ""
        self._checked = now
        if self._answers():
            news = f"the Ray head at {self.address} answers again" if self._away_since else ""
            self._away_since = None
            return news
        if self._away_since is None:
            self._away_since = now
            return f"the Ray head at {self.address} does not answer"
        if now - self._away_since > HEAD_TIMEOUT_S:
            raise PoolError(
                f"the Ray head at {self.address} has not answered for {HEAD_TIMEOUT_S:.0f} s. All "
                "reported results are stored: continue with --resume when the cluster is back, or "
                "elsewhere"
            )
        return ""

    @property
    def head_is_away(self) -> bool:
        """Whether the head did not answer at the last check; then Ray's calls may block."""
        return self._away_since is not None

    def close(self) -> None:
        """Disconnect; a cluster started here ends."""
        import ray

        if self._owned:
            ray.shutdown()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(self._head, timeout=1.0):
                return True
        except OSError:
            return False


def connect(config: PoolConfig) -> Cluster:
    """Connect to the cluster that a config names, or start one here.

    A connection that this process has already is used, and left open.

    Raises:
      PoolError: The cluster cannot be reached or started.
    """
    settings = config.ray
    address = settings.address or os.environ.get("RAY_ADDRESS") or "local"
    if "ray" not in sys.modules:
        # Messages of raylets about dead workers would break the live view; the pool has them as
        # events.
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
        if address == "local":
            _keep_to_loopback()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with stopping.kept():  # Ray would exit on SIGTERM itself, past all that has to be stored.
        return _connect(config, address)


def _connect(config: PoolConfig, address: str) -> Cluster:
    import ray

    settings = config.ray
    if ray.is_initialized():
        name = None
        if not ray.util.client.ray.is_connected():
            name = ray.get_runtime_context().get_session_name()
        return Cluster(config, owned=False, local=False, session_dir=name)
    _check_reachable(address)
    options: dict[str, Any] = {}
    if address == "local":
        options = {
            # Ray counts cores to place workers; those wanted must fit, whatever they share.
            "num_cpus": _local_cpus(config),
            "include_dashboard": False,
            "_temp_dir": str(_private_folder() / "ray"),  # Ray lets everyone write to that.
        }
    elif address == "auto":
        _check_whose()
    try:
        # Ray has a copy of the folder's files when `init` returns.
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            # JAX warns of any fork; Ray's are followed at once by another program's start.
            warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
            context = ray.init(
                address,
                runtime_env=_runtime_env(settings, Path(folder)),
                log_to_driver=False,  # It would break the live view; events say what matters.
                logging_level=logging.ERROR,
                **options,
            )
    except (ConnectionError, ImportError, RuntimeError, ValueError, OSError) as error:
        what = "no Ray cluster can be started here" if address == "local" else "cannot connect to"
        name = "" if address == "local" else f" the Ray cluster at {address}"
        text = str(error).strip().split("\n", 1)[0]
        raise PoolError(f"{what}{name}: {text or type(error).__name__}") from error
    about = getattr(context, "address_info", {})  # There is none through `ray://`.
    return Cluster(
        config, owned=True, local=address == "local", session_dir=about.get("session_dir")
    )


def _private_folder() -> Path:
    """Return the folder for sockets, logs and unpacked files of a Ray started here; private."""
    try:
        return private_folder.temporary()
    except (errors.TaskError, OSError) as error:
        raise PoolError(f"no Ray cluster can be started here: {error}") from error


def _check_whose() -> None:
    """Raise an error if "auto" would take the cluster of another user, who could run code here.

    Ray notes the cluster of a machine in a folder that every user can write to.
    """
    base = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    note = Path(base) / "ray" / "ray_current_cluster"
    if os.path.lexists(note) and not private_folder.is_safe_file(note):
        raise PoolError(
            f'pool.ray.address: "auto" would take the cluster that {note} names, which user '
            f"{note.lstat().st_uid} wrote; give its address (HOST:PORT) if that is the one you mean"
        )


def _check_reachable(address: str) -> None:
    """Raise an error if no Ray answers for seconds: Ray tries for minutes, then ends the process.

    Ray speaks HTTP/2, where a server begins with a frame of settings whoever asks.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # "local", "auto", an own scheme.
        return
    try:
        connection = socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S)
    except (OSError, OverflowError) as error:
        raise PoolError(f"cannot connect to the Ray cluster at {address}: {error}") from error
    with connection:
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return  # A server of TLS would not answer a plain greeting.
        answer = _greet(connection)
    if len(answer) < _HTTP2_HEADER or answer[3] != _HTTP2_SETTINGS:
        said = f"it answers {answer!r}" if answer else "it does not answer as Ray does"
        raise PoolError(
            f"there is no Ray cluster at {address}: something else listens there ({said}). Give "
            "the address that `ray start` printed, with its port (6379 by default; 8265 is the "
            "dashboard's)"
        )


def _greet(connection: socket.socket) -> bytes:
    """Return the first bytes that a server sends after a greeting of HTTP/2."""
    answer = b""
    deadline = time.monotonic() + ANSWER_S
    with contextlib.suppress(OSError):
        connection.sendall(_HTTP2_GREETING)
        while len(answer) < _HTTP2_HEADER and (left_s := deadline - time.monotonic()) > 0:
            connection.settimeout(left_s)
            if not (more := connection.recv(_HTTP2_HEADER)):
                break
            answer += more
    return answer


def _local_cpus(config: PoolConfig) -> int:
    wanted = (config.num_workers or 0) * config.ray.num_cpus
    return max(num_usable_cores(), math.ceil(wanted - 1e-6))


def _keep_to_loopback() -> None:
    """Make a Ray that is started by this process listen on 127.0.0.1 only, behind a token.

    Both are read when `ray` is imported. The first is the switch by which Ray does the same on
    macOS and Windows; on Linux it would listen on all interfaces.
    """
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        # In the environment rather than in a file: other users cannot read it.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _runtime_env(settings: RayConfig, folder: Path) -> dict[str, Any]:
    """Return what Ray sets up on the nodes before a worker; `folder` is for an unpacked wheel.

    Given the wheel itself, Ray would run `pip install` on each node, dependencies and another Ray
    included, and take a wheel of the same file name for the same wheel. A folder it copies as it
    is, and knows by its contents.
    """
    env: dict[str, Any] = {"env_vars": settings.env_vars}
    if settings.wheel is not None:
        wheel = Path(settings.wheel)
        if wheel.suffix != ".whl" or not zipfile.is_zipfile(wheel):
            raise PoolError(f"pool.ray.wheel: {wheel} is no wheel; make one with `make wheel`")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        env["py_modules"] = [str(folder / "veldt")]
    if settings.working_dir is not None:
        if not Path(settings.working_dir).is_dir():
            raise PoolError(f"pool.ray.working_dir: {settings.working_dir} is no folder")
        env["working_dir"] = settings.working_dir
    return env


def _nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]
