"""A search on up to 1,000 simulated workers: speed, utilisation and memory.

    python benchmarks/scaling.py [--quick] [--workers N] [--scale S]

The real engine, store on disk, ordered driver and dispatcher, one process, with `two_digits.yaml`'s
settings; only the workers are simulated (`tasks.simulated_pool`). The durations of evaluations are
drawn from a distribution measured here first, on a real small search: `scale` 1 is
`two_digits.yaml`'s own, `scale` 100 stands for proxies a hundred times as long. Scores are a hash
of the program.

As many candidates as in `two_digits.yaml` are fitter than the incumbent on the search's seeds, and
most challenges are lost. Challenges are jobs among the others; `in_challenges` is their share of
the seconds of all jobs. `challenges` 0 has none.

The driver's own seconds pass on the simulated clock. So do `submit_s` for each job, which stand for
the cost of Ray's calls to the driver (`driver_cpu_ms` in `results/pool.json`). The dispatcher's
time is measured (`pool_us_per_job`, the simulation's own bookkeeping included) and not on that
clock. The window is 4 proposals per worker: about half are duplicates and need no job.

Utilisation is busy over alive worker-seconds while the second half of the proposals was asked, so
that neither the start nor the end counts. `memory` is a long search in a process of its own that
reads its resident memory on the way; the slope is a least-squares line through what follows the
first fifth.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np

from veldt import config
from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation.evaluator import EvaluatorFactory
from veldt.search.evaluation.jobs import EvalJob, Outcome, RunResult, Status
from veldt.search.evolution.engine import Evolution
from veldt.search.storage.store import Store
from veldt.tasks.pool import driver
from veldt.tasks.pool.base import Job, Pool, PoolStats
from veldt.tasks.pool.inline import InlinePool
from veldt.tasks.pool.simulated import Cluster, End, SimulatedPool

RESULTS: Final = Path(__file__).parent / "results" / "scaling.json"
SETTING: Final = Path(__file__).parent / "two_digits.yaml"
# In four searches of it, 2,200 candidates each, a quarter of the candidates were
# trained to the end, and 18 to 139 (on average 71) challenged the incumbent; a quarter of those met
# it on all fresh seeds, and 3 to 5 won.
DIVERGED, REJECTED, CHALLENGES = 0.05, 0.45, 71 / 2200
MIN_STATEMENTS = 12
NUM_QUANTILES: Final = 50
WINDOW: Final = 4  # Proposals in flight per worker; about half of them need no job.


@dataclasses.dataclass(frozen=True)
class Scores:
    """The answers of a worker: functions of the program's text and the seed.

    `challenges` is the share of candidates that do better than the incumbent on the search's seeds.
    """

    challenges: float

    def __call__(self, payload: object) -> Outcome:
        assert isinstance(payload, EvalJob)
        text = f"{payload.genotype.program}{payload.genotype.learning_rate!r}"
        luck = _uniform(text)
        status = Status.OK
        # Without a hurdle it is the initial rule, a challenge on fresh seeds, or meta-validation.
        if payload.hurdle:
            too_short = len(payload.genotype.program.statements) < MIN_STATEMENTS
            if luck < DIVERGED:
                status = Status.DIVERGED
            elif luck < DIVERGED + REJECTED or too_short:
                status = Status.REJECTED
        runs = payload.runs if status is Status.OK else payload.runs[:1]
        results = []
        for run in runs:
            log_loss = 0.1 * luck
            if payload.purpose == "fresh" and payload.candidate != 0:
                # Against the initial rule's 0: mean 0.02, deviation 0.05, by seed.
                log_loss = 0.02 + 0.05 * math.sqrt(12) * (_uniform(f"{text}{run.seed}") - 0.5)
            elif payload.candidate == 0:
                log_loss = 0.0
            elif luck > 1 - self.challenges:
                log_loss = luck - 2.0  # Better than all before only rarely.
            diverged = status is Status.DIVERGED
            loss, losses = (None, ()) if diverged else (math.exp(log_loss), (log_loss,))
            results.append(RunResult(run, status, loss, losses, 200, 0.1))
        return Outcome.of(results)


def _uniform(text: str) -> float:
    return int(hashlib.sha1(text.encode()).hexdigest()[:8], 16) / 16**8


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
    """Return the settings of `two_digits.yaml`, without its time limit."""
    return dataclasses.replace(
        config.load_config(SearchConfig, SETTING),
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
) -> Evolution:
    """Run a search without its finals.

    Args:
      pool: Pool that does the work.
      search_config: Config of the search.
      folder: Folder of the store.
      num_proposals: Number of proposals after which the search ends.
      told: Function that is called for each proposal told.
      asked: Function that is called for each proposal asked, and whether it has a job.
    """
    with Store.create(folder) as store:
        engine = driver.OrderedDriver(pool, window=search_config.window)
        evolution = Evolution.start(search_config, store, engine.run_now)

        def ask(index: int) -> driver.Proposal:
            proposal = evolution.ask(index) if index < num_proposals else driver.Stop()
            asked(index, isinstance(proposal, driver.NamedJob))
            return proposal

        def tell(index: int, outcome: Any) -> Sequence[driver.SideWork]:
            begun = evolution.tell(index, outcome)
            told(index, evolution)
            return begun

        engine.run(ask, tell, evolution.settle, evolution.begun)
        return evolution


def measure_durations(num_evaluations: int) -> tuple[Durations, dict[str, Any]]:
    """Run a real small search on one worker; return the durations of its evaluations."""
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
        return [
            float(q) for q in np.quantile(values, (np.arange(NUM_QUANTILES) + 0.5) / NUM_QUANTILES)
        ]

    found = Durations(quantiles(jobs), quantiles(runs))
    described = {
        "config": "two_digits, 1 inline worker",
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
    challenges: float,
    submit_s: float,
) -> dict[str, Any]:
    """Run one search on simulated workers."""
    search_config = settings(seed, num_proposals, window=WINDOW * num_workers)
    marks: list[tuple[int, float, PoolStats, float, float]] = []
    in_pool_s = 0.0
    seconds = {True: 0.0, False: 0.0}  # Of jobs, by whether they are a challenge's.

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
        scores = Scores(challenges)
        draw = durations.fate(scale)

        def fate(job: Job, rng: np.random.Generator) -> tuple[float, End]:
            assert isinstance(job.payload, EvalJob)
            duration_s, end = draw(job, rng)
            seconds[not job.payload.hurdle] += duration_s
            return duration_s, end

        pool = undo.enter_context(SimulatedPool(scores, cluster, fate, seed=seed))

        def asked(index: int, is_job: bool) -> None:
            # Worth its time only once the pool is full, and until nothing more is asked.
            if is_job:
                pool.now += submit_s
            if index in (num_proposals // 2, num_proposals):
                marks.append((index, pool.now, pool.stats(), seconds[True], sum(seconds.values())))

        began = time.perf_counter()
        evolution = search(pool, search_config, folder, num_proposals, asked=asked)
        real_s = time.perf_counter() - began
        num_jobs = pool.stats().num_done
    (first, since, before, *sums), (last, until, after, *later) = marks
    in_challenges_s, all_s = (late - early for early, late in zip(sums, later, strict=True))
    alive_s = after.alive_s - before.alive_s
    return {
        "proposals_per_s": (last - first) / (until - since),
        "jobs_per_s": (after.num_done - before.num_done) / (until - since),
        "utilisation": (after.busy_s - before.busy_s) / alive_s,
        "in_challenges": in_challenges_s / all_s,
        "num_challenges": evolution.counts.num_challenges,
        "jobs_per_proposal": (after.num_done - before.num_done) / (last - first),
        "wasted": (after.wasted_s - before.wasted_s) / alive_s,
        "simulated_s": until - since,
        "engine_us_per_proposal": (real_s - in_pool_s) / num_proposals * 1e6,
        "pool_us_per_job": in_pool_s / num_jobs * 1e6,
        "num_reissued": after.num_reissued,
    }


def resident_mib() -> float:
    """Return the resident memory of this process now, MiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def follow_memory(durations: Durations, num_proposals: int, num_workers: int) -> None:
    """Run a long search; print proposals told and resident MiB, a line of JSON each."""
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(num_workers, life_s=3600.0)  # Workers come and go, as they do.
        pool = SimulatedPool(Scores(CHALLENGES), cluster, durations.fate(100.0))

        def told(index: int, evolution: Evolution) -> None:
            if index % 1000 == 999:
                print(json.dumps([index + 1, resident_mib()]), flush=True)

        search_config = settings(0, num_proposals, window=WINDOW * num_workers)
        search(pool, search_config, Path(folder), num_proposals, told=told)
        print(json.dumps({"lost_workers": pool.stats().num_lost_workers}))


