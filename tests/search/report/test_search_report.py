"""The report: true to the store, whole in one file, and harmless whatever the store holds."""

import copy
import html
import json
import math
import re
import shlex
import shutil
import sqlite3
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.search import fakes, older_stores
from tests.web import Page
from veldt.search.config.finals_config import FinalsConfig, TuningConfig
from veldt.search.errors import SearchError, StoreError
from veldt.search.finals import conclusion
from veldt.search.program import Program
from veldt.search.report import (
    lineage,
    overfitting,
    report_data,
    report_funnel,
    report_labels,
    report_lineage,
    report_outcome,
    search_report,
)
from veldt.search.run import run_search
from veldt.search.storage import checksums, counts, hall_entries
from veldt.search.storage.hall_entries import Entry
from veldt.search.storage.store import FILE_NAME, Store
from veldt.tasks.common.errors import FileError
from veldt.tasks.common.html.plot import Frame
from veldt.tasks.pool.config import PoolConfig


def main_element(text):
    """The body as XML, which holds it to closing every element."""
    return ET.fromstring(text[text.index("<main>") : text.index("</main>") + len("</main>")])


def query(directory, statement, *parameters):
    connection = sqlite3.connect(directory / FILE_NAME)
    try:
        found = connection.execute(statement, parameters).fetchall()
        if checksums.has(connection):
            checksums.begin(connection)
        connection.commit()
    finally:
        connection.close()
    return found


class Interrupt(fakes.View):
    """A view that presses Ctrl-C after so many results."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def update(self, evolution):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def interrupted_run(directory, after=40):
    config = fakes.small_config(pool=PoolConfig(num_workers=1))
    with pytest.raises(KeyboardInterrupt):
        run_search.run_search(config, directory, view=Interrupt(after), factory=fakes.FakeWorker)
    return directory


@pytest.fixture(scope="module")
def page(finished_run, tmp_path_factory):
    """The finished run's report."""
    path = search_report.write_report(
        finished_run, tmp_path_factory.mktemp("out") / "deep" / "page.html"
    )
    return path.read_text(encoding="utf-8")


def test_it_is_written_into_the_run_directory(run_copy):
    assert search_report.write_report(run_copy) == run_copy / "report.html"
    assert (run_copy / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def assert_self_contained(text):
    found = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "embed", "form"} & set(found.tags)
    names = {name for name, _ in found.attributes}
    assert not {"src", "href", "xlink:href", "action", "style"} & names
    assert not [name for name in names if name.startswith("on")]
    assert not re.search(r"@import|url\(", text)
    assert "default-src 'none'" in text


def test_nothing_comes_from_outside(page):
    assert_self_contained(page)
    assert not re.search(r"https?://", page)


def test_every_element_is_closed_and_figures_are_svg(page):
    figures = [e for e in main_element(page).iter("svg") if e.get("role") == "img"]
    assert len(figures) == 5
    for figure in figures:
        assert figure.find("title").text and figure.find("desc").text
        assert figure.get("viewBox").startswith("0 0 720 ")
        for path in figure.iter("path"):
            assert "nan" not in path.get("d") and "inf" not in path.get("d")


def test_the_figures_shown_are_those_of_the_store(page, finished_run):
    text = Page(page).text
    (num_told,) = query(finished_run, "SELECT COUNT(*) FROM proposal")[0]
    (steps,) = query(finished_run, "SELECT SUM(num_steps) FROM evaluation")[0]
    assert f"40 distinct programs trained, {num_told:,} proposed" in text
    assert f"{steps:,}" in text
    for label, final, error, meta in query(
        finished_run, "SELECT label, final_score, final_error, meta FROM hall_of_fame"
    ):
        assert label in text
        assert f"{final:+.3f} ± {error:.3f}" in text
        assert f"{meta:+.3f}" in text
    (label, final, error) = query(
        finished_run, "SELECT label, final_score, final_error FROM hall_of_fame WHERE winner"
    )[0]
    theirs, their_error = query(
        finished_run, "SELECT final_score, final_error FROM hall_of_fame WHERE label = 'lion'"
    )[0]
    assert f"{final - theirs:+.3f} ± {math.sqrt(error**2 + their_error**2):.3f}" in text
    assert f"The rule: {label}, the winner" in text


