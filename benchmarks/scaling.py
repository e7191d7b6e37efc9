"""A search on up to 1,000 simulated workers: results per second, utilisation, and the driver's memory.

    python benchmarks/scaling.py [--quick]

The real engine, store on disk, ordered driver and dispatcher, one process, with the quickstart's
settings; only the workers are simulated (`tasks.simulated_pool`). How long evaluations take is
drawn from a distribution measured here first, on a real small search: `scale` 1 is the quickstart's
own, `scale` 100 stands for proxies a hundred times as long. Scores are a hash of the program.

The driver's own seconds pass on the simulated clock. So do `submit_s` for each job, which stand for
what Ray's calls cost the driver (`driver_cpu_ms` in `results/pool.json`). What the dispatcher
takes is measured (`pool_us_per_job`, the simulation's own bookkeeping included) and not on that
clock. The window is twice the workers, as a search of that size would set it.

Utilisation is busy over alive worker-seconds, from when all workers had work to when the last
proposal was asked. `memory` is a long search in a process of its own that reads its resident memory
on the way; the slope is a least-squares line through what follows the first fifth.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import math
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np

from veldt import config
from veldt.search.config import SearchConfig
from veldt.search.evaluator import EvalJob, EvaluatorFactory, Outcome, RunResult, Status
from veldt.search.evolution import Evolution
from veldt.search.store import Store
from veldt.tasks import driver
from veldt.tasks.inline_pool import InlinePool
from veldt.tasks.pool import Job, Pool, PoolStats
from veldt.tasks.simulated_pool import Cluster, End, SimulatedPool

RESULTS: Final = Path(__file__).parent / "results" / "scaling.json"
# In the quickstart's searches a quarter of the candidates are trained to the end.
DIVERGED, REJECTED = 0.05, 0.45
MIN_STATEMENTS = 12
NUM_QUANTILES: Final = 50


def score(payload: object) -> Outcome:
    """What a worker answers: a function of the program's text."""
    assert isinstance(payload, EvalJob)
    text = f"{payload.genotype.program}{payload.genotype.learning_rate!r}"
    luck = int(hashlib.sha1(text.encode()).hexdigest()[:8], 16) / 16**8
    too_short = len(payload.genotype.program.statements) < MIN_STATEMENTS
    status = Status.OK
    # Without a hurdle it is the initial rule, or a challenge on fresh seeds.
    if payload.hurdle and (luck < DIVERGED + REJECTED or too_short):
        status = Status.DIVERGED if luck < DIVERGED else Status.REJECTED
    loss = None if status is Status.DIVERGED else 1.0 - 0.1 * luck
    losses = () if loss is None else (math.log(loss),)
    runs = payload.runs if status is Status.OK else payload.runs[:1]
    results = tuple(RunResult(run, status, loss, losses, 200, 0.1) for run in runs)
    return Outcome(status, losses[0] if status is Status.OK else None, results)


@dataclasses.dataclass(frozen=True)
class Durations:
    """Measured seconds, as evenly spaced quantiles: of candidates' jobs, and of whole runs."""

    jobs: list[float]
    runs: list[float]

    def fate(self, scale: float) -> Callable[[Job, np.random.Generator], tuple[float, End]]:
        """Draw a job's duration, times `scale`; a challenge takes all of its runs."""

        def draw(job: Job, rng: np.random.Generator) -> tuple[float, End]:
            assert isinstance(job.payload, EvalJob)
            if job.payload.hurdle:
                duration_s = float(rng.choice(self.jobs))
            else:
                duration_s = float(rng.choice(self.runs, size=len(job.payload.runs)).sum())
            return scale * duration_s, End.RETURNS

        return draw


def settings(seed: int, num_evaluations: int, window: int) -> SearchConfig:
    """The quickstart's, without its time limit."""
    return dataclasses.replace(
        config.load_config(SearchConfig, "quickstart"),
        seed=seed,
        time_limit_s=None,
        max_evaluations=num_evaluations,
        window=window,
    )


