"""What the quickstart finds, by the seed of its search.

    python benchmarks/quickstart_seeds.py --runs DIR [--searches 5]

*Hypothesis*, fixed before the searches counted here were run: in at least four of five searches the
winner is better than tuned AdamW, and than tuned Muon, by more than three standard errors on seeds
that nothing was selected on; and on meta-validation it is in the mean not behind either.

*Arms.* The winner of each search, and AdamW, Lion and Muon, from which the search starts. All of
them have their rate and constants tuned alike in the finals; the winner is chosen on the
meta-validation tasks.

*Budget.* That of `configs/quickstart.yaml`, which a time limit ends: how many programs are trained
depends on the machine, and is in the results. Two workers, on cores that do nothing else.

*Measure.* Mean log loss on the final seeds, less the baseline's, with the standard error of both;
and the same on the meta-validation tasks, on seeds that chose nothing. Intervals are 95%, by
Student's t over searches.

Each search is a run directory under `--runs`, named by its seed; what is there goes on or is only
read. Writes `results/quickstart_seeds.json`.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any, Final

import intervals

from veldt import config as config_lib
from veldt.search.config.search_config import SearchConfig
from veldt.search.finals import conclusion
from veldt.search.language import printing
from veldt.search.run import run_search
from veldt.search.storage import hall_entries
from veldt.search.storage.store import Store
from veldt.tasks.common import compiling

RESULTS: Final = Path(__file__).parent / "results" / "quickstart_seeds.json"
STANDARD_ERRORS: Final = 3.0


def search(seed: int, folder: Path) -> dict[str, Any]:
    """Make a search, or read what is there, and return what its finals say."""
    config: SearchConfig = config_lib.load_config(SearchConfig, "quickstart", [f"--seed={seed}"])
    directory = folder / str(seed)
    run_search.run_search(config, directory, resume=True)
    with Store.open(directory, read_only=True) as store:
        entries = hall_entries.read_entries(store)
        made = store.rows(
            "SELECT SUM(source = 'evaluated') AS trained, MAX(told_s) AS seconds FROM proposal"
        )[0]
    winner = conclusion.find_winner(entries)
    assert winner is not None
    return {
        "seed": seed,
        "trained": made["trained"],
        "search_s": made["seconds"],
        "winner": winner.label,
        "learning_rate": winner.learning_rate,
        "program": printing.pretty(winner.program),
        "final": winner.final,
        "less": {
            one.baseline: {
                "difference": one.difference,
                "standard_error": one.standard_error,
                "meta_difference": one.meta_difference,
            }
            for one in conclusion.compare(entries)
        },
    }


def summary(searches: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the means over searches, by baseline, and how many searches are clear of it."""
    found = {}
    for name in searches[0]["less"]:
        of = [one["less"][name] for one in searches]
        found[name] = {
            "less": intervals.of_mean([one["difference"] for one in of]),
            "meta_less": intervals.of_mean([one["meta_difference"] for one in of]),
            "num_clear": sum(
                one["difference"] < -STANDARD_ERRORS * one["standard_error"] for one in of
            ),
        }
    return found


def main() -> None:
    """Search, print and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--searches", type=int, default=5)
    args = parser.parse_args()
    compiling.keep_compiled()
    searches = []
    for seed in range(args.searches):
        searches.append(search(seed, args.runs))
        less = {name: f"{one['difference']:+.3f}" for name, one in searches[-1]["less"].items()}
        print(seed, searches[-1]["winner"], searches[-1]["trained"], less, flush=True)
    config: SearchConfig = config_lib.load_config(SearchConfig, "quickstart")
    content: dict[str, Any] = {
        "command": "python benchmarks/quickstart_seeds.py --runs DIR",
        "tasks": [dataclasses.asdict(task) for task in config.tasks],
        "final_seeds": config.finals.final_seeds,
        "tuning": config.finals.tuning.budget,
        "searches": searches,
        "baselines": summary(searches),
    }
    for name, one in content["baselines"].items():
        print(
            f"less {name}: {intervals.text(one['less'])}, clear in {one['num_clear']}; "
            f"meta-validation {intervals.text(one['meta_less'])}"
        )
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
