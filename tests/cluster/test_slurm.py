"""`examples/cluster/slurm.sh` with a Slurm that is made up: its commands run things here."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from veldt import cli, words
from veldt import config as config_lib
from veldt.search.config.search_config import SearchConfig
from veldt.search.storage import integrity
from veldt.search.storage.store import Store
from veldt.tasks.pool import config as pool_config

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "cluster" / "slurm.sh"
FAKES = {
    # Options are all of the form --name=value: what follows them is the command.
    "srun": """
        echo "srun $*" >> calls
        while [[ $1 == --* ]]; do shift; done
        exec "$@"
    """,
    "scontrol": """
        echo "scontrol $*" >> calls
        case "$1 $2" in
          "show hostnames") printf '%s\\n' node1 node2 node3;;
          "show job") cat state;;
        esac
    """,
    # The head listens, as Ray's does; a worker is there until it is told to end.
    "ray": f"""
        echo $$ >> pids
        [[ $RAY_AUTH_MODE == token && ${{#RAY_AUTH_TOKEN}} == 64 ]] || exit 9
        [[ -e no_head ]] && exit 1
        [[ "$*" == *--head* ]] && exec {sys.executable} -c '
        import socket, sys, time
        port = next(word for word in sys.argv if word.startswith("--port="))
        with socket.create_server(("127.0.0.1", int(port.partition("=")[2]))):
            time.sleep(60)
        ' "$@"
        exec sleep 60
    """,
    "veldt": """
        trap 'echo stopped >> calls; exit 143' TERM
        touch running
        case $(cat does) in
          ends)
            until (($(wc -l < pids) == 2)); do sleep 0.05; done
            exit 0;;
          fails) exit 1;;
        esac
        while :; do sleep 0.05; done
    """,
}
RUNNING = "JobState=RUNNING Reason=None PreemptEligibleTime=2026-01-01T00:00:00 PreemptTime=None\n"
PREEMPTED = RUNNING.replace("PreemptTime=None", "PreemptTime=2026-01-01T00:10:00")
CANCELLED = RUNNING.replace("RUNNING", "CANCELLED")


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts the script as Slurm would, with some of its commands made up, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    Path("bin").mkdir()
    started = []

    def start(*arguments, fakes=tuple(FAKES), does="waits", state=RUNNING):
        for name in fakes:
            path = Path("bin", name)
            path.write_text("#!/bin/bash\n" + textwrap.dedent(FAKES[name]))
            path.chmod(0o755)
        Path("does").write_text(does)
        Path("state").write_text(state)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        own = {
            "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NODELIST": "node[1-3]",
            "SLURM_CPUS_PER_TASK": "4",
            "HEAD_IP": "127.0.0.1",
            "HEAD_PORT": str(port),
        }
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        process = subprocess.Popen(
            ["bash", SCRIPT, *arguments],
            env={**env, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process, port

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def wait_for(path, process, seconds=60):
    end = time.monotonic() + seconds
    while not Path(path).exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)


def calls(name):
    return [line for line in Path("calls").read_text().splitlines() if line.startswith(name)]


def all_gone():
    """Whether no process of the made-up Ray is left."""
    return not any(Path("/proc", pid).exists() for pid in Path("pids").read_text().split())


def test_head_workers_and_search_are_steps_with_options_that_veldt_has(start):
    process, port = start("small_search", "--window", "512", does="ends")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    folder, head, *others = calls("srun")
    workers, search = sorted(others, key=lambda call: "veldt search" in call)
    assert "mkdir -p -m 700" in folder and "--nodes=3 --ntasks=3" in folder
    assert "--nodelist=node1 ray start --head --block" in head
    assert head.endswith(f"--port={port} --include-dashboard=false --num-cpus=2")
    assert "--nodes=2 --ntasks=2 --exclude=node1 ray start --block" in workers
    assert workers.endswith(f"--address=127.0.0.1:{port} --num-cpus=4")
    assert "--nodelist=node1 veldt search small_search" in search
    assert all("--overlap" in step for step in (head, workers, search))
    given = shlex.split(search.partition("veldt search ")[2])
    own, overrides = words.split_overrides(given, cli.COMMANDS["search"].own_options)
    assert own == ["small_search", "--run-dir", "runs/small_search", "--resume"]
    settings = config_lib.load_config(SearchConfig, "small_search", overrides)
    assert (settings.window, settings.pool.ray.address) == (512, f"127.0.0.1:{port}")
    assert pool_config.choose_backend(settings.pool) == "ray"
    assert all_gone() and calls("scontrol requeue") == []


@pytest.mark.parametrize(
    ("signum", "state", "queued"),
    [
        (signal.SIGUSR1, RUNNING, True),  # The time is nearly up.
        (signal.SIGTERM, PREEMPTED, True),
        (signal.SIGTERM, "JobState=PREEMPTED PreemptTime=None\n", True),
        (signal.SIGTERM, CANCELLED, False),
        (signal.SIGTERM, RUNNING, False),
    ],
)
def test_a_job_that_has_to_stop_is_queued_again_unless_it_was_cancelled(
    start, signum, state, queued
):
    process, _ = start("small_search", state=state)
    wait_for("running", process)
    process.send_signal(signum)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143, out
    assert Path("calls").read_text().count("stopped\n") == 1
    assert calls("scontrol requeue") == ["scontrol requeue 4711"] * queued
    assert all_gone()


def test_a_preemption_that_only_the_steps_hear_of(start):
    process, _ = start("small_search", state=PREEMPTED)
    wait_for("running", process)
    (pid,) = [
        int(path.name)
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and b"bin/veldt\0search" in command_line(path)
        if f"\nPPid:\t{process.pid}\n" in (path / "status").read_text()
    ]
    os.kill(pid, signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143, out
    assert calls("scontrol requeue") == ["scontrol requeue 4711"]


def command_line(path):
    try:
        return (path / "cmdline").read_bytes()
    except OSError:  # It has ended meanwhile.
        return b""


def test_a_search_that_fails_is_not_tried_for_ever(start):
    process, _ = start("small_search", does="fails", state=PREEMPTED)
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert calls("scontrol requeue") == [] and all_gone()


def test_without_a_head_there_is_no_search(start):
    Path("no_head").touch()
    process, port = start("small_search")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"error: the Ray head on node1 does not answer at 127.0.0.1:{port}" in out
    assert not any("veldt" in call for call in calls("srun") if "mkdir" not in call)


CONFIG = """
tasks: [{task: quadratic, num_steps: 20, num_chunks: 2}]
meta_validation: []
max_evaluations: 60
population_size: 12
fresh_seeds: 2
finals: {num_rates: 1, select_seeds: 1, final_seeds: 2, stages: []}
"""


@pytest.mark.slow
@pytest.mark.ray
def test_a_search_on_a_real_ray_goes_on_where_it_was_stopped(start, tmp_path):
    Path("mine.yaml").write_text(CONFIG)
    Path("bin", "veldt").write_text(
        f'#!/bin/bash\ntouch running\nexec {sys.executable} -m veldt "$@"\n'
    )
    Path("bin", "veldt").chmod(0o755)
    arguments = ["mine.yaml", "--pool.num-workers", "2", "--time-limit-s", "600"]
    process, _ = start(*arguments, fakes=("srun", "scontrol"))
    wait_for("runs/mine/store.sqlite", process, 240)
    end = time.monotonic() + 240
    while num_told() < 5 and time.monotonic() < end and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGUSR1)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 143, out
    assert calls("scontrol requeue") == ["scontrol requeue 4711"]
    begun = num_told()
    assert begun >= 5
    process, _ = start(*arguments, fakes=("srun", "scontrol"))  # As Slurm would.
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 0, out
    assert len(calls("scontrol requeue")) == 1
    with Store.open(Path("runs/mine"), read_only=True) as store:
        integrity.check(store)
        assert [row["state"] for row in store.rows("SELECT state FROM session")] == [
            "stopped",
            "done",
        ]
    assert num_told() > begun and Path("runs/mine/best.py").is_file()


def num_told():
    try:
        with Store.open(Path("runs/mine"), read_only=True) as store:
            return store.first("SELECT COUNT(*) FROM proposal")
    except Exception:  # It is being made.
        return 0
