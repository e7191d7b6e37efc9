"""The results of the quickstart's search, over several search seeds.

    python benchmarks/search_seeds.py [--seeds 3] [--folder runs/seeds]

Runs `veldt search quickstart` once per seed (with `--resume`, so that the script can be stopped and
run again) and reads each run's finals: the winner, chosen on selection seeds, against AdamW and
Lion at their best learning rates of the same grid, on seeds that nothing was selected on. The
spread over searches is what one search's own standard error does not show.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from veldt.search.finals import conclusion
from veldt.search.storage import hall_entries
from veldt.search.storage.store import Store

RESULTS = Path(__file__).parent / "results" / "search_seeds.json"


def search(seed: int, folder: Path) -> dict[str, Any]:
    """Run one search to its end and return its results."""
    run_dir = folder / f"seed_{seed}"
    command = [sys.executable, "-m", "veldt", "search", "quickstart", "--seed", str(seed)]
    command += ["--run-dir", str(run_dir), "--time-limit-s", "null", "--resume"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with Store.open(run_dir, read_only=True) as store:
        entries = hall_entries.read_entries(store)
        trained = store.rows("SELECT COUNT(*) AS n FROM proposal WHERE source = 'evaluated'")
        search_s = store.rows("SELECT MAX(told_s) AS s FROM proposal")[0]["s"]
    winner = conclusion.find_winner(entries)
    assert winner is not None
    return {
        "seed": seed,
        "trained": trained[0]["n"],
        "search_s": round(search_s, 1),
        "winner": winner.program.pretty(),
        "learning_rate": winner.learning_rate,
        "against": {
            comparison.baseline: {
                "difference": comparison.difference,
                "standard_error": comparison.standard_error,
                "significant": comparison.significant,
                "meta_difference": comparison.meta_difference,
            }
            for comparison in conclusion.compare(entries)
        },
    }


def main() -> None:
    """Search with every seed, print and write `results/search_seeds.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/seeds"))
    args = parser.parse_args()
    runs = []
    for seed in range(args.seeds):
        runs.append(search(seed, args.folder))
        print(json.dumps(runs[-1], indent=2), flush=True)
    summary = {}
    for name in runs[0]["against"]:
        for key in ("difference", "meta_difference"):
            values = [run["against"][name][key] for run in runs]
            error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
            summary[f"{name} {key}"] = {"mean": statistics.mean(values), "standard_error": error}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"runs": runs, "over_searches": summary}, indent=2) + "\n")
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
