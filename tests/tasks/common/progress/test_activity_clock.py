"""The clock of what is waited for."""

import io
import threading
import time

import pytest

from veldt.meta.train import display as meta_display
from veldt.meta.tune import display as tune_display
from veldt.search.run import display as search_display
from veldt.search.run import live as search_live
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


@pytest.mark.parametrize("kind", ["search", "meta-train", "tune"])
@pytest.mark.parametrize("live", [False, True])
def test_a_display_has_a_clock_that_goes_on_while_the_caller_does_not(kind, live, monkeypatch):
    """As it does while a loop is compiled on the caller's thread."""
    stream = io.StringIO()
    monkeypatch.setattr(activity_clock, "SHOWN_FROM_S", 0.0)
    for module, name in ((search_display, "WAITING_INTERVAL_S"), (search_live, "LIVE_INTERVAL_S")):
        monkeypatch.setattr(module, name, 0.01)
    for module in (meta_display, tune_display):
        monkeypatch.setattr(module, "PLAIN_INTERVAL_S", 0.01)
    monkeypatch.setattr(meta_display, "LIVE_INTERVAL_S", 0.01)
    if live:
        monkeypatch.setenv("TERM", "xterm")
        stream.isatty = lambda: True
    module = {"search": search_display, "meta-train": meta_display, "tune": tune_display}[kind]
    view = module.make_display(stream)
    begin = view.phase if kind == "search" else view.doing
    try:
        begin("compiling digits_mlp")
        before = len(stream.getvalue())
        for _ in range(1000):
            time.sleep(0.01)
            if stream.getvalue().count("0:0", before) > 2:
                break
        assert "compiling digits_mlp" in stream.getvalue()
    finally:
        view.close()
    assert stream.getvalue().count("0:0") > 2
    ended = len(stream.getvalue())
    time.sleep(0.05)
    assert len(stream.getvalue()) == ended
