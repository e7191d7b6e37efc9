"""A search of several drivers: one result whatever the timing, one store in the end."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.search import fakes
from tests.search.evolution import test_engine as engine_tests
from tests.search.evolution import test_side_work as side_work_tests
from veldt.search import rule_sources
from veldt.search.report import report_data, search_report
from veldt.search.run import run_search
from veldt.search.storage import integrity, numbers
from veldt.search.storage.store import Store
from veldt.tasks.common.errors import FileError
from veldt.tasks.pool.config import PoolConfig

ONE, Death = engine_tests.ONE, engine_tests.Death
contents, rows = engine_tests.contents, engine_tests.rows
DRIVERS = {"drivers": 3, "migration_every": 8, "max_evaluations": 100, "max_steps": 9000}
SAMPLED = {**DRIVERS, "samples": 4}


class View(fakes.View):
    """Keeps the figures of all drivers, not the engine."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def update(self, evolution):
        super().update(evolution)
        self.seen.append(evolution.counts.num_told)


def search(directory, *, worker=fakes.FakeWorker, resume=False, view=None, **changes):
    config = fakes.small_config(**{"pool": ONE, **changes})
    return run_search.run_search(config, directory, resume=resume, view=view, factory=worker)


def everything(directory, drivers=3):
    """All stores of a run: that of each driver, and the merged one."""
    found = {"merged": contents(directory, skip=["meta"])}
    for driver in range(drivers):
        found[driver] = contents(numbers.folder(directory, driver), skip=["meta"])
    return found


@pytest.fixture(scope="module", params=["once", "sampled"])
def whole(request, tmp_path_factory):
    """A search in turn: one worker for three drivers."""
    changes = DRIVERS if request.param == "once" else SAMPLED
    directory = tmp_path_factory.mktemp(request.param)
    view = View()
    result = search(directory, view=view, **changes)
    return directory, changes, result, view


def test_the_merged_store_is_sound_and_has_all(whole):
    directory, changes, result, view = whole
    parts = [numbers.folder(directory, driver) for driver in range(3)]
    for path in (directory, *parts):
        with Store.open(path, read_only=True) as store:
            assert integrity.problems(store) == []
    told = [len(rows(part, "SELECT id FROM proposal")) for part in parts]
    assert len(rows(directory, "SELECT id FROM proposal")) == sum(told) == view.seen[-1]
    assert min(told) > 4 * changes["migration_every"]
    trained = "SELECT id FROM proposal WHERE source IN ('evaluated', 'sample')"
    assert [len(rows(part, trained)) for part in parts] == [34, 33, 33]
    # Every run of training is there once, whatever it is called.
    runs = "SELECT task, seed, learning_rate, num_steps, log_loss FROM evaluation"
    merged = rows(directory, f"{runs} WHERE purpose NOT IN ('select', 'final', 'meta-final')")
    each = [row for part in parts for row in rows(part, runs)]

    def order(row):
        return json.dumps(list(row.values()))

    assert sorted(merged, key=order) == sorted(each, key=order)
    assert sum(entry.winner for entry in result.entries) == 1


def test_proposals_take_turns_and_keep_their_parents(whole):
    directory, changes, _, _ = whole
    merged = rows(directory, "SELECT id, parent, mutation, program FROM proposal ORDER BY id")
    parts = {
        driver: rows(numbers.folder(directory, driver), "SELECT * FROM proposal ORDER BY id")
        for driver in range(3)
    }
    order = sorted((row["id"], driver) for driver, part in parts.items() for row in part)
    new = {(driver, index): number for number, (index, driver) in enumerate(order)}
    for (index, driver), row in zip(order, merged, strict=True):
        old = parts[driver][index]
        assert old["program"] == row["program"]
        if old["mutation"] == "immigrant":
            (letter,) = rows(
                numbers.folder(directory, (driver - 1) % 3),
                f"SELECT * FROM mail WHERE id = {index // changes['migration_every'] - 1}",
            )
            assert (letter["program"], letter["learning_rate"]) == (
                old["program"],
                old["learning_rate"],
            )
            if letter["proposal"] >= 0:
                assert row["parent"] == new[(driver - 1) % 3, letter["proposal"]]
                assert merged[row["parent"]]["program"] == row["program"]
        elif old["parent"] is not None:
            assert row["parent"] == new[driver, old["parent"]]
    assert sum(row["mutation"] == "immigrant" for row in merged) >= 9


