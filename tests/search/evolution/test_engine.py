"""The engine: order, caches, the incumbent, and a search that died going on as if it had not."""

import collections
import json
import math
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.search import fakes, rerun
from veldt.search.config.evolution_config import FounderConfig, MutationConfig, RacingConfig
from veldt.search.config.finals_config import FinalsConfig
from veldt.search.config.proxy_config import ProxyConfig
from veldt.search.config.search_config import SearchConfig
from veldt.search.errors import SearchError, StoreError
from veldt.search.evaluation import fingerprint, probe
from veldt.search.evaluation.jobs import EvalJob, Outcome, Status
from veldt.search.evolution import job_records
from veldt.search.evolution.engine import Evolution
from veldt.search.language import dataflow
from veldt.search.program import Program
from veldt.search.report import report_data
from veldt.search.run import run_search
from veldt.search.storage import checksums
from veldt.search.storage import counts as counts_lib
from veldt.search.storage.store import FILE_NAME, MACHINE_TABLES, Store
from veldt.tasks.common.errors import FileError
from veldt.tasks.pool import inline
from veldt.tasks.pool.base import JobResult, JobStatus
from veldt.tasks.pool.config import PoolConfig

ONE = PoolConfig(num_workers=1)


def search(directory, *, worker=None, resume=False, **changes):
    """Runs a search with a fake worker in this process."""
    settings_ = {"pool": ONE, **changes}
    worker = worker or fakes.FakeWorker()
    return run_search.run_search(
        fakes.small_config(**settings_), directory, resume=resume, factory=lambda: worker
    )


