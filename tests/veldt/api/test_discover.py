"""`veldt.discover`: the search of the command, from Python; and its result."""

import dataclasses
import gc
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import veldt
from tests.meta import toys
from tests.search import fakes, rerun
from veldt import cli
from veldt.search.errors import StoreError
from veldt.search.run import run_search
from veldt.search.run.search_view import SearchView
from veldt.search.storage.store import Store
from veldt.tasks.common.errors import ConfigError, FileError, TaskError, VeldtError
from veldt.tasks.pool.config import PoolConfig

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = X @ np.ones((3, 1))
SMALL = {
    "num_steps": 10,
    "max_evaluations": 20,
    "population_size": 10,
    "fresh_seeds": 2,
    "window": 4,
    "meta_validation": [],
    "samples": 1,
    "finals": {"final_seeds": 3, "baselines": ["adamw"], "tuning": {"budget": 0}},
    "pool": {"num_workers": 1},
    "progress": False,
}


def linear(scale=1.0):
    def init(key):
        return {"w": 0.1 * jax.random.normal(key, (3, 1))}

    return veldt.task((init, lambda params, x: x @ params["w"]), "mse", (X, scale * Y), name="line")


@pytest.fixture
def fake(monkeypatch):
    """Candidates are scored by a formula, and nothing is trained."""
    monkeypatch.setattr(run_search, "EvaluatorFactory", lambda config, tasks: fakes.FakeWorker)


@pytest.mark.slow
def test_a_task_object_is_searched_on_and_its_rule_trains_it(tmp_path, capsys):
    """Beside a named task and one from a class, with all that a result offers."""
    found = veldt.discover(
        [linear(), (toys.Bowl(), 5), {"task": "quadratic", "num_chunks": 1}],
        run_dir=tmp_path / "run",
        seed=1,
        **SMALL,
    )
    assert [(p.task, p.num_steps) for p in found.config.tasks] == [
        ("object:line", 10),
        ("object:bowl", 5),
        ("quadratic", 10),
    ]
    assert found.config.objective == "train_loss"  # The quickstart's, which is the default.
    assert found.finished and found.best.is_best
    assert found.best.name in [rule.name for rule in found.hall_of_fame]
    assert [rule.name for rule in found.baselines] == ["adamw"]
    assert found.best.program.statements == veldt.load_rule(tmp_path / "run").statements
    curve = veldt.train(linear(), found.best.as_optax(), num_steps=30)
    assert curve.train_losses[-1] < curve.train_losses[0]
    ours, params = found.best.as_optax(1e-2), {"w": jnp.ones((3, 1))}
    theirs = found.best.program.as_optax(1e-2)
    for tx in (ours, theirs):
        assert isinstance(tx, optax.GradientTransformation)
    jax.tree.map(
        np.testing.assert_array_equal,
        *(tx.update(params, tx.init(params), params)[0] for tx in (ours, theirs)),
    )
    again = veldt.load_run(str(tmp_path / "run"))
    assert dataclasses.replace(again, run_dir=found.run_dir) == found
    assert capsys.readouterr().err == ""


