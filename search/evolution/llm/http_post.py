"""One POST request, with a time limit for the whole answer and a limit of its size.

The standard library's time-outs are for each read, so an answer that comes a byte at a time would
never end: here a timer cuts the connection. Redirects are not followed, since the key would go to
another host. Whoever gives up cuts the connection (`Line.cut`), and the thread that waits for it
goes on at once.
"""

import contextlib
import email.utils
import http.client
import math
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

TRANSIENT: Final = frozenset((408, 429, 500, 502, 503, 504))
_READ_BYTES: Final = 65536


class PostError(Exception):
    """A request without an answer.

    Attributes:
      transient: Whether a further try may succeed.
      retry_after_s: Seconds after which the server wants the next try; None where it does not say.
    """

    def __init__(self, text: str, *, transient: bool, retry_after_s: float | None = None):
        super().__init__(text)
        self.transient = transient
        self.retry_after_s = retry_after_s


@final
@dataclass(frozen=True, slots=True)
class Response:
    """The answer to a request: its status, the reason in words, and its content."""

    status: int
    reason: str
    content: bytes
    retry_after_s: float | None


@final
class Line:
    """A connection that another thread may cut, before it is made too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.is_cut = False

    def hold(self, connected: socket.socket) -> None:
        """Take the socket of the connection.

        Raises:
          OSError: The connection was cut before.
        """
        with self._lock:
            self._socket = connected
            if self.is_cut:
                raise OSError("cut")

    def cut(self) -> None:
        """End the connection; who reads from it gets an error at once."""
        with self._lock:
            self.is_cut = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # The SSL socket's own method would take the state from the thread that reads.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None


def post(
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    timeout_s: float,
    max_bytes: int,
    line: Line,
) -> Response:
    """Send a request and return its answer, of whatever status but a redirect.

    Args:
      url: Address.
      headers: Headers, besides those of the protocol.
      body: Content sent.
      timeout_s: Seconds until the whole answer is there.
      max_bytes: Largest number of bytes of the answer.
      line: Connection, not used before.

    Raises:
      PostError: There is no answer, or it is too large or a redirect.
    """
    late = threading.Event()

    def end() -> None:
        late.set()
        line.cut()

    timer = threading.Timer(timeout_s, end)
    timer.daemon = True
    timer.start()
    try:
        return _post(url, headers, body, timeout_s, max_bytes, line)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if late.is_set() or isinstance(error, TimeoutError):
            text = "no whole answer within the time limit"
        elif isinstance(error, http.client.IncompleteRead):
            text = "the answer ended too early"
        else:
            text = _in_words(error)
        raise PostError(text, transient=True) from None
    finally:
        timer.cancel()
        line.close()


def _post(
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    timeout_s: float,
    max_bytes: int,
    line: Line,
) -> Response:
    parts = urllib.parse.urlsplit(url)
    host, is_secret = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if is_secret else 80)
    connected = socket.create_connection((host, port), timeout_s)
    line.hold(connected)
    if is_secret:
        context = ssl.create_default_context()
        connected = context.wrap_socket(
            connected, server_hostname=host, do_handshake_on_connect=False
        )
        line.hold(connected)
        connected.do_handshake()
    connection = http.client.HTTPConnection(host, port)
    connection.sock = connected
    path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    own_host = parts.netloc.rpartition("@")[2]
    connection.request("POST", path, body, {"Host": own_host, **headers})
    with connection.getresponse() as response:
        if 300 <= response.status < 400:
            to = urllib.parse.urlsplit(response.getheader("Location", "")).hostname or host
            raise PostError(f"redirect to {to}", transient=False)
        content = bytearray()
        while part := response.read1(_READ_BYTES):
            content += part
            if len(content) > max_bytes:
                text = f"the answer has more than {max_bytes:,} bytes"
                raise PostError(text, transient=False)
        if line.is_cut:
            raise OSError("cut")
        if response.length:  # What the server announced, and did not send.
            raise http.client.IncompleteRead(b"", response.length)
        waits = _seconds(response.getheader("Retry-After"))
        return Response(response.status, response.reason, bytes(content), waits)


def _in_words(error: Exception) -> str:
    """Return what went wrong, without numbers that differ between machines."""
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, socket.gaierror):
        return "the host was not found"
    if isinstance(error, ssl.SSLError):
        return f"no safe connection: {error.reason or 'it ended'}"
    if isinstance(error, OSError):
        return "the connection broke"
    return "the answer is no HTTP"


def _seconds(retry_after: str | None) -> float | None:
    """Return the seconds that a header `Retry-After` asks for: a number, or until a date."""
    if retry_after is None:
        return None
    with contextlib.suppress(ValueError):
        seconds = float(retry_after)
        return max(seconds, 0.0) if math.isfinite(seconds) else None
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    return None