def search(
    pool: Pool,
    search_config: SearchConfig,
    folder: Path,
    num_proposals: int,
    told: Callable[[int, Evolution], None] = lambda index, evolution: None,
    asked: Callable[[int, bool], None] = lambda index, is_job: None,
) -> None:
    """A search without its finals; `told` and `asked` hear of each proposal."""
    with Store.create(folder) as store:
        engine = driver.OrderedDriver(pool, window=search_config.window)
        evolution = Evolution(search_config, store, engine.run_now)
        evolution.start()

        def ask(index: int) -> driver.Proposal:
            proposal = evolution.ask(index) if index < num_proposals else driver.Stop()
            asked(index, isinstance(proposal, driver.Run))
            return proposal

        def tell(index: int, outcome: Any) -> None:
            evolution.tell(index, outcome)
            told(index, evolution)

        engine.run(ask, tell)


def measure_durations(num_evaluations: int) -> tuple[Durations, dict[str, Any]]:
    """A real small search on one worker; how long its evaluations took."""
    search_config = settings(0, num_evaluations, window=16)
    with tempfile.TemporaryDirectory() as folder:
        with InlinePool(EvaluatorFactory(search_config.evaluator)) as pool:
            search(pool, search_config, Path(folder), 200 * num_evaluations)
        with Store.open(Path(folder), read_only=True) as store:
            jobs = [
                row["s"]
                for row in store.rows(
                    "SELECT SUM(wall_s) AS s FROM evaluation WHERE purpose = 'fitness' "
                    "AND candidate > 0 GROUP BY candidate"
                )
            ]
            runs = [
                row["wall_s"]
                for row in store.rows(
                    "SELECT wall_s FROM evaluation WHERE purpose != 'fitness' AND status = 'ok'"
                )
            ]

    def quantiles(values: list[float]) -> list[float]:
        return [float(q) for q in np.quantile(values, (np.arange(NUM_QUANTILES) + 0.5) / 50)]

    found = Durations(quantiles(jobs), quantiles(runs))
    described = {
        "config": "quickstart, 1 inline worker",
        "num_jobs": len(jobs),
        "num_whole_runs": len(runs),
        "mean_job_s": statistics.mean(found.jobs),
        "job_s_quantiles": found.jobs,
        "run_s_quantiles": found.runs,
    }
    return found, described


def simulate(
    durations: Durations,
    *,
    num_workers: int,
    scale: float,
    num_proposals: int,
    seed: int,
    submit_s: float,
) -> dict[str, Any]:
    """One search on simulated workers."""
    search_config = settings(seed, num_proposals, window=2 * num_workers)
    marks: list[tuple[int, float, PoolStats]] = []
    in_pool_s = 0.0

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:
            nonlocal in_pool_s
            began = time.perf_counter()
            try:
                return function(*args)
            finally:
                in_pool_s += time.perf_counter() - began

        return wrapper

    with contextlib.ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory()))
        for name in ("submit", "next_result"):
            wrapped = timed(getattr(SimulatedPool, name))
            undo.enter_context(mock.patch.object(SimulatedPool, name, wrapped))
        cluster = Cluster(num_workers, overhead_s=1e-3)
        pool = undo.enter_context(
            SimulatedPool(score, cluster, durations.fate(scale), seed=seed)
        )

        def asked(index: int, is_job: bool) -> None:
            # Worth its time only once the pool is full, and until nothing more is asked.
            if is_job:
                pool.now += submit_s
            if index in (2 * search_config.window, num_proposals):
                marks.append((index, pool.now, pool.stats()))

        began = time.perf_counter()
        search(pool, search_config, folder, num_proposals, asked=asked)
        real_s = time.perf_counter() - began
        num_jobs = pool.stats().num_done
    (first, since, before), (last, until, after) = marks
    alive_s = after.alive_s - before.alive_s
    return {
        "num_proposals": num_proposals,
        "proposals_per_s": (last - first) / (until - since),
        "jobs_per_s": (after.num_done - before.num_done) / (until - since),
        "utilisation": (after.busy_s - before.busy_s) / alive_s,
        "wasted": (after.wasted_s - before.wasted_s) / alive_s,
        "simulated_s": until - since,
        "engine_us_per_proposal": (real_s - in_pool_s) / num_proposals * 1e6,
        "pool_us_per_job": in_pool_s / num_jobs * 1e6,
        "num_reissued": after.num_reissued,
    }


