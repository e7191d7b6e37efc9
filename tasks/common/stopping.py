"""Ctrl-C, SIGTERM and a closed terminal, all alike: answered at once, without loss of results.

Python runs a signal's handler between two steps of the main thread, which may be a minute away
while that thread compiles. So a separate thread receives the signal too, reports it, and, if the
main thread does not react in time, ends the process: by then all reported results are stored,
since whoever reports a result stores it at once.

A signal becomes a `KeyboardInterrupt` of the main thread. Another one shortly after it is the same
request (terminals, wrappers and schedulers send two); a later one asks to stop at once.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Final, Protocol, Self, final

EXIT_CODES: Final = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
NAMES: Final = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
AGAIN_S: Final = 0.5  # Time after which another signal counts as another request.
# Schedulers kill 30 s after SIGTERM, without a line.
TERM_S: Final = 20.0
end_process: Final = os._exit  # It is replaced while a user's code runs (`imports.no_exit`).
STUCK_S: Final = 1.0  # After a second request, if the main thread has not even seen the first.
ENDING_S: Final = 10.0  # After a second request, if the main thread is ending.


@final
class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM, or its terminal was closed."""


class View(Protocol):
    """A display of a command's progress."""

    def note(self, text: str) -> None:
        """Show a line that must be seen."""
        ...

    def close(self) -> None:
        """Show nothing more."""
        ...


