"""Challenges as side work: what is begun, when it settles, and searches that die meanwhile."""

import collections
import hashlib
import json
import time

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.search import fakes, older_stores, rerun
from tests.search.evolution import test_engine as engine_tests
from veldt.search.evolution import side_work
from veldt.search.run import run_search
from veldt.search.storage import integrity
from veldt.search.storage.store import Store
from veldt.tasks.pool.config import PoolConfig

ONE, Death = engine_tests.ONE, engine_tests.Death
contents, rows = engine_tests.contents, engine_tests.rows
# Three challenges at a time; restarts let later proposals depend on when the best changed.
WIDE = {"seed": 1, "window": 48, "restart_after": 12, "max_evaluations": 150}


class Erratic:
    """Scores like `FakeWorker`, after a while that has nothing to do with the order of jobs."""

    def __init__(self):
        self.worker = fakes.FakeWorker()

    def __call__(self, payload):
        digest = hashlib.sha1(repr(payload).encode()).digest()
        time.sleep(digest[0] * 2e-5 + (0.01 if digest[1] < 20 else 0.0))
        return self.worker(payload)


class Cut(fakes.View):
    """Dies after so many calls of `tell` and `settle`."""

    def __init__(self, lifetime):
        super().__init__()
        self.lifetime = lifetime

    def update(self, evolution):
        self.lifetime -= 1
        if self.lifetime < 0:
            raise Death


