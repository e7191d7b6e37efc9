"""The benchmark's page and figures: true to the results, whole, and harmless whoever named them."""

import dataclasses
import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.web import Page
from veldt.tasks.benchmark.report import benchmark_figures, benchmark_page, benchmark_tables
from veldt.tasks.benchmark.scores.aggregate import Interval
from veldt.tasks.benchmark.scores.results import Effort, Results, Row, TaskRecord, TaskScore

EVIL = "</style></svg><script>alert('1')</script>&amp;\"x\" ]]>"
STEPS = (0, 10, 20, 30)


SCORE = TaskScore(
    task="a", failed=False, selected=False, rate=0.01, valid_rate=0.03, at_edge=False,
    speedup=1.0, capped=False,
    train_loss=0.125, test_loss=0.25, train=0.1, test=0.2, train_ratio=0.9, test_ratio=1.1,
    diverged=0.0, untuned_speedup=0.7, untuned_test_ratio=1.3, step_ratio=None, state_bytes=None,
    curve=(1.0, 0.4, 0.2, 0.1),
)  # fmt: skip


def score(task, speedup=1.0, **changes):
    capped = speedup >= 3
    return dataclasses.replace(SCORE, task=task, speedup=speedup, capped=capped, **changes)


def failed(task):
    inf = math.inf
    return score(
        task, 0.0, failed=True, train_loss=inf, test_loss=inf, train=inf, test=inf,
        train_ratio=inf, test_ratio=inf, diverged=1.0, untuned_speedup=0.0,
        untuned_test_ratio=inf, curve=(inf,) * len(STEPS),
    )  # fmt: skip


def around(value, share=0.1):
    return Interval(value, value * (1 - share), value * (1 + share))


ROW = Row(
    name="x", schedule="constant", source="run", num_rates=7,
    speedup=around(1.0), train_ratio=around(0.8), test_ratio=around(1.2), untuned_rate=0.02,
    untuned_speedup=around(0.6),
    untuned_test_ratio=around(1.4), won=0.5, won_untuned=0.25, diverged=0.125, num_capped=0,
    num_at_edge=0, num_failed=0, num_selected=0, step_ratio=1.25, state_bytes=8.0, tasks=(),
    num_at_floor=0,
)  # fmt: skip


def row(name, speedup=1.0, *, tasks=None, **changes):
    tasks = (score("a", speedup), score("b", speedup)) if tasks is None else tasks
    counts = {
        "num_capped": sum(task.capped for task in tasks),
        "num_at_edge": sum(task.at_edge for task in tasks),
        "num_failed": sum(task.failed for task in tasks),
        "num_selected": sum(task.selected for task in tasks),
    }
    made = dataclasses.replace(ROW, name=name, speedup=around(speedup), tasks=tasks, **counts)
    return dataclasses.replace(made, **changes)


def make_results(*rows, tasks=("a", "b"), **changes):
    envelope = (1.0, 0.5, 0.3, 0.25)
    made = Results(
        suite="tiny",
        seeds=(0, 1, 2),
        rates_per_candidate=7,
        horizon=3.0,
        tasks=tuple(
            TaskRecord(task, 30, 1234, "abcdef123456:+1e+00", "archive", STEPS, envelope)
            for task in tasks
        ),
        rows=rows,
        effort=Effort(84, 30.0, 10.0, 25.0),
        versions={"veldt": "0.0.1", "device": "cpu"},
    )
    return dataclasses.replace(made, **changes)


USUAL = make_results(
    row("slow", 0.5),
    row("quick", 2.0, num_at_edge=1),
    row("adam", 0.8, source="archive"),
    row("muon", 1.5, source="archive", schedule="warmup_cosine"),
)


