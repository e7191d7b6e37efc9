"""What a person sees: complete, no larger than the terminal, and never markup from a path."""

import io
import re
from collections import Counter
from dataclasses import replace

import pytest
from rich.console import Console

from tests.search import fakes
from veldt.search.evaluation import fingerprint, probe
from veldt.search.language import dataflow
from veldt.search.program import Program
from veldt.search.report import report_data
from veldt.search.run import results_table, run_search, search_view
from veldt.search.storage import counts, hall_entries, usage
from veldt.search.storage.counts import Counts
from veldt.search.storage.hall_entries import Entry
from veldt.search.storage.store import Store
from veldt.tasks.common import formatting
from veldt.tasks.common.progress import live, plain
from veldt.tasks.pool.base import EventKind, PoolEvent
from veldt.tasks.pool.config import PoolConfig

LONG = Program.parse(
    "def rule(w, g, m, *, b1=0.7970532318059035, b2=0.123456789012345, wd=0.00001234567890123):\n"
    + "".join(f"    m = interp(g, m, b{i % 2 + 1})\n    m = sign(m) * exp(m)\n" for i in range(20))
    + "    update = m + wd * w\n    return update, m\n"
)
NEEDED = ("candidates/s", "from cache", "best ", "meta-validation", "left", "best rule", "return")


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """An engine after a search with a fake worker, and its entries."""
    keeper = fakes.View()
    config = fakes.small_config(pool=PoolConfig(num_workers=1))
    result = run_search.run_search(
        config, tmp_path_factory.mktemp("run"), view=keeper, factory=fakes.FakeWorker
    )
    assert keeper.bests and keeper.phases
    return keeper.evolution, result.entries


def with_best(evolution, program, monkeypatch):
    genotype = replace(evolution.incumbent.genotype, program=program)
    monkeypatch.setattr(evolution, "incumbent", replace(evolution.incumbent, genotype=genotype))


