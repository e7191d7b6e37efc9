"""The budget of training steps: where a search ends, also after a kill, and counted by hand."""

import collections
import json
import sqlite3

import pytest

from tests.search import fakes, rerun
from veldt.search.run import run_search
from veldt.search.storage.store import FILE_NAME, Store
from veldt.tasks.pool.config import PoolConfig

# Far above what these searches train in so many steps; a fake run has 10.
SETTINGS = {
    "seed": 2,
    "max_evaluations": 10_000,
    "max_steps": 1500,
    "pool": PoolConfig(num_workers=1),
}
BEFORE_FINALS = ("fitness", "fresh", "meta")


class Cut(fakes.View):
    """Presses Ctrl-C after so many results."""

    def __init__(self, results):
        super().__init__()
        self.results = results

    def update(self, evolution):
        if evolution.counts.num_told == self.results:
            raise KeyboardInterrupt


def search(directory, **changes):
    names = ("resume", "view")
    options = {name: changes.pop(name) for name in names if name in changes}
    config = fakes.small_config(**{**SETTINGS, **changes})
    run_search.run_search(config, directory, factory=fakes.FakeWorker, **options)
    return config


def rows(directory, query, *values):
    with Store.open(directory, read_only=True) as store:
        return store.rows(query, values)


def contents(directory):
    """The rows that the search wrote, without times."""
    names = {
        "proposal": "id, parent, program, source, candidate",
        "evaluation": "candidate, purpose, task, seed, log_loss",
        "challenge": "id, proposal, won",
        "meta": "key, value",
    }
    with sqlite3.connect(directory / FILE_NAME) as connection:
        return {
            table: connection.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2, 3").fetchall()
            if table != "meta"
            else sorted(connection.execute(f"SELECT {columns} FROM {table}").fetchall())
            for table, columns in names.items()
        }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    return directory, search(directory)


def steps_until(directory, config):
    """The training steps up to each proposal, from the rows of candidates and of side work."""
    of_candidate = {
        row["id"]: row["num_steps"]
        for row in rows(directory, "SELECT id, num_steps FROM candidate")
    }
    runs = rows(directory, "SELECT * FROM evaluation WHERE purpose IN ('fresh', 'meta')")
    of_stages = collections.Counter()
    for row in rows(directory, "SELECT * FROM side_work"):
        first = 1_000_000 + row["number"] * config.fresh_seeds
        middle, end = first + config.fresh_seeds // 4, first + config.fresh_seeds
        seeds = {"first": range(first, middle), "rest": range(middle, end), "meta": ()}
        of_stages[row["due"]] += sum(
            run["num_steps"]
            for run in runs
            if (run["purpose"] == "fresh" and run["seed"] in seeds[row["stage"]])
            or (run["purpose"] == row["stage"] and run["candidate"] == row["candidate"])
        )
    first = [run["num_steps"] for run in runs if run["candidate"] == 0 and run["purpose"] == "meta"]
    spent, found = of_candidate[0] + sum(first), []
    for row in rows(directory, "SELECT * FROM proposal ORDER BY id"):
        spent += of_stages.pop(row["id"], 0)
        trained = row["source"] == "evaluated"
        spent += of_candidate[row["candidate"]] if trained else 0
        found.append(spent)
    return found, sum(of_stages.values())


def test_a_search_ends_a_window_after_the_proposal_that_spends_its_steps(whole):
    directory, config = whole
    spent, at_the_end = steps_until(directory, config)
    last = next(index for index, steps in enumerate(spent) if steps >= 1500)
    assert len(spent) == last + config.window
    total = rows(
        directory,
        "SELECT SUM(num_steps) AS n FROM evaluation WHERE purpose IN (?, ?, ?)",
        *BEFORE_FINALS,
    )
    assert total[0]["n"] == spent[-1] + at_the_end
    assert at_the_end > 0
    # Challenges are part of it, and the finals are not.
    assert rows(directory, "SELECT * FROM evaluation WHERE purpose = 'fresh'")
    assert rows(directory, "SELECT * FROM evaluation WHERE purpose = 'select'")


@pytest.mark.parametrize("before_end", [40, 3, 1])
def test_a_killed_search_ends_at_the_same_proposal(whole, tmp_path, before_end):
    directory, _ = whole
    told = rows(directory, "SELECT COUNT(*) AS n FROM proposal")[0]["n"]
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, view=Cut(told - before_end))
    search(tmp_path, resume=True)
    assert contents(tmp_path) == contents(directory)


def test_a_search_that_ended_makes_no_more_proposals(whole, tmp_path):
    directory, _ = whole
    search(tmp_path)
    search(tmp_path, resume=True)
    assert contents(tmp_path) == contents(directory)
    search(tmp_path, resume=True, max_steps=700)
    assert contents(tmp_path)["proposal"] == contents(directory)["proposal"]


def test_a_budget_that_grows_gives_the_search_with_the_larger_one(whole, tmp_path):
    directory, _ = whole
    for max_steps in (600, 1000, 1500):
        search(tmp_path, resume=True, max_steps=max_steps)
    grown, at_once = contents(tmp_path), contents(directory)
    for table in ("proposal", "challenge"):
        assert grown[table] == at_once[table]
    ends = [json.loads(dict(one["meta"])["steps_spent"]) for one in (grown, at_once)]
    assert ends[0] == ends[1]


def test_a_search_follows_from_its_results(whole, tmp_path):
    directory, _ = whole
    assert rerun.replay(directory, tmp_path / "again") == []


def test_a_budget_of_no_steps_is_refused():
    with pytest.raises(ValueError, match="max_steps is 0"):
        fakes.small_config(max_steps=0)