@final
class Stopper:
    """A receiver of the signals in `EXIT_CODES` while the block runs; for a command's main thread.

    Signals that the process was started to ignore (by `nohup`, by a shell's `&`) stay ignored. On
    another thread than the main one it does nothing.
    """

    def __init__(self) -> None:
        self.signum: signal.Signals | None = None  # The first signal received.
        self.remark = ""  # What is kept, and how to resume.
        self._say: Callable[[str], None] = _say_plainly
        self._acted: float | None = None  # Time of the last interrupt of the main thread.
        self._seen = False  # Whether the main thread knows, though it may hold the signal back.
        self._answered = threading.Event()
        self._settled = False
        self._previous: dict[signal.Signals, Any] = {}
        self._undo = contextlib.ExitStack()

    @property
    def exit_code(self) -> int:
        """The exit code of a process that was stopped by this signal."""
        return EXIT_CODES[self.signum or signal.SIGINT]

    def line(self, how: str = "stopped") -> str:
        """Return the line that the command has stopped, by what, and how to resume."""
        by = NAMES[self.signum or signal.SIGINT]
        return f"{how} by {by}" + (f"; {self.remark}" if self.remark else "")

    @contextlib.contextmanager
    def showing(self, view: View, remark: str) -> Iterator[None]:
        """Make `view` report a signal, and close it at the block's end.

        Args:
          view: Display of the block's progress.
          remark: Text on what is kept if the block is stopped, and how to resume.
        """
        self._say, self.remark = view.note, remark
        try:
            yield
        finally:
            self._say = _say_plainly
            with hold(firmly=True):
                view.close()

    def settle(self) -> None:
        """Ignore further signals: the process is about to end."""
        self._settled = True
        if self.signum is not None and self._previous:
            self._answered.wait(STUCK_S)  # The answer comes before the last line.

    def note_held(self) -> None:
        """Record that the main thread holds a signal back."""
        self._seen = True

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        for signum in EXIT_CODES:
            previous = signal.getsignal(signum)
            if previous not in (signal.SIG_IGN, None):
                self._previous[signum] = previous
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        listener = threading.Thread(target=self._listen, args=(reader,), daemon=True)
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        self._hook = hook
        listener.start()
        for signum in self._previous:
            signal.signal(signum, self._handle)

        def undo() -> None:
            for signum, previous in self._previous.items():
                signal.signal(signum, previous)
            signal.set_wakeup_fd(before)
            sys.unraisablehook = hook
            os.close(writer)  # The listener reads the end of the file and ends.
            listener.join(STUCK_S)
            os.close(reader)

        self._undo.callback(undo)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._undo.close()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signum is None:
            self.signum = signal.Signals(signum)
        if self._settled or (self._acted is not None and now - self._acted < AGAIN_S):
            return
        self._acted, self._seen = now, True
        raise KeyboardInterrupt if self.signum == signal.SIGINT else Terminated

    def _listen(self, reader: int) -> None:
        """Answer signals as the system reports them, whatever the main thread is doing."""
        first: float | None = None
        deadline: float | None = None
        while True:
            left_s = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            if not select.select([reader], [], [], left_s)[0]:
                self._end_process()
            read = os.read(reader, 1)
            if not read:
                return
            signum, now = read[0], time.monotonic()
            if signum not in self._previous:
                continue
            if first is None:
                self.signum, first = signal.Signals(signum), now
                deadline = None if signum == signal.SIGINT else now + TERM_S
                how = "Ctrl-C" if signum == signal.SIGINT else NAMES[signal.Signals(signum)]
                self._tell(f"stopping by {how} after what is under way; again to stop at once")
                self._answered.set()
            elif now - first >= AGAIN_S and not self._settled:
                limit_s = ENDING_S if self._seen else STUCK_S
                deadline = min(deadline or now + limit_s, now + limit_s)

    def _end_process(self) -> None:
        """End at once: the main thread has not come back, and reported results are stored."""
        with contextlib.suppress(Exception):
            if sys.stderr.isatty():
                sys.stderr.write("\r\x1b[J\x1b[?25h")  # A live view leaves no cursor.
            print(self.line("stopped at once"), file=sys.stderr, flush=True)
        end_process(self.exit_code)

    def _tell(self, text: str) -> None:
        with contextlib.suppress(Exception):  # A closed terminal takes no lines.
            self._say(text)

    def _unraisable(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Keep an interrupt that Python would drop with other exceptions, as in a `__del__`."""
        if issubclass(unraisable.exc_type, KeyboardInterrupt) and self.signum is not None:
            main = threading.main_thread().ident
            again = threading.Timer(1.1 * AGAIN_S, signal.pthread_kill, (main, self.signum))
            again.daemon = True
            again.start()
        else:
            self._hook(unraisable)


@final
class Held:
    """The signals that a block holds back.

    Attributes:
      signals: Signals received so far, with the frame that each interrupted.
    """

    def __init__(self) -> None:
        self.signals: list[tuple[int, FrameType | None]] = []

    def __bool__(self) -> bool:
        return bool(self.signals)


@contextlib.contextmanager
def hold(*, firmly: bool = False) -> Iterator[Held]:
    """Hold signals back until the block has ended, and yield those that have come.

    Args:
      firmly: Whether later signals are held back too; else one that is another request passes
          through at once.
    """
    held = Held()
    # Python runs signal handlers on the main thread only. A handler that is no function (ignored,
    # or the system's own) would interrupt nothing here.
    callables = {signum: signal.getsignal(signum) for signum in EXIT_CODES}
    previous = {signum: handler for signum, handler in callables.items() if callable(handler)}
    if threading.current_thread() is not threading.main_thread() or not previous:
        yield held
        return
    since = 0.0

    def keep(signum: int, frame: FrameType | None) -> None:
        nonlocal since
        now = time.monotonic()
        if held and not firmly and now - since >= AGAIN_S:
            previous[signal.Signals(signum)](signum, frame)
        since = since or now
        held.signals.append((signum, frame))
        owner = getattr(previous[signal.Signals(signum)], "__self__", None)
        if isinstance(owner, Stopper):
            owner.note_held()

    for signum in previous:
        signal.signal(signum, keep)
    try:
        yield held
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
    if held:
        first, frame = held.signals[0]
        previous[signal.Signals(first)](first, frame)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Restore the handlers of signals that the block, such as another library's start, changes.

    A handler that the block has set may answer a signal by `sys.exit(signum)`, as Ray's does: it is
    then given to the handler that there was.
    """
    before = {signum: signal.getsignal(signum) for signum in EXIT_CODES}
    try:
        yield
    except SystemExit as error:
        for signum, handler in before.items():
            if error.code == signum and callable(handler):
                handler(signum, None)
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            for signum, handler in before.items():
                if callable(handler) and signal.getsignal(signum) is not handler:
                    signal.signal(signum, handler)


def _say_plainly(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
