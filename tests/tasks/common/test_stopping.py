"""Signals: answered at once, raised once for each request, and never in the middle of a save."""

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from veldt.tasks.common import stopping

SIGNALS = sorted(stopping.EXIT_CODES)


class View:
    """A view that keeps what it is given."""

    def __init__(self):
        self.notes = []
        self.closed = False

    def note(self, text):
        self.notes.append(text)

    def close(self):
        self.closed = True


def press(signum):
    os.kill(os.getpid(), signum)
    time.sleep(0)  # A bytecode boundary, where Python runs handlers.


@pytest.fixture(autouse=True)
def hangups_end_a_process():
    """As they do for a command, also where the tests run under `nohup`."""
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    for signum in SIGNALS:
        if before[signum] is signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def test_the_table_is_whole():
    assert set(stopping.EXIT_CODES) == set(stopping.NAMES)
    assert all(code == 128 + signum for signum, code in stopping.EXIT_CODES.items())


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_is_an_interrupt_that_is_said_and_has_its_code(signum):
    before = {each: signal.getsignal(each) for each in SIGNALS}
    view = View()
    with stopping.Stopper() as stopper:
        with pytest.raises(KeyboardInterrupt) as caught, stopper.showing(view, "all is kept"):
            press(signum)
        stopper.settle()
        press(signum)  # Nothing more is raised.
    assert (caught.type is stopping.Terminated) == (signum != signal.SIGINT)
    assert stopper.exit_code == 128 + signum
    assert stopper.line() == f"stopped by {stopping.NAMES[signum]}; all is kept"
    assert view.closed
    assert len(view.notes) <= 1  # It may have been closed before the note.
    assert {each: signal.getsignal(each) for each in SIGNALS} == before


def test_two_in_quick_succession_are_one_request_and_a_later_one_another(monkeypatch):
    with stopping.Stopper() as stopper:
        with pytest.raises(stopping.Terminated):
            press(signal.SIGTERM)
        press(signal.SIGTERM)
        press(signal.SIGINT)
        monkeypatch.setattr(stopping, "AGAIN_S", 0.0)
        with pytest.raises(stopping.Terminated):
            press(signal.SIGINT)
    assert stopper.exit_code == 143


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stopping.Stopper() as stopper:
        press(signal.SIGHUP)
    assert stopper.signum is None


def test_another_thread_changes_no_handlers():
    found = []

    def work():
        with stopping.Stopper(), stopping.hold():
            found.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("firmly", [False, True])
def test_a_signal_is_held_to_the_end_of_the_block(signum, firmly, monkeypatch):
    reached = []
    with stopping.Stopper():
        with pytest.raises(KeyboardInterrupt), stopping.hold(firmly=firmly):
            press(signum)
            press(signum)
            reached.append("quickly")
        monkeypatch.setattr(stopping, "AGAIN_S", 0.0)
        with pytest.raises(KeyboardInterrupt), stopping.hold(firmly=firmly):
            press(signum)
            press(signum)
            reached.append("again")
    assert reached == (["quickly", "again"] if firmly else ["quickly"])


def test_handlers_are_put_back_after_another_library_set_its_own():
    with stopping.Stopper():
        mine = signal.getsignal(signal.SIGTERM)
        with stopping.kept():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
        assert signal.getsignal(signal.SIGTERM) is mine


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_that_another_library_answers_by_exiting_is_answered_as_ever(signum):
    """Ray's `init` exits with the signal's number: the command's exit code would be 15."""
    with stopping.Stopper() as stopper:
        mine = signal.getsignal(signum)
        with pytest.raises(KeyboardInterrupt), stopping.kept():
            signal.signal(signum, lambda number, _: sys.exit(number))
            press(signum)
        assert signal.getsignal(signum) is mine
        assert (stopper.signum, stopper.exit_code) == (signum, 128 + signum)
    with stopping.Stopper() as stopper:
        with pytest.raises(SystemExit), stopping.kept():
            sys.exit(3)  # No signal's.
        assert stopper.signum is None


def test_an_interrupt_that_python_drops_comes_again(monkeypatch):
    monkeypatch.setattr(stopping, "AGAIN_S", 0.05)

    class Heavy:
        def __del__(self):
            press(signal.SIGINT)

    with stopping.Stopper(), pytest.raises(KeyboardInterrupt):
        Heavy()
        time.sleep(10)


def test_it_is_answered_while_the_main_thread_is_in_native_code():
    view = View()
    with stopping.Stopper() as stopper:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt), stopper.showing(view, ""):
            while not view.notes:  # Native code that no signal breaks off, and that frees the lock.
                hashlib.pbkdf2_hmac("sha256", b"", b"", 400_000)
    assert view.notes == ["stopping by Ctrl-C after what is under way; again to stop at once"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_second_request_ends_a_process_that_is_stuck_in_native_code(signum):
    code = """
    import hashlib, sys
    from veldt.tasks.common import stopping
    stopping.AGAIN_S = stopping.STUCK_S = 0.1
    with stopping.Stopper() as stopper:
        stopper.remark = "all is kept"
        print("here", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout.readline() == "here\n"
    time.sleep(0.2)
    process.send_signal(signum)
    answer = process.stderr.readline()
    time.sleep(0.3)
    process.send_signal(signum)
    _, rest = process.communicate(timeout=60)
    name = stopping.NAMES[signum]
    assert answer == f"stopping by {name} after what is under way; again to stop at once\n"
    assert rest == f"stopped at once by {name}; all is kept\n"
    assert process.returncode == 128 + signum
