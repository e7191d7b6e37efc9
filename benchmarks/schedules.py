r"""Learning-rate schedules by metagradients, against baselines at equal compute.

    XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" \
        python benchmarks/schedules.py [--tasks mlp_gelu ...] [--searches 5] [--methods ...]

Four kinds of model (`schedule_tasks`), each trained for 60 steps of Adam, whose learning
rate is a schedule. Every method (`schedule_methods`) chooses one by validation loss, in as many
independent searches as `--searches` says; each choice is then trained anew on 16 seeds that no
search has had, and its mean *test* loss is what is reported.

The unit of cost is a plain training run. A metagradient's cost in it is measured, in processor
seconds, as are those of forward mode, of hypergradient descent and of one-pass tuning. The median
cost of `--updates` metagradients, with validations, trust checks and the estimates in place of
those that failed the check, is the budget of every baseline: they are run first. Two entries have
another one: the grid of 1,000 one-cycle schedules, which is the bar (1,250 runs), and Step Law,
which takes none. Memory is in training states (parameters and both moments of Adam) that
one run holds at once; activations come on top, alike for all.

All results are kept in `--folder`, one line for each task, method and search, and a second call
continues where the first was stopped. Timings are valid only where nothing else runs: processor
seconds of one thread suffer less than wall-clock seconds. About 100 processor minutes.
"""

import argparse
import functools
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import schedule_lab
import schedule_methods as methods
import schedule_tasks

from veldt.meta.replay import api, states
from veldt.meta.tune import config, problem
from veldt.tasks.benchmark.runs import provenance
from veldt.tasks.common import compiling

RESULTS: Final = Path(__file__).parent / "results" / "schedules.json"
NUM_REPORTING: Final = 16
BAR: Final = "one_cycle_1000"
OURS: Final = "metagradient"
NUM_DRAWS: Final = 4000

Record = dict[str, Any]

PLAIN: Final[Mapping[str, Callable[[schedule_lab.Lab, int, int], schedule_lab.Found]]] = {
    BAR: methods.one_cycle_1000,
    "constant": methods.constant,
    "linear": methods.linear,
    "cosine": methods.cosine,
    "power": methods.power,
    "cooldown": methods.cooldown,
    "one_cycle": methods.one_cycle,
    "random_search": methods.random_search,
    "cma_es": methods.cma_es,
    "refined": methods.refined,
    "step_law": methods.step_law,
}
COSTLY: Final[Mapping[str, Callable[..., schedule_lab.Found]]] = {
    "hypergradient": methods.hypergradient,
    "one_pass": methods.one_pass_descent,
    "forward_mode": methods.forward_mode,
}
FROM_LAW: Final = "metagradient_from_step_law"
METHODS: Final = (OURS, *PLAIN, *COSTLY, FROM_LAW)


class Records:
    """The results so far, one JSON line each."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "records.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self.all: list[Record] = [json.loads(line) for line in lines]

    def find(self, **wanted: Any) -> list[Record]:
        """Return the records whose entries are as wanted."""
        return [r for r in self.all if all(r[key] == value for key, value in wanted.items())]

    def add(self, record: Record) -> None:
        """Keep a record."""
        self.all.append(record)
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def cpu_s(function: Callable[[], Any], repeats: int = 4) -> float:
    """Return the least processor time of a call, compiled before."""
    function()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        function()
        times.append(time.process_time() - began)
    return min(times)


def measure_costs(lab: schedule_lab.Lab, settings: config.TuneConfig) -> Record:
    """Return the cost of one run of each method, in plain runs."""
    keys = schedule_lab.seed_keys(schedule_lab.CHOOSING - 1000, schedule_lab.CHUNK)
    rates = jnp.full((schedule_lab.CHUNK, lab.num_steps), lab.entry.start)
    plain_s = cpu_s(lambda: lab.valid(rates, keys)) / schedule_lab.CHUNK
    subject = problem.Problem(settings)
    meta_params = jax.tree.map(jnp.asarray, subject.meta_params)
    run = subject.training_of(0)

    def take() -> None:
        found = api.metagradient(
            run, meta_params, key=jax.random.key(0), memory_bytes=2**29, check="none"
        )
        jax.block_until_ready(found.gradient)

    adaptive = {
        "hypergradient": functools.partial(methods.hypergradient_once, lab),
        "one_pass": functools.partial(methods.one_pass_once, lab),
    }
    spec = states.StateSpec.of(run.init, meta_params)
    return {
        "plain_s": plain_s,
        "metagradient": cpu_s(take) / plain_s / settings.seeds,
        "forward_mode": cpu_s(lambda: methods.forward_once(lab)) / plain_s,
        **{name: cpu_s(once) / plain_s / schedule_lab.CHUNK for name, once in adaptive.items()},
        "state_bytes": spec.num_bytes // settings.seeds,
    }


def search(
    lab: schedule_lab.Lab, method: str, number: int, costs: Record, budget: int, args: Any
) -> Record | None:
    """Run one search, score its choice, and return the record; None if it has no meaning here."""
    is_language = lab.name.startswith("transformer")
    if method in ("step_law", FROM_LAW) and not is_language:
        return None
    if method == "step_law" and number > 0:
        return None  # The same for all.
    began, began_cpu = time.monotonic(), time.process_time()
    if method in PLAIN:
        found = PLAIN[method](lab, budget, number)
    elif method in COSTLY:
        found = COSTLY[method](lab, budget, number, costs[method])
    else:
        start = methods.step_law_rate(lab) if method == FROM_LAW else lab.entry.start
        found = methods.metagradient(lab, tuning(lab, number, args, start), costs["metagradient"])
    wall_s, used_s = time.monotonic() - began, time.process_time() - began_cpu
    test = found.test(schedule_lab.seed_keys(schedule_lab.REPORTING, NUM_REPORTING))
    return {
        "task": lab.name,
        "method": method,
        "search": number,
        "test": [float(x) for x in test],
        "forward_runs": found.forward_runs,
        "states": found.states,
        "wall_s": wall_s,
        "cpu_s": used_s,
        "settings": dict(found.settings),
        "rates": None if found.rates is None else [float(f"{x:.4g}") for x in found.rates],
    }


def tuning(
    lab: schedule_lab.Lab, number: int, args: Any, start: float | None = None
) -> config.TuneConfig:
    """Return a search's tuning."""
    start = lab.entry.start if start is None else start
    return methods.tune_config(lab, number, start=start, num_updates=args.updates, seeds=args.seeds)


