"""A whole comparison on two tiny tasks: what runs, what comes from the archive, what it says."""

import dataclasses
import json

import numpy as np
import pytest

from veldt.tasks import suites
from veldt.tasks.benchmark import archive as archive_lib
from veldt.tasks.benchmark import comparison_table, evaluate
from veldt.tasks.benchmark.protocol import baselines
from veldt.tasks.benchmark.protocol.candidates import factory_candidate
from veldt.tasks.benchmark.report import benchmark_page
from veldt.tasks.common import errors


class Watcher:
    """A watcher that remembers its calls."""

    def __init__(self):
        self.phases, self.notes = [], []

    def phase(self, text, done, total):
        self.phases.append((text, done, total))

    def note(self, text):
        self.notes.append(text)

    def total(self, text):
        return max((total for what, _, total in self.phases if what == text), default=0)


@pytest.fixture(scope="module")
def candidates(tiny_module):
    sgd = factory_candidate(f"{tiny_module}:sgd")
    return (
        baselines.BASELINES["sgd_momentum"],
        sgd.renamed("sgd").with_rates((0.1,)),
        sgd.renamed("third").with_rates((0.1 / 3,)),
        factory_candidate(f"{tiny_module}:uphill").renamed("uphill"),
        factory_candidate(f"{tiny_module}:breaks").renamed("breaks"),
        factory_candidate(f"{tiny_module}:learned").renamed("learned"),
    )


@pytest.fixture(scope="module")
def config(inline):
    return evaluate.EvaluateConfig(pool=inline, step_times=False)


@pytest.fixture(scope="module")
def first(tiny_suite, candidates, config, tiny_archive, tmp_path_factory):
    """Return the comparison, its folder, and its watcher."""
    folder = tmp_path_factory.mktemp("first")
    watcher = Watcher()
    results = evaluate.evaluate(tiny_suite, candidates, config, folder, watcher, tiny_archive)
    return results, folder, watcher


def test_only_the_candidates_are_run(first, candidates, tiny_suite):
    results, folder, watcher = first
    assert watcher.total("training") == len(candidates) * len(tiny_suite.tasks)
    ran = {path.name.split("--")[1] for path in (folder / "sweeps").glob("*.npz")}
    assert ran == {candidate.name for candidate in candidates} - {"breaks"}
    assert {task.reference for task in results.tasks} == {"archive"}


def test_rows_are_candidates_then_baselines_and_none_twice(first, candidates):
    results, _, _ = first
    run = [row.name for row in results.rows if row.source == "run"]
    assert run == [candidate.name for candidate in candidates]
    # The archived constant sgd_momentum is the candidate itself.
    stored = {row.label for row in results.rows if row.source == "archive"}
    assert stored == {
        "adam",
        "adam cosine",
        "adam linear",
        "sgd_momentum cosine",
        "sgd_momentum linear",
    }


def test_adam_is_at_most_as_fast_as_its_own_envelope(first):
    results, _, _ = first
    adam = results.row("adam")
    assert all(0 < task.speedup <= 1 for task in adam.tasks)
    assert all(task.train_ratio == 1.0 == task.test_ratio for task in adam.tasks)
    assert adam.won == adam.won_untuned == 0.5


def test_broken_rules_score_below(first):
    """The sign flipped: nothing is learned. A third of the best rate: clearly slower."""
    results, _, _ = first
    flipped = results.row("uphill")
    assert flipped.speedup.value == flipped.speedup.high == 0.0
    assert flipped.train_ratio.value > 1 < flipped.test_ratio.low
    assert flipped.won == 0.0
    whole = results.row("sgd")
    third = results.row("third")
    for one, other in zip(whole.tasks, third.tasks, strict=True):
        assert one.rate == pytest.approx(3 * other.rate)
        assert other.speedup < 0.6 * one.speedup


def test_an_optimizer_that_raises_counts_as_diverged_and_stops_nobody(first):
    results, _, watcher = first
    row = results.row("breaks")
    assert row.num_failed == 2
    assert row.speedup.value == 0.0
    assert row.diverged == 1.0
    assert any("this optimizer cannot do that" in note for note in watcher.notes)


