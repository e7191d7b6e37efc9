"""Ray's overhead per job, and the share of time that workers are busy: one machine, a local Ray.

    python benchmarks/pool.py [--quick]

*Overhead.* Jobs that sleep, and real evaluations of `two_digits.yaml`'s proxies, on the same number
of workers: threads of this process (`inline`), Ray actors (`ray`), and Ray actors that get one
job at a time (`ray, one by one`: the dispatcher assumes that handing out costs nothing, so it makes
no batches). The three take turns within each repeat, so that a slower moment of the machine affects
all of them. `overhead_ms` is worker-milliseconds per job beyond the job's own time at its worker;
`driver_cpu_ms` is the processor time of the driver's process per job, with Ray's threads. As many
jobs are kept in flight as `window` says; a batch is never more than a worker's fair share of them.

*Utilisation.* Jobs of log-normal length on fractional actors, several times as many as there are
cores: busy over alive worker-seconds while jobs are submitted, once the workers have fallen out of
step, so that neither the start nor the end counts. The wall-clock of the whole, both ends
included, is given against the ideal (all sleep, divided by the workers).

Sleeping needs no core, so these workers do not compete for one; the driver, Ray's own processes and
32 starting workers do share this machine's.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import jax
import numpy as np

from veldt import config as config_lib
from veldt.search import rule_sources
from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation.evaluator import EvaluatorFactory
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evaluation.jobs import EvalJob, ProxyRun
from veldt.tasks.pool import config, ray_cluster, ray_pool
from veldt.tasks.pool import inline as inline_pool
from veldt.tasks.pool.base import Job, JobStatus, Pool

RESULTS: Final = Path(__file__).parent / "results" / "pool.json"
SETTING: Final = Path(__file__).parent / "two_digits.yaml"
NUM_WORKERS: Final = 2
LONGEST_START_S: Final = 300.0


class Sleeper:
    """A worker that sleeps for as long as its payload says."""

    def __call__(self, payload: object) -> float:
        assert isinstance(payload, float)
        time.sleep(payload)
        return payload


def evaluations(count: int) -> list[EvalJob]:
    """Jobs as a search hands them out: one seed of each proxy; AdamW and Lion in turn."""
    genotypes = [
        Genotype(rule_sources.load_rule(name), rate)
        for name, rate in (("adamw", 3e-3), ("lion", 3e-4))
    ]
    num_tasks = len(config_lib.load_config(SearchConfig, SETTING).tasks)
    return [
        EvalJob(genotypes[i % 2], tuple(ProxyRun(proxy, i) for proxy in range(num_tasks)))
        for i in range(count)
    ]


def feed(pool: Pool, payloads: Iterable[object], window: int) -> float:
    """Run jobs with `window` of them in flight; return when the last is submitted."""
    for index, payload in enumerate(payloads):
        while pool.in_flight >= window:
            assert pool.next_result().status is JobStatus.OK
        pool.submit(Job(index, payload))
    submitted = time.perf_counter()
    assert all(result.status is JobStatus.OK for result in pool.results())
    return submitted


def wait_for_workers(pool: Pool) -> float:
    """Run jobs until all workers are ready; return the seconds that it took."""
    began = time.perf_counter()
    while pool.stats().num_ready < pool.num_workers:
        if time.perf_counter() - began > LONGEST_START_S:
            raise TimeoutError(f"workers are not ready after {LONGEST_START_S:.0f} s")
        feed(pool, [0.01] * pool.num_workers, pool.num_workers)
    return time.perf_counter() - began


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def measure_overhead(
    factory: Callable[[], Any],
    cases: dict[str, Sequence[object]],
    warm_up: Sequence[object],
    window: int,
    repeats: int,
) -> list[dict[str, Any]]:
    """Measure the three back ends in turns, on the same jobs, and return their rows."""
    with (
        inline_pool.InlinePool(factory, NUM_WORKERS) as inline,
        ray_pool.RayPool(factory, config.PoolConfig("ray", NUM_WORKERS)) as batched,
        ray_pool.RayPool(factory, config.PoolConfig("ray", NUM_WORKERS)) as one_by_one,
    ):
        pools: dict[str, Pool] = {
            "inline": inline,
            "ray": batched,
            "ray, one by one": one_by_one,
        }
        for pool in pools.values():
            while pool.stats().num_ready < NUM_WORKERS or pool.stats().num_done < len(warm_up):
                feed(pool, warm_up, window)
        call_ms = batched._dispatcher.overhead_s * 1e3
        one_by_one._dispatcher.overhead_s = 0.0
        rows = []
        for case, payloads in cases.items():
            figures: dict[str, dict[str, list[float]]] = {
                name: {"wall": [], "work": [], "cpu": []} for name in pools
            }
            for _ in range(repeats):
                for name, pool in pools.items():
                    busy_s, cpu_s = pool.stats().busy_s, time.process_time()
                    began = time.perf_counter()
                    feed(pool, payloads, window)
                    wall_s = time.perf_counter() - began
                    found = figures[name]
                    found["wall"].append(wall_s * NUM_WORKERS / len(payloads) * 1e3)
                    found["work"].append((pool.stats().busy_s - busy_s) / len(payloads) * 1e3)
                    found["cpu"].append((time.process_time() - cpu_s) / len(payloads) * 1e3)
            for name, found in figures.items():
                over = [a - b for a, b in zip(found["wall"], found["work"], strict=True)]
                against = [
                    a - b for a, b in zip(found["wall"], figures["inline"]["wall"], strict=True)
                ]
                rows.append(
                    {
                        "jobs": case,
                        "backend": name,
                        "num_jobs": len(payloads),
                        "repeats": repeats,
                        "window": window,
                        "job_ms": spread(found["work"]),
                        "overhead_ms": spread(over),
                        "overhead_share": statistics.median(over)
                        / statistics.median(found["work"]),
                        "wall_over_inline_ms": spread(against),
                        "driver_cpu_ms": spread(found["cpu"]),
                        "call_ms": call_ms,
                    }
                )
                print_overhead(rows[-1])
    return rows


def print_overhead(row: dict[str, Any]) -> None:
    """Print one line of the table."""
    job, over, cpu = (row[name] for name in ("job_ms", "overhead_ms", "driver_cpu_ms"))
    print(
        f"{row['jobs']:12} window {row['window']:3} {row['backend']:16} "
        f"job {job['median']:7.2f} ms, "
        f"overhead {over['median']:6.2f} ms ({over['min']:.2f} to {over['max']:.2f}; "
        f"{row['overhead_share']:5.1%}), driver CPU {cpu['median']:5.2f} ms",
        flush=True,
    )


def measure_utilisation(
    num_workers: int, mean_s: float, work_s: float, repeats: int, seed: int
) -> dict[str, Any]:
    """Measure jobs of log-normal length (sigma 0.6), `work_s` per worker, `repeats` times."""
    cores = config.num_usable_cores()
    ray_config = config.RayConfig(num_cpus=cores / num_workers)
    window = 4 * num_workers
    busy, walls = [], []
    with ray_pool.RayPool(Sleeper, config.PoolConfig("ray", num_workers, ray=ray_config)) as pool:
        ready_s = wait_for_workers(pool)
        feed(pool, [mean_s] * num_workers, window)  # So that it knows about how long jobs take.
        for repeat in range(repeats):
            rng = np.random.default_rng((seed, repeat))
            num_jobs = 3 * window + round(num_workers * work_s / mean_s)
            sigma = 0.6
            drawn = rng.lognormal(np.log(mean_s) - sigma**2 / 2, sigma, size=num_jobs)
            began, cpu_s = time.perf_counter(), time.process_time()
            marks: list[Any] = []

            def payloads(drawn: Any = drawn, marks: list[Any] = marks) -> Iterable[float]:
                for index, duration_s in enumerate(drawn):
                    if index == 2 * window:
                        marks.append(pool.stats())
                    yield float(duration_s)
                marks.append(pool.stats())

            feed(pool, payloads(), window)
            wall_s = time.perf_counter() - began
            before, after = marks
            cpu_s = time.process_time() - cpu_s
            busy.append((after.busy_s - before.busy_s) / (after.alive_s - before.alive_s))
            walls.append(wall_s / (drawn.sum() / num_workers))
        resident = [resident_mib(int(w.place.split()[-1])) for w in pool.stats().workers]
        reissued = pool.stats().num_reissued
    row: dict[str, Any] = {
        "num_workers": num_workers,
        "num_cpus_each": ray_config.num_cpus,
        "mean_job_s": mean_s,
        "num_jobs": num_jobs,
        "repeats": repeats,
        "window": window,
        "utilisation": spread(busy),
        "wall_over_ideal": spread(walls),
        "driver_cpu_ms": cpu_s / num_jobs * 1e3,
        "num_reissued": reissued,
        "all_ready_s": ready_s,
        "resident_mib_each": statistics.median(resident),
    }
    busy_, wall = row["utilisation"], row["wall_over_ideal"]
    print(
        f"{num_workers:3} workers of {ray_config.num_cpus:.3g} CPUs, jobs of {mean_s:.1f} s: busy "
        f"{busy_['median']:.1%} ({busy_['min']:.1%} to {busy_['max']:.1%}), wall-clock "
        f"{wall['median']:.3f} of the ideal, all ready after {ready_s:.0f} s, "
        f"{row['resident_mib_each']:.0f} MiB each",
        flush=True,
    )
    return row


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process, MiB, with what it shares with others."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def main() -> None:
    """Measure, print and write `results/pool.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a trial of a minute; nothing written")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    repeats = 2 if args.quick else args.repeats
    connection = ray_cluster.connect(config.PoolConfig("ray", 6, ray=config.RayConfig(num_cpus=1)))
    import ray

    sleep_s = {"1 ms sleep": 1e-3, "10 ms sleep": 1e-2, "100 ms sleep": 1e-1}
    # About two seconds for each turn.
    counts = {"1 ms sleep": 2000, "10 ms sleep": 400, "100 ms sleep": 40}
    sleeps: dict[str, Sequence[object]] = {
        case: [sleep_s[case]] * (counts[case] // (10 if args.quick else 1)) for case in sleep_s
    }
    overhead = []
    for window in (16, 256):
        overhead += measure_overhead(Sleeper, sleeps, [0.001] * 64, window, repeats)
    setting = config_lib.load_config(SearchConfig, SETTING)
    real: dict[str, Sequence[object]] = {"evaluation": evaluations(10 if args.quick else 60)}
    factory = EvaluatorFactory(setting.evaluator)
    overhead += measure_overhead(factory, real, evaluations(8), 16, repeats)
    connection.close()

    # A Ray of its own: nodes have as many cores as the workers above asked for.
    connection = ray_cluster.connect(config.PoolConfig("ray"))
    cores = config.num_usable_cores()
    utilisation = [
        measure_utilisation(num, mean_s, 2.0 if args.quick else 10.0, 1 if args.quick else 3, 0)
        for num in ((2, 8) if args.quick else (2, 8, 32))
        for mean_s in ((0.1,) if args.quick else (0.1, 1.0))
    ]
    connection.close()
    if not args.quick:
        result = {
            "command": f"python benchmarks/pool.py {' '.join(sys.argv[1:])}".strip(),
            "machine": {
                "processor": platform.processor() or platform.machine(),
                "cores": cores,
                "python": platform.python_version(),
                "ray": ray.__version__,
                "jax": jax.__version__,
            },
            "load_average_at_end": os.getloadavg(),
            "num_workers": NUM_WORKERS,
            "overhead": overhead,
            "utilisation": utilisation,
        }
        args.results.parent.mkdir(exist_ok=True)
        args.results.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