def test_seeds_won_are_counted_from_the_runs(page, finished_run):
    (winner,) = query(finished_run, "SELECT candidate FROM hall_of_fame WHERE winner")[0]
    final = "SELECT seed, log_loss FROM evaluation WHERE purpose = 'final' AND candidate = ?"
    ours = dict(query(finished_run, final, winner))
    theirs = dict(query(finished_run, final, -1))
    won = sum(ours[seed] < theirs[seed] for seed in ours)
    table = main_element(page).find("header//table")
    rows = [[cell.text for cell in row] for row in table.iter("tr")]
    assert rows[1][0] == "adamw" and rows[1][3] == f"{won} of 3"


def test_every_trained_program_with_a_fitness_is_a_dot(page, finished_run):
    (count,) = query(
        finished_run,
        "SELECT COUNT(*) FROM proposal p JOIN candidate c ON c.id = p.candidate "
        "WHERE p.source = 'evaluated' AND c.status = 'ok'",
    )[0]
    figure = next(e for e in main_element(page).iter("svg") if e.get("role") == "img")
    dots = [e for e in figure.iter("path") if e.get("class") == "dots faint"]
    assert dots[0].get("d").count("h0") == count > 0


def test_the_lineage_is_the_chain_of_parents(page, finished_run):
    (winner,) = query(finished_run, "SELECT candidate FROM hall_of_fame WHERE winner")[0]
    chain = query(
        finished_run,
        "WITH RECURSIVE line(id) AS (SELECT MIN(id) FROM proposal WHERE candidate = ? "
        "UNION ALL SELECT p.parent FROM proposal p JOIN line ON p.id = line.id "
        "WHERE p.parent IS NOT NULL) SELECT id FROM line ORDER BY id",
        winner,
    )
    data = report_data.read_run(finished_run)
    assert [one.proposal for one in data.lineage] == [id_ for (id_,) in chain]
    assert data.lineage[-1].candidate == winner
    # One id for one thing: as in the hall of fame, not the number of a proposal.
    assert f"#{winner}" in Page(page).text
    assert f"#{winner}" in str(report_lineage.section(data))
    steps = lineage.steps(
        data.initial_program,
        data.initial_learning_rate,
        data.lineage,
        data.incumbents[0].fitness,
    )
    neutral = sum(step.num_neutral for step in steps)
    assert len(steps) + neutral == len(chain)
    # All gains together lead from the initial rule to the winner.
    total = sum(step.gain for step in steps if step.gain is not None)
    fitness = [
        query(finished_run, f"SELECT fitness FROM candidate WHERE id = {i}")[0][0]
        for i in (0, winner)
    ]
    assert total == pytest.approx(fitness[1] - fitness[0])
    assert f"{len(chain):,} mutation" in Page(page).text


def test_the_funnel_narrows_from_children_drawn_to_new_incumbents(page, finished_run):
    data = report_data.read_run(finished_run)
    counts = {level.name: level.count for level in report_funnel.search_levels(data)}
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    num_told, invalid = query(finished_run, "SELECT COUNT(*), SUM(invalid) FROM proposal")[0]
    assert counts["drawn"] == num_told + invalid and counts["well formed"] == num_told
    (trained,) = query(finished_run, "SELECT COUNT(*) FROM proposal WHERE source = 'evaluated'")[0]
    assert counts["sound on the probe: trained"] == trained == 40
    (fit,) = query(finished_run, "SELECT COUNT(*) FROM candidate WHERE id > 0 AND status = 'ok'")[0]
    assert counts["trained to the end"] == fit
    shown = next(e for e in main_element(page).iter("svg") if e.get("class") == "funnel")
    texts = [text.text for text in shown.iter("text")]
    assert f"{num_told + invalid:,}" in texts and any(text.startswith("40, ") for text in texts)


