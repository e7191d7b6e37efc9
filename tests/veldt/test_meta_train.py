"""`veldt meta-train`: what it prints, its exit codes, and `kill -9`.

The toy meta-training of `tests.meta.toys` stands in for a learned optimizer; everything else is
what users run.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

import veldt
from tests.meta import toys
from veldt import cli
from veldt.learned_opt import registry
from veldt.meta import checkpoint
from veldt.meta.train import log, meta_training, run_meta_training
from veldt.tasks.common.config import codec
from veldt.tasks.families import distribution

ROOT = Path(__file__).parents[2]
NUM_UPDATES = 24
SETTINGS = toys.settings(
    toys.phase(num_updates=NUM_UPDATES),
    meta_validation=(toys.CHECK,),
    validate_every=5,
    staleness=1,
    checkpoint_every_s=1e-6,
)


@pytest.fixture(autouse=True)
def toy(monkeypatch, tmp_path):
    """The toy, in an empty folder."""
    monkeypatch.setitem(registry.ARCHITECTURES, "rate", toys.Rate())
    monkeypatch.setattr(distribution, "draw", lambda tasks, seed: toys.FAMILIES)
    monkeypatch.chdir(tmp_path)


def write_config(settings, **changes):
    text = yaml.safe_dump({**codec.to_plain(settings), **changes}, sort_keys=False)
    Path("toy.yaml").write_text(text)


def command(capsys, *words):
    code = cli.main(["meta-train", "toy.yaml", *words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_it_trains_and_says_how_to_use_what_it_made(capsys):
    write_config(toys.settings(meta_validation=(toys.CHECK,)))
    code, out, err = command(capsys)
    assert code == 0, err
    assert "rate, 2 meta-parameters, on 2 task families; 4 updates" in err
    assert "meta-validation after 0:" in err and "update 4 of 4" in err
    assert "4 updates, " in out and "best on meta-validation: " in out
    assert 'tx = veldt.learned_optimizer("runs/toy", num_steps=1000)' in out
    tx = veldt.learned_optimizer("runs/toy", num_steps=1000)
    state = tx.init(np.float32(1.0))
    updates, _ = tx.update(np.float32(1.0), state, np.float32(1.0), value=0.5)
    assert updates < 0
    assert cli.main(["report", "runs/toy"]) == 0
    assert "4 of 4" in Path("runs/toy/report.html").read_text()


def test_its_own_config_goes_on_with_it(capsys):
    write_config(toys.settings())
    assert command(capsys)[0] == 0
    code, _, err = command(capsys)
    assert code == 1 and err.startswith(
        "error: runs/toy already holds a run: continue it with --re"
    )
    words = ["meta-train", "runs/toy/config.yaml", "--run-dir", "runs/toy", "--resume"]
    assert cli.main(words) == 0
    assert "going on after update 4" in capsys.readouterr().err
    code, _, err = command(capsys, "--resume", "--seed", "1")
    assert code == 1 and "holds a run with seed = 0, not 1" in err


@pytest.mark.parametrize(
    ("changes", "words", "code", "message"),
    [
        (
            {"architecture": "celo3"},
            [],
            2,
            "unknown learned optimizer 'celo3' (did you mean 'celo'?)",
        ),
        ({"fields": {"scal": 1.0}}, [], 2, "unknown field of rate 'scal' (did you mean 'scale'?)"),
        ({"meta_validation": [{"task": "digit_mlp", "num_steps": 3}]}, [], 2, "'digit_mlp'"),
        ({"tasks": {"kinds": {"perceptrn": 1.0}}}, [], 2, "perceptrn"),
        ({}, ["--seed", "one"], 2, "--seed: expected an integer"),
        ({}, ["--sed", "1"], 2, "--sed: unknown option. Did you mean 'seed'?"),
        ({"phases": []}, [], 2, "phases is empty; a meta-training needs at least one"),
        (
            {"phases": [{"name": "a", "num_updates": 1, "train": ["rat"]}]},
            [],
            2,
            "there is no part 'rat' to train (did you mean 'rate'?); there are: momentum, rate",
        ),
        (
            {"phases": [{"name": "a", "num_updates": 1, "lengths": [5, 9]}]},
            [],
            2,
            "the window is 50 steps; it may not be longer than the shortest run, 5",
        ),
        (
            {"phases": [{"name": "a", "num_updates": 1, "estimator": {"kind": "psa"}}]},
            [],
            2,
            "psa",
        ),
        ({"phases": [{"name": "a"}]}, [], 2, "num_updates"),
        ({"start": "nowhere"}, [], 2, "there are no weights 'nowhere'"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_no_run(capsys, changes, words, code, message):
    write_config(toys.settings(), **changes)
    found, out, err = command(capsys, *words)
    assert (found, out) == (code, "")
    assert message in err and err.startswith("error: ") and "Traceback" not in err
    assert not Path("runs").exists()


def test_ctrl_c_says_how_to_go_on(capsys, monkeypatch):
    write_config(toys.settings())
    validate = meta_training.MetaTraining._validate

    def interrupted(self, phase):
        if self.progress.update == 2:
            raise KeyboardInterrupt
        return validate(self, phase)

    with monkeypatch.context() as patch:
        patch.setattr(meta_training.MetaTraining, "_validate", interrupted)
        code, out, err = command(capsys, "--run-dir", "here now", "--staleness", "1")
    assert (code, out) == (130, "")
    again = "veldt meta-train toy.yaml --run-dir 'here now' --staleness 1 --resume"
    assert err.endswith(f"the progress so far is stored. To go on: {again}\n")
    code, _, err = command(capsys, "--run-dir", "here now", "--staleness", "1", "--resume")
    assert code == 0 and "going on after update 2" in err


def test_another_folder_has_no_report(capsys):
    assert cli.main(["report", "."]) == 1
    assert capsys.readouterr().err.startswith("error: ")


SCRIPT = """
import sys
from tests.meta import toys
from veldt import cli
from veldt.learned_opt import registry
from veldt.tasks.families import distribution

