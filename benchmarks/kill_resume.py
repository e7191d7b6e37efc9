"""Kill a real search with SIGKILL at random moments, resume it each time, compare the stores.

    python benchmarks/kill_resume.py [--kills 20] [--seed 0]

Two searches: one trains all rules on the same seeds, the other selects by samples, with grafts and
a hurdle over the mean. Each is left alone once. Then it is run again and again in another
directory, each time killed at a random moment of its life (while compiling, searching, comparing or
in the finals) and resumed, until it has been killed `--kills` times; at each end the stores are
compared row by row, all columns but times and all tables but those about machines, and it starts
anew. Prints what was compared; exit code 1 on a difference.
"""

import argparse
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from veldt.search.storage import store

RESULTS = Path(__file__).parent / "results" / "kill_resume.json"
BASE = """
tasks: [{task: digits_mlp, num_steps: 100}]
meta_validation: [{task: breast_cancer_logistic, num_steps: 50}]
max_evaluations: 400
population_size: 40
"""
CONFIGS = {
    "common seeds": BASE
    + """
fresh_seeds: 4
finals: {num_rates: 5, final_seeds: 3}
""",
    "samples": BASE
    + """
samples: 4
hurdle: 0.3
hurdle_over: mean
mutation: {ops: [published], match_steps: true, rewire: 0.5, graft: 0.5}
finals: {num_rates: 5, final_seeds: 3, shortlist: 8, rates_of_finalists: own}
""",
}


def run(config: Path, directory: Path, *, resume: bool, lifetime_s: float | None = None) -> int:
    """Run the search in a process of its own; kill it after `lifetime_s`; return the exit code."""
    command = [sys.executable, "-m", "veldt", "search", str(config), "--run-dir", str(directory)]
    process = subprocess.Popen(
        [*command, *(["--resume"] if resume else [])],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, errors = process.communicate(timeout=lifetime_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"the search failed with {process.returncode}:\n{errors}")
    return process.returncode


def contents(directory: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return every table of the search, without the columns that hold times."""
    connection = sqlite3.connect(directory / "store.sqlite")
    answer = connection.execute("PRAGMA integrity_check").fetchone()[0]
    if answer != "ok":
        raise SystemExit(f"{directory}: integrity check: {answer}")
    found = {}
    query = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1"
    tables = {table for (table,) in connection.execute(query)}
    for table in sorted(tables - {*store.MACHINE_TABLES}):
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        names = ", ".join(name for name in columns if not name.endswith("_s"))
        found[table] = connection.execute(
            f"SELECT {names} FROM {table} ORDER BY {names}"
        ).fetchall()
    connection.close()
    return found


def main() -> None:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    results = {
        name: kill(text, args.kills, random.Random(args.seed)) for name, text in CONFIGS.items()
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results))


def kill(text: str, most: int, rng: random.Random) -> dict[str, Any]:
    """Kill a search so many times, resume it, compare; return what was done."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = folder / "search.yaml"
        config.write_text(text)
        began = time.perf_counter()
        run(config, folder / "whole", resume=False)
        whole_s = time.perf_counter() - began
        expected = contents(folder / "whole")
        rows = {name: len(found) for name, found in expected.items()}
        print(f"left alone: {whole_s:.0f} s, {rows}", flush=True)
        kills = ends = 0
        moments: list[float] = []
        while kills < most or ends == 0:
            lifetime_s = rng.uniform(0.5, whole_s) if kills < most else None
            code = run(config, folder / "killed", resume=True, lifetime_s=lifetime_s)
            if code == -signal.SIGKILL:
                kills += 1
                moments.append(round(lifetime_s or 0.0, 2))
                print(f"kill {kills} after {moments[-1]} s", flush=True)
                continue
            ends += 1
            if contents(folder / "killed") != expected:
                raise SystemExit("the stores differ")
            print(f"end {ends}: same store", flush=True)
            shutil.rmtree(folder / "killed")
    return {"kills": kills, "ends_compared": ends, "moments_s": moments, "rows": rows}


if __name__ == "__main__":
    main()
