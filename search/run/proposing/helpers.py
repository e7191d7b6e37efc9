"""Helpers of a search's driver: processes that make children while it records results.

With `n` helpers the driver sends each of them what is recorded, and with it asks one of them, in
turn, for the child of the proposal that now may be made, `window` further on. `lag` asks may wait
meanwhile (`tasks.pool.driver`). The driver takes a child from a helper where there is one and makes
it where there is none: while helpers start, for founders and copies, and where a helper has died.
Children are functions of what was recorded, so the search is the same with any number of helpers.
"""

import collections
import contextlib
import os
import pickle
import select
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Final, Self, final

from veldt.search.evolution.children import Proposed, Proposer, Told
from veldt.search.evolution.selection.population import INITIAL, Place
from veldt.search.run.proposing import replica
from veldt.search.run.proposing.replica import PROTOCOL, Begun, Recorded

MAX_LAG: Final = 64
ANSWER_S: Final = 30.0  # A helper that takes longer for one child is given up.
START_S: Final = 120.0
END_S: Final = 5.0


def lag(num_helpers: int, window: int) -> int:
    """Return how many asks of a search's driver may wait: half of the window, with helpers."""
    return min(window // 2, MAX_LAG) if num_helpers else 0


@final
class Proposers:
    """Helpers of one search, for as long as the block runs; none may be wanted."""

    def __init__(self, num_helpers: int, proposer: Proposer, note: Callable[[str], None]):
        """Prepare to start the helpers.

        Args:
          num_helpers: Number of processes.
          proposer: Proposer of the engine, of which helpers have copies.
          note: Function that shows a line.
        """
        self._num_helpers = num_helpers
        self._proposer = proposer
        self._note = note
        self._helpers: list[_Helper] = []
        self._makers: dict[int, _Helper] = {}  # Of children asked for and not yet taken.
        self._next = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            undo.callback(self._close)
            for number in range(self._num_helpers):
                self._helpers.append(_Helper(number))
            undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the helpers that live."""
        return tuple(helper.pid for helper in self._helpers)

    def wait(self) -> None:
        """Wait until all helpers have started, for measurements and tests."""
        for helper in self._helpers:
            helper.is_ready(START_S)

    def told(self, told: Told) -> None:
        """Send what was recorded to all helpers, and ask one for the child that may be made now."""
        if not self._helpers:
            return
        config = self._proposer.config
        member = told.member
        individual = member.individual.as_member()
        sent = told._replace(member=type(member)(individual, member.fitness, member.candidate))
        if config.restart_after is None:  # The incumbent matters for restarts alone.
            sent = sent._replace(best=Place(INITIAL, sent.member))
        self._next += 1
        active = [helper for helper in self._helpers if helper.active]
        index = told.proposal + config.window
        maker = active[self._next % len(active)] if active else None
        message = pickle.dumps(Recorded(sent, index, maker.number if maker else None), PROTOCOL)
        for helper in list(self._helpers):
            try:
                if helper.active:
                    helper.send(message)
                elif helper.is_ready():
                    # It begins with all that was recorded, this proposal included.
                    helper.begin(self._proposer)
            except (OSError, EOFError):
                self._give_up(helper)
                continue
            if helper is maker:
                helper.asked.append(index)
                self._makers[index] = helper

    def child(self, index: int) -> Proposed | None:
        """Return the child of a proposal; None where no helper has made it."""
        helper = self._makers.pop(index, None)
        if helper is None:
            return None
        try:
            return helper.take(index)
        except (OSError, EOFError):
            self._give_up(helper)
            return None

    def _give_up(self, helper: "_Helper") -> None:
        """Go on without a helper; the driver makes the children that it was asked for."""
        if helper in self._helpers:
            self._helpers.remove(helper)
            left = len(self._helpers)
            self._note(
                f"a process that proposes has ended ({helper.end()}); the search goes on with "
                f"{left or 'no'} other{'' if left == 1 else 's'}, and is the same"
            )
        for index in [index for index, maker in self._makers.items() if maker is helper]:
            del self._makers[index]

    def _close(self) -> None:
        for helper in self._helpers:
            helper.close()
        for helper in self._helpers:
            helper.end()
        self._helpers.clear()
        self._makers.clear()


def start_process(descriptor: int) -> "subprocess.Popen[bytes]":
    """Start a process that serves on an open socket."""
    # The program of the user is not run again, as `multiprocessing` would.
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        f"from veldt.search.run.proposing import replica; replica.main({descriptor})"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        pass_fds=(descriptor,),
        stdin=subprocess.DEVNULL,
        # A helper computes with NumPy alone and never touches a device.
        env={**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"},
        start_new_session=True,  # Ctrl-C in the terminal is the driver's alone.
    )


@final
class _Helper:
    """One process, and the driver's end of the pipe to it.

    Attributes:
      number: Number among the helpers of the search.
      active: Whether it follows the search.
      asked: Children that it was asked for and has not sent, in order.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._process = start_process(theirs.fileno())
            self._connection = Connection(ours.detach())
        # Kept, since `Connection.poll` makes one for each call, which takes longer than the answer.
        self._poll = select.poll()
        self._poll.register(self._connection.fileno(), select.POLLIN)
        self.active = False
        self._has_started = False
        self.asked: collections.deque[int] = collections.deque()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def is_ready(self, timeout_s: float = 0.0) -> bool:
        """Return whether the process has started; wait so long for it."""
        if not self._has_started and self._has_message(timeout_s):
            self._has_started = self._connection.recv_bytes() == replica.READY
        return self._has_started

    def begin(self, proposer: Proposer) -> None:
        """Send the process a copy of the proposer as it is now."""
        self.send(pickle.dumps(Begun(proposer, self.number), PROTOCOL))
        self.active = True

    def send(self, message: bytes) -> None:
        """Send a message."""
        self._connection.send_bytes(message)

    def take(self, index: int) -> Proposed | None:
        """Wait for a child that was asked for; children come in the order in which they were."""
        while self.asked:
            if not self._has_message(ANSWER_S):
                raise EOFError
            number, proposed = pickle.loads(self._connection.recv_bytes())  # noqa: S301, ours
            assert number == self.asked.popleft()
            if number == index:
                assert proposed is None or isinstance(proposed, Proposed)
                return proposed
        return None

    def _has_message(self, timeout_s: float) -> bool:
        """Wait for a message, or for the end of the pipe, and return whether there is one."""
        return bool(self._poll.poll(1000 * timeout_s))

    def close(self) -> None:
        """Close the pipe, by which the process ends."""
        self._connection.close()

    def end(self) -> str:
        """End the process, by force if it must be; return how it ended."""
        self.close()
        try:
            code = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return f"exit code {code}" if code >= 0 else f"signal {-code}"
