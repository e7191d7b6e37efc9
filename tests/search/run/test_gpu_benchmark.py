"""The script for a person with a GPU runs, with small numbers, on a CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_it_runs_with_small_numbers_and_writes_nothing_on_a_cpu():
    script = ROOT / "benchmarks" / "gpu.py"
    results = script.parent / "results" / "gpu.json"
    before = results.read_bytes() if results.exists() else None
    done = subprocess.run(
        [sys.executable, script, "--small"], text=True, capture_output=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("on a CPU: nothing written\n")
    assert (results.read_bytes() if results.exists() else None) == before
    found = json.loads(done.stdout[done.stdout.index("\n{\n") : done.stdout.rindex("\n}\n") + 2])
    assert found["left_out"] == []
    assert found["chosen_lanes"]["lanes"] == 1 and found["chosen_lanes"]["device_bytes"] is None
    assert {number: row["programs"] > 0 for number, row in found["search"].items()} == {
        "1": True,
        "2": True,
    }
    (rows,) = found["meta_training"].values()
    assert all(row["inner_steps_per_s"] > 0 for row in rows.values()) and rows
    assert found["metagradient"]["runs"] > 1