def test_letters_come_at_their_proposals_with_the_best_of_then(whole):
    directory, changes, _, _ = whole
    every, config = changes["migration_every"], fakes.small_config(**changes)
    for driver in range(3):
        part = numbers.folder(directory, driver)
        proposals = rows(part, "SELECT id, mutation, candidate FROM proposal ORDER BY id")
        came = [row["id"] for row in proposals if row["mutation"] == "immigrant"]
        by = numbers.folder(directory, (driver - 1) % 3)
        told = len(rows(by, "SELECT id FROM proposal"))
        possible = range(2 * every, len(proposals), every)
        assert came == [at for at in possible if (at // every - 1) * every <= told]
        letters = rows(part, "SELECT * FROM mail ORDER BY id")
        assert [one["id"] for one in letters] == list(range(1, len(proposals) // every + 1))
        if config.samples > 1:
            continue
        fitness = {
            row["id"]: np.inf if row["fitness"] is None else row["fitness"]
            for row in rows(part, "SELECT id, fitness FROM candidate")
        }
        for letter in letters:
            newest = letter["id"] * every - 1 - config.window
            oldest = newest - config.population_size + 1
            living = [fitness[row["candidate"]] for row in proposals[max(oldest, 0) : newest + 1]]
            living += [fitness[0]] * (oldest < 0)
            assert letter["mean"] == min(living)


def test_drivers_draw_and_sample_apart(whole):
    directory, changes, _, _ = whole
    children = [
        {row["program"] for row in rows(numbers.folder(directory, d), "SELECT * FROM proposal")}
        for d in range(3)
    ]
    for driver in range(3):
        others = set.union(*(children[d] for d in range(3) if d != driver))
        assert len(children[driver] - others) > len(children[driver]) // 2
    if changes.get("samples"):
        query = (
            "SELECT DISTINCT seed FROM evaluation WHERE purpose IN ('fitness', 'sample') "
            "AND candidate > 0"
        )
        seeds = [
            {row["seed"] for row in rows(numbers.folder(directory, d), query)} for d in range(3)
        ]
        assert all(seeds) and sum(map(len, seeds)) == len(set.union(*seeds))


def test_threads_and_timing_change_nothing(whole, tmp_path):
    directory, changes, _, _ = whole
    erratic = side_work_tests.Erratic
    search(tmp_path, worker=erratic, **{**changes, "pool": PoolConfig(num_workers=5)})
    assert everything(tmp_path) == everything(directory)


# Shrinking would run hundreds of searches to make a list of numbers shorter.
@settings(max_examples=2, phases=(Phase.explicit, Phase.generate))
@given(st.lists(st.integers(3, 250), min_size=1, max_size=4))
def test_a_search_that_dies_anywhere_reaches_the_same_stores(whole, tmp_path_factory, deaths):
    directory, changes, _, _ = whole
    mortal = tmp_path_factory.mktemp("mortal")
    for lifetime in deaths:
        worker = engine_tests.MortalWorker(lifetime)
        try:
            search(mortal, worker=lambda worker=worker: worker, resume=True, **changes)
        except Death:
            continue
    search(mortal, resume=True, **changes)
    assert everything(mortal) == everything(directory)


def test_a_driver_whose_store_was_left_behind_catches_up(whole, tmp_path):
    """One driver is killed early; others have gone as far as they could without its letters."""
    directory, changes, _, _ = whole
    every = changes["migration_every"]

    class Slow(fakes.View):
        def update(self, evolution):
            if evolution.counts.num_told > 6 * every:
                raise Death

    with pytest.raises(Death):
        search(tmp_path, view=Slow(), **changes)
    shutil.rmtree(numbers.folder(tmp_path, 1))
    search(tmp_path, resume=True, **changes)
    assert everything(tmp_path) == everything(directory)


def test_a_running_search_is_read_as_one(whole, tmp_path):
    _, changes, _, _ = whole

    class Reader(fakes.View):
        reports = 0

        def update(self, evolution):
            if evolution.counts.num_told > 60:
                data = report_data.read_run(tmp_path)
                assert data.counts.num_told > 0 and not data.finished
                assert "best so far" in search_report.render(tmp_path)
                Reader.reports += 1
                raise Death

    with pytest.raises(Death):
        search(tmp_path, view=Reader(), **changes)
    assert Reader.reports == 1
    assert not (tmp_path / "store.sqlite").exists()
    with Store.open(tmp_path, read_only=True) as store:
        assert integrity.problems(store) == []


def test_report_entries_and_best_are_those_of_one_run(whole):
    directory, _, result, _ = whole
    data = report_data.read_run(directory)
    assert data.finished and data.incumbents[0].candidate == 0
    fitness = [one.fitness for one in data.incumbents]
    assert len(fitness) > 1
    assert "hall of fame" in search_report.render(directory).lower()
    winner = next(entry for entry in result.entries if entry.winner)
    source = f"{directory}#{winner.candidate}" if winner.candidate else str(directory)
    assert rule_sources.load_rule(source).statements == result.best.program.statements
    labels = [entry.program for entry in result.entries if entry.candidate >= 0]
    assert len(labels) == len(set(map(str, labels)))


def test_finals_may_change_and_the_search_may_not_go_on(whole, tmp_path):
    directory, changes, result, _ = whole
    copy = shutil.copytree(directory, tmp_path / "copy")
    finals = fakes.small_config().finals
    again = search(copy, resume=True, **changes)
    assert again.entries == result.entries
    for name, value in (("max_evaluations", 120), ("drivers", 2), ("migration_every", 24)):
        with pytest.raises(FileError, match=name):
            search(copy, resume=True, **{**changes, name: value})
    with pytest.raises(FileError, match="already holds a run"):
        search(copy, **changes)
    with pytest.raises(FileError, match=r"drivers = 3, not 1"):
        search(copy, resume=True, **{**changes, "drivers": 1})
    (copy / "store.sqlite").unlink()
    with pytest.raises(FileError, match=r"drivers = 3, not 1"):
        search(copy, resume=True, **{**changes, "drivers": 1})
    more = search(copy, resume=True, **{**changes, "finals": type(finals)(num_rates=2)})
    assert len(more.entries) > 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"drivers": 0}, "drivers is 0"),
        ({"drivers": 2, "lanes": 4}, "lanes of a device belong to one driver"),
        ({"drivers": 2, "migration_every": 3}, "migration_every is 3 and the window 4"),
        ({"drivers": 61}, "max_evaluations is 60, too little"),
    ],
)
def test_drivers_that_cannot_be_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        fakes.small_config(**changes)


def test_the_budget_is_shared_without_a_rest():
    config = fakes.small_config(drivers=4, max_evaluations=10, max_steps=1003)
    shares = [config.share(driver, 6) for driver in range(4)]
    assert [one.max_evaluations for one in shares] == [3, 3, 2, 2]
    assert [one.max_steps for one in shares] == [251, 251, 251, 250]
    assert [one.pool.num_workers for one in shares] == [2, 2, 1, 1]