def test_an_optimizer_without_a_rate_is_multiplied_around_one(first):
    results, _, _ = first
    learned = results.row("learned")
    assert learned.speedup.value > 0
    assert all(10**-1.5 * 0.99 < task.rate < 10**1.5 * 1.01 for task in learned.tasks)


def test_the_same_seed_gives_the_same_numbers(
    first, tiny_suite, candidates, config, tiny_archive, tmp_path
):
    """In a fresh folder, so that both are trained again."""
    results, _, _ = first
    chosen = candidates[1:3]
    again = evaluate.evaluate(tiny_suite, chosen, config, tmp_path, None, tiny_archive)
    for candidate in chosen:
        assert again.row(candidate.name) == results.row(candidate.name)
    other = dataclasses.replace(config, seed=1)
    moved = evaluate.evaluate(tiny_suite, candidates[1:2], other, tmp_path, None, tiny_archive)
    assert moved.seeds == (1, 2, 3)
    assert moved.row("sgd") != again.row("sgd")


def test_the_same_folder_goes_on_without_running_anything(
    first, tiny_suite, candidates, config, tiny_archive
):
    results, folder, _ = first
    watcher = Watcher()
    working = [c for c in candidates if c.name != "breaks"]
    again = evaluate.evaluate(tiny_suite, working, config, folder, watcher, tiny_archive)
    assert watcher.total("training") == 0
    for candidate in working:
        assert again.row(candidate.name) == results.row(candidate.name)
    assert again.effort.num_runs == results.effort.num_runs


def test_schedules_share_one_program_and_make_a_row_each(
    tiny_suite, candidates, config, tiny_archive, tmp_path
):
    both = dataclasses.replace(config, schedules=("constant", "warmup_cosine"))
    watcher = Watcher()
    results = evaluate.evaluate(tiny_suite, candidates[:1], both, tmp_path, watcher, tiny_archive)
    assert watcher.total("training") == len(tiny_suite.tasks)
    assert [r.label for r in results.rows if r.source == "run"] == [
        "sgd_momentum",
        "sgd_momentum cosine",
    ]
    # The archive has these very runs: same program, same numbers.
    cosine = next(
        r
        for r in tiny_archive.records
        if r.task == tiny_suite.tasks[0].task
        and (r.name, r.schedule) == ("sgd_momentum", "warmup_cosine")
    )
    finals = cosine.sweep.losses[:, :, -1, 0].astype(np.float64).mean(axis=1)
    assert results.row("sgd_momentum cosine").tasks[0].train_loss == pytest.approx(
        np.nanmin(finals), rel=1e-4
    )


def test_without_an_archive_adam_is_trained_first(tiny_suite, candidates, config, tmp_path):
    one = dataclasses.replace(tiny_suite, tasks=tiny_suite.tasks[:1])
    watcher = Watcher()
    results = evaluate.evaluate(
        one, candidates[1:2], config, tmp_path, watcher, archive_lib.NOTHING
    )
    assert watcher.total("training") == 2
    assert any("there is no archive of" in note for note in watcher.notes)
    assert [(row.name, row.source) for row in results.rows] == [("sgd", "run"), ("adam", "run")]
    assert results.tasks[0].reference == "run"


def test_an_archive_of_a_task_that_has_changed_is_said_to_be_stale(
    tiny_suite, candidates, config, tiny_archive, tmp_path
):
    stale = "0" * 12 + ":+1.0e+00"
    records = (dataclasses.replace(r, fingerprint=stale) for r in tiny_archive.records)
    old = archive_lib.Archive({}, tuple(records))
    one = dataclasses.replace(tiny_suite, tasks=tiny_suite.tasks[:1])
    watcher = Watcher()
    evaluate.evaluate(one, candidates[1:2], config, tmp_path, watcher, old)
    assert any("the archive is of other versions of" in note for note in watcher.notes)
    assert watcher.total("training") == 2