def test_stages_are_in_the_funnel(run_copy):
    config = json.loads(query(run_copy, "SELECT value FROM meta WHERE key = 'config'")[0][0])
    tasks = [{"task": "digits_mlp", "num_steps": 40}]
    config["finals"]["stages"] = [
        {"name": name, "tasks": tasks, "seeds": 1, "rate_factors": [1.0]} for name in "BC"
    ]
    query(run_copy, "UPDATE meta SET value = ? WHERE key = 'config'", json.dumps(config))
    (entries,) = query(run_copy, "SELECT COUNT(*) FROM hall_of_fame WHERE candidate >= 0")[0]
    query(run_copy, "UPDATE hall_of_fame SET stages = winner")
    found = report_funnel.finals_levels(report_data.read_run(run_copy))
    assert [(level.name, level.count) for level in found] == [
        ("finalists: the Pareto front", entries),
        ("past stage B", 1),
        ("past stage C", 0),
        ("the winner", 1),
    ]
    assert "past stage C" in Page(search_report.render(run_copy)).text


def test_names_of_points_in_a_heap_cover_neither_each_other_nor_a_point():
    frame = Frame()
    points = [
        (f"#{i}{i}{i}", (300.0 + 9 * i, 200.0 + 4 * (i % 3)), (280.0, 340.0)) for i in range(7)
    ]
    labels = report_labels.place(points, frame)
    boxes = []
    for label, (name, _, _) in zip(labels, points, strict=True):
        text = ET.fromstring(f"<g>{label}</g>").find("text")
        assert text.text == name
        x, y, width = float(text.get("x")), float(text.get("y")), 7.5 * len(name)
        left = x - width if text.get("text-anchor") == "end" else x
        boxes.append((left, left + width, y - 10, y + 2))
    for i, (left, right, top, bottom) in enumerate(boxes):
        assert frame.left <= left and right <= frame.width - frame.right
        for other in boxes[:i]:
            assert right <= other[0] or other[1] <= left or bottom <= other[2] or other[3] <= top
        for _, (x, y), _ in points:
            assert not (left < x < right and top < y < bottom)


def incumbent(candidate, since, fitness, meta):
    return report_data.Incumbent(candidate, since, since, 3, fitness, None, 0, meta)


def test_meta_overfitting_sets_in_where_the_best_on_meta_validation_ends():
    incumbents = [
        incumbent(0, 0, -1.0, -2.0),
        incumbent(3, 10, -1.1, -2.3),
        incumbent(5, 40, -1.2, -2.2),
        incumbent(9, 70, -1.4, -2.1),
    ]
    runs = {3: {("a", 0): -2.4, ("a", 1): -2.2}, 9: {("a", 0): -2.19, ("a", 1): -2.01}}
    found = overfitting.onset(incumbents, runs)
    assert (found.best.candidate, found.since, found.last.candidate) == (3, 40, 9)
    assert found.gained == pytest.approx(-0.3) and found.lost == pytest.approx(0.2)
    assert found.error == pytest.approx(0.01) and found.significant  # 0.21 and 0.19
    text = overfitting.describe(found, 100, "#3")
    assert "40% of the search" in text and "meta-overfitting began there" in text
    noisy = {**runs, 9: {("a", 0): -1.8, ("a", 1): -2.4}}
    assert not overfitting.onset(incumbents, noisy).significant
    assert "may be noise" in overfitting.describe(overfitting.onset(incumbents, {}), 100, "#3")
    assert overfitting.onset(incumbents[:2], runs) is None
    assert overfitting.onset([incumbent(0, 0, -1.0, None)], {}) is None


def test_the_winner_s_source_is_the_rule_handed_over(page, finished_run):
    best = Program.parse((finished_run / "best.py").read_text(encoding="utf-8"))
    shown = main_element(page).find(".//pre/code").text
    assert Program.parse(shown).lower().structural_hash == best.lower().structural_hash
    assert "veldt export" in page and "optax.apply_updates" in page