def test_it_is_the_search_that_the_command_makes(fake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    veldt.discover(
        ["digits_mlp", ("quadratic", 20)],
        config="small_search",
        run_dir="python",
        max_evaluations=30,
        seed=5,
        num_steps=10,
        pool={"num_workers": 1},
        progress=False,
        **{"finals.final_seeds": 3, "finals.tuning": {"budget": 0}},
    )
    words = ["--max-evaluations", "30", "--seed", "5", "--pool.num-workers", "1"]
    words += ["--finals.final-seeds", "3", "--finals.tuning.budget", "0"]
    tasks = "[{task: digits_mlp, num_steps: 10}, {task: quadratic, num_steps: 20}]"
    words += ["--tasks", tasks, "--meta-validation", "[]", "--run-dir", "command"]
    assert cli.main(["search", "small_search", *words]) == 0
    with (
        Store.open(tmp_path / "python", read_only=True) as ours,
        Store.open(tmp_path / "command", read_only=True) as theirs,
    ):
        assert rerun.differences(ours, theirs) == []
    assert (tmp_path / "python/config.yaml").read_text() == (
        tmp_path / "command/config.yaml"
    ).read_text()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_evaluation": 3}, r"discover\(\): unknown keyword .*Did you mean 'max_evaluations'"),
        ({"rundir": "x"}, "Did you mean 'run_dir'"),
        ({"pool": {"num_worker": 1}}, r"'pool\.num_worker'.*Did you mean 'num_workers'"),
        ({"pool.num_worker": 1}, "Did you mean 'num_workers'"),
        ({"seed": "one"}, r"discover\(\): seed: expected an integer, not the string 'one'"),
        ({"seed": 1.5}, "seed: expected an integer, not 1.5"),
        ({"parents": "best"}, "parents: expected one of tournament, initial"),
        ({"population_size": 0}, "population_size"),
        ({"objective": jnp.mean}, 'the function mean: name it "module:function"'),
        ({"initial_rule": veldt.Program.parse("def r(w, g):\n    return g\n")}, "a Program: write"),
        ({"seed": {1, 2}}, "plain values.*this is a set"),
        ({"tasks": [("digits_mlp", 12)]}, r"num_steps \(12\) must be a positive multiple"),
        ({"tasks": []}, "tasks is empty"),
        ({"tasks": ["digits_mlp"] * 2}, "digits_mlp is named twice"),
        ({"config": "quickstrat"}, "Did you mean 'quickstart'"),
    ],
)
def test_bad_keywords_are_said_and_leave_nothing(fields, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        veldt.discover(run_dir=tmp_path / "run", **fields)
    assert not (tmp_path / "run").exists()


def test_an_unknown_task_leaves_nothing(tmp_path):
    for task, said in (("digit_mlp", "did you mean 'digits_mlp'"), (toys.Bowl, "give an instance")):
        with pytest.raises(TaskError, match=said):
            veldt.discover(task, run_dir=tmp_path / "run", progress=False)
        assert not (tmp_path / "run").exists()


def test_a_config_is_a_name_a_value_or_the_runs_own(fake, tmp_path):
    config = fakes.small_config(max_evaluations=10, pool=PoolConfig(num_workers=1))
    found = veldt.discover(config=config, run_dir=tmp_path, progress=False, seed=np.int64(3))
    assert found.config == dataclasses.replace(config, seed=3, pool=found.config.pool)
    with pytest.raises(StoreError, match=r"already holds a run.*resume=True in Python"):
        veldt.discover(run_dir=tmp_path, progress=False)
    more = veldt.discover(run_dir=tmp_path, resume=True, max_evaluations=15, progress=False)
    assert more.config == dataclasses.replace(found.config, max_evaluations=15)
    with pytest.raises(FileError, match="seed = 3, not 4"):
        veldt.discover(run_dir=tmp_path, resume=True, seed=4, progress=False)


def test_another_object_does_not_go_on_with_a_run(fake, tmp_path, monkeypatch, capsys):
    def search(task, **changes):
        options = {**SMALL, **changes}
        return veldt.discover(task, run_dir=tmp_path, **options)

    first = search(linear())
    with pytest.raises(FileError, match="another task 'line'"):
        search(linear(2.0), resume=True, max_evaluations=25)
    again = search(linear(), resume=True, max_evaluations=25)
    assert again.config.max_evaluations == 25 and first.config.max_evaluations == 20
    words = ["search", str(tmp_path / "config.yaml"), "--run-dir", str(tmp_path), "--resume"]
    monkeypatch.undo()  # From here on tasks are loaded.
    assert cli.main(words) == 1
    assert "'line' was given to Python as an object" in capsys.readouterr().err


class Interrupt:
    """Presses Ctrl-C when a search has told so many results."""

    def __init__(self, after, monkeypatch):
        update = SearchView.update
        told = []

        def interrupting(view, evolution):
            update(view, evolution)
            told.append(evolution)
            if len(told) == after:
                raise KeyboardInterrupt

        monkeypatch.setattr(SearchView, "update", interrupting)


def test_an_interrupted_search_can_be_read_and_goes_on_to_the_same_end(
    fake, tmp_path, monkeypatch, capsys
):
    def search(name, **changes):
        return veldt.discover(linear(), run_dir=tmp_path / name, **{**SMALL, **changes})

    whole = search("whole")
    with monkeypatch.context() as patch:
        Interrupt(12, patch)
        with pytest.raises(KeyboardInterrupt):
            search("cut", progress=True)
    said = capsys.readouterr().err
    assert "interrupted; what was reported is stored" in said and "resume=True) goes on" in said
    so_far = veldt.load_run(tmp_path / "cut")
    assert not so_far.finished and so_far.best.learning_rate > 0
    assert "not finished" in repr(so_far) and so_far.to_records()[0]["rule"] == "best so far"
    resumed = veldt.discover(linear(), run_dir=tmp_path / "cut", resume=True, **SMALL)
    assert resumed.to_records() == whole.to_records()
    with (
        Store.open(tmp_path / "whole", read_only=True) as ours,
        Store.open(tmp_path / "cut", read_only=True) as theirs,
    ):
        assert rerun.differences(ours, theirs) == []


def test_without_a_directory_a_run_lives_as_long_as_its_result(fake, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def left():
        gc.collect()
        return sorted(path.name[:6] for path in tmp_path.glob("veldt_*"))

    found = veldt.discover("quadratic", **SMALL)
    assert left() == ["veldt_"] and found.run_dir.parent == tmp_path
    best = found.best
    del found
    assert left() == [] and best.as_optax() is not None
    with pytest.raises(VeldtError):
        veldt.discover("quadratic", **{**SMALL, "initial_rule": "adamm"})
    assert left() == []
    Interrupt(12, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        veldt.discover("quadratic", **{**SMALL, "progress": True})
    (kept,) = tmp_path.glob("veldt_*")  # Its results are not lost.
    assert f"load_run({str(kept)!r})" in capsys.readouterr().err
    assert not veldt.load_run(kept).finished


def test_tasks_given_leave_the_meta_validation_of_the_config_out(fake, capsys):
    options = {**SMALL, "progress": True}
    del options["meta_validation"]
    found = veldt.discover("quadratic", **options)
    assert found.config.meta_validation == ()
    found = veldt.discover("quadratic", **{**options, "meta_validation": ["digits_conv"]})
    assert [each.task for each in found.config.meta_validation] == ["digits_conv"]
    assert "note: tasks" not in capsys.readouterr().err


# ---------------------------------------------------------------------------------- the result


@pytest.fixture
def found(fake, tmp_path):
    return veldt.discover("quadratic", run_dir=tmp_path / "run", **SMALL)


def test_a_result_reads_well(found):
    lines = repr(found).splitlines()
    assert lines[0] == f"Search from adamw, seed 0 ({found.run_dir})"
    assert sum(line.startswith(">>> ") for line in lines) == 1
    assert found.best.text in repr(found) and found.conclusion in repr(found)
    html = found._repr_html_()
    assert html.count("<tr>") == 1 + len(found.hall_of_fame) + len(found.baselines)
    assert f"<b>{found.best.name} (best)</b>" in html
    assert found.best._repr_html_().startswith("<div><b>")
    assert repr(found.best).splitlines()[1] == found.best.text.splitlines()[0]


def test_the_table_has_all_rules(found, monkeypatch):
    records = found.to_records()
    assert [row["rule"] for row in records] == [
        rule.name for rule in (*found.hall_of_fame, *found.baselines)
    ]
    assert [row["best"] for row in records].count(True) == 1
    for row in records:
        assert veldt.Program.parse(row["program"]).name

    made = []
    pandas = types.ModuleType("pandas")
    pandas.DataFrame = types.SimpleNamespace(from_records=lambda rows: made.append(rows) or rows)
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    assert found.to_pandas() == records == made[0]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(VeldtError, match=r"pip install pandas.*to_records\(\)"):
        found.to_pandas()


def test_plots_and_the_report_are_pages(found, tmp_path):
    page = found.report()
    assert page.path == found.run_dir / "report.html" and page.path.read_text() == page.html
    assert found.report(tmp_path / "there.html").path == tmp_path / "there.html"
    plots = found.plot()
    assert plots.html.count("<svg") >= 1 and "<h2>Progress</h2>" in plots.html
    assert len(plots.html) < len(page.html)


def test_rules_are_exported(found, tmp_path):
    path = found.export(tmp_path / "new" / "rule.py")
    assert veldt.load_rule(path).statements == found.best.program.statements
    tex = found.best.export(tmp_path / "rule.tex", to="latex").read_text()
    assert found.best.program.latex() in tex
    with pytest.raises(VeldtError, match=r"cannot export to 'optac'. Did you mean 'optax'"):
        found.export(tmp_path / "rule.py", to="optac")


def test_a_rule_that_nothing_could_train_asks_for_a_rate(found):
    lost = dataclasses.replace(found.best, learning_rate=None, proxies=None)
    with pytest.raises(VeldtError, match="at no learning rate of the finals; give one"):
        lost.as_optax()
    assert lost.as_optax(0.1) is not None


@pytest.mark.ray
@pytest.mark.slow
def test_ray_gets_task_objects(tmp_path):
    """Of a class that a worker cannot import, as a notebook's."""

    def search(name, **pool):
        options = {**SMALL, "pool": {"num_workers": 2, **pool}}
        return veldt.discover(linear(), run_dir=tmp_path / name, **options)

    assert search("inline").to_records() == search("ray", backend="ray").to_records()
