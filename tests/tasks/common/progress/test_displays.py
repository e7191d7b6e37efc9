"""The displays that all commands share: complete, seldom, and no larger than the terminal."""

import io
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from veldt.tasks.common.progress import activity_clock, choose, live, plain
from veldt.tasks.common.progress.display import Silent, Status

STATUS = Status(
    "half done, all is well",
    done=3,
    total=6,
    rate="12 things/s",
    time="0:10, 0:10 left",
    highlights=("best -1.000",),
    figures={"trained": "3 of 6", "workers": "2 ready"},
    source="def rule(w, g):\n    return g\n",
    source_title="best rule",
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def live_display(width=80, height=24):
    """A live display, and the console that it draws on."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height)
    return live.LiveDisplay(io.StringIO(), console), console


@pytest.fixture
def clock(monkeypatch):
    """The time, which a test moves on."""
    now = [1000.0]
    for module in (plain, live):
        monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_terminal_gets_the_live_view_and_a_file_plain_lines():
    view = choose.make_display(Terminal())
    view.close()
    assert isinstance(view, live.LiveDisplay)
    assert isinstance(choose.make_display(io.StringIO()), plain.PlainDisplay)


@pytest.mark.parametrize("kind", ["plain", "live"])
def test_a_clock_goes_on_while_the_caller_does_not(kind, monkeypatch):
    """As it does while a loop is compiled on the caller's thread."""
    stream = io.StringIO()
    monkeypatch.setattr(activity_clock, "SHOWN_FROM_S", 0.0)
    monkeypatch.setattr(plain, "WAITING_INTERVAL_S", 0.01)
    monkeypatch.setattr(live, "INTERVAL_S", 0.01)
    if kind == "live":
        monkeypatch.setenv("TERM", "xterm")
        stream.isatty = lambda: True
    view = choose.make_display(stream)
    try:
        view.doing("compiling digits_mlp")
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


def test_plain_lines_come_seldom_but_for_what_must_be_seen(clock):
    stream = io.StringIO()
    view = plain.PlainDisplay(stream)
    for done in range(101):
        view.phase("training", done, 100)
    for _ in range(100):
        clock[0] += 0.1
        view.update(lambda: STATUS)
        view.refresh()
    view.log("a new best")
    view.note("something was noted")
    clock[0] += 60.0
    view.update(lambda: Status(""))
    view.close()
    view.close()
    assert stream.getvalue().splitlines() == [
        "training: 0 of 100",
        "training: 100 of 100",
        *["half done, all is well"] * 2,
        "a new best",
        "something was noted",
    ]


def test_the_live_view_draws_seldom_and_closes_once(clock, monkeypatch):
    view, console = live_display()
    drawn = []
    monkeypatch.setattr(view, "_render", lambda: drawn.append(clock[0]) or "frame")
    for _ in range(1000):
        clock[0] += 0.01
        view.update(lambda: STATUS)
        view.refresh()
        view.log("only in texts")
    assert 10 <= len(drawn) <= 2 * 10 + 2
    view.close()
    count = len(drawn)
    view.close()
    assert len(drawn) == count
    assert console.file.getvalue().endswith("\x1b[?25h")  # The cursor is back.
    assert "only in texts" not in console.file.getvalue()


@pytest.mark.parametrize("height", range(1, 14))
def test_the_live_view_never_grows_past_the_terminal(height):
    for status in (STATUS, Status("one line", 1, 2), Status("", highlights=("first",))):
        parts = live.render_status(status, 40, height)
        console = Console(file=io.StringIO(), width=40)
        console.print(*parts, sep="\n")
        assert len(console.file.getvalue().rstrip("\n").split("\n")) <= max(height, 1)


def test_a_stage_stands_below_the_status_and_what_it_shows_is_no_markup():
    view, _ = live_display()
    view.update(lambda: STATUS)
    view.phase("[red]final seeds", 3, 10)
    console = Console(file=io.StringIO(), width=80)
    console.print(view._render())
    view.close()
    text = console.file.getvalue()
    assert "[red]final seeds" in text and "3 of 10" in text
    assert text.index("best -1.000") < text.index("[red]final seeds")


def test_silence_takes_all_calls():
    view = Silent()
    view.phase("a", 1, 2)
    view.doing("b")
    view.update(lambda: 1 / 0)
    view.refresh()
    view.log("c")
    view.note("d")
    view.close()


@given(st.lists(st.text(st.characters(codec="ascii", exclude_characters="\n")), max_size=30),
       st.integers(10, 80), st.integers(1, 20))  # fmt: skip
def test_folded_source_fits_its_box(lines, width, height):
    lines = [re.sub(r"[\x00-\x1f\x7f]", " ", line) for line in lines]
    fitted = live.fit_source("\n".join(lines), width, height).split("\n")
    assert len(fitted) <= height
    assert all(len(line) <= max(width, 30) for line in fitted)


def test_source_that_fits_is_left_alone_and_a_cut_is_marked():
    source = "def rule(w, g):\n    a = sign(g)\n    return a\n"
    assert live.fit_source(source, 40, 3) == source.rstrip()
    assert live.fit_source(source, 40, 2) == "def rule(w, g):\n# ... 2 more lines"
    folded = live.fit_source("def rule(w, g, *, b1=0.123456, b2=0.123456):", 30, 9)
    assert folded == "def rule(w, g, *, b1=0.123456,\n        b2=0.123456):"