def resident_mib() -> float:
    """Resident memory of this process now, MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def follow_memory(durations: Durations, num_proposals: int, num_workers: int) -> None:
    """A long search; prints proposals told and resident MiB, a line of JSON each."""
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(num_workers, life_s=3600.0)  # Workers come and go, as they do.
        pool = SimulatedPool(score, cluster, durations.fate(100.0))

        def told(index: int, evolution: Evolution) -> None:
            if index % 1000 == 999:
                print(json.dumps([index + 1, resident_mib()]), flush=True)

        search_config = settings(0, num_proposals, window=2 * num_workers)
        search(pool, search_config, Path(folder), num_proposals, told=told)
        print(json.dumps({"lost_workers": pool.stats().num_lost_workers}))


def measure_memory(durations: Durations, num_proposals: int, num_workers: int) -> dict[str, Any]:
    """The same in a process of its own."""
    given = json.dumps([num_proposals, num_workers, dataclasses.asdict(durations)])
    child = subprocess.run(
        [sys.executable, __file__, "--follow-memory"],
        input=given,
        capture_output=True,
        text=True,
        check=True,
    )
    *track, last = [json.loads(line) for line in child.stdout.splitlines()]
    settled = [point for point in track if point[0] >= num_proposals / 5]
    slope = np.polyfit(*zip(*settled, strict=True), 1)[0]
    return {
        "num_proposals": num_proposals,
        "num_workers": num_workers,
        **last,
        "slope_mib_per_10k_proposals": float(slope) * 1e4,
        "last_mib": track[-1][1],
        "resident_mib": track[:: max(1, len(track) // 50)],
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main() -> None:
    """Measure, print and write `results/scaling.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a look in a minute; nothing written")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--submit-ms", type=float, default=0.5, help="see `submit_s` above")
    parser.add_argument("--proposals", type=int, default=60_000, help="of the memory test")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--follow-memory", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.follow_memory:
        num_proposals, num_workers, quantiles = json.load(sys.stdin)
        follow_memory(Durations(**quantiles), num_proposals, num_workers)
        return
    durations, described = measure_durations(100 if args.quick else 600)
    print(f"a job takes {described['mean_job_s'] * 1e3:.1f} ms on average", flush=True)
    sizes = (2, 32, 1000) if args.quick else (2, 8, 32, 128, 512, 1000)
    scales = (1, 100) if args.quick else (1, 10, 100, 1000)
    rows: list[dict[str, Any]] = []
    for num_workers in sizes:
        for scale in scales:
            # Long enough for what is under way at both ends not to matter.
            num_proposals = max(1500, (5 if args.quick else 16) * num_workers)
            runs = [
                simulate(
                    durations,
                    num_workers=num_workers,
                    scale=scale,
                    num_proposals=num_proposals,
                    seed=seed,
                    submit_s=args.submit_ms / 1e3,
                )
                for seed in range(1 if args.quick else args.repeats)
            ]
            names = ("proposals_per_s", "jobs_per_s", "utilisation", "wasted", "simulated_s")
            costs = ("engine_us_per_proposal", "pool_us_per_job")
            row = {
                "num_workers": num_workers,
                "scale": scale,
                "mean_job_s": scale * described["mean_job_s"],
                "num_proposals": num_proposals,
                **{name: spread([run[name] for run in runs]) for name in (*names, *costs)},
                "num_reissued": [run["num_reissued"] for run in runs],
            }
            rows.append(row)
            print(
                f"{num_workers:5} workers, jobs of {row['mean_job_s']:8.3f} s: "
                f"{row['jobs_per_s']['median']:8.1f} results/s, busy "
                f"{row['utilisation']['median']:6.1%} ({row['utilisation']['min']:.1%} to "
                f"{row['utilisation']['max']:.1%}), wasted {row['wasted']['median']:.1%}, engine "
                f"{row['engine_us_per_proposal']['median']:.0f} us/proposal, pool "
                f"{row['pool_us_per_job']['median']:.0f} us/job",
                flush=True,
            )
    memory = measure_memory(durations, 5000 if args.quick else args.proposals, 1000)
    print(
        f"memory: {memory['last_mib']:.0f} MiB after {memory['num_proposals']} proposals, "
        f"{memory['slope_mib_per_10k_proposals']:+.2f} MiB per 10,000"
    )
    if not args.quick:
        result = {
            "command": f"python benchmarks/scaling.py {' '.join(sys.argv[1:])}".strip(),
            "machine": {
                "processor": platform.processor() or platform.machine(),
                "python": platform.python_version(),
            },
            "repeats": args.repeats,
            "submit_s": args.submit_ms / 1e3,
            "durations": described,
            "simulation": rows,
            "memory": memory,
        }
        args.results.parent.mkdir(exist_ok=True)
        args.results.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
