"""Programs per hour with a population per call, on whatever device there is.

    python benchmarks/lanes.py [--lanes 1 16 64 256] [--tasks digits_mlp digits_conv]
        [--steps 500] [--candidates 512] [--seconds 60] [--write]

For each task and number of lanes a pool of threads trains candidates as a search's workers do: each
from its program to its fitness, lowered, encoded and trained for one run in five chunks. Candidates
are drawn by the search's own mutations from AdamW, 16 live instructions each, and are the same for
all. One lane is the plain path, with a thread for each core; lanes have a thread each, or
`--threads-per-lane` of them. Compiling is timed by itself; there is no hurdle. `agree` is the
share of candidates whose status is the plain path's, and `difference` the median distance of their
fitnesses, in log loss.

After `--seconds` no further candidate is begun, and candidates that have ended by then are counted:
with many lanes they may be few, so the time should be several times that of a full batch.

Results go to results/lanes.json only with `--write`: numbers from a CPU say nothing about lanes,
which are for accelerators (`search/runtime/lane_interpreter.py` explains why).
"""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import interpreter as interpreter_benchmark

from veldt.search.config.proxy_config import EvaluatorConfig, ProxyConfig
from veldt.search.evaluation.evaluator import EvaluatorFactory
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.jobs import EvalJob, Outcome, ProxyRun
from veldt.tasks.benchmark.runs import provenance
from veldt.tasks.pool import config
from veldt.tasks.pool.base import Job
from veldt.tasks.pool.inline import InlinePool

RESULTS: Final = Path(__file__).parent / "results" / "lanes.json"
CHUNKS: Final = 5


def measure(
    proxy: ProxyConfig, lanes: int, num_threads: int, genotypes: Sequence[Genotype], limit_s: float
) -> tuple[dict[str, Any], dict[int, Outcome]]:
    """Train candidates in lanes until time is up; return the speed, and the results by number."""
    factory = EvaluatorFactory(EvaluatorConfig((proxy,), lanes=lanes))
    began = time.perf_counter()
    factory().warm_up()
    compile_s = time.perf_counter() - began
    outcomes: dict[int, Outcome] = {}
    with InlinePool(factory, num_threads) as pool:
        began = time.perf_counter()
        waiting = list(enumerate(genotypes))
        while True:
            in_time = time.perf_counter() - began < limit_s
            while waiting and in_time and pool.in_flight < pool.capacity:
                number, genotype = waiting.pop(0)
                pool.submit(Job(number, EvalJob(genotype, (ProxyRun(0, 0),))))
            if not pool.in_flight:
                break
            result = pool.next_result()
            if not isinstance(result.value, Outcome):
                raise RuntimeError(f"candidate {result.id}: {result.message}")
            outcomes[result.id] = result.value
        wall_s = time.perf_counter() - began
    return {
        "threads": num_threads,
        "compile_s": compile_s,
        "programs": len(outcomes),
        "wall_s": wall_s,
        "programs_per_hour": 3600 * len(outcomes) / wall_s,
    }, outcomes


def agreement(plain: dict[int, Outcome], other: dict[int, Outcome]) -> dict[str, float | None]:
    """Return how far the outcomes of the same candidates are those of the plain path."""
    both = sorted(plain.keys() & other.keys())
    same = [plain[i].status is other[i].status for i in both]
    differences = [
        abs(left - right)
        for left, right in ((plain[i].fitness, other[i].fitness) for i in both)
        if left is not None and right is not None
    ]
    return {
        "compared": len(both),
        "agree": sum(same) / len(both) if both else None,
        "difference": statistics.median(differences) if differences else None,
        "largest_difference": max(differences, default=None),
    }


def main() -> None:
    """Measure, print, and write if `--write` is given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--tasks", nargs="+", default=["digits_mlp", "digits_conv"])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--candidates", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads-per-lane", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    genotypes = interpreter_benchmark.candidates(args.candidates, args.seed)
    settings = {name: value for name, value in vars(args).items() if name != "write"}
    result: dict[str, Any] = {"versions": provenance.versions(), "settings": settings, "tasks": {}}
    for task in args.tasks:
        proxy = ProxyConfig(task, args.steps, CHUNKS)
        plain: dict[int, Outcome] | None = None
        rows = result["tasks"][task] = {}
        for lanes in sorted({1, *args.lanes}):
            threads = math.ceil(lanes * args.threads_per_lane)
            if lanes == 1:
                threads = config.num_usable_cores()
            row, outcomes = measure(proxy, lanes, threads, genotypes, args.seconds)
            if plain is None:
                plain = outcomes
            rows[str(lanes)] = {**row, **agreement(plain, outcomes)}
            print(task, lanes, json.dumps(rows[str(lanes)]), flush=True)
    result["load_average_after"] = os.getloadavg()[2]
    print(json.dumps(result, indent=2))
    if args.write:
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
