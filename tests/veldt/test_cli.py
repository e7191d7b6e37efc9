"""The command line: dispatch, exit codes, and what people read when they mistype.

The search, its export and its report have tests of their own; fakes stand in for them here.
"""

import dataclasses
import importlib
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from types import SimpleNamespace

import pytest

import veldt
from veldt import catalogue, cli
from veldt.search import errors as search_errors
from veldt.search.config.finals_config import FinalsConfig
from veldt.search.config.llm_config import LlmConfig
from veldt.tasks.common import compiling, stopping
from veldt.tasks.common import errors as task_errors
from veldt.tasks.pool import base
from veldt.tasks.pool import config as pool_config


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """A search.

    Attributes:
        seed: Of everything.
        pool: Where.
        objective: What counts.
        finals: How it ends.
        llm: Who else proposes.
    """

    seed: int = 0
    pool: pool_config.PoolConfig = dataclasses.field(default_factory=pool_config.PoolConfig)
    objective: str = "held_out_loss"
    finals: FinalsConfig = dataclasses.field(default_factory=FinalsConfig)
    llm: LlmConfig | None = None

    @property
    def workers(self):
        return self.pool


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    description: str


@pytest.fixture
def fake(monkeypatch):
    """Put a module with the given names in the place of one of the package `search`."""

    def fake(name, **contents):
        module = types.ModuleType(f"veldt.search.{name}")
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        folder, _, last = module.__name__.rpartition(".")
        monkeypatch.setattr(importlib.import_module(folder), last, module, raising=False)

    return fake


@pytest.fixture
def searches(fake, tmp_path, monkeypatch):
    """Records what `veldt search` is asked to run, in an empty folder with one config."""
    calls = []
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text("seed: 1\n")
    fake("config.search_config", SearchConfig=SearchConfig)

    def run_search(config, run_dir, *, resume, view):
        view.phase("searching")
        calls.append((config, run_dir, resume))
        return SimpleNamespace(entries=())

    fake("run.run_search", run_search=run_search)
    return calls


def run(capsys, *words):
    code = cli.main(words)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_search_gets_its_config_from_file_and_overrides(searches, capsys):
    code, out, err = run(capsys, "search", "my.yaml")
    assert (code, err) == (0, "searching\n")
    assert "Hall of fame" in out and "runs/my" in out
    words = ["--seed", "7", "--run-dir=there", "my.yaml", "--resume", "--pool.num-workers", "2"]
    assert run(capsys, "search", *words)[0] == 0
    assert searches == [
        (SearchConfig(seed=1), Path("runs/my"), False),
        (SearchConfig(7, pool_config.PoolConfig(num_workers=2)), Path("there"), True),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["serch", "x"], "there is no command 'serch'. Did you mean 'search'? Commands: search,"),
        (["--serch"], "unrecognized arguments: --serch"),
        (["search"], "the following arguments are required: CONFIG\nusage: veldt search"),
        (["search", "yours"], "there is no config named 'yours'"),
        (["search", "my.yaml", "more"], "unrecognized arguments: more"),
        (["search", "my.yaml", "--seeed", "1"], "--seeed: unknown option. Did you mean 'seed'?"),
        (["search", "my.yaml", "--resum"], "unknown option --resum. Did you mean '--resume'?"),
        (["search", "my.yaml", "--run_dir", "x"], "unknown option --run_dir. Did you mean '--run-"),
        (["search", "my.yaml", "--run-dir"], "argument --run-dir: expected one argument"),
        (["search", "my.yaml", "--seed"], "--seed needs a value"),
        (["search", "my.yaml", "--seed", "one"], "--seed: expected an integer, not the string"),
        (
            ["search", "my.yaml", "--pool.num-workers", "0"],
            "--pool.num-workers: pool: num_workers is 0; it must be at least 1",
        ),
        (["export", "lion"], "the following arguments are required: -o/--output"),
        (
            ["export", "lion", "--to", "optx", "-o", "f"],
            "cannot export to 'optx'. Did you mean 'op",
        ),
        (["list", "ruls"], "cannot list 'ruls'. Did you mean 'rules'? Lists: rules, tasks"),
        (["list"], "the following arguments are required: WHAT"),
        (["report"], "the following arguments are required: RUN_DIR"),
    ],
)
def test_usage_errors_are_named_and_exit_2(searches, fake, capsys, words, message):
    fake("export.optax_module", export_optax=None)
    code, out, err = run(capsys, *words)
    assert err.startswith(f"error: {message}")
    assert (code, out, searches) == (2, "", [])


