"""What an accelerator does, in under ten minutes: the script for a person who has one.

    python benchmarks/gpu.py            # on a GPU or TPU; writes results/gpu.json
    python benchmarks/gpu.py --small    # small numbers, within a minute on a CPU; writes nothing

Three things are measured, one after the other, one run of each, with nothing else on the device:

- `search`: programs per hour by the number of lanes, as `lanes.py` measures it (`digits_mlp`, 500
  steps, candidates of 16 live instructions, for `--seconds` after compiling), with the most memory
  that the device held, and what `lanes: null` would choose here;
- `meta_training`: inner steps per second of PES, of Adam and of Celo2, by the number of particles,
  as `meta_training.py` measures it: the best of 5 windows of 50 steps;
- `metagradient`: wall seconds of a metagradient of 1,000 steps over those of a forward run, as
  `metagradient.py` defines both: the median of 3, by the plan that is chosen for the device.

What has not begun when `--minutes` are over is left out, and `left_out` names it. Results are
written only on an accelerator, since those of a CPU say nothing about one.
"""

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import interpreter as interpreter_benchmark
import jax
import jax.numpy as jnp
import lanes as lanes_benchmark
import meta_training as meta_training_benchmark
import metagradient as metagradient_benchmark
import optax

from veldt.learned_opt import registry as rules
from veldt.meta.estimators import truncated_es
from veldt.meta.problems import task_problem
from veldt.meta.replay import api, programs, states
from veldt.meta.train import outer_step
from veldt.search.config.proxy_config import ProxyConfig
from veldt.search.config.search_config import SearchConfig
from veldt.search.run import lane_width
from veldt.search.runtime.encode import Capacity
from veldt.tasks import registry
from veldt.tasks.benchmark.runs import provenance
from veldt.tasks.pool import config

RESULTS: Final = Path(__file__).parent / "results" / "gpu.json"
TASK: Final = "digits_mlp"
SETTINGS: Final = {
    "full": {
        "lanes": (1, 16, 64, 256, 1024),
        "search_steps": 500,
        "candidates": 256,
        "particles": (8, 128),
        "window": 50,
        "windows": 5,
        "rules": ("adam", "celo2"),
        "replay_steps": 1000,
        "width": 256,
        "repeats": 3,
    },
    "small": {
        "lanes": (1, 2),
        "search_steps": 20,
        "candidates": 8,
        "particles": (2,),
        "window": 5,
        "windows": 2,
        "rules": ("adam",),
        "replay_steps": 20,
        "width": 16,
        "repeats": 1,
    },
}


def peak_bytes() -> int | None:
    """Return the most memory that the device has held so far; None on a CPU."""
    stats = jax.devices()[0].memory_stats()
    return None if stats is None else stats.get("peak_bytes_in_use")