registry.ARCHITECTURES["rate"] = toys.Rate()
distribution.draw = lambda tasks, seed: toys.FAMILIES
sys.exit(cli.main(sys.argv[1:]))
"""


def start(directory):
    """The command in a process of its own; what it compiles is kept for the next."""
    folder = Path.cwd()
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    words = ["meta-train", str(folder / "toy.yaml"), "--run-dir", str(directory), "--resume"]
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *words],
        cwd=ROOT, env={**os.environ, **cache},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def kept(directory):
    """The last update that a checkpoint is there of."""
    folder = directory / checkpoint.FOLDER
    return max((int(p.name) for p in folder.glob("*") if p.name.isdigit()), default=0)


@pytest.mark.slow
def test_killed_twice_it_ends_with_the_same_bits(tmp_path):
    """Against the same run in this process, which nobody kills."""
    write_config(SETTINGS)
    moments = random.Random()
    directory = tmp_path / "killed"
    for low in (0, 9):
        process = start(directory)
        moment = moments.randint(low + 1, low + 9)
        while kept(directory) < moment and process.poll() is None:
            time.sleep(0.002)
        time.sleep(moments.uniform(0.0, 0.03))
        process.send_signal(signal.SIGKILL)
        _, err = process.communicate()
        assert process.returncode == -signal.SIGKILL, err
        assert moment <= kept(directory) < NUM_UPDATES
    process = start(directory)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "going on after update" in err
    undisturbed = tmp_path / "whole"
    run_meta_training.run_meta_training(SETTINGS, undisturbed)
    for name in ("weights.npz", "last.npz"):
        with np.load(directory / name) as ours, np.load(undisturbed / name) as theirs:
            arrays = [key for key in ours.files if not key.endswith(".json")]
            assert len(arrays) == 2 and set(ours.files) == set(theirs.files)
            for key in arrays:
                assert ours[key].tobytes() == theirs[key].tobytes(), (name, key)
    times = ("worker_s", "wall_s")
    logs = [
        [{k: v for k, v in line.items() if k not in times} for line in log.read(each)]
        for each in (directory, undisturbed)
    ]
    assert logs[0] == logs[1]
    updates = [line["update"] for line in logs[0] if line["kind"] == "update"]
    assert updates == list(range(1, NUM_UPDATES + 1))
