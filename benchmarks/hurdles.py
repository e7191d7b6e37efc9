"""Hurdles compared: what each saves, and which good candidates it rejects.

    python benchmarks/hurdles.py --runs DIR [--candidates 1000] [--searches 3] [--base CONFIG ...]

Runs a config's search once per seed without a hurdle, with all curves kept, and applies hurdles to
the stored curves afterwards. Fixed before anything was run:

*Hurdles*, each at several margins: `each_run`, a margin at each check of each run; `mean`, the
running total over runs, one run after the other, those to come counted as equal; `rounds`, the
mean over all runs at the first check of each, then at the second, which would need all runs of a
candidate side by side. All compare with the initial rule's own curves.

*Measure.* Steps: the training steps that a hurdle leaves, as a share of those without one; a
candidate that diverges stops there anyhow. Lost: the share rejected of the candidates that are
*good*: trained to the end, and fitter than the initial rule by `GAIN`. Best: the share of searches
whose ten fittest candidates all survive. A hurdle is better than another where it loses fewer for
the same steps. Parents are those of the search without a hurdle.

Writes `results/hurdles.json`. Searches are kept in `--runs` and resumed.
"""

import argparse
import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, final

from veldt import config as config_lib
from veldt.search.config.evolution_config import RacingConfig
from veldt.search.config.finals_config import FinalsConfig
from veldt.search.config.search_config import SearchConfig
from veldt.search.evolution import initial_rule
from veldt.search.evolution.selection.racing import Curves
from veldt.search.run import run_search
from veldt.search.storage.store import Store
from veldt.tasks.common import compiling
from veldt.tasks.pool.config import PoolConfig

RESULTS: Final = Path(__file__).parent / "results" / "hurdles.json"
MARGINS: Final = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8)
GAIN: Final = 0.05
NUM_BEST: Final = 10


@final
class Trained(NamedTuple):
    """A candidate: steps, fitness (infinity for none), and the curve of each run that was begun."""

    num_steps: int
    fitness: float
    curves: Curves


@final
class Searched(NamedTuple):
    """A search without a hurdle: the initial rule's curves, steps of a check by run, candidates."""

    initial: Curves
    check_steps: tuple[int, ...]
    trained: tuple[Trained, ...]


# A check: its run, its number, and whether the candidate is rejected there.
Checks = Iterator[tuple[int, int, bool]]


def each_run(search: Searched, curves: Curves, margin: float) -> Checks:
    """Compare each check by itself."""
    for run, curve in enumerate(curves):
        for check, loss in enumerate(curve):
            yield run, check, loss > search.initial[run][check] + margin


def mean(search: Searched, curves: Curves, margin: float) -> Checks:
    """Compare running totals, run by run."""
    lag, allowed = 0.0, margin * len(search.initial)
    for run, curve in enumerate(curves):
        behind = [ours - theirs for ours, theirs in zip(curve, search.initial[run], strict=False)]
        for check, more in enumerate(behind):
            yield run, check, lag + more > allowed
        lag += behind[-1] if behind else 0.0


def rounds(search: Searched, curves: Curves, margin: float) -> Checks:
    """Compare the mean over all runs, check by check, all runs side by side."""
    num_runs = len(search.initial)
    for check in range(max(map(len, search.initial))):
        lag = 0.0
        for run in range(num_runs):
            if run < len(curves) and check < len(curves[run]):
                lag += curves[run][check] - search.initial[run][check]
            yield run, check, run == num_runs - 1 and lag > margin * num_runs


HURDLES: Final[dict[str, Callable[[Searched, Curves, float], Checks]]] = {
    "each_run": each_run,
    "mean": mean,
    "rounds": rounds,
}


def search(base: str, seed: int, candidates: int, folder: Path) -> Searched:
    """Run one search without a hurdle, unless it exists, and return all its curves."""
    config = dataclasses.replace(
        config_lib.load_config(SearchConfig, base),
        seed=seed,
        hurdle=math.inf,
        hurdle_over="each_run",
        max_evaluations=candidates,
        time_limit_s=None,
        racing=RacingConfig(chance=0.5, control=1.0),
        finals=FinalsConfig(("adamw",), 0, 1, 1e-2, num_rates=1, select_seeds=1, final_seeds=1),
        pool=PoolConfig(backend="inline", num_workers=1),
    )
    directory = folder / f"{Path(base).stem}_{seed}"
    run_search.run_search(config, directory, resume=True)
    proxies = config.tasks * config.seeds_per_task
    with Store.open(directory, read_only=True) as store:
        curves = json.loads(store.meta()["initial_curves"])
        rows = store.rows(
            "SELECT r.curves, c.fitness, c.num_steps FROM race r "
            "JOIN proposal p ON p.id = r.proposal "
            "JOIN candidate c ON c.id = p.candidate ORDER BY r.proposal"
        )
    trained = tuple(
        Trained(
            row["num_steps"],
            math.inf if row["fitness"] is None else row["fitness"],
            tuple(map(tuple, json.loads(row["curves"]))),
        )
        for row in rows
    )
    steps = tuple(proxy.num_steps // proxy.num_chunks for proxy in proxies)
    initial = initial_rule.mean_curves(config, curves)
    return Searched(tuple(map(tuple, initial)), steps, trained)


def applied(searched: Searched, name: str, margin: float) -> dict[str, float]:
    """Return what a hurdle saves in one search, and what it rejects."""
    whole = left = 0
    started = statistics.mean(curve[-1] for curve in searched.initial)
    good, kept_good, kept_all = 0, 0, []
    for one in searched.trained:
        whole += one.num_steps
        done, rejected = 0, False
        for run, _, rejected in HURDLES[name](searched, one.curves, margin):
            done += searched.check_steps[run]
            if rejected:
                break
        left += min(done, one.num_steps) if rejected else one.num_steps
        if one.fitness < started - GAIN:
            good += 1
            kept_good += not rejected
        if not rejected:
            kept_all.append(one.fitness)
    best = sorted(one.fitness for one in searched.trained)[:NUM_BEST]
    return {
        "steps": left / whole,
        "good": good,
        "lost": 1 - kept_good / good if good else 0.0,
        "best_kept": float(sorted(kept_all)[:NUM_BEST] == best),
    }


def main() -> None:
    """Search, apply all hurdles, print and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--base", nargs="+", default=["quickstart"])
    parser.add_argument("--searches", type=int, default=3)
    parser.add_argument("--candidates", type=int, default=1000)
    args = parser.parse_args()
    compiling.keep_compiled()
    found: dict[str, Any] = {
        "command": "python benchmarks/hurdles.py --runs DIR",
        "candidates": args.candidates,
        "bases": {},
    }
    for base in args.base:
        searches = [search(base, seed, args.candidates, args.runs) for seed in range(args.searches)]
        rows = []
        for name in HURDLES:
            for margin in MARGINS:
                each = [applied(one, name, margin) for one in searches]
                row = {key: statistics.mean(one[key] for one in each) for key in each[0]}
                rows.append({"hurdle": name, "margin": margin, **row, "each": each})
                print(
                    f"{base:14}{name:10}{margin:6.2f}  steps {row['steps']:.3f}  "
                    f"lost {row['lost']:.3f} of {row['good']:.0f}  best kept {row['best_kept']:.2f}"
                )
        found["bases"][Path(base).stem] = rows
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