def search(number: int, settings: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Measure programs per hour with a number of lanes."""
    drawn = interpreter_benchmark.candidates(settings["candidates"], 0)
    times = 1 + 8 * number // len(drawn)
    proxy = ProxyConfig(TASK, settings["search_steps"], lanes_benchmark.CHUNKS)
    threads = number if number > 1 else min(config.num_usable_cores(), config.MAX_INLINE_WORKERS)
    row, _ = lanes_benchmark.measure(proxy, number, threads, drawn * times, seconds)
    return {**row, "peak_bytes": peak_bytes()}


def chosen_lanes(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what `lanes: null` would choose, and the memory of a lane that it counts with."""
    num_steps = settings["search_steps"]
    proxy = ProxyConfig(TASK, num_steps, lanes_benchmark.CHUNKS)
    wanted = SearchConfig(tasks=(proxy,), meta_validation=(), window=1 << 20, lanes=None)
    settled = lane_width.settle(wanted, Path("nowhere"), resume=False)
    task = registry.load_task(TASK)
    each = lane_width.COPIES * lane_width.state_bytes(task, num_steps, Capacity())
    return {
        "lanes": settled.lanes,
        "bytes_a_lane": each + lane_width.step_bytes(task),
        "device_bytes": lane_width.device_bytes(),
    }


def meta_training(particles: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Measure inner steps per second of an estimate by PES."""
    celo2 = rules.architecture("celo2")
    subjects = {
        "adam": (lambda p, n: optax.adam(p["rate"]), {"rate": jnp.asarray(1e-3)}),
        "celo2": (celo2.as_optax, celo2.init(jax.random.key(1))),
    }
    rows: dict[str, Any] = {}
    task = registry.load_task(TASK)
    for name in settings["rules"]:
        make_tx, meta_params = subjects[name]
        problem = task_problem.TaskProblem.of(
            task, make_tx, lengths=meta_training_benchmark.LENGTHS
        )
        each = truncated_es.PES(problem, particles, settings["window"])
        keys = iter(jax.random.split(jax.random.key(0), settings["windows"] + 2))
        state = outer_step.begin(each, meta_params, next(keys))
        took_s = []
        for _ in range(settings["windows"] + 1):
            began = time.perf_counter()
            meta_grad, state, _ = outer_step.estimate(each, meta_params, state, next(keys))
            jax.block_until_ready(meta_grad)
            took_s.append(time.perf_counter() - began)
        rows[name] = {
            "inner_steps_per_s": 2 * particles * settings["window"] / min(took_s[1:]),
            "first_s": took_s[0],
        }
    return rows


def metagradient(settings: dict[str, Any]) -> dict[str, Any]:
    """Measure a metagradient and a forward run."""
    run = metagradient_benchmark.Perceptron.of(settings["replay_steps"], settings["width"])
    meta_params = jax.tree.map(jnp.asarray, metagradient_benchmark.META_PARAMS)
    spec = states.StateSpec.of(run.init, meta_params)
    plan = ""

    def take() -> None:
        nonlocal plan
        found = api.metagradient(
            run, meta_params, key=jax.random.key(0), check="none", on_failure="keep"
        )
        plan = found.plan.name
        jax.block_until_ready(found.gradient)

    forward_s = _median_s(
        lambda: jax.block_until_ready(programs.run(spec, run, meta_params)), settings
    )
    gradient_s = _median_s(take, settings)
    return {
        "plan": plan,
        "forward_s": forward_s,
        "gradient_s": gradient_s,
        "runs": gradient_s / forward_s,
    }


def _median_s(function: Callable[[], Any], settings: dict[str, Any]) -> float:
    """Return the median of wall seconds, after a first call that compiles."""
    function()
    took_s = []
    for _ in range(settings["repeats"]):
        began = time.perf_counter()
        function()
        took_s.append(time.perf_counter() - began)
    return statistics.median(took_s)


def main() -> None:
    """Measure and print; write on an accelerator."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--seconds", type=float)
    args = parser.parse_args()
    settings: dict[str, Any] = SETTINGS["small" if args.small else "full"]
    seconds = args.seconds if args.seconds is not None else 2.0 if args.small else 40.0
    began = time.perf_counter()
    result: dict[str, Any] = {
        "versions": provenance.versions(),
        "settings": {**settings, "seconds": seconds, "small": args.small},
        "chosen_lanes": chosen_lanes(settings),
        "left_out": [],
    }
    parts: dict[str, Callable[[], Any]] = {
        **{
            f"meta_training/{n}": functools.partial(meta_training, n, settings)
            for n in settings["particles"]
        },
        "metagradient": functools.partial(metagradient, settings),
        **{
            f"search/{n}": functools.partial(search, n, settings, seconds)
            for n in settings["lanes"]
        },
    }
    for name, measure in parts.items():
        if time.perf_counter() - began > 60 * args.minutes:
            result["left_out"].append(name)
            continue
        part, _, number = name.partition("/")
        row = measure()
        if number:
            result.setdefault(part, {})[number] = row
        else:
            result[part] = row
        print(name, json.dumps(row), flush=True)
    result["wall_s"] = time.perf_counter() - began
    print(json.dumps(result, indent=2))
    if jax.devices()[0].platform == "cpu":
        print("on a CPU: nothing written")
        return
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(f"wrote {RESULTS.name}")


if __name__ == "__main__":
    main()