def test_a_report_leaves_the_store_as_it_was(run_copy):
    before = (run_copy / FILE_NAME).read_bytes()
    search_report.write_report(run_copy)
    assert (run_copy / FILE_NAME).read_bytes() == before


def test_an_interrupted_run_has_a_report_that_claims_nothing(tmp_path):
    directory = interrupted_run(tmp_path / "run")
    text = search_report.write_report(directory).read_text(encoding="utf-8")
    assert_self_contained(text)
    main_element(text)
    shown = Page(text).text
    assert "This search has not ended" in shown
    assert f"veldt search {directory}/config.yaml --run-dir {directory} --resume" in shown
    assert "Hall of fame" not in shown and "is better than" not in shown


def test_an_incumbent_that_waits_for_its_score_is_shown_so(tmp_path):
    class View(fakes.View):
        def update(self, evolution):
            if evolution.incumbent.meta_pending:
                raise KeyboardInterrupt

    config = fakes.small_config(pool=PoolConfig(num_workers=1))
    with pytest.raises(KeyboardInterrupt):
        run_search.run_search(config, tmp_path / "run", view=View(), factory=fakes.FakeWorker)
    data = report_data.read_run(tmp_path / "run")
    assert [one.meta_pending for one in data.incumbents] == [False, True]
    ((settled,),) = query(tmp_path / "run", "SELECT settled FROM challenge WHERE won AND id > 0")
    trained = "SELECT COUNT(*) FROM proposal WHERE source = 'evaluated' AND id < ?"
    assert data.incumbents[1].since == query(tmp_path / "run", trained, settled)[0][0]
    text = search_report.write_report(tmp_path / "run").read_text(encoding="utf-8")
    cells = [cell.text for cell in main_element(text).iter("td")]
    assert cells.count("not yet") == 1


def test_a_run_of_one_proposal_has_a_report(tmp_path):
    text = search_report.write_report(interrupted_run(tmp_path / "run", after=1)).read_text()
    main_element(text)
    assert "This search has not ended" in text


def test_a_run_that_is_going_on_has_a_report(tmp_path):
    directory = interrupted_run(tmp_path / "run")
    (before,) = query(directory, "SELECT COUNT(*) FROM proposal")[0]
    with Store.open(directory) as writer, writer.transaction():
        writer.execute("UPDATE proposal SET mutation = 'half-written'")
        text = search_report.render(directory)
        # As a machine that lost power would leave it: with a write-ahead log.
        left = shutil.copytree(directory, tmp_path / "left")
    assert f"{before} proposed" in text and "half-written" not in text
    assert f"{before} proposed" in search_report.render(left)


