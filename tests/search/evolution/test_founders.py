"""Founders and restarts: against the rows that a search leaves."""

import shutil

import pytest

from tests.search import fakes, rerun
from veldt.search import rule_sources
from veldt.search.config.evolution_config import FounderConfig, MutationConfig
from veldt.search.errors import SearchError
from veldt.search.evolution import founders
from veldt.search.evolution.mutations import step_size
from veldt.search.language.ops import INTERPRETED, OP_SETS
from veldt.search.program import Program
from veldt.search.report import search_report
from veldt.search.run import run_search
from veldt.search.storage import best_rule
from veldt.search.storage.store import Store
from veldt.tasks.pool.config import PoolConfig

ONE = PoolConfig(num_workers=1)
RULE = "def mine(w, g, m):\n    m = interp(g, m, 0.9)\n    return sign(m), m\n"


def search(directory, *, resume=False, view=None, **changes):
    config = fakes.small_config(**{"pool": ONE, **changes})
    run_search.run_search(config, directory, resume=resume, view=view, factory=fakes.FakeWorker)
    return config


def rows(directory, query):
    with Store.open(directory, read_only=True) as store:
        return store.rows(query)


class Stop(fakes.View):
    """Presses Ctrl-C when so many results have been recorded."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def update(self, evolution):
        if evolution.counts.num_told == self.after:
            raise KeyboardInterrupt


def searched(directory, **changes):
    """What was searched, as replay compares it."""
    with Store.open(directory, read_only=True) as store:
        tables = ("candidate", "proposal", "challenge", "hall_of_fame", "meta")
        return {
            table: [
                {name: value for name, value in row.items() if not name.endswith("_s")}
                for row in store.rows(f"SELECT * FROM {table}")
            ]
            for table in tables
        }


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("first") / "a"
    search(directory)
    return directory


@pytest.fixture
def named(first_run, tmp_path):
    """Founders: a finished run of which this test has its own copy, Lion, and a rule file."""
    shutil.copytree(first_run, tmp_path / "a")
    (tmp_path / "mine.py").write_text(RULE)
    return (
        FounderConfig(str(tmp_path / "a")),
        FounderConfig("lion", 3e-4),
        FounderConfig(str(tmp_path / "mine.py")),
    )


def test_founders_are_the_first_proposals_and_have_children(named, tmp_path):
    config = search(tmp_path / "run", founders=named, tournament_size=1)
    found = rows(tmp_path / "run", "SELECT * FROM proposal ORDER BY id")
    hall = rows(tmp_path / "a", "SELECT * FROM hall_of_fame WHERE candidate >= 0 ORDER BY id")
    count = len(hall) + 2
    expected = [(row["program"], row["learning_rate"]) for row in hall]
    expected += [(str(rule_sources.load_rule("lion")), 3e-4), (RULE, 3e-3)]
    for row, (text, rate) in zip(found, expected, strict=False):
        assert row["parent"] is None and row["mutation"].startswith("founder ")
        assert row["learning_rate"] == rate
        ours, theirs = Program.parse(row["program"]), Program.parse(text)
        assert ours.lower().structural_hash == theirs.lower().structural_hash
        assert len(ours.slots) >= config.num_slots
    assert found[0]["mutation"].endswith(f"a #{hall[0]['candidate']}")
    assert not found[count]["mutation"].startswith("founder ")
    parents = {row["id"]: row["parent"] for row in found[count:]}
    # Recorded before they are parents, and parents long before the others are old enough.
    assert all(p is None or p <= i - config.window for i, p in parents.items())
    text = search_report.render(tmp_path / "run")
    assert f"A search from adamw, {tmp_path}/a, lion and {tmp_path}/mine.py on" in text
    early = [p for i, p in parents.items() if i < config.population_size]
    assert len({p for p in early if p is not None and p < count}) > 1 and None in early


def test_random_search_has_children_of_all_founders_and_of_none_else(named, tmp_path):
    changes = {"founders": named, "parents": "initial", "max_evaluations": 60}
    search(tmp_path / "whole", **changes)
    found = rows(tmp_path / "whole", "SELECT * FROM proposal ORDER BY id")
    count = sum(row["mutation"].startswith("founder ") for row in found)
    parents = [row["parent"] for row in found[count:]]
    assert {p for p in parents if p is not None and p >= count} == set()
    # Far beyond the size of the population all of them still have children.
    assert len(parents) > 3 * fakes.small_config().population_size
    assert {None, *range(count)} == set(parents[-len(parents) // 2 :])
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "run", view=Stop(len(found) // 2), **changes)
    search(tmp_path / "run", resume=True, **changes)
    assert searched(tmp_path / "run") == searched(tmp_path / "whole")


def test_a_run_does_not_need_what_it_began_from_again(named, tmp_path):
    search(tmp_path / "whole", founders=named)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "run", founders=named, view=Stop(3))
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "mine.py").write_text("no rule any more")
    search(tmp_path / "run", founders=named, resume=True)
    assert searched(tmp_path / "run") == searched(tmp_path / "whole")
    assert rerun.replay(tmp_path / "run", tmp_path / "again") == []


def test_the_initial_rule_of_a_run_comes_with_its_learning_rate(first_run):
    config = fakes.small_config(initial_rule=str(first_run), learning_rate=None)
    (initial,) = founders.load(config)
    assert initial.genotype.learning_rate == best_rule.read_best(first_run).learning_rate
    assert founders.read({founders.META_KEY: founders.dump((initial,))}, config) == (initial,)


@pytest.mark.parametrize("over", ["each_run", "mean"])
def test_founders_meet_no_hurdle(tmp_path, over):
    worker = fakes.FakeWorker()
    named = (FounderConfig("lion", 3e-4), FounderConfig("sgd", 1e-2))
    config = fakes.small_config(pool=ONE, founders=named, hurdle_over=over)
    run_search.run_search(config, tmp_path, factory=lambda: worker)
    jobs = [job for job in worker.jobs if job.purpose == "fitness" and job.candidate > 0]
    met = [bool(job.hurdle or job.mean) for job in jobs]
    assert met[:2] == [False, False] and all(met[2:]) and len(met) > 10


def test_a_founder_that_fails_is_reported(tmp_path):
    view = Stop(-1)

    class Worker(fakes.FakeWorker):
        def __call__(self, payload):
            outcome = super().__call__(payload)
            if payload.candidate == 1:
                return fakes.Outcome(fakes.Status.REJECTED, None, outcome.runs)
            return outcome

    config = fakes.small_config(pool=ONE, max_evaluations=5, founders=(FounderConfig("lion"),))
    run_search.run_search(config, tmp_path / "run", view=view, factory=Worker)
    assert any("founder lion at learning rate 0.003: rejected" in note for note in view.notes)


def test_founders_that_cannot_be_are_clear_errors(tmp_path):
    with pytest.raises(SearchError, match="16 founders, the initial rule included, for 15 places"):
        search(tmp_path / "run", founders=(FounderConfig("lion"),) * 15)
    with pytest.raises(SearchError, match="adamw has no learning rate"):
        search(tmp_path / "run", learning_rate=None)
    with pytest.raises(SearchError, match="did you mean lion"):
        search(tmp_path / "run", founders=(FounderConfig("lionn"),))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="niche_size and restart_after"):
        fakes.small_config(parents="initial", restart_after=5)


def test_the_zoo_is_all_rules_that_a_search_can_run_at_steps_as_long_as_the_initial_rules():
    changes = {"population_size": 80, "learning_rate": 0.01, "num_slots": 3}
    ops = MutationConfig(ops=("published",), reads=("step", "loss"))
    config = fakes.small_config(founders=(FounderConfig("zoo"),), mutation=ops, **changes)
    start = founders.load(config)
    assert start[0].name == "adamw" and len({one.name for one in start}) == len(start)
    rules = {name: rule_sources.load_rule(name) for name in rule_sources.RULE_NAMES}
    allowed = {*OP_SETS["published"], "copy"}
    assert {one.name for one in start} == {
        name
        for name, rule in rules.items()
        if len(rule.slots) <= 3
        and {s.op for s in rule.statements} <= allowed
        and not any("progress" in s.args for s in rule.statements)
    }
    assert {"adamw", "muon", "lion", "carom", "dog", "polyak"} <= {one.name for one in start}
    for one in start:
        program, rate = one.genotype.program, one.genotype.learning_rate
        assert len(program.slots) == 3 and program.statements == rules[one.name].statements
        wanted = step_size.like(start[0].genotype, rules[one.name]).learning_rate
        assert rate == (1.0 if one.name in rule_sources.AT_RATE_ONE else wanted)
    given = fakes.small_config(founders=(FounderConfig("zoo", 0.5),), mutation=ops, **changes)
    assert {one.genotype.learning_rate for one in founders.load(given)[1:]} == {0.5}
    with pytest.raises(SearchError, match="founders, the initial rule included, for 15 places"):
        founders.load(fakes.small_config(founders=(FounderConfig("zoo"),)))


def test_a_founder_may_begin_at_several_rates(tmp_path):
    several = (FounderConfig("lion", 1e-3, (0.25, 1.0, 4.0)), FounderConfig("sgd", 0.1))
    given = founders.load(fakes.small_config(founders=several))
    assert [one.name for one in given[1:]] == [
        "lion at 0.25 times the rate",
        "lion",
        "lion at 4 times the rate",
        "sgd",
    ]
    rates = [one.genotype.learning_rate for one in given[1:]]
    assert rates == [0.25e-3, 1e-3, 4e-3, 0.1]
    assert len({str(one.genotype.program) for one in given[1:4]}) == 1
    for wrong in ((), (1.0, 0.0)):
        with pytest.raises(ValueError, match="founder lion: rate_factors must be numbers above 0"):
            FounderConfig("lion", 1e-3, wrong)


def test_a_rule_that_is_named_is_not_taken_from_the_zoo_again():
    config = fakes.small_config(
        founders=(FounderConfig("lion", 1e-4), FounderConfig("zoo")), population_size=80
    )
    start = founders.load(config)
    rates = [one.genotype.learning_rate for one in start if one.name == "lion"]
    assert rates == [1e-4]


def test_after_a_restart_all_descend_from_the_best(tmp_path):
    changes = {"restart_after": 8, "islands": 3, "max_evaluations": 50}
    config = search(tmp_path / "run", **changes)
    found = rows(tmp_path / "run", "SELECT * FROM proposal ORDER BY id")
    # The proposal that was the best from another one on.
    won = {
        row["settled"]: row["proposal"]
        for row in rows(tmp_path / "run", "SELECT * FROM challenge WHERE won = 1 ORDER BY id")
    }
    best_, stale, restarts = None, 0, []
    for row in found:
        if row["id"] in won:
            best_, stale = won[row["id"]], 0
        else:
            stale += row["source"] == "evaluated"
        if stale == 8:
            restarts.append((row["id"], best_))
            stale = 0
    assert len(restarts) > 2
    num_after = 0
    for row in found:
        before = [pair for pair in restarts if pair[0] <= row["id"] - config.window]
        if before:
            last, best_ = before[-1]
            num_after += row["parent"] == best_
            assert row["parent"] == best_ or row["parent"] > last
    assert num_after > 5
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "cut", view=Stop(restarts[1][0] + 3), **changes)
    search(tmp_path / "cut", resume=True, **changes)
    assert searched(tmp_path / "cut") == searched(tmp_path / "run")
    assert rerun.replay(tmp_path / "run", tmp_path / "again") == []


def test_the_interpreter_has_room_for_what_children_inherit(named):
    config = fakes.small_config(founders=(*named, FounderConfig("muon", 0.02)))
    start = founders.load(config)
    inherited = {s.op for one in start for s in one.genotype.program.statements}
    ops = run_search._evaluator(config, start).capacity.ops
    assert "orthogonalize" not in config.evaluator.capacity.ops
    assert inherited & set(INTERPRETED) <= set(ops) and "orthogonalize" in ops
