"""The clock of what is waited for."""

import threading
import time

from veldt.tasks.common.progress import activity_clock


def test_it_tells_what_and_how_long(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    doing = activity_clock.Doing()
    assert doing.line() == doing.clock() == ""
    doing.begin("compiling a")
    now[0] += 0.9
    assert doing.line() == ""
    doing.begin("compiling a")  # Goes on.
    now[0] += 74.2
    assert doing.line() == "compiling a [1:15]"
    doing.begin("compiling b")
    now[0] += 2
    assert doing.line() == "compiling b [0:02]" and doing.clock() == "0:02"
    doing.end()
    assert doing.line() == ""


def test_it_ticks_while_another_thread_is_busy_and_no_more_once_closed():
    ticked = threading.Event()
    ticker = activity_clock.Ticker(ticked.set, 0.001)
    ticker.start()
    ticker.start()
    assert ticked.wait(10)
    ticker.close()
    ticker.close()
    ticked.clear()
    ticker.start()
    assert not ticked.wait(0.02)
