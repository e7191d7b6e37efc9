"""Ship a meta-training's weights: copy them into the package, with their record.

    veldt evaluate runs/celo2 --suite small --out runs/evaluate_celo2
    python benchmarks/ship_weights.py runs/celo2 runs/evaluate_celo2/results.json

The file is named after the run's directory. Its record, which has the config, the seed, the cost
and the tasks that the weights were chosen by, gets the row of the benchmark, task by task.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from veldt.learned_opt import shipped, weight_files


def benchmark(results: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the benchmark in a record: the row of one candidate."""
    (row,) = (row for row in results["rows"] if row["name"] == name and row["source"] == "run")
    if row["num_rates"] != 1:
        raise SystemExit(f"{name} was tuned over {row['num_rates']} rates: evaluate it untuned")
    return {
        "suite": results["suite"],
        "speedup": row["speedup"],
        "test_ratio": row["test_ratio"],
        "diverged": row["diverged"],
        "tasks": {
            task["task"]: {"speedup": task["speedup"], "test_ratio": task["test_ratio"]}
            for task in row["tasks"]
        },
    }


def main(run_dir: Path, results: Path) -> None:
    """Write the file."""
    found = weight_files.read(run_dir / shipped.RUN_FILE)
    name = shipped.name_of(run_dir)
    record = dict(found.record)
    record["benchmark"] = benchmark(json.loads(results.read_text(encoding="utf-8")), name)
    path = shipped.FOLDER / f"{name}{shipped.SUFFIX}"
    path.parent.mkdir(exist_ok=True)
    weight_files.write(path, dataclasses.replace(found, record=record))
    print(f"wrote {path.name}, {path.stat().st_size / 1024:.1f} KiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