def measure_memory(durations: Durations, num_proposals: int, num_workers: int) -> dict[str, Any]:
    """Run the same in a process of its own, and return its figures."""
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
    told, mib = np.array(settled).T
    slope = np.polyfit(told, mib, 1)[0]
    return {
        "num_proposals": num_proposals,
        "num_workers": num_workers,
        **last,
        "slope_mib_per_10k_proposals": float(slope) * 1e4,
        "last_mib": track[-1][1],
        "resident_mib": track[:: max(1, len(track) // 50)],
    }


def spread(values: list[float]) -> dict[str, float]:
    """Return median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def print_row(row: dict[str, Any]) -> None:
    """Print one line of the table."""
    middle = {name: value["median"] for name, value in row.items() if isinstance(value, dict)}
    busy = row["utilisation"]
    print(
        f"{row['num_workers']:5} workers, candidates of {row['mean_job_s']:7.3f} s, "
        f"{middle['num_challenges']:3.0f} challenges: "
        f"{middle['proposals_per_s']:7.1f} proposals/s, "
        f"busy {busy['median']:5.1%} ({busy['min']:.1%} to {busy['max']:.1%}), "
        f"challenges {middle['in_challenges']:5.1%} of it, engine "
        f"{middle['engine_us_per_proposal']:.0f} us/proposal, pool {middle['pool_us_per_job']:.0f} "
        "us/job",
        flush=True,
    )


def main() -> None:
    """Measure, print and write `results/scaling.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a trial of a minute; nothing written")
    parser.add_argument("--workers", type=int, help="this number of workers alone; nothing written")
    parser.add_argument("--scale", type=int, help="this scale alone; nothing written")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--submit-ms", type=float, default=0.5, help="`submit_s` above, in ms")
    parser.add_argument("--proposals", type=int, default=60_000, help="those of the memory test")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--follow-memory", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.follow_memory:
        num_proposals, num_workers, quantiles = json.load(sys.stdin)
        follow_memory(Durations(**quantiles), num_proposals, num_workers)
        return
    durations, described = measure_durations(100 if args.quick else 600)
    print(f"a job takes {described['mean_job_s'] * 1e3:.1f} ms on average", flush=True)
    sizes: tuple[int, ...] = (2, 32, 1000) if args.quick else (2, 8, 32, 128, 512, 1000)
    scales: tuple[int, ...] = (1, 100) if args.quick else (1, 10, 100, 1000)
    is_part = args.workers is not None or args.scale is not None
    sizes = sizes if args.workers is None else (args.workers,)
    scales = scales if args.scale is None else (args.scale,)
    rows = []
    for num_workers in sizes:
        # The first half lets the workers fall out of step, the second is measured.
        num_proposals = max(1000, 4 * WINDOW * num_workers)
        for scale in scales:
            for challenges in (CHALLENGES, 0.0) if scale != 10 else (CHALLENGES,):
                runs = [
                    simulate(
                        durations,
                        num_workers=num_workers,
                        scale=scale,
                        num_proposals=num_proposals,
                        seed=seed,
                        challenges=challenges,
                        submit_s=args.submit_ms / 1e3,
                    )
                    for seed in range(1 if args.quick else args.repeats)
                ]
                row = {
                    "num_workers": num_workers,
                    "scale": scale,
                    "mean_job_s": scale * described["mean_job_s"],
                    "challenges": challenges,
                    "num_proposals": num_proposals,
                    **{name: spread([run[name] for run in runs]) for name in runs[0]},
                }
                rows.append(row)
                print_row(row)
    if is_part:
        return
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