def screen(evolution, width, height, phase=None, stats=None):
    """The live view's last frame as text, line by line."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height)
    display = live.LiveDisplay(io.StringIO(), console)
    view = search_view.SearchView(display)
    try:
        if evolution is not None:
            view.update(evolution)
        if stats is not None:
            view.work(stats, [])
        if phase is not None:
            view.phase(*phase)
        frame = display._render()
    finally:
        display.close()
    plain = Console(file=io.StringIO(), width=width, height=height)
    plain.print(frame)
    return plain.file.getvalue().rstrip("\n").split("\n")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (60, 15), (200, 60)])
@pytest.mark.parametrize("rule", ["short", "long"])
def test_the_live_view_fits_the_terminal_and_shows_what_it_must(
    searched, monkeypatch, width, height, rule
):
    evolution, _ = searched
    if rule == "long":
        with_best(evolution, LONG, monkeypatch)
    for phase in (None, ("final seeds", 3, 10)):
        lines = screen(evolution, width, height, phase)
        assert len(lines) < height
        assert all(len(line) <= width for line in lines)
        text = " ".join(" ".join(lines).split())
        # A small terminal goes without some of the counts, and a long rule is cut.
        spared = {"return": rule == "long" or height < 20, "from cache": height < 20}
        assert [name for name in NEEDED if name not in text and not spared.get(name)] == []
        if phase:
            assert "final seeds" in lines[-1] and "3 of 10" in lines[-1]
        if rule == "long" and height <= 24:
            assert "more lines" in text


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (60, 15)])
@pytest.mark.parametrize("num_workers", [2, 1000])
def test_the_live_view_shows_the_workers_too(searched, width, height, num_workers):
    evolution, _ = searched
    stats = fakes.pool_stats(num_workers)
    lines = screen(evolution, width, height, ("final seeds", 3, 10), stats)
    assert len(lines) < height and all(len(line) <= width for line in lines)
    text = " ".join(" ".join(lines).split())
    shown = {name: usage.figures(stats)[name] for name in ("workers", "per worker", "trouble")}
    assert f"workers {stats.num_ready:,} of {num_workers:,} ready" in text
    if height > 15:
        assert [name for name, figure in shown.items() if f"{name} {figure}" not in text] == []
        assert "60% busy, 10% wasted, 30% idle" in text
    assert "best rule" in text and "3 of 10" in text


def test_workers_that_are_still_to_come_are_counted():
    phase = ("compiling", 0, 0)
    lines = screen(None, 80, 24, phase, fakes.pool_stats(3, num_workers=16))
    assert "workers: 3 of 16 ready" in lines[0] and "compiling" in lines[1]
    assert len(screen(None, 80, 24, phase, fakes.pool_stats(16))) == 1


def test_a_note_stays_above_the_live_view(searched):
    evolution, _ = searched
    console = Console(file=io.StringIO(), force_terminal=True, width=40, height=24)
    display = live.LiveDisplay(io.StringIO(), console)
    view = search_view.SearchView(display)
    view.note("[red] is no markup, and this line is longer than the terminal is wide")
    view.update(evolution)
    display.close()
    text = console.file.getvalue()
    assert "[red] is no markup, and this line is longer than the terminal is wide" in text
    assert text.index("[red]") < text.index("candidates/s")


def test_plain_lines_tell_what_went_wrong_and_now_and_then_of_the_workers(monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(search_view.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    view = search_view.SearchView(plain.PlainDisplay(stream))
    view.work(fakes.pool_stats(), [PoolEvent(0.0, EventKind.WORKER_READY, "w1")])
    assert stream.getvalue() == ""
    lost = [PoolEvent(0.0, EventKind.WORKER_LOST, f"w{i}", "", "gone") for i in range(9)]
    view.work(fakes.pool_stats(), lost)
    assert stream.getvalue().split("\n") == [
        *(f"worker lost: w{i}: gone" for i in range(5)),
        "... and 4 more like these",
        "",
    ]
    stream.truncate(0)
    for _ in range(1200):  # Ten minutes, a call each half second.
        clock[0] += 0.5
        view.work(fakes.pool_stats(), [])
    lines = stream.getvalue().lstrip("\0").strip().split("\n")
    assert len(lines) == 10
    assert set(lines) == {
        "; ".join(f"{name}: {figure}" for name, figure in usage.figures(fakes.pool_stats()).items())
    }
    # While workers start, more often.
    stream.truncate(0)
    for _ in range(24):
        clock[0] += 0.5
        view.work(fakes.pool_stats(3, num_workers=16), [])
    assert stream.getvalue().count("workers: 3 of 16 ready") == 2


@pytest.mark.parametrize("height", range(1, 14))
def test_tiny_terminals_get_what_fits(searched, height):
    evolution, _ = searched
    lines = screen(evolution, 80, height)
    assert len(lines) <= max(height - 1, 1)
    assert "candidates/s" in lines[0]


def test_the_live_view_shows_the_search_s_own_numbers(searched):
    evolution, _ = searched
    text = "\n".join(screen(evolution, 120, 40))
    assert f"best {evolution.incumbent.fitness:+.3f}" in text
    assert f"fresh {evolution.incumbent.fresh:+.3f}" in text
    assert f"meta-validation {evolution.incumbent.meta:+.3f}" in text
    for name, figure in counts.figures(evolution.counts, evolution.config.max_evaluations).items():
        assert re.search(rf"{name} +{re.escape(figure)}", text)


def test_before_the_search_there_is_the_phase_alone():
    (line,) = screen(None, 80, 24, ("compiling the training loops", 0, 0))
    assert line.strip() == "compiling the training loops"


def test_plain_lines_come_seldom_and_say_the_same(searched, monkeypatch):
    evolution, _ = searched
    clock = [1000.0]
    monkeypatch.setattr(plain.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(type(evolution), "elapsed_s", 100.0)
    stream = io.StringIO()
    display = plain.PlainDisplay(stream)
    view = search_view.SearchView(display)
    view.phase("compiling")
    for _ in range(200):
        clock[0] += 0.1
        view.update(evolution)
    view.best(evolution)
    for done in range(11):
        view.phase("learning rates", done, 10)
    display.close()
    lines = stream.getvalue().split("\n")
    assert "\x1b" not in stream.getvalue()
    assert lines[0] == "compiling"
    assert sum("proposed (" in line for line in lines) == 4
    line = next(line for line in lines if "proposed (" in line)
    trained, num_told = evolution.counts.num_trained, evolution.counts.num_told
    assert f"{num_told} proposed ({num_told / 100:.0f}/s)" in line
    assert f"{trained} of 60 trained" in line and "from cache" in line
    assert "meta-validation" in line and "[1:40, " in line
    assert sum(line.startswith("new best after") for line in lines) == 1
    # The first and the last of a phase, whatever the clock says.
    assert [line for line in lines if line.startswith("learning")] == [
        "learning rates: 0 of 10",
        "learning rates: 10 of 10",
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3661, "1:01:01"), (float("inf"), "-")],
)
def test_durations(value, expected):
    assert formatting.duration(value) == expected


def test_time_left_follows_the_nearer_limit(searched, monkeypatch):
    evolution, _ = searched
    monkeypatch.setattr(type(evolution), "elapsed_s", 10.0)
    monkeypatch.setattr(evolution, "counts", Counts(sources=Counter(evaluated=20)))
    assert search_view.time_left_s(evolution) == 20.0
    monkeypatch.setattr(evolution, "config", replace(evolution.config, time_limit_s=15.0))
    assert search_view.time_left_s(evolution) == 5.0
    monkeypatch.setattr(evolution, "config", replace(evolution.config, time_limit_s=5.0))
    assert search_view.time_left_s(evolution) == 0.0
    monkeypatch.setattr(evolution, "counts", Counts())
    monkeypatch.setattr(evolution, "config", replace(evolution.config, time_limit_s=None))
    assert search_view.time_left_s(evolution) == float("inf")


# ------------------------------------------------------------------------------ the results


def results(entries, run_dir="runs/x"):
    stream = io.StringIO()
    results_table.print_results(entries, run_dir, stream)
    return stream.getvalue()


def test_results_are_the_table_the_words_and_the_rule(searched):
    _, entries = searched
    text = results(entries)
    winner = next(entry for entry in entries if entry.winner)
    for entry in entries:
        row = next(line for line in text.split("\n") if re.search(rf" {entry.label} ", line))
        assert row.strip().startswith(">>>") == entry.winner
        assert f"{entry.final:+.3f} ± {entry.final_error:.3f}" in row
        assert f"{entry.meta:+.3f}" in row and f" {entry.length} " in row
    assert "final seeds" in text and "run directory: runs/x" in text
    source = text[text.index("def ") : text.index("\nrun directory")]
    shown, found = (  # What is shown is simplified.
        fingerprint.fingerprint(probe.run(dataflow.lower(program, fold=True)), 1.0)
        for program in (Program.parse(source), winner.program)
    )
    assert shown == found


def test_results_on_80_columns_keep_every_figure(finished_run):
    with Store.open(finished_run, read_only=True) as store:
        entries = hall_entries.read_entries(store)
    console = Console(file=io.StringIO(), width=80)
    console.print(results_table.results_table(entries))
    text = console.file.getvalue()
    assert "…" not in text
    for entry in entries:
        assert f"{entry.final:+.3f} ± {entry.final_error:.3f}" in text
        assert f"{entry.meta:+.3f}" in text


def test_a_long_rule_is_printed_whole_and_still_a_program():
    entry = Entry("#1", 1, LONG, 0.1, 3, -1.0, -1.0, -1.0, 0.1, None, True)
    text = results([entry])
    source = text[text.index("def ") : text.index("\nrun directory")]
    assert Program.parse(source).lower().structural_hash == LONG.lower().structural_hash


def test_scores_that_are_missing_are_dashes_and_paths_are_no_markup():
    program = Program.parse("def rule(w, g):\n    return g\n")
    odd = "rules/[red]x[/red].py"
    entry = Entry(odd, -1, program, None, 0, None, None, None, None, None)
    text = results([entry], run_dir="runs/[bold]y")
    row = next(line for line in text.split("\n") if odd in line)
    assert row.split() == [odd, "0", "0", "-", "-", "-", "-"]
    assert "run directory: runs/[bold]y" in text


def test_the_report_and_the_terminal_show_the_same_table(finished_run):
    data = report_data.read_run(finished_run)
    with Store.open(finished_run, read_only=True) as store:
        assert results(data.entries) == results(hall_entries.read_entries(store))


def test_a_score_that_is_to_come_is_said_to_be(searched, monkeypatch):
    evolution, _ = searched
    best = evolution.incumbent
    assert f"meta-validation {best.meta:+.3f}" in search_view.score_line(evolution)
    pending = replace(best, meta=None, meta_pending=True)
    monkeypatch.setattr(evolution, "incumbent", pending)
    assert "meta-validation not yet" in search_view.score_line(evolution)
