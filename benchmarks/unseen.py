"""Score what searches found, once, beside tuned baselines on tasks that no search has seen.

    python benchmarks/unseen.py --runs DIR NAME=RUN_DIR [NAME=RUN_DIR ...] [--jobs 2] [--report]

Everything below was fixed before anything was run.

*Candidates.* The winner of each search's finals, under the name given, and from the first search
all baselines of its finals, `adamw_tuned`, `lion_tuned`, ...: with the constants that these finals
tuned alike, on the search's own tasks. Each gets seven learning rates around its own
(`rate_grid`), two seeds (the same for all: the same starts and batches), a constant rate and one
with warm-up and linear decay, and 25 checks. Nothing is tuned on these tasks but the rate.

*Losses* are logarithms of normalised losses: 0 knows nothing. Training losses are taken on the
fixed batch of the benchmark's sweep, 25 times at even distances; held-out losses on its test split,
at the end. A run that fails, diverged or hollow, has learnt nothing (0) at any check, and no loss
counts as worse than that. Means over seeds are of these logarithms.

*The rate*, for each task, schedule and candidate, is that with the lowest mean training loss at the
end. With "one rate" it is, for each schedule and candidate, that with the lowest mean of these over
all tasks. It is chosen on the seeds that are scored, for baselines alike. Held-out losses are those
at the same rate, so that they choose nothing.

*Gain*: the candidate's mean loss at the end less that of tuned Muon; below 0 is better, -0.1 is
about 10% less loss. Of the training loss, and of the held-out loss.

*Speed-up over Muon*: N is the length of the run, and t(curve, loss) the step from which the mean
curve stays below a loss, interpolated between checks on these logarithms. If the candidate's
loss at the end is not above Muon's: N / t(candidate, Muon's loss at the end); Muon takes N for it.
Else t(Muon, candidate's loss at the end) / N. A time below the first check counts as the first
check, so that speed-ups lie between 1/25 and 25. Muon has exactly 1 over itself, and a speed-up is
below 1 where, and only where, the gain is above 0.

*Over tasks*: the interquartile mean, of gains and of the logarithms of speed-ups, with a 95%
interval by bootstrap: seeds are drawn within each task, the same for both, then tasks. Rates stay.
For both schedules together a task's score is the mean of its two. The same is computed over AdamW.

Each sweep of a candidate on a task is a file under `--runs`, found by the digest of its plan, and
is not run again; an interrupted call is continued. `--report` runs nothing, and shows the tasks
that are finished for all. Once all are, `results/unseen.json` (`--out`) is written. `--suite FILE`
with `--out` tries the script on other tasks, {"TASK": STEPS, ...}.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import discovered
import jax.numpy as jnp
import numpy as np
import unseen_scores

from veldt.search.export.program_candidate import ProgramCandidate
from veldt.search.language import printing
from veldt.search.report import report_data
from veldt.search.storage import best_rule
from veldt.search.storage.hall_entries import Entry
from veldt.tasks import registry, suites, task_fingerprint
from veldt.tasks.benchmark.protocol import protocol
from veldt.tasks.benchmark.protocol.protocol import SweepPlan
from veldt.tasks.benchmark.runs import pool_worker
from veldt.tasks.benchmark.runs.cache import RunCache
from veldt.tasks.benchmark.runs.sweep import Sweep
from veldt.tasks.common import compiling

RESULTS: Final = Path(__file__).parent / "results" / "unseen.json"
SEEDS: Final = (0, 1)
SCHEDULES: Final = ("constant", "warmup_linear")
BASELINES: Final = ("muon_tuned", "adamw_tuned")
"""The baselines that gains and speed-ups are over; Muon first."""
# Seconds of one run on one core, for the order of work and the estimate of what is left.
_COMPILE_S: Final = 15.0
_RUN_S: Final[Mapping[str, float]] = {
    "photo_distortion_resnet": 1.7,
    "photo_masked_transformer": 1.6,
    "photo_denoise_unet": 2.1,
    "photo_coordinates": 1.3,
    "burgers_operator": 0.9,
    "heat_pinn": 0.3,
    "arm_regression": 1.7,
    "arm_residual_deep": 0.8,
    "ratings_factorisation": 0.1,
    "communities_graph": 0.4,
    "sorting_transformer": 1.0,
    "adding_mgu": 0.5,
    "prose_lstm": 2.0,
    "prose_transformer_deep": 4.0,
}


def check_unseen(data: report_data.SearchData, suite: suites.Suite) -> None:
    """Stop if a search trained on a task of the suite, or chose by it."""
    config = data.settings
    stages = [proxy for stage in config.finals.stages for proxy in stage.tasks]
    known = {proxy.task for proxy in (*config.tasks, *config.meta_validation, *stages)}
    if both := sorted(known & {entry.task for entry in suite.tasks}):
        raise SystemExit(f"a search has seen {', '.join(both)}: nothing there is evidence")


def read_candidates(
    runs: Mapping[str, Path], suite: suites.Suite
) -> tuple[list[ProgramCandidate], dict[str, dict[str, Any]]]:
    """Return the candidates, and what the results say of each."""
    candidates: list[ProgramCandidate] = []
    about: dict[str, dict[str, Any]] = {}

    def add(entry: Entry, name: str, found: best_rule.Best) -> None:
        candidate = discovered.candidate_of(entry, name, found.proxies)
        candidates.append(candidate)
        about[name] = {
            "found": entry.candidate >= 0,
            "learning_rate": entry.learning_rate,
            "program": printing.pretty(candidate.program),
            "origin": dict(found.provenance),
        }

    for index, (name, run_dir) in enumerate(runs.items()):
        data, found = report_data.read_run(run_dir), best_rule.read_best(run_dir)
        check_unseen(data, suite)
        winner = next((entry for entry in data.entries if entry.winner), None)
        if winner is None or winner.candidate < 0:
            raise SystemExit(f"{run_dir}: no finals, or a baseline won them")
        add(winner, name, found)
        for entry in data.entries if index == 0 else ():
            if entry.candidate < 0:
                add(entry, f"{entry.label}_tuned", found)
    names = [candidate.name for candidate in candidates]
    if len(set(names)) < len(names) or not set(BASELINES) <= set(names):
        raise SystemExit(f"needed once each, {', '.join(BASELINES)} among them: {', '.join(names)}")
    return candidates, about


def make_plans(candidates: Sequence[ProgramCandidate], suite: suites.Suite) -> list[SweepPlan]:
    """Return a plan for each candidate and task, the longest first."""
    plans = [
        SweepPlan(one, e.task, e.num_steps, protocol.NUM_CHECKS, SEEDS, SCHEDULES)
        for e in suite.tasks
        for one in candidates
    ]
    return sorted(plans, key=guess_s, reverse=True)


def guess_s(plan: SweepPlan) -> float:
    """Return about how many seconds a plan takes on one core."""
    num_runs = len(plan.candidate.rates) * len(plan.seeds) * len(plan.schedules)
    return _COMPILE_S + num_runs * _RUN_S.get(plan.task, 1.0)


_worker: pool_worker.BenchmarkWorker  # Of a process that works.


def begin(taken: Any) -> None:
    """Begin a working process, on a core of its own."""
    global _worker
    with taken.get_lock():
        index, taken.value = taken.value, taken.value + 1
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[index % len(cores)]})
    _worker = pool_worker.BenchmarkWorker()


def work(plan: SweepPlan) -> tuple[tuple[Sweep, ...], float]:
    """Return a plan's sweeps and the seconds that they took."""
    began = time.perf_counter()
    sweeps: Any = _worker(pool_worker.SweepJob(plan))
    return sweeps, time.perf_counter() - began


