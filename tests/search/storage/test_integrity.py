"""The integrity check: sound runs pass, and each kind of unsound one is named."""

import shutil
import sqlite3

import pytest

from tests.search import fakes
from veldt.search.errors import StoreError
from veldt.search.run import run_search
from veldt.search.storage import checksums, integrity
from veldt.search.storage.store import FILE_NAME, Store
from veldt.tasks.pool.config import PoolConfig

ONE = PoolConfig(num_workers=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run in which jobs went wrong in every way, too."""
    directory = tmp_path_factory.mktemp("made")
    run_search.run_search(fakes.small_config(pool=ONE), directory, factory=fakes.TroubledWorker)
    return directory


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


def damage(directory, *changes):
    """Changes rows by hand, as no search would."""
    connection = sqlite3.connect(directory / FILE_NAME)
    for change in changes:
        assert connection.execute(change).rowcount > 0, change
    checksums.begin(connection)
    connection.commit()
    connection.close()


def problems(directory):
    with Store.open(directory, read_only=True) as store:
        return integrity.problems(store)


def test_sound_runs_pass(made, finished_run):
    assert problems(made) == problems(finished_run) == []


@pytest.mark.parametrize("num_told", [1, 9, 40])
def test_a_run_that_was_stopped_passes(tmp_path, num_told):
    class View(fakes.View):
        def update(self, evolution):
            if evolution.counts.num_told == num_told:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        config = fakes.small_config(pool=ONE)
        run_search.run_search(config, tmp_path, view=View(), factory=fakes.FakeWorker)
    assert problems(tmp_path) == []


def test_a_run_that_has_scored_nothing_passes(tmp_path):
    Store.create(tmp_path).close()
    assert problems(tmp_path) == []


MEAN = "a fitness is the mean log loss of its training runs, all of them ok; broken by candidate"
CALL = (
    "INSERT INTO llm_call (id, proposal, due, status, model, params, system, prompt, digest, "
    "parent) SELECT column1, column2, column3, column4, '', '{}', '', '', '', -1 FROM (VALUES"
)
CHANGES = {
    "a proposal is lost": (
        ["DELETE FROM proposal WHERE id = 7 AND source IS NOT NULL"],
        "proposals are numbered from 0 without a gap; broken from number 7",
    ),
    "a candidate is lost": (
        ["DELETE FROM candidate WHERE id = 5"],
        "candidates are numbered from 0 without a gap; broken from number 5",
    ),
    "a proposal without candidate": (
        ["UPDATE proposal SET candidate = 9999 WHERE id = 3"],
        "a proposal's candidate exists; it does not for proposal 3",
    ),
    "an evaluation without candidate": (
        ["UPDATE evaluation SET candidate = 9999 WHERE candidate = 2"],
        "an evaluation's candidate exists; there is none with the number 9999",
    ),
    "a candidate that no one proposed": (
        ["INSERT INTO candidate SELECT MAX(id) + 1, 'b', 'p', 0.1, 1, 'error', NULL, 0, '', 0 "
         "FROM candidate"],
        "a candidate is introduced by exactly one proposal; broken by candidate ",
    ),
    "a candidate counted twice": (
        ["UPDATE proposal SET source = 'evaluated' WHERE id = (SELECT MAX(id) FROM proposal "
         "WHERE source = 'structure')"],
        "a candidate is introduced by exactly one proposal; broken by candidate ",
    ),
    "an unknown source": (
        ["UPDATE proposal SET source = 'rumour' WHERE id = (SELECT MAX(id) FROM proposal "
         "WHERE source = 'structure')"],
        "a source is evaluated, probe, hollow, capacity, structure, behaviour or sample; broken by "
        "proposal ",
    ),
    "a structure never seen": (
        ["UPDATE proposal SET structure = 'new' WHERE id = (SELECT MAX(id) FROM proposal "
         "WHERE source = 'structure' AND candidate > 0)"],
        "a cached structure was proposed before, with the same candidate; broken by proposal ",
    ),
    "a behaviour known too early": (
        ["UPDATE proposal SET candidate = (SELECT MAX(id) FROM candidate), source = 'behaviour' "
         "WHERE id = (SELECT MIN(id) FROM proposal WHERE source IN ('structure', 'behaviour'))"],
        "a cached behaviour was introduced before; broken by proposal ",
    ),
    "a parent of the future": (
        ["UPDATE proposal SET parent = id WHERE id = 30"],
        "a parent was proposed before its child; broken by proposal 30",
    ),
    "a NaN's stand-in": (
        ["UPDATE candidate SET fitness = -9 WHERE id = (SELECT MIN(id) FROM candidate "
         "WHERE status = 'killed')"],
        "a candidate has a fitness if and only if its status is ok; broken by candidate ",
    ),
    "a fitness lost": (
        ["UPDATE candidate SET fitness = NULL WHERE id = 0"],
        "a candidate has a fitness if and only if its status is ok; broken by candidate 0",
    ),
    "a fitness made better": (
        ["UPDATE candidate SET fitness = fitness - 0.001 WHERE id = 0"],
        f"{MEAN} 0",
    ),
    "a training run lost": (
        ["DELETE FROM evaluation WHERE candidate = 0 AND purpose = 'fitness'"],
        f"{MEAN} 0",
    ),
    "a score of a failed run": (
        ["UPDATE evaluation SET status = 'timeout' WHERE candidate = 0 AND purpose = 'fitness'"],
        "a training run has a score if and only if its status is ok; broken by candidate 0",
    ),
    "a metagradient without its score": (
        ["INSERT INTO gradient VALUES (0, '', 't', '[0]', 0.1, 'ok', NULL, '[1.0]', '', 1, 0.1)"],
        "a metagradient is stored if and only if its status is ok; broken by candidate 0",
    ),
    "a challenge lost": (
        ["DELETE FROM challenge WHERE id = 1"],
        "challenges are numbered from 0 without a gap; broken from number 1",
    ),
    "another challenger": (
        ["UPDATE challenge SET challenger = 0 WHERE id = 1"],
        "a challenger is its proposal's candidate; broken by challenge 1",
    ),
    "a victory denied": (
        # One that a later challenger took for granted.
        ["UPDATE challenge SET won = 0 WHERE id = (SELECT MAX(g.id) FROM challenge AS g "
         "JOIN challenge AS h ON h.incumbent = g.challenger WHERE g.won = 1 AND g.id > 0)"],
        "what is challenged is or was the incumbent; broken by challenge ",
    ),
    "a victory over a former incumbent": (
        ["UPDATE challenge SET incumbent = challenger WHERE id = (SELECT MAX(id) FROM challenge "
         "WHERE won = 1)"],
        "a winner has beaten the incumbent of its moment; broken by challenge ",
    ),
    "side work of another candidate": (
        ["UPDATE side_work SET candidate = 0 WHERE id = 1"],
        "side work is about its proposal's candidate; broken by stage 1",
    ),
    "side work that was never settled": (
        ["UPDATE side_work SET done = 0 WHERE id = 0"],
        "side work is settled before the proposal that it is due before; broken by stage 0",
    ),
    "a call lost": (
        [f"{CALL} (2, 3, 9, 'not chosen'))"],
        "calls of language models are numbered from 1 without a gap; broken from number 1",
    ),
    "a call that was never learnt": (
        [f"{CALL} (1, 3, 9, 'under way'))"],
        "a call is under way until the first of its proposals is recorded; broken by call 1",
    ),
    "a model's proposal without a call": (
        ["UPDATE proposal SET mutation = 'llm m' WHERE id = 5"],
        "a proposal of a model is a program of a call of it; broken by proposal 5",
    ),
    "an answer without a call": (
        ["INSERT INTO llm_answer VALUES (7, 0, '', 'ok', '', 1, 1, 0, 1, 0.1, 0.1)"],
        "an answer is that of a call; there is none with the number 7",
    ),
    "two winners": (
        ["UPDATE hall_of_fame SET winner = 1"],
        "the finals have one winner at most; they have ",
    ),
    "a finalist without candidate": (
        ["UPDATE hall_of_fame SET candidate = 9999 WHERE id = 0"],
        "a row of hall_of_fame points to none of candidate",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_no_search_writes_is_named(copy, name):
    changes, expected = CHANGES[name]
    damage(copy, *changes)
    found = problems(copy)
    assert any(problem.startswith(expected) for problem in found), found


def test_every_rule_is_broken_by_some_change():
    for rule in integrity._RULES:
        assert any(expected.startswith(rule.text) for _, expected in CHANGES.values()), rule.text


def test_many_of_a_kind_are_cut(copy):
    damage(copy, "UPDATE proposal SET parent = id")
    (found,) = problems(copy)
    assert found.endswith("0, 1, 2, 3, 4 and more")


def test_an_unsound_run_is_not_resumed(copy):
    damage(copy, "UPDATE candidate SET fitness = fitness - 0.001 WHERE id = 0")
    with pytest.raises(StoreError, match=r"(?s)store\.sqlite is not what .* candidate 0"):
        run_search.run_search(
            fakes.small_config(pool=ONE), copy, resume=True, factory=fakes.TroubledWorker
        )