@pytest.mark.parametrize("kind", ["missing", "empty", "not a database", "other version"])
def test_no_run_is_a_clear_error(tmp_path, run_copy, kind):
    directory, expected = {
        "missing": (tmp_path / "nowhere", "holds no run"),
        "empty": (tmp_path, "holds no run"),
        "not a database": (run_copy, "damaged"),
        "other version": (run_copy, "another version"),
    }[kind]
    if kind == "not a database":
        (run_copy / FILE_NAME).write_bytes(b"not a database" * 999)
    elif kind == "other version":
        query(run_copy, "UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    with pytest.raises(StoreError, match=expected):
        search_report.write_report(directory)
    assert not (directory / "report.html").exists()


def test_a_run_that_has_scored_nothing_is_a_clear_error(tmp_path):
    Store.create(tmp_path).close()
    with pytest.raises(StoreError, match="has not scored its initial rule yet"):
        search_report.write_report(tmp_path)


def test_a_file_that_cannot_be_written_is_a_clear_error(finished_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be made"):
        search_report.write_report(finished_run, tmp_path / "file" / "report.html")


def test_the_work_is_shown_with_its_cost(run_copy):
    query(
        run_copy, "UPDATE session SET busy_s = 12.25, alive_s = 49, lost_workers = 3, retries = 41"
    )
    query(
        run_copy,
        "INSERT INTO pool_event (session, time_s, kind, worker, job, message) "
        "VALUES (1, 86400, 'worker-lost', 'w-77', 'candidate 8: digits_mlp', 'node gone')",
    )
    text = Page(search_report.render(run_copy)).text
    assert "Work and cost" in text and "12.2 used and 0.0 wasted; 3 workers lost" in text
    assert "25% busy, 0% wasted, 75% idle" in text
    jobs, name = query(run_copy, "SELECT jobs, name FROM worker")[0]
    assert re.search(rf"{name} \S+, process \d+ {jobs} ", text) and " 3 41 0 0 0 " in text
    assert "1970-01-02 00:00:00 worker-lost w-77 candidate 8: digits_mlp node gone" in text


def test_a_run_of_version_1_has_a_report(run_copy):
    older_stores.downgrade(run_copy, 1)
    text = search_report.render(run_copy)
    assert_self_contained(text)
    assert "kept no record of it" in Page(text).text and "Hall of fame" in text


EVIL = "</title></style></pre>'\"><script>alert(1)</script><img src=x onerror=alert(1)>&lt;"


def test_texts_from_a_stranger_s_store_stay_text(run_copy):
    program = f"def rule(w, g):\n    {EVIL!r}\n    return g\n"
    config = json.loads(query(run_copy, "SELECT value FROM meta WHERE key = 'config'")[0][0])
    config["initial_rule"] = EVIL
    config["tasks"][0]["task"] = EVIL
    query(run_copy, "UPDATE meta SET value = ? WHERE key = 'config'", json.dumps(config))
    query(run_copy, "UPDATE candidate SET message = ?, status = ?", EVIL, EVIL)
    query(run_copy, "UPDATE candidate SET program = ? WHERE id < 0", program)
    query(run_copy, "UPDATE proposal SET mutation = ?, program = ?", EVIL, program)
    query(run_copy, "UPDATE hall_of_fame SET label = ?", EVIL)
    query(run_copy, "UPDATE session SET host = ?, state = ?, backend = ?", EVIL, EVIL, EVIL)
    query(run_copy, "UPDATE worker SET name = ?, place = ?", EVIL, EVIL)
    query(run_copy, "UPDATE OR IGNORE evaluation SET purpose = ? WHERE purpose = 'fresh'", EVIL)
    text = search_report.render(run_copy)
    assert_self_contained(text)
    main_element(text)
    assert Page(text).texts.count(EVIL) > 3  # Shown, and shown as it is.


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE candidate SET fitness = '<b>' WHERE id = 0",
        "UPDATE candidate SET fitness = 9e999 WHERE id = 0",
        "UPDATE candidate SET fitness = 1e300 WHERE id = 0",
        "UPDATE candidate SET program = 'import os'",
        "UPDATE hall_of_fame SET final_score = '<b>'",
        "UPDATE hall_of_fame SET candidate = candidate, meta = x'00'",
        "UPDATE proposal SET parent = id",
        "UPDATE proposal SET told_s = 'soon'",
        "UPDATE challenge SET won = 0",
        "UPDATE meta SET value = '[1]' WHERE key = 'config'",
        "UPDATE meta SET value = '{}' WHERE key = 'config'",
        "DROP TABLE evaluation",
        "UPDATE session SET busy_s = 'much'",
        "INSERT INTO pool_event VALUES (1, 1, 0.0, '<b>', '', '', '')",
        "INSERT INTO pool_event VALUES (1, 1, 1e300, 'retry', '', '', '')",
    ],
)
def test_rows_that_no_search_writes_are_a_clear_error(run_copy, change):
    query(run_copy, change)
    with pytest.raises(SearchError, match=r".{20}"):
        search_report.render(run_copy)


# ---------------------------------------------------------------------------------------- the words