def search(directory, *, worker=None, resume=False, view=None, **changes):
    config = fakes.small_config(**{"pool": ONE, **changes})
    worker = worker or fakes.FakeWorker()
    return run_search.run_search(
        config, directory, resume=resume, view=view, factory=lambda: worker
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("wide")
    search(directory, **WIDE)
    return directory


class Model:
    """What is to happen, from proposals and training runs alone."""

    def __init__(self, directory, config):
        self.config, self.directory = config, directory
        self.fitness = {
            row["id"]: np.inf if row["fitness"] is None else row["fitness"]
            for row in rows(directory, "SELECT id, fitness FROM candidate WHERE id >= 0")
        }
        self.fresh = collections.defaultdict(list)
        query = (
            "SELECT candidate, seed, log_loss FROM evaluation WHERE purpose = 'fresh' "
            "ORDER BY candidate, seed, task"
        )
        for row in rows(directory, query):
            loss = np.inf if row["log_loss"] is None else row["log_loss"]
            self.fresh[row["candidate"], row["seed"]].append(loss)
        self.incumbent, self.waiting, self.under_way = 0, {}, {}
        self.stages, self.decided, self.num_challenges = [], [], 0

    def begin(self, stage, number, proposal, candidate, incumbent, begun):
        due = begun + self.config.window
        self.under_way[len(self.stages)] = due
        self.stages.append((stage, number, proposal, candidate, incumbent, begun, due))

    def challenge(self, proposal, candidate, begun):
        self.num_challenges += 1
        self.begin("first", self.num_challenges, proposal, candidate, self.incumbent, begun)

    def fill(self, begun):
        """Begin with the fittest, as long as there is room."""
        best = self.fitness[self.incumbent]
        self.waiting = {c: p for c, p in self.waiting.items() if self.fitness[c] < best}
        while self.waiting:
            running = sum(self.stages[number][0] != "meta" for number in self.under_way)
            if running >= max(self.config.window // 16, 1):
                return
            fittest = min(self.waiting, key=lambda c: (self.fitness[c], c))
            self.challenge(self.waiting.pop(fittest), fittest, begun)

    def differences(self, number, candidate, incumbent, stage):
        first = 1_000_000 + number * self.config.fresh_seeds
        count = self.config.fresh_seeds // (4 if stage == "first" else 1)
        found = []
        for seed in range(first, first + count):
            ours, theirs = self.fresh[candidate, seed], self.fresh[incumbent, seed]
            assert len(ours) == len(theirs) == len(self.config.tasks)
            found.append(np.mean(ours) - np.mean(theirs))
        return np.array(found)

    def settle(self, which, *, ended):
        stage, number, proposal, candidate, incumbent, _, due = self.stages[which]
        del self.under_way[which]
        if stage == "meta":
            return
        paired = self.differences(number, candidate, incumbent, stage)
        assert np.isfinite(paired).all()  # This worker never fails without a hurdle.
        error = paired.std(ddof=1) / np.sqrt(len(paired)) if len(paired) > 1 else 0.0
        is_ahead = paired.mean() < 0 if stage == "first" else paired.mean() + error < 0
        won = False
        if is_ahead and incumbent != self.incumbent:
            if self.fitness[candidate] < self.fitness[self.incumbent]:
                self.challenge(proposal, candidate, due)
        elif is_ahead and stage == "first":
            self.begin("rest", number, proposal, candidate, incumbent, due)
            return
        elif is_ahead:
            self.incumbent, won = candidate, True
            self.begin("meta", number, proposal, candidate, incumbent, due)
        self.decided.append((number, proposal, candidate, incumbent, int(won), due))
        if not ended:
            self.fill(due)

    def run(self):
        proposals = rows(self.directory, "SELECT id, source, candidate FROM proposal ORDER BY id")
        for row in proposals:
            while self.under_way and min(self.under_way.values()) <= row["id"]:
                self.settle(min(self.under_way, key=lambda n: (self.under_way[n], n)), ended=False)
            if row["source"] == "evaluated":
                self.waiting[row["candidate"]] = row["id"]
                self.fill(row["id"])
        while self.under_way:
            which = min(self.under_way, key=lambda n: (self.under_way[n], n))
            self.settle(which, ended=self.under_way[which] > len(proposals))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_stages_begin_and_end_as_is_said(whole, tmp_path, seed):
    directory = whole if seed == WIDE["seed"] else tmp_path
    if seed != WIDE["seed"]:
        search(directory, **{**WIDE, "seed": seed})
    model = Model(directory, fakes.small_config(**WIDE))
    model.run()
    names = "stage, number, proposal, candidate, incumbent, begun, due"
    found = rows(directory, f"SELECT {names} FROM side_work ORDER BY id")
    assert [tuple(row.values()) for row in found] == model.stages
    names = "number, proposal, challenger, incumbent, won, settled"
    found = rows(directory, f"SELECT {names} FROM challenge WHERE id > 0 ORDER BY id")
    assert [tuple(row.values()) for row in found] == model.decided
    assert rows(directory, "SELECT * FROM side_work WHERE done = 0") == []
    with Store.open(directory, read_only=True) as store:
        assert integrity.problems(store) == []


def test_the_search_of_these_tests_has_all_that_may_happen(whole):
    stages = rows(whole, "SELECT * FROM side_work ORDER BY id")
    assert {row["stage"] for row in stages} == {"first", "rest", "meta"}
    at_once = [sum(a["begun"] < b["due"] and b["begun"] <= a["begun"] for b in stages)
               for a in stages]  # fmt: skip
    assert max(at_once) > 2
    (told,) = rows(whole, "SELECT COUNT(*) AS n FROM proposal")
    assert any(row["due"] > told["n"] for row in stages)
    again = "SELECT challenger FROM challenge GROUP BY challenger HAVING COUNT(*) > 1"
    assert rows(whole, again), "the incumbent changed under nobody who was ahead"
    won = rows(whole, "SELECT * FROM challenge WHERE won = 1 AND id > 0")
    assert len(won) > 1 and all(row["meta_fitness"] is not None for row in won)
    metas = rows(whole, "SELECT candidate, AVG(log_loss) AS m FROM evaluation "
                 "WHERE purpose = 'meta' GROUP BY 1")  # fmt: skip
    scores = {row["candidate"]: row["m"] for row in metas}
    assert all(row["meta_fitness"] == pytest.approx(scores[row["challenger"]]) for row in won)


def test_workers_and_timing_change_nothing(whole, tmp_path):
    search(tmp_path, worker=Erratic(), pool=PoolConfig(num_workers=5), **WIDE)
    assert contents(tmp_path, skip=["meta"]) == contents(whole, skip=["meta"])


# Shrinking would run hundreds of searches to make a list of numbers shorter.
@settings(max_examples=6, phases=(Phase.explicit, Phase.generate))
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 90)), min_size=1, max_size=6))
def test_a_search_that_dies_anywhere_reaches_the_same_store(whole, tmp_path_factory, deaths):
    mortal = tmp_path_factory.mktemp("mortal")
    for in_worker, lifetime in deaths:
        options = (
            {"worker": engine_tests.MortalWorker(lifetime)}
            if in_worker
            else {"view": Cut(lifetime)}
        )
        try:
            search(mortal, resume=True, **options, **WIDE)
        except Death:
            continue
    search(mortal, resume=True, **WIDE)
    assert contents(mortal) == contents(whole)