def train(
    plans: Sequence[SweepPlan], cache: RunCache, fingerprints: Mapping[str, str], jobs: int
) -> None:
    """Run plans in processes of one core each, and keep each as it is finished."""
    began, done_s, total_s = time.perf_counter(), 0.0, sum(map(guess_s, plans))
    context = multiprocessing.get_context("spawn")
    failed = []
    with concurrent.futures.ProcessPoolExecutor(
        jobs, context, initializer=begin, initargs=(context.Value("i", 0),)
    ) as executor:
        futures = {executor.submit(work, plan): plan for plan in plans}
        try:
            for count, future in enumerate(concurrent.futures.as_completed(futures), start=1):
                plan = futures[future]
                done_s += guess_s(plan)
                if error := future.exception():
                    failed.append(plan.label)
                    print(f"{plan.label} failed: {type(error).__name__}: {error}", flush=True)
                    continue
                sweeps, seconds = future.result()
                cache.keep(plan, fingerprints[plan.task], sweeps)
                left = (time.perf_counter() - began) * (total_s / done_s - 1)
                print(
                    f"{count} of {len(plans)}: {plan.label}: {seconds:.0f} s, "
                    f"about {left / 60:.0f} min left",
                    flush=True,
                )
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        raise SystemExit(f"{len(failed)} sweeps raised an error; the others are kept")


def normalizer_of(name: str) -> unseen_scores.Normalizer:
    """Return a task's normalizer for arrays of losses."""
    normalizer = jnp.vectorize(registry.load_task(name).normalizer)
    return lambda losses: np.asarray(normalizer(jnp.asarray(losses, jnp.float32)))