def entry(label, candidate, final, error, *, meta=None, winner=False):
    program = Program.parse("def rule(w, g):\n    return g\n")
    return Entry(label, candidate, program, 0.1, 1, None, final, final, error, meta, winner)


def say(winner, *baselines):
    winner = entry("#7", 7, *winner, winner=True)
    named = [entry(f"base{i}", -i, *scores) for i, scores in enumerate(baselines, 1)]
    return conclusion.sentences([winner, *named])


def test_a_gain_is_called_one_only_from_two_standard_errors():
    # Combined: sqrt(0.03^2 + 0.04^2) = 0.05.
    text = say((-1.11, 0.03), (-1, 0.04))
    assert "#7 is better than base1 (-0.110 ± 0.050, 10% less loss)" in text
    text = say((-1.09, 0.03), (-1, 0.04))
    assert "not significant" in text and "better" not in text


def test_a_better_baseline_is_named():
    assert "is worse than base1 (+0.200 ± 0.050)" in say((-1, 0.03), (-1.2, 0.04))
    text = say((-1.0, 0.03), (-1.01, 0.04))
    assert "not significant" in text and "base1 scored better" in text


def test_one_seed_shows_nothing():
    assert "one seed shows no spread" in say((-9, None), (-1, 0.04))


def test_mixed_outcomes_are_all_stated():
    text = say((-1, 0.01), (-0.5, 0.01), (-1.01, 0.01), (-1.5, 0.01), (None, None))
    assert "is better than base1" in text
    assert re.search(r"Against base2 .* not significant", text)
    assert "is worse than base3" in text
    assert "base4 failed" in text


def test_at_a_floor_nothing_is_called_better():
    floor = hall_entries.End(at_floor=("digits_mlp",), meta_at_floor=("spiral",))
    ours = replace(entry("#7", 7, -13.8, 0.01, meta=-13.8, winner=True), end=floor)
    theirs = entry("adamw", -1, -2.0, 0.01, meta=-2.0)
    text = conclusion.sentences([ours, theirs])
    assert (
        "Against adamw no conclusion is possible" in text and "digits_mlp are at the floor" in text
    )
    assert "better" not in text and "ahead" not in text
    assert not conclusion.compare([ours, theirs])[0].significant
    # Nor where it is the baseline that is at the floor.
    text = conclusion.sentences([replace(ours, end=hall_entries.End()), replace(theirs, end=floor)])
    assert "no conclusion is possible" in text and "better" not in text


def test_a_spread_of_nothing_is_no_evidence():
    text = say((-2.0, 0.0), (-1.0, 0.0))
    assert "± 0.000" not in text and "(no spread)" in text
    assert "not significant" in text and "no evidence" in text
    assert "± 2e-05" in say((-2.0, 2e-5), (-1.0, 0.0))


def test_a_winner_that_turns_out_hollow_is_reported():
    why = hall_entries.End(failure="hollow on digits_mlp: its loss is lost")
    text = conclusion.sentences([replace(entry("#7", 7, None, None, winner=True), end=why)])
    assert "failed on a final seed (hollow on digits_mlp: its loss is lost)" in text


def test_failed_or_absent_winners_are_stated():
    assert conclusion.sentences([]) == ""
    assert "No finalist" in conclusion.sentences([entry("adamw", -1, -1, 0.1)])
    assert "failed on a final seed" in say((None, None), (-1, 0.1))
    start = entry("adamw (initial)", 0, -1, 0.1, winner=True)
    assert "nothing better than the rule that it started from" in conclusion.sentences([start])


def test_meta_validation_is_stated_with_its_sign():
    ours = entry("#7", 7, -1, 0.1, meta=-1.0, winner=True)
    theirs = [entry("a", -1, -1, 0.1, meta=-1.5), entry("b", -2, -1, 0.1, meta=-0.9)]
    gaps = "0.500 behind a and 0.100 ahead of b"
    assert f"On the meta-validation tasks it is {gaps}" in conclusion.sentences([ours, *theirs])
    chosen = FinalsConfig(choose_by="meta_validation")
    assert f"which chose it on other seeds, it is {gaps}" in conclusion.sentences(
        [ours, *theirs], chosen
    )


