"""Kill a real meta-training with SIGKILL at random moments, resume it each time, compare the ends.

    python benchmarks/meta_kill_resume.py [--kills 10] [--seed 0]

One meta-training of two phases (imitation, then PES with stale gradients on two threads) is left
alone. The same one is then run again and again in another directory, each time killed at a random
moment of its life (while importing, compiling, training, in meta-validation or writing a
checkpoint) and resumed, until it has been killed `--kills` times and has reached its end. At each
end, every array of `weights.npz` and `last.npz` is compared bit by bit and `metrics.jsonl` line
by line, all but times, and it starts anew. Compiled programs are kept on disk by JAX's own cache,
so that kills fall into training rather than into compiling. Prints a line for each kill; exit code
1 on a difference.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "meta_kill_resume.json"
CONFIG = """
architecture: celo2_base
fields: {hidden_size: 4}
phases:
  - name: imitate
    num_updates: 40
    lengths: [10, 20]
    estimator:
      {kind: imitation, num_particles: 2, window: 5, expert: "veldt.meta.problems.experts:adam"}
    outer: {learning_rate: 0.01}
  - name: train
    num_updates: 600
    lengths: [10, 40]
    estimator: {kind: pes, num_particles: 2, window: 5}
    outer: {learning_rate: 0.01, decay: cosine, clip: 1.0}
tasks:
  num_families: 2
  kinds: {perceptron: 1.0}
  images: {patterns: 1.0}
  widths: [4, 8]
  depths: [1]
  activations: [relu]
  batch_sizes: [8]
meta_validation: [{task: quadratic, num_steps: 20}]
validate_every: 50
staleness: 1
checkpoint_every_s: 0.2
pool: {backend: inline, num_workers: 2}
"""
TIMES = ("worker_s", "wall_s")


def run(config: Path, directory: Path, *, resume: bool, lifetime_s: float | None = None) -> int:
    """Run it in a process of its own; kill it after `lifetime_s`; return the exit code."""
    command = [sys.executable, "-m", "veldt", "meta-train", str(config)]
    process = subprocess.Popen(
        [*command, "--run-dir", str(directory), *(["--resume"] if resume else [])],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": str(directory.parent / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        },
    )
    try:
        _, errors = process.communicate(timeout=lifetime_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"the meta-training failed with {process.returncode}:\n{errors}")
    return process.returncode


def contents(directory: Path) -> dict[str, Any]:
    """Return the files of a run: arrays as their bytes, and the log without times."""
    found: dict[str, Any] = {}
    for name in ("weights.npz", "last.npz"):
        with np.load(directory / name) as archive:
            for key in archive.files:
                if not key.endswith(".json"):
                    array = archive[key]
                    found[f"{name}/{key}"] = (array.dtype.str, array.shape, array.tobytes())
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    found["log"] = [{k: v for k, v in line.items() if k not in TIMES} for line in lines]
    return found


def reached(directory: Path) -> int:
    """Return the last update that a checkpoint was taken after; 0 before any."""
    folder = directory / "checkpoints"
    steps = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
    return max(steps, default=0)


def main() -> None:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = folder / "meta.yaml"
        config.write_text(CONFIG)
        run(config, folder / "whole", resume=False)
        expected = contents(folder / "whole")
        updates = [line["update"] for line in expected["log"] if line["kind"] == "update"]
        if updates != list(range(1, len(updates) + 1)):
            raise SystemExit("the log has not one line for each update")
        began = time.perf_counter()
        run(config, folder / "again", resume=False)
        whole_s = time.perf_counter() - began
        if contents(folder / "again") != expected:
            raise SystemExit("two runs that nothing disturbed differ")
        print(f"left alone, twice the same: {whole_s:.0f} s, {len(updates)} updates", flush=True)
        kills = ends = 0
        moments: list[tuple[float, int]] = []
        while kills < args.kills or (folder / "killed").exists():
            lifetime_s = rng.uniform(0.5, whole_s) if kills < args.kills else None
            fresh, began = not (folder / "killed").exists(), time.perf_counter()
            code = run(config, folder / "killed", resume=True, lifetime_s=lifetime_s)
            if code == -signal.SIGKILL:
                kills += 1
                moments.append((round(lifetime_s or 0.0, 2), reached(folder / "killed")))
                print(
                    f"kill {kills} after {moments[-1][0]} s; kept up to update {moments[-1][1]}",
                    flush=True,
                )
                continue
            ends += 1
            if fresh:  # The machine may be faster now than when the whole run was timed.
                whole_s = time.perf_counter() - began
            found = contents(folder / "killed")
            different = [key for key in expected if found.get(key) != expected[key]]
            if different or found.keys() != expected.keys():
                raise SystemExit(f"the ends differ: {', '.join(different)}")
            print(f"end {ends}: same weights, bit for bit, and the same log", flush=True)
            shutil.rmtree(folder / "killed")
    result = {
        "kills": kills,
        "ends_compared": ends,
        "moments_s_and_updates_kept": moments,
        "updates": len(updates),
        "arrays": len(expected) - 1,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
