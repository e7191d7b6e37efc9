"""Evolution against its two controls at one budget: random search, and constants alone.

    python benchmarks/controls.py [--seeds 3] [--evaluations 2000] [--folder runs/controls]

Lion's paper (arXiv 2302.06675, section 2.1) compares its search with random programs and with
AdamW with its constants tuned. Here all three train as many distinct programs, on the quickstart's
tasks, from AdamW: the configs `quickstart`, `control_random` and `control_constants`. The measure
is the winner of each run, chosen on selection seeds, on the finals' seeds, less AdamW at the best
learning rate of the grid in the same finals (mean log loss; -0.1 is about 10% less loss). The gap
between evolution and a control is the difference of means over seeds, with a 95% interval by
Welch's t. Curves show how good the incumbent was after how many programs, on fresh seeds.

Runs are kept and resumed, so the script can be stopped. Writes `results/controls.json`.
"""

import argparse
import itertools
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from veldt.search.finals import conclusion
from veldt.search.storage import hall_entries
from veldt.search.storage.store import Store

RESULTS: Final = Path(__file__).parent / "results" / "controls.json"
CONFIGS: Final = {
    "evolution": "quickstart",
    "random search": "control_random",
    "constants alone": "control_constants",
}
# Quantiles of Student's t at 97.5% by degrees of freedom; beyond the last, the normal's.
_T: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def search(config: str, seed: int, evaluations: int, folder: Path) -> dict[str, Any]:
    """Run one search to its end and return its results."""
    run_dir = folder / f"{config}_{seed}"
    command = [sys.executable, "-m", "veldt", "search", config, "--seed", str(seed)]
    command += ["--max-evaluations", str(evaluations), "--time-limit-s", "null"]
    command += ["--run-dir", str(run_dir), "--resume"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with Store.open(run_dir, read_only=True) as store:
        entries = hall_entries.read_entries(store)
        trained = store.first("SELECT COUNT(*) FROM proposal WHERE source = 'evaluated'")
        proposed = store.first("SELECT COUNT(*) FROM proposal")
        incumbents = store.rows(
            "SELECT proposal, challenger, difference FROM challenge WHERE won = 1 ORDER BY id"
        )
        seconds = store.rows("SELECT MAX(told_s) AS s FROM proposal")[0]["s"]
        # Changes add up along the chain of incumbents, each measured on seeds new to both.
        changes = itertools.accumulate(row["difference"] or 0.0 for row in incumbents)
        curve = [
            {
                "programs": store.first(
                    "SELECT COUNT(*) FROM proposal WHERE source = 'evaluated' "
                    f"AND id <= {int(row['proposal'])}"
                ),
                "change": change,
            }
            for row, change in zip(incumbents, changes, strict=True)
        ]
    winner = conclusion.find_winner(entries)
    assert winner is not None
    against = {one.baseline: one for one in conclusion.compare(entries)}
    return {
        "seed": seed,
        "programs": trained,
        "proposals": proposed,
        "search_s": round(seconds, 1),
        "winner": winner.program.pretty(),
        "learning_rate": winner.learning_rate,
        "less_adamw": against["adamw"].difference,
        "less_adamw_on_meta_validation": against["adamw"].meta_difference,
        "curve": curve,
    }


def gap(ours: list[float], theirs: list[float]) -> dict[str, float | None]:
    """Return the difference of means, ours less theirs, and half its 95% interval by Welch's t."""
    difference = statistics.mean(ours) - statistics.mean(theirs)
    if min(len(ours), len(theirs)) < 2:
        return {"difference": difference, "half_interval": None}
    parts = [statistics.variance(values) / len(values) for values in (ours, theirs)]
    total = sum(parts)
    if total == 0:
        return {"difference": difference, "half_interval": 0.0}
    degrees = total**2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (ours, theirs), strict=True)
    )
    index = max(int(degrees), 1) - 1
    quantile = _T[index] if index < len(_T) else 1.96
    return {"difference": difference, "half_interval": quantile * math.sqrt(total)}


def main() -> None:
    """Search with every strategy and seed, print and write `results/controls.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, default=2000)
    parser.add_argument("--folder", type=Path, default=Path("runs/controls"))
    args = parser.parse_args()
    if min(args.seeds, args.evaluations) < 1:
        parser.error("--seeds and --evaluations: at least 1")
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONFIGS}
    for seed in range(args.seeds):
        for name, config in CONFIGS.items():
            run = search(config, seed, args.evaluations, args.folder)
            runs[name].append(run)
            print(
                f"seed {seed}, {name:15}: {run['less_adamw']:+.3f} against AdamW "
                f"({run['less_adamw_on_meta_validation']:+.3f} on meta-validation), "
                f"{run['programs']:,} programs, {run['search_s']:.0f} s",
                flush=True,
            )
    gaps: dict[str, dict[str, Any]] = {}
    for name in list(CONFIGS)[1:]:
        gaps[name] = {}
        for key in ("less_adamw", "less_adamw_on_meta_validation"):
            ours, theirs = ([run[key] for run in runs[one]] for one in ("evolution", name))
            gaps[name][key] = found = gap(ours, theirs)
            half = found["half_interval"]
            spread = "" if half is None else f" ± {half:.3f}"
            print(f"evolution less {name}, {key}: {found['difference']:+.3f}{spread}")
    RESULTS.parent.mkdir(exist_ok=True)
    result = {"evaluations": args.evaluations, "runs": runs, "gaps": gaps}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