def run_task(name: str, records: Records, args: Any) -> None:
    """Run the searches of a task that are missing."""
    lab = schedule_lab.Lab(name)
    found = records.find(task=name, method="costs")
    if not found:
        costs = measure_costs(lab, tuning(lab, 0, args))
        records.add({"task": name, "method": "costs", "search": 0, **costs})
        found = records.find(task=name, method="costs")
    costs = found[0]

    def budget() -> int:
        """Return the cost of the metagradients' searches."""
        ours = records.find(task=name, method=OURS)
        return int(statistics.median(r["forward_runs"] for r in ours)) if ours else 0

    print(name, json.dumps(costs), flush=True)
    for method in args.methods:
        for number in range(args.searches):
            if records.find(task=name, method=method, search=number):
                continue
            record = search(lab, method, number, costs, budget(), args)
            if record is None:
                continue
            records.add(record)
            print(
                f"{name:18} {method:16} {number} test {np.mean(record['test']):.4f} "
                f"{record['forward_runs']:6.0f} runs {record['cpu_s']:6.1f} cpu s "
                f"{record['wall_s']:6.1f} s",
                flush=True,
            )


def median_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Return the 95% bootstrap interval of a median."""
    rng = np.random.default_rng(seed)
    drawn = rng.choice(np.asarray(values), size=(NUM_DRAWS, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)


def summarise(task: str, records: Records) -> list[Record]:
    """Return a row for each method, best first."""
    bar = scores(records.find(task=task, method=BAR))
    bar_interval = median_interval(bar) if bar else None
    rows = []
    for method in METHODS:
        found = records.find(task=task, method=method)
        if not found:
            continue
        values = scores(found)
        low, high = median_interval(values)
        rows.append(
            {
                "method": method,
                "searches": len(values),
                "test": statistics.median(values),
                "low": low,
                "high": high,
                "forward_runs": statistics.median(r["forward_runs"] for r in found),
                "cpu_s": statistics.median(r["cpu_s"] for r in found),
                "wall_s": statistics.median(r["wall_s"] for r in found),
                "states": found[0]["states"],
                "reaches_bar": None
                if bar_interval is None
                else statistics.median(values) <= bar_interval[1],
            }
        )
        if "fallbacks" in found[0]["settings"]:
            said = [r["settings"] for r in found]
            rows[-1]["fallbacks"] = sum(s["fallbacks"] for s in said)
            rows[-1]["verdicts"] = sum(len(s["verdicts"]) for s in said)
    return sorted(rows, key=lambda row: row["test"])


def scores(records: Sequence[Record]) -> list[float]:
    """Return the mean test loss of each search; a run that diverged makes it infinite."""
    means = (np.mean(r["test"]) for r in records)
    return [float(x) if np.isfinite(x) else float("inf") for x in means]


def show(task: str, rows: Sequence[Record]) -> None:
    """Print a task's table."""
    print(
        f"\n{task}\n{'':26} {'test':>8} {'95%':>17} {'searches':>8} {'runs':>6} {'cpu s':>6} "
        f"{'wall s':>6} {'states':>6}"
    )
    for row in rows:
        mark = "" if row["method"] == BAR or not row["reaches_bar"] else "  reaches the bar"
        interval = f"{row['low']:.4f}..{row['high']:.4f}"
        print(
            f"{row['method']:26} {row['test']:8.4f} {interval:>17} {row['searches']:8} "
            f"{row['forward_runs']:6.0f} {row['cpu_s']:6.1f} {row['wall_s']:6.1f} "
            f"{row['states']:6}{mark}"
        )


def main() -> None:
    """Run what is missing, print the tables and write `results/schedules.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = list(schedule_tasks.TASKS)
    parser.add_argument("--tasks", nargs="+", default=names[:4], choices=names, metavar="TASK")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS, metavar="METHOD")
    parser.add_argument("--searches", type=int, default=5)
    parser.add_argument("--updates", type=int, default=30, help="metagradients of a search")
    parser.add_argument("--seeds", type=int, default=4, help="runs side by side of a metagradient")
    parser.add_argument("--folder", type=Path, default=Path("runs/schedules"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    if min(args.searches, args.updates, args.seeds) < 1:
        parser.error("--searches, --updates and --seeds: at least 1")
    compiling.keep_compiled()
    records = Records(args.folder)
    for task in args.tasks:
        run_task(task, records, args)
    tables = {task: summarise(task, records) for task in names if records.find(task=task)}
    for task, rows in tables.items():
        show(task, rows)
    result = {
        "versions": provenance.versions(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "updates": args.updates,
        "seeds": args.seeds,
        "reporting_seeds": NUM_REPORTING,
        "starts": {task: schedule_tasks.TASKS[task].start for task in tables},
        "tables": tables,
        "records": records.all,
    }
    args.output.parent.mkdir(exist_ok=True)
    args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