def test_a_search_that_dies_at_its_end_settles_the_rest(whole, tmp_path):
    """Each settlement after the last proposal is a place to die."""
    (told,) = rows(whole, "SELECT COUNT(*) AS n FROM proposal")
    num_last = len(rows(whole, f"SELECT * FROM side_work WHERE due > {told['n']}"))
    assert num_last > 2

    class AtTheEnd(fakes.View):
        def update(self, evolution):
            if evolution.counts.num_told == told["n"]:
                raise Death

    deaths = 0
    while True:
        try:
            search(tmp_path, view=AtTheEnd(), resume=True, **WIDE)
            break
        except Death:
            deaths += 1
    assert deaths == num_last + 1
    assert contents(tmp_path) == contents(whole)


def test_a_larger_budget_goes_on_as_if_it_had_been_there_from_the_start(whole, tmp_path):
    for num in (40, 70, 150):
        search(tmp_path, resume=True, **{**WIDE, "max_evaluations": num})
        assert rerun.replay(tmp_path, tmp_path / f"again{num}") == []
    grown, at_once = contents(tmp_path), contents(whole)
    for table in ("proposal", "candidate", "challenge", "side_work"):
        assert grown[table] == at_once[table], table
    kinds = ("fitness", "fresh", "meta")
    marks = [[row for row in each["evaluation"] if row[1] in kinds] for each in (grown, at_once)]
    assert marks[0] == marks[1]
    undone = {row[1] for row in grown["evaluation"] if row[1].startswith(side_work.UNDONE)}
    assert undone, "nothing was under way at any end"


def test_a_search_is_found_again(whole, tmp_path):
    assert rerun.replay(whole, tmp_path / "again") == []


@pytest.mark.parametrize("num_calls", [30, 90])
def test_a_search_that_was_cut_is_found_again_as_far_as_it_got(tmp_path, num_calls):
    with pytest.raises(Death):
        search(tmp_path / "run", view=Cut(num_calls), **WIDE)
    assert rows(tmp_path / "run", "SELECT * FROM side_work WHERE done = 0")
    assert rerun.replay(tmp_path / "run", tmp_path / "again") == []


def test_a_score_that_is_to_come_is_said_to_be(tmp_path):
    class View(fakes.View):
        def update(self, evolution):
            if evolution.incumbent.meta_pending:
                raise Death

    with pytest.raises(Death):
        search(tmp_path, view=View())
    best = json.loads((tmp_path / "best.json").read_text())
    assert best["provenance"]["meta-validation"] == "not yet"

    class After(fakes.View):
        def update(self, evolution):
            if evolution.incumbent.candidate and not evolution.incumbent.meta_pending:
                raise Death

    with pytest.raises(Death):
        search(tmp_path, view=After(), resume=True)
    best = json.loads((tmp_path / "best.json").read_text())
    float(best["provenance"]["meta-validation"])


def make_older(directory, **changes):
    """Begin a search and make it one of a version that made challenges at once."""
    with pytest.raises(Death):
        search(directory, view=Cut(0), **changes)
    older_stores.keep_challenges(directory)


def test_a_search_of_an_older_version_goes_on_with_challenges_at_once(tmp_path):
    directory = tmp_path / "run"
    make_older(directory)
    search(directory, resume=True)
    assert rows(directory, "SELECT * FROM side_work") == []
    challenges = rows(directory, "SELECT * FROM challenge WHERE id > 0 ORDER BY id")
    incumbent = 0
    assert len(challenges) > 3
    for row in challenges:
        assert row["settled"] == row["proposal"] and row["number"] == row["id"]
        assert row["incumbent"] == incumbent
        incumbent = row["challenger"] if row["won"] else incumbent
    assert incumbent > 0
    assert rerun.replay(directory, tmp_path / "again") == []
    other = tmp_path / "killed"
    make_older(other)
    for lifetime in (9, 20, 33):
        with pytest.raises(Death):
            search(other, worker=engine_tests.MortalWorker(lifetime), resume=True)
    search(other, resume=True)
    assert contents(other) == contents(directory)