def score(
    names: Sequence[str], suite: suites.Suite, sweeps: Mapping[tuple[str, str], Sequence[Sweep]]
) -> dict[str, Any]:
    """Return the numbers of each task, and over them.

    Args:
      names: Candidates.
      suite: Tasks.
      sweeps: Sweeps by candidate and task, one per schedule.
    """
    tasks = {entry.task: normalizer_of(entry.task) for entry in suite.tasks}
    curves = {
        schedule: {
            name: {
                task: unseen_scores.Curves.of(sweeps[name, task][index], normalizer)
                for task, normalizer in tasks.items()
            }
            for name in names
        }
        for index, schedule in enumerate(SCHEDULES)
    }
    scores = unseen_scores.Scores(curves)
    return {
        "aggregates": {name: scores.aggregates(name, BASELINES) for name in names},
        "tasks": {
            task: {
                schedule: {name: scores.on_task(schedule, name, task, BASELINES) for name in names}
                for schedule in SCHEDULES
            }
            for task in tasks
        },
    }


def show(found: Mapping[str, Any]) -> None:
    """Print the table over tasks and the table of tasks."""
    heads = "".join(f"{head:>27}" for head in ("gain", "held-out gain", "speed-up"))
    for choice in unseen_scores.CHOICES:
        for schedule in (*SCHEDULES, unseen_scores.BOTH):
            for baseline in BASELINES:
                title = f"{choice}, {schedule}, over {baseline}"
                print(f"\n{title:44}{heads}")
                for name, row in found["aggregates"].items():
                    cells = row[choice][schedule][baseline].items()
                    print(f"{name:44}" + "".join(f"{_cell(*one):>27}" for one in cells))
    print(f"\ngain / speed-up over {BASELINES[0]}, each at its best rate; * at the grid's edge")
    for task, schedules in found["tasks"].items():
        for schedule, rows in schedules.items():
            print(f"{task:24} {schedule:14}" + "".join(map(_task_cell, rows, rows.values())))


def _cell(measured: str, row: Mapping[str, float]) -> str:
    form = ".2f" if measured == "speedup" else "+.3f"
    return f"{row['value']:{form}} [{row['low']:{form}}, {row['high']:{form}}]"


def _task_cell(name: str, row: Mapping[str, Any]) -> str:
    own = row["own_rate"]
    over = own["over"][BASELINES[0]]
    return f"  {name} {over['gain']:+.2f} / {over['speedup']:.2f}{'*' if own['at_edge'] else ''}"


def named_run(text: str) -> tuple[str, Path]:
    """Return the name and the folder of NAME=RUN_DIR."""
    name, _, folder = text.partition("=")
    if not name.isidentifier() or not folder:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=RUN_DIR")
    return name, Path(folder)


def main() -> None:
    """Train what is missing, score, print and write `results/unseen.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("searches", nargs="+", type=named_run, metavar="NAME=RUN_DIR")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--suite", type=Path, help="JSON file: number of steps by task")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.jobs < 1 or len(dict(args.searches)) < len(args.searches):
        parser.error("--jobs: at least 1, and each NAME once")
    suite = suites.load_suite("unseen")
    if args.suite is not None:
        if args.out == RESULTS:
            parser.error("--suite needs --out: the results are those of the suite unseen")
        entries = json.loads(args.suite.read_text(encoding="utf-8")).items()
        suite = suites.Suite("trial", "", tuple(suites.SuiteTask(*entry) for entry in entries))
    candidates, about = read_candidates(dict(args.searches), suite)
    compiling.keep_compiled()
    fingerprints = {
        entry.task: task_fingerprint.fingerprint(registry.load_task(entry.task))
        for entry in suite.tasks
    }
    plans, cache = make_plans(candidates, suite), RunCache(args.runs)

    def find() -> dict[SweepPlan, tuple[Sweep, ...] | None]:
        return {plan: cache.find(plan, fingerprints[plan.task]) for plan in plans}

    missing = [plan for plan, sweeps in find().items() if sweeps is None]
    print(f"{len(plans) - len(missing)} of {len(plans)} sweeps are there", flush=True)
    if missing and not args.report:
        with cache.take():
            train(missing, cache, fingerprints, args.jobs)
    sweeps = {(p.candidate.name, p.task): found for p, found in find().items() if found is not None}
    names = [candidate.name for candidate in candidates]
    lacking = {p.task for p in plans if (p.candidate.name, p.task) not in sweeps}
    tasks = tuple(entry for entry in suite.tasks if entry.task not in lacking)
    if not tasks:
        raise SystemExit("no task is finished for every candidate")
    found = score(names, dataclasses.replace(suite, tasks=tasks), sweeps)
    show(found)
    if lacking:
        raise SystemExit(f"not finished, and nothing written: {', '.join(sorted(lacking))}")
    result = {
        "command": "python benchmarks/unseen.py --runs DIR "
        + " ".join(f"{name}=RUN_DIR" for name, _ in args.searches),
        "seeds": SEEDS,
        "num_checks": protocol.NUM_CHECKS,
        "steps": {entry.task: entry.num_steps for entry in suite.tasks},
        "run_s": round(
            sum(one.run_s + one.compile_s for group in sweeps.values() for one in group)
        ),
        "candidates": about,
        **found,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
