"""The view under a notebook's cell, with a stand-in for IPython, which veldt does not depend on."""

import re
import sys
import types

import pytest

from tests.tasks.common.progress.test_displays import STATUS
from veldt.tasks.common.progress import activity_clock, choose, notebook, plain
from veldt.tasks.common.progress.display import Status


class Html:
    def __init__(self, data):
        self.data = data


@pytest.fixture
def cell(monkeypatch):
    """What the cell shows, each drawing of it."""
    drawn = []

    class Handle:
        def update(self, shown):
            assert isinstance(shown, Html)
            drawn.append(shown.data)

    def display(shown, *, display_id):
        assert display_id is True
        return Handle()

    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.HTML, ipython.display.display = Html, display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    return drawn


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    for module in (notebook, activity_clock):
        monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def words(html):
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_only_a_kernel_gets_the_view(cell, capsys, monkeypatch):
    view = choose.make_display()
    assert isinstance(view, notebook.NotebookDisplay)
    view.close()
    assert isinstance(choose.make_display(sys.stderr), plain.PlainDisplay)  # It was asked for.
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)
    assert not notebook.is_here()
    terminal = types.SimpleNamespace()  # IPython in a terminal has no kernel.
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: terminal)
    assert not notebook.is_here()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not notebook.is_here()


def test_it_shows_status_activity_and_notes(cell, clock):
    view = notebook.NotebookDisplay()
    view.update(lambda: STATUS)
    assert words(cell[-1]) == (
        "12 things/s 0:10, 0:10 left best -1.000 trained 3 of 6 workers 2 ready best rule "
        "def rule(w, g): return g"
    )
    assert '<progress value="3" max="6">' in cell[-1]
    view.phase("final seeds", 0, 4)
    clock[0] += 65.0
    view.phase("final seeds", 0, 4)
    assert words(cell[-1]).endswith("final seeds 0 of 4 1:05")
    view.note("a <b>note</b>")
    assert "a &lt;b&gt;note" in cell[-1] and "<b>note" not in cell[-1]
    view.log("only in texts")
    view.close()
    assert "final seeds" not in cell[-1] and "best -1.000" in cell[-1]
    count = len(cell)
    view.close()
    assert len(cell) == count


def test_it_draws_seldom_and_keeps_few_notes(cell, clock):
    view = notebook.NotebookDisplay()
    for _ in range(1000):
        clock[0] += 0.01
        view.update(lambda: STATUS)
        view.refresh()
    assert 10 <= len(cell) <= 2 * 10 + 2
    for number in range(50):
        view.note(f"note {number}")
    assert cell[-1].count("note ") == notebook.MAX_NOTES and "note 49" in cell[-1]
    view.update(lambda: Status(""))
    view.doing("loading")
    view.close()


def test_it_forges_no_html(cell):
    evil = "<script>alert(1)</script>"
    status = Status(evil, 1, 2, evil, evil, (evil,), {evil: evil}, evil, evil)
    view = notebook.NotebookDisplay()
    view.update(lambda: status)
    view.doing(evil)
    view.close()
    assert cell and not any("<script" in each for each in cell)