@pytest.mark.parametrize(
    ("finals", "said"),
    [
        (FinalsConfig(), ("constants are their defaults", "no part in any choice", "not shown")),
        (
            FinalsConfig(tuning=TuningConfig(budget=25), choose_by="meta_validation"),
            ("25 trials of tuning", "on seeds of their own", "best on meta-validation."),
        ),
    ],
)
def test_a_report_states_how_the_finals_were_played(run_copy, finals, said):
    data = report_data.read_run(run_copy)
    data = replace(data, settings=replace(data.settings, finals=finals))
    words = html.unescape(str(report_outcome.headline(data, run_copy)))
    words += html.unescape(str(search_report._hall_of_fame(data)))
    for one in said:
        assert one in words


# ----------------------------------------------------------------------------------- the machinery


def test_a_change_is_shown_without_the_noise():
    before = Program.parse(
        "def rule(w, g, m, *, b=0.9):\n    m = interp(g, m, b)\n    t5 = sign(m)\n"
        "    t6 = exp(t5)\n    t7 = t6 * t5 + w\n    return t7, m\n"
    )
    after = Program.parse(
        "def other(w, g, m, *, b=0.5):\n    m = interp(g, m, b)\n    t1 = sign(m)\n"
        "    t9 = exp(t1)\n    t7 = t9 * t1 + 0.123456789\n    return t7, m\n"
    )
    change = lineage.compare(before, 0.1, after, 0.25)
    assert change.settings == ("learning rate 0.1 → 0.25", "b 0.9 → 0.5")
    assert len(change.removed) == len(change.added) == 1
    assert "+ w" in change.removed[0] and "0.1235" in change.added[0]
    same = lineage.compare(before, 0.1, before, 0.1)
    assert same == lineage.Change((), (), ())


def test_counts_are_shares_of_what_they_name():
    shown = counts.figures(
        counts.Counts(
            num_told=100,
            sources=Counter(evaluated=40, structure=45, behaviour=5, probe=10),
            statuses=Counter(ok=14, rejected=10, diverged=20, timeout=3, killed=2, error=1),
            num_invalid=100,
            num_statements=1000,
            num_live=400,
            num_challenges=4,
        ),
        max_evaluations=80,
    )
    assert shown["from cache"].startswith("50%")
    assert shown["invalid draws"] == "50%"
    assert shown["dead statements"] == "60%"
    assert shown["rejected"].startswith("25%")
    assert shown["diverged"].startswith("25% of the trained; 10 already")
    assert shown["failed"] == "3 out of time, 2 killed their workers, 1 other errors"
    assert shown["challenges"].startswith("3 ")


def test_counts_of_nothing_are_no_division_by_zero():
    shown = counts.figures(counts.Counts(), 10)
    assert shown["from cache"].startswith("-")


def test_the_counts_of_the_store_are_the_engine_s(tmp_path):
    class Last(Interrupt):
        def update(self, evolution):
            self.seen = copy.deepcopy(evolution.counts)
            super().update(evolution)

    view = Last(30)
    config = fakes.small_config(pool=PoolConfig(num_workers=1))
    with pytest.raises(KeyboardInterrupt):
        run_search.run_search(config, tmp_path / "run", view=view, factory=fakes.FakeWorker)
    assert report_data.read_run(tmp_path / "run").counts == view.seen


def test_paths_in_commands_are_quoted(finished_run, tmp_path):
    odd = shutil.copytree(finished_run, tmp_path / "a run; rm -rf '~'")
    text = Page(search_report.render(odd)).text
    assert "--to optax" in text
    command = re.search(r"veldt export (.*?) --to", text)[1]
    assert [Path(part) for part in shlex.split(command)] == [odd]