def contents(directory, *, skip=()):
    """Every table of what was searched, without the columns that hold times."""
    with sqlite3.connect(directory / FILE_NAME) as connection:
        tables = [
            row[0]
            for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        found = {}
        for table in sorted(set(tables) - {*skip, *MACHINE_TABLES}):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            names = ", ".join(name for name in columns if not name.endswith("_s"))
            query = f"SELECT {names} FROM {table} ORDER BY {names}"
            found[table] = connection.execute(query).fetchall()
    connection.close()
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search that was left alone, and its result."""
    directory = tmp_path_factory.mktemp("whole")
    return directory, search(directory)


def rows(directory, query):
    with Store.open(directory, read_only=True) as store:
        return store.rows(query)


def fingerprint_of(row):
    flow = dataflow.lower(Program.parse(row["program"]), fold=True)
    return fingerprint.fingerprint(probe.run(flow), row["learning_rate"])


def test_every_behaviour_is_trained_once_and_all_are_counted(whole):
    directory, _ = whole
    proposals = rows(directory, "SELECT * FROM proposal ORDER BY id")
    candidates = {
        row["id"]: row for row in rows(directory, "SELECT * FROM candidate WHERE id >= 0")
    }
    sources = collections.Counter(row["source"] for row in proposals)
    assert sources["evaluated"] == 60
    assert sources["structure"] > 0 and sources["behaviour"] > 0
    assert [row["id"] for row in proposals] == list(range(len(proposals)))
    # One candidate for each proposal that was new, and the initial rule.
    assert len(candidates) == 1 + len(proposals) - sources["structure"] - sources["behaviour"]
    for row in proposals:
        seen = fingerprint_of(row)
        candidate = candidates[row["candidate"]]
        assert seen.digest == candidate["behaviour"]
        assert fingerprint_of(candidate) == seen


def test_a_parent_is_the_best_of_living_members_that_had_been_recorded(whole):
    directory, _ = whole
    config = fakes.small_config()
    proposals = rows(directory, "SELECT * FROM proposal ORDER BY id")
    for row in proposals:
        if row["parent"] is not None:
            newest = row["id"] - config.window
            assert newest - config.population_size < row["parent"] <= newest


def test_a_hurdle_over_the_mean_is_that_of_the_initial_rule(tmp_path):
    worker = fakes.FakeWorker()
    search(tmp_path, worker=worker, hurdle_over="mean", hurdle=0.25, max_evaluations=20)
    jobs = [job for job in worker.jobs if job.mean]
    assert len(jobs) == 20 and not any(job.hurdle for job in worker.jobs)
    with Store.open(tmp_path, read_only=True) as store:
        curves = json.loads(store.meta()["initial_curves"])
    assert len(curves) > 1
    for job in jobs:
        np.testing.assert_allclose(job.mean, np.mean(curves, axis=0) + 0.25)


def test_a_race_and_a_hurdle_over_the_mean_exclude_each_other():
    with pytest.raises(ValueError, match=r"racing .* \(hurdle_over: mean\) .* one of the two"):
        fakes.small_config(hurdle_over="mean", racing=RacingConfig(0.1))


def test_random_search_has_only_children_of_the_initial_rule(tmp_path, whole):
    search(tmp_path, parents="initial", max_evaluations=40)
    proposals = rows(tmp_path, "SELECT * FROM proposal ORDER BY id")
    assert all(row["parent"] is None for row in proposals)
    assert any(row["parent"] is not None for row in rows(whole[0], "SELECT * FROM proposal"))
    assert len({row["program"] for row in proposals}) > 20
    before = contents(tmp_path)
    search(tmp_path, parents="initial", max_evaluations=40, resume=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("migration", [0.0, 0.3])
def test_islands_keep_to_themselves_but_for_migrants(tmp_path, migration):
    config = fakes.small_config(population_size=12, islands=3, migration=migration)
    search(tmp_path, population_size=12, islands=3, migration=migration, max_evaluations=150)
    parents = rows(tmp_path, "SELECT id, parent FROM proposal WHERE parent IS NOT NULL")
    for row in parents:
        newest = row["id"] - config.window
        assert newest - config.population_size < row["parent"] <= newest
    away = np.mean([(row["id"] - row["parent"]) % 3 != 0 for row in parents])
    assert len(parents) > 100
    assert {row["id"] % 3 for row in parents} == {0, 1, 2}
    if migration:
        assert 0.05 < away < 0.4  # Two of three migrants come from elsewhere.
    else:
        assert away == 0


@pytest.mark.parametrize(
    ("settings_", "words"),
    [({"islands": 5}, "equal islands"), ({"islands": 0}, "islands is 0"), ({"migration": 2}, "2;")],
)
def test_islands_that_cannot_be_are_refused(settings_, words):
    with pytest.raises(ValueError, match=words):
        fakes.small_config(population_size=12, **settings_)


def test_a_run_of_an_earlier_version_may_be_resumed(tmp_path):
    search(tmp_path, max_evaluations=30)
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        ((text,),) = connection.execute("SELECT value FROM meta WHERE key = 'config'")
        config = json.loads(text)
        del config["parents"], config["racing"]
        del config["finals"]["tuning"], config["finals"]["stages"]
        connection.execute("UPDATE meta SET value = ? WHERE key = 'config'", (json.dumps(config),))
        checksums.begin(connection)
    connection.close()
    search(tmp_path, max_evaluations=30, resume=True)
    with pytest.raises(FileError, match="parents"):
        search(tmp_path, max_evaluations=30, resume=True, parents="initial")


def test_parents_are_better_than_average(whole):
    directory, _ = whole
    query = "SELECT p.id, c.fitness FROM proposal p JOIN candidate c ON c.id = p.candidate"
    fitness = {row["id"]: row["fitness"] for row in rows(directory, query)}
    query = "SELECT parent FROM proposal WHERE parent IS NOT NULL"
    parents = [fitness[row["parent"]] for row in rows(directory, query)]
    assert None in fitness.values() and None not in parents
    assert np.mean(parents) < np.mean([value for value in fitness.values() if value is not None])


def test_a_fitness_is_the_mean_of_its_runs_and_failures_have_none(whole):
    directory, _ = whole
    statuses = collections.Counter()
    for row in rows(directory, "SELECT * FROM candidate WHERE id >= 0"):
        query = f"SELECT * FROM evaluation WHERE candidate = {row['id']} AND purpose = 'fitness'"
        runs = rows(directory, query)
        statuses[row["status"]] += 1
        if row["status"] == "ok":
            assert len(runs) == 2
            assert row["fitness"] == pytest.approx(np.mean([run_["log_loss"] for run_ in runs]))
        else:
            assert row["fitness"] is None
    assert statuses["rejected"] and statuses["diverged"]
    assert not [
        r
        for r in rows(directory, "SELECT * FROM evaluation")
        if r["status"] == "ok" and r["log_loss"] is None
    ]


def test_challenges_use_new_seeds_and_the_winner_is_paired(whole):
    directory, _ = whole
    seeds = [
        row["seed"]
        for row in rows(directory, "SELECT DISTINCT seed FROM evaluation WHERE purpose = 'fresh'")
    ]
    assert seeds and min(seeds) >= job_records.FRESH_SEEDS
    challenges = rows(directory, "SELECT * FROM challenge ORDER BY id")
    assert challenges[0]["challenger"] == 0 and challenges[0]["won"] == 1
    assert len({row["number"] for row in challenges}) == len(challenges)
    incumbent, former = 0, set()
    for row in challenges[1:]:
        assert row["incumbent"] == incumbent or (row["incumbent"] in former and not row["won"])
        first = job_records.FRESH_SEEDS + row["number"] * 4
        query = (
            "SELECT candidate, seed, AVG(log_loss) AS score FROM evaluation "
            "WHERE purpose = 'fresh' "
            f"AND seed >= {first} AND seed < {first + 4} GROUP BY candidate, seed ORDER BY seed"
        )
        scores = {row["challenger"]: [], row["incumbent"]: []}
        for score in rows(directory, query):
            scores[score["candidate"]].append(score["score"])
        paired = np.subtract(scores[row["challenger"]], scores[row["incumbent"]])
        assert len(paired) in (1, 4)
        assert row["difference"] == pytest.approx(paired.mean())
        error = paired.std(ddof=1) / np.sqrt(len(paired)) if len(paired) > 1 else 0.0
        assert row["standard_error"] == pytest.approx(error)
        is_better = len(paired) == 4 and paired.mean() + error < 0
        assert row["won"] == int(is_better and row["incumbent"] == incumbent)
        if row["won"]:
            former.add(incumbent)
            incumbent = row["challenger"]
            assert row["meta_fitness"] is not None
    assert incumbent > 0


def test_workers_and_timing_change_nothing(whole, tmp_path):
    directory, result = whole
    again = search(tmp_path, worker=fakes.FakeWorker(0.001), pool=PoolConfig(num_workers=3))
    assert contents(tmp_path, skip=["meta"]) == contents(directory, skip=["meta"])
    assert again.best.program == result.best.program


def test_another_seed_is_another_search(whole, tmp_path):
    directory, _ = whole
    search(tmp_path, seed=1)
    assert contents(tmp_path)["proposal"] != contents(directory)["proposal"]


class Death(BaseException):
    """Ends a search at a chosen job, as a kill would: nothing after it runs."""


class MortalWorker:
    def __init__(self, lifetime):
        self.lifetime = lifetime
        self.worker = fakes.FakeWorker()

    def __call__(self, payload):
        self.lifetime -= 1
        if self.lifetime < 0:
            raise Death
        return self.worker(payload)


# Shrinking would run hundreds of searches to make a list of numbers shorter.
@settings(max_examples=12, phases=(Phase.explicit, Phase.generate))
@given(st.lists(st.integers(0, 60), min_size=1, max_size=6))
def test_a_search_that_dies_anywhere_reaches_the_same_store(whole, tmp_path_factory, lifetimes):
    directory, result = whole
    mortal = tmp_path_factory.mktemp("mortal")
    for lifetime in lifetimes:
        try:
            search(mortal, worker=MortalWorker(lifetime), resume=True)
        except Death:
            continue
    assert search(mortal, resume=True).best == dataclass_with_run(result.best, mortal)
    assert contents(mortal) == contents(directory)


def dataclass_with_run(best, directory):
    """The same best, found in another run directory."""
    import dataclasses

    return dataclasses.replace(best, provenance={**best.provenance, "run": directory.name})


SCRIPT = """
import sys
from pathlib import Path
from tests.search import fakes
from veldt.search.run import run_search as run
from veldt.tasks.pool.config import PoolConfig
config = fakes.small_config(pool=PoolConfig(num_workers=2))
run.run_search(config, Path(sys.argv[1]), resume=True, factory=lambda: fakes.FakeWorker(0.01))
"""


def test_kill_9_at_random_moments_loses_and_repeats_nothing(whole, tmp_path):
    directory, _ = whole
    rng = random.Random(3)
    root = Path(__file__).parents[3]
    killed = 0
    while True:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path)],
            cwd=root,
            stderr=subprocess.PIPE,
            text=True,
        )
        if killed < 3:
            deadline = time.monotonic() + 60
            before = count(tmp_path)
            while count(tmp_path) <= before + rng.randrange(15) and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(rng.uniform(0.0, 0.02))
            process.send_signal(signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, errors
        killed += 1
    assert killed == 3
    assert contents(tmp_path, skip=["meta"]) == contents(directory, skip=["meta"])


def count(directory):
    """Proposals recorded so far, as another process sees them."""
    if not (directory / FILE_NAME).exists():
        return 0
    with sqlite3.connect(directory / FILE_NAME) as connection:
        number = connection.execute("SELECT COUNT(*) FROM proposal").fetchone()[0]
    connection.close()
    return number


def test_ctrl_c_keeps_what_was_recorded(tmp_path):
    recorded = []

    class View(fakes.View):
        def update(self, evolution):
            recorded.append(evolution.counts.num_told)
            if evolution.counts.num_told == 20:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run_search.run_search(
            fakes.small_config(pool=ONE), tmp_path, view=View(), factory=fakes.FakeWorker
        )
    assert count(tmp_path) == recorded[-1] == 20
    assert Program.parse((tmp_path / "best.py").read_text())


def test_a_budget_may_grow_on_resuming_and_the_beginning_stays(whole, tmp_path):
    directory, _ = whole
    search(tmp_path, max_evaluations=30)
    part = contents(tmp_path)["proposal"]
    search(tmp_path, max_evaluations=60, resume=True)
    # Up to the window's end, where the short search stopped asking.
    assert contents(tmp_path)["proposal"][: len(part)] == part
    assert contents(tmp_path)["proposal"] == contents(directory)["proposal"]


def test_memory_holds_the_population_and_the_window_alone(tmp_path):
    most = collections.Counter()

    def num_items(value):
        return len(value) if isinstance(value, dict | list | set | tuple) else 0

    class View(fakes.View):
        def update(self, evolution):
            parts = (evolution._seen, evolution._arena, evolution._store, evolution._population)
            parts = (*parts, evolution._stages)
            for owner in (evolution, *parts):
                for name, value in vars(owner).items():
                    most[name] = max(most[name], num_items(value))

    config = fakes.small_config(pool=ONE, max_evaluations=100)
    run_search.run_search(config, tmp_path, view=View(), factory=fakes.FakeWorker)
    assert count(tmp_path) > 150
    assert 0 < most["_structures"] <= config.window and 0 < most["_behaviours"] <= config.window
    assert max(most.values()) == most["members"] == config.population_size + config.window


def test_a_child_is_lowered_and_probed_once_and_carried(tmp_path, monkeypatch):
    """Its graph with numbers, and for what is new the one with names that its text is written from.

    Runs of the search count, those of its worker, which lowers what it is sent, do not.
    """
    calls = collections.Counter()
    lower, run = dataflow.lower, probe.run

    def counted(name, function):
        def call(*args, **kwargs):
            calls[name] += 1
            return function(*args, **kwargs)

        return call

    class Worker:
        def __call__(self, payload):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(dataflow, "lower", lower)
                patch.setattr(probe, "run", run)
                return fakes.FakeWorker()(payload)

    class View(fakes.View):
        def update(self, evolution):
            if evolution.counts.num_told == 1:
                calls.clear()
            self.calls, self.counts = dict(calls), evolution.counts

    monkeypatch.setattr(dataflow, "lower", counted("lower", lower))
    monkeypatch.setattr(probe, "run", counted("probe", run))
    view = View()
    mutation = MutationConfig(match_steps=True)
    config = fakes.small_config(pool=ONE, niche_size=2, mutation=mutation, max_evaluations=100)
    run_search.run_search(config, tmp_path, view=view, factory=Worker)
    num_new = view.counts.num_told - view.counts.num_cached
    assert view.counts.num_told > 200 and num_new > 100
    assert view.calls["lower"] <= view.counts.num_told + num_new
    # Once, and of what is new once more with other gradients; never again for niche or step size.
    assert view.calls["probe"] <= view.counts.num_told + num_new


def test_an_engine_is_whole_once_made_and_equals_one_made_again(tmp_path):
    class View(fakes.View):
        def update(self, evolution):
            parts = (evolution.counts, evolution.incumbent, evolution.initial)
            again = Evolution(evolution.config, evolution._store, None)
            assert vars(again).keys() == vars(evolution).keys()
            assert parts == (again.counts, again.incumbent, again.initial)
            assert evolution._population.members == again._population.members

    config = fakes.small_config(pool=ONE, restart_after=10, niche_size=2)
    run_search.run_search(config, tmp_path, view=View(), factory=fakes.FakeWorker)
    assert count(tmp_path) > 60


def test_a_run_is_resumed_only_with_its_own_config(tmp_path):
    search(tmp_path, max_evaluations=5)
    before = contents(tmp_path)
    with pytest.raises(FileError, match="population_size = 15, not 16"):
        search(tmp_path, max_evaluations=5, population_size=16, resume=True)
    with pytest.raises(StoreError, match="--resume"):
        search(tmp_path, max_evaluations=5)
    assert contents(tmp_path) == before


def test_a_misspelt_task_or_rule_leaves_no_run_behind(tmp_path):
    from veldt.search.config.proxy_config import ProxyConfig
    from veldt.tasks.common.errors import TaskError

    bad = fakes.small_config(tasks=(ProxyConfig("digits_mpl", 10, 1),))
    with pytest.raises(TaskError, match="digits_mlp"):
        run_search.run_search(bad, tmp_path / "run")
    with pytest.raises(SearchError, match="adamw"):
        search(tmp_path / "run", initial_rule="adamww")
    assert not (tmp_path / "run").exists()


HOLLOW_RULES = {
    "constant": "def rule(w, g):\n    update = 1e8\n    return update\n",
    "names_g": "def rule(w, g):\n    return g * 0.0 - 1e15\n",
    "swamped": "def rule(w, g):\n    return 1e15 + 1e8 * sign(g)\n",
}


@pytest.fixture(scope="module")
def tempted(tmp_path_factory):
    """A search on classification alone, for real, whose founders take the loss for nothing."""
    folder = tmp_path_factory.mktemp("tempted")
    for name, text in HOLLOW_RULES.items():
        (folder / f"{name}.py").write_text(text)
    config = SearchConfig(
        tasks=(ProxyConfig("digits_mlp", 20),),
        meta_validation=(),
        max_evaluations=12,
        population_size=10,
        fresh_seeds=4,
        window=2,
        founders=tuple(FounderConfig(str(folder / f"{name}.py")) for name in HOLLOW_RULES),
        finals=FinalsConfig(num_rates=2, lowest_rate=1e-3, rate_factor=8.0, final_seeds=2),
        pool=ONE,
    )
    return folder / "run", run_search.run_search(config, folder / "run")


def test_hollow_founders_have_no_fitness_and_do_not_win(tempted):
    directory, result = tempted
    founders = {
        row["mutation"]: row
        for row in rows(
            directory,
            "SELECT p.mutation, p.source, c.status, c.fitness, c.message FROM proposal p "
            "JOIN candidate c ON c.id = p.candidate WHERE p.mutation LIKE 'founder %'",
        )
    }
    assert len(founders) == len(HOLLOW_RULES)
    for name, row in founders.items():
        assert row["status"] == "hollow" and row["fitness"] is None and row["message"], name
        assert row["source"] == ("evaluated" if "swamped" in name else "hollow")
    winner = next(each for each in result.entries if each.winner)
    assert winner.final is not None and winner.final > math.log(1e-3)
    found = report_data.read_run(directory).counts
    counts = counts_lib.figures(found, max_evaluations=100)
    (blind,) = rows(directory, "SELECT COUNT(*) AS n FROM proposal WHERE source = 'hollow'")
    assert blind["n"] >= 2 and f"; {blind['n']} ignored the gradient" in counts["hollow"]
    assert not rerun.replay(directory, directory.with_name("again"))


def test_an_initial_rule_that_ignores_the_gradient_is_an_error(tmp_path):
    path = tmp_path / "decay.py"
    path.write_text("def rule(w, g):\n    return 0.1 * w\n")
    with pytest.raises(SearchError, match="does not depend on the gradient"):
        search(tmp_path / "run", initial_rule=str(path))


def test_an_initial_rule_that_fails_is_an_error(tmp_path):
    class Failing:
        def __call__(self, payload):
            return Outcome(Status.DIVERGED, None)

    with pytest.raises(
        SearchError, match=r"initial rule adamw at learning rate 0\.003 fails on digits_mlp"
    ):
        search(tmp_path, worker=Failing())


def test_a_worker_that_raises_is_a_status(tmp_path):
    class Sometimes(fakes.FakeWorker):
        def __call__(self, payload):
            assert isinstance(payload, EvalJob)
            if payload.hurdle and len(self.jobs) % 5 == 0:
                self.jobs.append(payload)
                raise RuntimeError("out of memory")
            return super().__call__(payload)

    search(tmp_path, worker=Sometimes(), max_evaluations=20)
    failed = rows(tmp_path, "SELECT * FROM candidate WHERE status = 'error'")
    assert failed and all(row["fitness"] is None for row in failed)
    assert all("RuntimeError: out of memory" in row["message"] for row in failed)
    query = "SELECT candidate, message FROM evaluation WHERE status = 'error' ORDER BY candidate"
    assert rows(tmp_path, query) == [
        {"candidate": row["id"], "message": row["message"]} for row in failed
    ]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (JobStatus.ERROR, Status.ERROR),
        (JobStatus.TIMEOUT, Status.TIMEOUT),
        (JobStatus.KILLED, Status.KILLED),
    ],
)
def test_what_became_of_a_job_is_the_candidate_s_status(status, expected):
    result = JobResult(3, status, None, "what happened\nframes", 1.5, "w")
    assert job_records.outcome_of(result) == Outcome(expected, None, message="what happened")


def test_every_job_is_labelled_with_candidate_and_tasks(tmp_path, monkeypatch):
    labels = []
    submit = inline.InlinePool.submit

    def spy(self, job):
        labels.append(job.label)
        submit(self, job)

    monkeypatch.setattr(inline.InlinePool, "submit", spy)
    search(tmp_path, max_evaluations=20, seeds_per_task=2)
    assert labels[:3] == [
        "initial rule adamw: digits_mlp x2 seeds",
        "initial rule adamw: digits_conv x2 seeds",
        "candidate 0, meta-validation: quadratic x2 seeds",
    ]
    text = "\n".join(labels)
    candidates = rows(tmp_path, "SELECT candidate FROM proposal WHERE source = 'evaluated'")
    for row in candidates:
        assert f"candidate {row['candidate']}: digits_mlp, digits_conv x2 seeds\n" in text
    for row in rows(tmp_path, "SELECT number, challenger, incumbent FROM challenge WHERE id > 0"):
        for one in (row["challenger"], row["incumbent"]):
            assert (
                f"challenge {row['number']}, candidate {one}, fresh seeds: digits_mlp, digi" in text
            )
    assert "select, adamw at learning rate 0.0002: digits_mlp, digits_conv\n" in text
    assert re.search(r"\nfinal, lion at learning rate 0\.000\d: digits_mlp, digits_conv x3 s", text)
    assert re.search(r"\nmeta-final, #\d+ at learning rate \S+: quadratic x2 seeds", text)
    assert "" not in labels


def test_config_and_best_are_written_for_people(whole):
    directory, result = whole
    from veldt import config as config_lib
    from veldt.search.config.search_config import SearchConfig

    assert config_lib.load_config(SearchConfig, directory / "config.yaml") == fakes.small_config(
        pool=ONE
    )
    assert (
        json.loads((directory / "best.json").read_text())["learning_rate"]
        == result.best.learning_rate
    )
    assert Program.parse((directory / "best.py").read_text()).simplify().statements