@pytest.mark.parametrize(
    "error",
    [
        search_errors.StoreError("the store is damaged"),
        task_errors.MissingDataError("Fashion-MNIST was not found"),
        base.PoolError("no worker can be made"),
        PermissionError("may not write there"),
    ],
)
def test_failures_are_one_line_and_exit_1(searches, fake, capsys, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    fake("run.run_search", run_search=fail)
    assert run(capsys, "search", "my.yaml") == (1, "", f"error: {error}\n")
    monkeypatch.setenv("VELDT_DEBUG", "1")
    with pytest.raises(type(error)):
        cli.main(["search", "my.yaml"])


def test_a_defect_keeps_its_traceback(searches, fake):
    # No frame of a user's file: what fails is the call in `veldt.cli`.
    fake("run.run_search", run_search=divmod)
    with pytest.raises(TypeError):
        cli.main(["search", "my.yaml"])


def test_ctrl_c_exits_130(searches, fake, capsys):
    def interrupt(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)

    fake("run.run_search", run_search=interrupt)
    code, out, err = run(capsys, "search", "my.yaml", "--seed", "3", "--run-dir", "my runs/1")
    assert (code, out) == (130, "")
    resume = "veldt search my.yaml --run-dir 'my runs/1' --seed 3 --resume"
    assert err == (
        "stopping by Ctrl-C after what is under way; again to stop at once\n"
        f"stopped by Ctrl-C; all reported results are stored. To go on: {resume}\n"
    )


def test_export_writes_what_the_exporter_returns(fake, capsys, tmp_path, monkeypatch):
    fake("export.optax_module", export_optax=lambda program: f"# {program}\n")
    monkeypatch.setattr(veldt, "load_rule", lambda source: f"program of {source}", raising=False)
    target = tmp_path / "lion.py"
    assert run(capsys, "export", "lion", "--to", "optax", "-o", str(target))[0] == 0
    assert target.read_text() == "# program of lion\n"
    (tmp_path / "file").write_text("")
    code, _, err = run(capsys, "export", "lion", "-o", str(tmp_path / "file" / "rule.py"))
    assert code == 1
    assert "file" in err


def test_report_says_what_it_wrote(fake, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs/my").mkdir(parents=True)
    fake("report.search_report", write_report=lambda run_dir: run_dir / "report.html")
    assert run(capsys, "report", "runs/my") == (0, "wrote runs/my/report.html\n", "")


def test_list_prints_a_table(monkeypatch, capsys):
    rows = (Row("adamw", "Adam with decay."), Row("sgd", ""))
    monkeypatch.setattr(catalogue, "LISTS", {"rules": lambda: rows})
    assert run(capsys, "list", "rules") == (0, "adamw  Adam with decay.\nsgd\n", "")


@pytest.mark.parametrize("what", sorted(catalogue.LISTS))
def test_every_list_has_names(capsys, what):
    code, out, err = run(capsys, "list", what)
    assert (code, err) == (0, "")
    assert out.strip()


def test_list_grammar_prints_that_of_a_config(tmp_path, capsys):
    code, out, err = run(capsys, "list", "grammar")
    assert (code, err) == (0, "")
    assert out.startswith("root ::= block")
    assert "def rule(w, g, m, v, *" in out and "polar(" not in out
    own = tmp_path / "own.yaml"
    text = "tasks: [{task: digits_mlp, num_steps: 10}]\nmeta_validation: []\ninitial_rule: lion\n"
    own.write_text(f"{text}mutation: {{ops: [whitening]}}\n")
    code, other, err = run(capsys, "list", "grammar", str(own))
    assert (code, err) == (0, "")
    assert "def rule(w, g, m, v, *" in other and "polar(" in other and "sign(" in other
    assert run(capsys, "list", "rules", str(own))[0] == 2
    code, _, err = run(capsys, "list", "grammar", "quickstrat")
    assert code == 2 and "'quickstart'" in err


def test_help_and_version(searches, capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(command.summary in out for command in cli.COMMANDS.values())
    assert run(capsys) == (0, out, "")
    assert run(capsys, "--version") == (0, f"veldt {veldt.__version__}\n", "")
    code, out, _ = run(capsys, "search", "--help")
    assert code == 0
    assert "--resume" in out
    assert "  --seed (an integer; 0)\n      Seed of all random draws;" in out
    assert "  --pool.num-workers (an integer or null; null)" in out


def test_as_a_process():
    """The door itself: `python -m veldt`, and a pipe that closes early."""
    veldt_command = [sys.executable, "-m", "veldt"]
    done = subprocess.run([*veldt_command, "serch"], text=True, capture_output=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no command 'serch'. Did you mean 'search'?")
    assert "Traceback" not in done.stderr
    code = (
        "import sys; from veldt import catalogue, cli; "
        "catalogue.LISTS['rules'] = lambda: [catalogue.Row('x' * 999, '')] * 999; "
        "sys.exit(cli.main(['list', 'rules']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert process.wait(timeout=120) == 1
    assert process.stderr.read() == ""
    process.stderr.close()


def engines(monkeypatch, run_it):
    """Puts `run_it` in the place of what each of the four long commands runs; gives their words."""
    from veldt.meta.train import run_meta_training as meta_run
    from veldt.meta.tune import run_tuning as tune_run
    from veldt.search.run import run_search as search_run
    from veldt.tasks.benchmark import evaluate as evaluate_lib

    monkeypatch.setattr(search_run, "run_search", run_it)
    monkeypatch.setattr(meta_run, "run_meta_training", run_it)
    monkeypatch.setattr(tune_run, "run_tuning", run_it)
    monkeypatch.setattr(evaluate_lib, "evaluate", run_it)
    return {
        "search": ["quickstart", "--seed", "3", "--run-dir", "my runs/1"],
        "meta-train": ["celo2", "--seed", "3", "--run-dir", "my runs/1"],
        "tune": ["tune_digits", "--seed", "3", "--run-dir", "my runs/1"],
        "evaluate": ["sgd", "--suite", "smoke", "--seed", "3", "--out", "my runs/1"],
    }


LONG_COMMANDS = [name for name, command in cli.COMMANDS.items() if command.config_class]


@pytest.mark.parametrize("where", ["engine", "save"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", LONG_COMMANDS)
def test_each_long_command_stops_in_one_line_that_says_how_to_go_on(
    name, signum, where, capsys, monkeypatch
):
    def run_it(*args, **kwargs):
        for _ in range(2):
            os.kill(os.getpid(), signum)
            time.sleep(0)

    def save(*args, **kwargs):
        with stopping.hold(firmly=True):
            run_it()
            stored.append(True)

    stored = []
    words = engines(monkeypatch, run_it if where == "engine" else save)[name]
    monkeypatch.setattr(compiling, "keep_compiled", lambda: None)
    code, out, err = run(capsys, name, *words)
    assert (code, out) == ({signal.SIGINT: 130, signal.SIGTERM: 143}[signum], "")
    assert bool(stored) == (where == "save")
    (last,) = [line for line in err.splitlines() if line.startswith("stopped by ")]
    assert err.endswith(last + "\n") and "Traceback" not in err
    command = last.partition("To go on: ")[2]
    assert command.startswith(f"veldt {name} ") and "'my runs/1'" in command
    assert "--seed 3" in command and ("--resume" in command) == (name != "evaluate")


@pytest.mark.parametrize("name", [name for name in LONG_COMMANDS if name != "tune"])
def test_a_driver_of_workers_elsewhere_takes_the_cpu_before_anything_else(name, monkeypatch):
    seen = []

    def leave(settings):
        seen.append(name)
        raise KeyboardInterrupt

    words = engines(monkeypatch, lambda *args, **kwargs: seen.append("too late"))[name]
    for module in ("load_suite", "load_candidate"):
        monkeypatch.setattr(f"veldt.evaluation.{module}", lambda source: seen.append("too late"))
    monkeypatch.setattr(cli, "_leave_accelerators_to_workers", leave)
    assert cli.main([name, *words]) == 130
    assert seen == [name]


@pytest.mark.parametrize("deed", ["raise ValueError('mine')", "sys.exit(0)", "sys.exit(3)"])
@pytest.mark.parametrize("name", LONG_COMMANDS)
def test_what_a_users_file_raises_in_a_run_is_one_line_that_names_it(
    name, deed, capsys, monkeypatch, tmp_path
):
    source = tmp_path / "theirs.py"
    source.write_text(f"import sys\ndef late(*args, **kwargs):\n    {deed}\n")
    scope = {}
    exec(compile(source.read_text(), str(source), "exec"), scope)  # noqa: S102 (the test's own)
    words = engines(monkeypatch, lambda *args, **kwargs: scope["late"]())[name]
    monkeypatch.setattr(compiling, "keep_compiled", lambda: None)
    code, out, err = run(capsys, name, *words)
    assert (code, out) == (1, "")
    assert err.startswith("error: your code raised ") and err.count("\n") == 1
    assert f"({source}, line 3, in late)" in err