def main_element(text):
    """The body as XML, which holds it to closing every element."""
    body = text[text.index("<main>") : text.index("</main>") + len("</main>")]
    return ET.fromstring(re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", body))


def assert_harmless(text):
    found = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "embed", "form"} & set(found.tags)
    names = {name for name, _ in found.attributes}
    assert not {"src", "href", "xlink:href", "action", "style"} & names
    assert not [name for name in names if name.startswith("on")]
    assert not re.search(r"@import|url\(|https?://", text)
    assert "default-src 'none'" in text
    for path in main_element(text).iter("path"):
        assert "nan" not in path.get("d") and "inf" not in path.get("d")


def names_in_order(text):
    """The names in the main table, headings of its parts among them."""
    body = main_element(text).find(".//tbody")
    return ["".join(line[0].itertext()) for line in body]


def test_rows_are_in_two_parts_the_fastest_first():
    assert names_in_order(benchmark_page.render(USUAL)) == [
        "Candidates run here", "quick1 at edge", "slow", "Baselines from the archive",
        "muonwarmup_cosine", "adam",
    ]  # fmt: skip


def test_the_table_has_every_score_of_a_row():
    line = main_element(benchmark_page.render(USUAL)).findall(".//tbody/tr")[1]
    cells = ["".join(cell.itertext()) for cell in line]
    assert cells == [
        "quick1 at edge", "2.001.80–2.20", "", "1.201.08–1.32", "0.800.72–0.88", "50%", "0.02",
        "0.600.54–0.66", "1.401.26–1.54", "25%", "12%", "1.25", "8",
    ]  # fmt: skip


def test_only_what_is_clearly_better_is_bold():
    close = row("close", 1.05)  # Its interval holds 1.
    body = main_element(
        benchmark_page.render(make_results(row("fast", 1.5), close, row("slow", 0.5)))
    )
    bold = [line.find("td[2]/span").get("class") for line in body.findall(".//tbody")[0][1:]]
    assert bold == ["clear", None, None]


def test_the_page_is_whole_and_harmless(tmp_path):
    benchmark_page.write_page(USUAL, tmp_path / "deep" / "page.html")
    text = (tmp_path / "deep" / "page.html").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert_harmless(text)
    drawn = [e for e in main_element(text).iter("svg") if e.get("role") == "img"]
    assert len(drawn) == 1 + len(USUAL.tasks)
    assert all(e.find("title").text and e.find("desc").text for e in drawn)


@pytest.mark.parametrize(
    ("speedup", "words"),
    [
        (2.0, "quick is faster than tuned Adam at its best: speed-up 2.00 (95% interval 1.80"),
        (1.0, "quick is neither clearly faster nor clearly slower than tuned Adam"),
        (0.5, "quick is slower than tuned Adam at its best"),
    ],
)
def test_the_headline_claims_no_more_than_the_interval(speedup, words):
    text = benchmark_page.headline(
        make_results(row("quick", speedup), row("adam", 0.8, source="archive"))
    )
    assert text.startswith(words)
    assert "Adam itself, tuned over as many rates, has 0.80" in text


def test_the_headline_is_about_candidates_run_here_where_there_are_any():
    text = benchmark_page.headline(USUAL)
    assert text.startswith("quick is faster")
    assert "The other candidates: slow 0.50 (0.45–0.55)." in text
    archive = dataclasses.replace(USUAL, rows=USUAL.rows[2:])
    assert "No candidate was run here; the fastest of the archive: muon" in benchmark_page.headline(
        archive
    )


def test_one_seed_is_said_to_show_no_spread():
    assert "One seed" in benchmark_page.headline(dataclasses.replace(USUAL, seeds=(0,)))
    assert "One seed" not in benchmark_page.headline(USUAL)


def test_capped_speed_ups_are_lower_bounds_and_edges_are_marked():
    tasks = (score("a", 3.0), score("b", 1.0, at_edge=True))
    text = Page(benchmark_page.render(make_results(row("new", 2.0, tasks=tasks)))).text
    assert "≥ 3" in text
    assert "1 capped, 1 at edge" in text