def test_step_times_are_measured_beside_adam(
    tiny_suite, candidates, inline, tiny_archive, tmp_path
):
    one = dataclasses.replace(tiny_suite, tasks=tiny_suite.tasks[:1])
    config = evaluate.EvaluateConfig(pool=inline)
    watcher = Watcher()
    sgd = candidates[1]
    results = evaluate.evaluate(one, [sgd], config, tmp_path, watcher, tiny_archive)
    assert watcher.total("measuring step times") == 1
    assert results.row("sgd").step_ratio > 0
    assert results.row("sgd").state_bytes == 0.0
    again = evaluate.evaluate(one, [sgd], config, tmp_path, Watcher(), tiny_archive)
    assert again.row("sgd") == results.row("sgd")  # Kept, like the runs.


def test_rates_for_all_take_the_place_of_their_own(
    tiny_suite, candidates, config, tiny_archive, tmp_path
):
    one = dataclasses.replace(tiny_suite, tasks=tiny_suite.tasks[:1])
    fixed = dataclasses.replace(config, rates=(0.05,))
    results = evaluate.evaluate(one, candidates[:2], fixed, tmp_path, None, tiny_archive)
    for name in ("sgd", "sgd_momentum"):
        row = next(r for r in results.rows if r.name == name and r.source == "run")
        assert row.untuned_rate == 0.05
        assert row.num_rates == 1
        assert row.num_at_edge == 0  # There is no grid to be at the edge of.
    # With other rates the archived row is another one, and is shown.
    assert any(r.label == "sgd_momentum" and r.source == "archive" for r in results.rows)


def test_what_cannot_be_compared_is_refused_before_anything_runs(
    tiny_suite, tiny_module, candidates, config, tmp_path
):
    watcher = Watcher()

    def refuse(text, suite=tiny_suite, chosen=candidates[1:2]):
        with pytest.raises(errors.TaskError, match=text):
            evaluate.evaluate(suite, chosen, config, tmp_path, watcher, archive_lib.NOTHING)

    refuse("two are called 'sgd'", chosen=[candidates[1], candidates[2].renamed("sgd")])
    refuse("there is none", chosen=[])
    refuse(
        "write a multiple of 25, such as 50",
        suite=suites.Suite("odd", "", (suites.SuiteTask(f"{tiny_module}:line", 60),)),
    )
    refuse("mean 'digits_mlp'", suite=suites.Suite("x", "", (suites.SuiteTask("digits_mpl", 50),)))
    assert watcher.phases == []


def test_if_all_fail_there_is_no_result(tiny_suite, candidates, config, tiny_archive, tmp_path):
    with pytest.raises(errors.TaskError, match="every candidate failed on every task"):
        evaluate.evaluate(tiny_suite, [candidates[4]], config, tmp_path, None, tiny_archive)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"schedules": ("warmup_cosin",)}, "did you mean 'warmup_cosine'"),
        ({"schedules": ()}, "at least one"),
        ({"schedules": ("constant", "constant")}, "each once"),
        ({"seed": -1}, "at least 0"),
        ({"rates": ()}, "at least one"),
        ({"rates": (0.1, float("nan"))}, "above 0"),
        ({"rates": (0.1, 0.01)}, "rising"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        evaluate.EvaluateConfig(**settings)


def test_everything_can_be_written_down_and_shown(first, tmp_path, capsys):
    results, _, _ = first
    data = json.loads(results.to_json())
    assert [row["name"] for row in data["rows"]] == [row.name for row in results.rows]
    assert 0 < data["effort"]["compile_share"] < 1
    benchmark_page.write_page(results, tmp_path / "page.html")
    assert "uphill" in (tmp_path / "page.html").read_text()
    comparison_table.print_results(results)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= comparison_table.PLAIN_WIDTH
    where = {name: i for i, line in enumerate(lines) for name in line.split()[:1]}
    assert where["sgd"] < where["third"] < where["uphill"] < where["adam"]
    text = " ".join(lines)
    assert "breaks 2" in text  # It failed on two tasks.
    assert "4 more baselines, with other schedules, are in the report" in text