def test_hostile_names_stay_texts(tmp_path):
    results = make_results(
        row(EVIL, 1.0, tasks=(score(EVIL),)),
        row("adam", 0.8, schedule=EVIL, source="archive", tasks=(score(EVIL),)),
        tasks=(EVIL,),
        suite=EVIL,
        versions={EVIL: EVIL},
    )
    text = benchmark_page.render(results)
    assert_harmless(text)
    assert Page(text).texts.count(EVIL) > 5  # Shown, and shown as it is.
    for path in benchmark_figures.write_figures(results, tmp_path):
        tags = {element.tag.rpartition("}")[2] for element in ET.parse(path).iter()}
        assert tags <= {"svg", "title", "desc", "style", "rect", "g", "path", "text"}


@given(st.text(max_size=40))
def test_any_name_can_be_written(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("any")
    results = make_results(row(name, tasks=(score(name),)), tasks=(name,))
    benchmark_page.write_page(results, folder / "page.html")
    for path in benchmark_figures.write_figures(results, folder):
        ET.parse(path)


def test_half_a_surrogate_pair_is_replaced(tmp_path):
    benchmark_page.write_page(make_results(row("\ud800")), tmp_path / "page.html")
    benchmark_figures.write_figures(make_results(row("\ud800")), tmp_path)
    assert "?" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_failures_infinities_and_absent_numbers_are_shown():
    inf, nan = math.inf, math.nan
    results = make_results(
        row("partly", 0.4, tasks=(score("a", 0.8), failed("b")), test_ratio=Interval(2, 1, inf)),
        dataclasses.replace(
            row("never", 0.0, tasks=(failed("a"), failed("b"))),
            test_ratio=Interval(inf, inf, nan),
            train_ratio=Interval(inf, inf, inf),
            untuned_speedup=Interval(nan, nan, nan),
            step_ratio=None,
            state_bytes=None,
        ),
    )
    text = benchmark_page.render(results)
    assert_harmless(text)
    assert names_in_order(text)[1:] == ["partly1 failed", "never2 failed"]
    assert "∞" in Page(text).text and "1.00–∞" in Page(text).text
    assert "2 diverged" in [e.text for e in main_element(text).iter("text")]
    assert benchmark_page.headline(make_results(results.rows[1])).startswith(
        "never failed on every task."
    )


def test_a_score_that_is_no_number_is_ranked_last():
    nan = math.nan
    nothing = dataclasses.replace(row("nothing"), speedup=Interval(nan, nan, nan))
    assert [r.name for r in benchmark_figures.ranked([nothing, row("x", 0.1), row("y", 0.2)])] == [
        "y", "x", "nothing",
    ]  # fmt: skip


@pytest.mark.parametrize("rows", [(), (row("only"),)])
@pytest.mark.parametrize("tasks", [(), ("a",)])
def test_next_to_nothing_has_a_page_and_figures(rows, tasks, tmp_path):
    rows = tuple(dataclasses.replace(r, tasks=tuple(map(score, tasks))) for r in rows)
    results = make_results(*rows, tasks=tasks, versions={})
    assert_harmless(benchmark_page.render(results))
    assert (benchmark_page.headline(results) == "Nothing was compared.") == (not rows or not tasks)
    for path in benchmark_figures.write_figures(results, tmp_path):
        ET.parse(path)


# ----------------------------------------------------------------------------------------- figures


def many_rows():
    runs = [row(f"run{i}", 0.3 + i / 10) for i in range(9)]
    schedules = ("constant", "warmup_cosine")
    archive = [
        row(name, 1 + i / 10 + j / 100, schedule=schedule, source="archive")
        for i, name in enumerate(["adam", "sgd", "lion", "muon"])
        for j, schedule in enumerate(schedules)
    ]
    return [*runs, *archive]


def test_of_many_rows_the_fastest_of_each_kind_are_drawn():
    series = benchmark_figures.choose(many_rows())
    assert [(one.row.name, one.row.schedule) for one in series[4:]] == [
        ("adam", "constant"), ("muon", "warmup_cosine"), ("lion", "warmup_cosine"),
    ]  # fmt: skip
    assert [one.row.name for one in series[:4]] == ["run8", "run7", "run6", "run5"]
    assert len({one.kind for one in series}) == len(series) <= benchmark_figures.MAX_SERIES
    text = benchmark_figures.left_out(many_rows(), series)
    assert "4 of 9 candidates, tuned Adam, baselines" in text and "10 more" in text


def test_a_second_schedule_comes_after_every_other_optimizer():
    rows = [row("a", 2.0), row("a", 1.9, schedule="warmup_cosine"), row("b", 0.1)]
    assert [one.row for one in benchmark_figures.choose(rows)] == [rows[0], rows[2], rows[1]]


def test_few_rows_are_all_drawn_and_nothing_is_said_to_be_left_out():
    series = benchmark_figures.choose(USUAL.rows)
    assert {one.row.label for one in series} == {r.label for r in USUAL.rows}
    assert benchmark_figures.left_out(USUAL.rows, series) == ""


def test_a_profile_counts_each_task_up_to_its_speed_up():
    tasks = (score("a", 0.5), score("b", 2.0), score("c", 3.0), score("d", 0.0))
    results = make_results(row("x", tasks=tasks), tasks="abcd")
    plot = benchmark_figures.profile_plot(results)
    tree = ET.fromstring(benchmark_figures.profile(results, benchmark_figures.choose(results.rows)))
    (path,) = [e.get("d") for e in tree.iter("path") if e.get("class") == "line s0 run"]
    drawn = [tuple(map(float, point.split())) for point in path[1:].split("L")]
    corners = [(1 / 8, 75), (0.5, 75), (0.5, 50), (2, 50), (2, 25), (3, 25)]
    expected = [plot.place(point) for point in corners]
    assert drawn == [pytest.approx(point, abs=0.06) for point in expected]


def test_a_curve_ends_with_a_cross_where_its_losses_do():
    lost = score("a", curve=(1.0, 0.5, math.inf, 0.1))
    results = make_results(row("x", tasks=(lost,)), tasks=("a",))
    (panel,) = benchmark_figures.panels(results, benchmark_figures.choose(results.rows))
    tree = ET.fromstring(panel)
    (path,) = [e.get("d") for e in tree.iter("path") if e.get("class") == "line s0 run"]
    assert path.count("L") == 1
    assert [e.get("class") for e in tree.iter("path")].count("marker lost") == 1
    assert "1 diverged" in [e.text for e in tree.iter("text")]


def test_a_file_holds_one_panel_per_task_with_its_own_style(tmp_path):
    profile, curves = benchmark_figures.write_figures(USUAL, tmp_path / "deep")
    assert (profile.name, curves.name) == ("profile.svg", "curves.svg")
    svg = "{http://www.w3.org/2000/svg}"
    for path, panels in ((profile, 1), (curves, 2)):
        root = ET.parse(path).getroot()
        assert root.tag == f"{svg}svg"
        assert len(root.findall(f"{svg}svg")) == panels
        assert "prefers-color-scheme: dark" in root.find(f"{svg}style").text
        names = [e.text for e in root.findall(f"{svg}text")]
        assert {r.label for r in USUAL.rows} <= set(names)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (math.nan, "-"), (math.inf, "∞"), (0.0, "0.00"), (0.0971, "0.10"),
        (0.0123, "0.012"), (1.234, "1.23"), (99.6, "100"), (12345.6, "12,346"), (3e7, "3e+07"),
    ],
)  # fmt: skip
def test_numbers_have_two_or_three_digits(value, text):
    assert benchmark_tables.number(value) == text


def test_tasks_that_a_rule_was_selected_on_are_marked():
    results = make_results(row("found", 2.0, tasks=(score("a", 2.0, selected=True), score("b"))))
    text = Page(benchmark_page.render(results)).text
    assert "1 left out" in text
    assert "2.00 (selected on)" in text
