"""The parts of a search's throughput: training steps, children, and answers from cache.

    python benchmarks/search_throughput.py [--rounds 9] [--children 20000] [--parts steps ...]

One run, one machine, one core: XLA is held to one, as a worker of a full machine has it. Times
are processor times, which other work on the machine hardly changes; wall times stand beside them.
Ratios are made within a round, in which everything is timed in turn; reported are the median over
rounds and the quartiles.

`steps`: microseconds for a training step of the evaluator's own loop, for programs of 12 live
statements on tasks of 2,410 to 301,066 parameters, as ratios to the same loop under plain SGD on
the task's own tree of parameters. `sgd_flat` is plain SGD on the flat vector of the interpreter,
`empty` the interpreter with no statement; `adam` is a rule as a person would write it,
the other programs are drawn by the search's own mutations.

`paths`: the time that compiling a program saved per instruction, parameter and step, and the number
of steps above which it saves more than it took, as measured and by the constants of `paths.py`.

`children`: the cost of a child before it is trained: `driver.py`'s measurement.

`dear`: what an instruction on whole tensors or matrices costs, interpreted and compiled, on top of
a program without it: microseconds for a use and step, and the saving of compiling per parameter.
From these are the weights in `training_paths.SAVED_NS`.

`cache`: a whole search of that many children, trained for real on two quadratic bowls of 20 steps,
which stand in for proxy tasks: the trainings are tiny, while mutation, cache, hurdle,
selection and the store are `two_digits.yaml`'s. Lion's paper reports 89% after 300,000 children
(arXiv 2302.06675, section 2.2), whose mutations have no learning rate and no odds of their own for
constants. `stores` has the shares of real searches, where there are any.
"""

import argparse
import dataclasses
import functools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from unittest import mock

# Before JAX is first used.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)
if hasattr(os, "sched_setaffinity"):
    # The flags leave some of XLA's work to a second core where one is idle.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import driver as driver_benchmark
import interpreter as interpreter_benchmark
import jax
import jax.numpy as jnp
import numpy as np
import optax

from veldt import config
from veldt.search.config.proxy_config import EvaluatorConfig, ProxyConfig
from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation import proxy_loop
from veldt.search.evaluation.evaluator import EvaluatorFactory
from veldt.search.evolution.engine import Evolution
from veldt.search.language import dataflow
from veldt.search.language.ops import INTERPRETED, OPS
from veldt.search.program import Program
from veldt.search.runtime import encode, interpreter, training_paths
from veldt.search.storage.store import Store
from veldt.tasks import registry
from veldt.tasks.benchmark.runs import provenance
from veldt.tasks.common import compiling
from veldt.tasks.inner_loop import unroll
from veldt.tasks.inner_loop.flat import Layout
from veldt.tasks.pool import driver
from veldt.tasks.pool.inline import InlinePool

RESULTS: Final = Path(__file__).parent / "results" / "search_throughput.json"
SETTING: Final = Path(__file__).parent / "two_digits.yaml"
STORES: Final = Path("runs/seeds")
LIVE: Final = 12
# The task, and the steps that are timed at once.
TASKS: Final = {
    "digits_mlp": 200,
    "digits_mlp_deep": 100,
    "digits_diffusion": 50,
    "letters_mlp_deep": 20,
    "digits_mlp_wide": 12,
}
NUM_RANDOM: Final = 6
NUM_COMPILED: Final = 3
ADAM: Final = """\
def adam(w, g, m, v, *, b1=0.9, b2=0.999, eps=1e-8):
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    return m / (1 - b1**step) / (sqrt(v / (1 - b2**step)) + eps), m, v
"""
RATE: Final = 1e-3
# Tasks for the instructions on whole tensors, with the steps that are timed at once.
DEAR_TASKS: Final = {"digits_mlp": 100, "digits_diffusion": 40, "digits_mlp_wide": 6}
PARTS: Final = ("steps", "paths", "dear", "floor", "children", "cache")
Loop = Callable[[], Any]


class Sgd(training_paths.AbstractPath):
    """Plain SGD as a path of the evaluator's loop."""

    data = ()
    compiles_as = "sgd"

    def transform(self, data: Any) -> optax.GradientTransformationExtraArgs:
        del data
        return optax.with_extra_args_support(optax.identity())


def programs() -> dict[str, dataflow.Dataflow]:
    """Return programs of `LIVE` live statements, by name."""
    drawn = interpreter_benchmark.candidates(NUM_RANDOM, seed=0, length=LIVE)
    named = {f"random_{i}": genotype.program for i, genotype in enumerate(drawn)}
    flows = {
        name: dataflow.lower(program, fold=True)
        for name, program in {"adam": Program.parse(ADAM), **named}.items()
    }
    assert all(len(flow.live_nodes) == LIVE for flow in flows.values())
    return flows


def evaluator_loop(proxy: proxy_loop.ProxyLoop, path: training_paths.AbstractPath) -> Loop:
    """Return a chunk of the evaluator's own loop with a given path."""
    flow = dataflow.lower(Program.parse("def rule(w, g):\n    return g\n"), fold=True)
    with mock.patch.object(training_paths, "choose", lambda *_, **__: path):
        run = proxy.prepare(flow, RATE, 0)

    def prepared() -> Any:
        # `advance` gives its state away, so each call gets a new one.
        state = jax.block_until_ready(run.start())
        return lambda: run.advance(state)[1]

    return prepared


def tree_loop(name: str, num_steps: int) -> Loop:
    """Return the same loop under plain SGD on the task's own tree of parameters."""
    task = registry.load_task(name)
    tx = optax.sgd(RATE)

    def advance(task: Any, state: Any) -> Any:
        state, losses = unroll.unroll(task, tx, state, num_steps=num_steps)
        loss = unroll.evaluate(task, state.params, state.key, "valid")
        finite = jnp.isfinite(losses).all().astype(loss.dtype)
        return state, jnp.stack([loss, task.normalizer(loss), finite])

    start = jax.jit(lambda task: unroll.init(task, tx, jax.random.key(0)))
    state = start(task)
    compiled = jax.jit(advance, donate_argnums=1).lower(task, state).compile(compiling.options())

    def prepared() -> Any:
        state = jax.block_until_ready(start(task))
        return lambda: compiled(task, state)[1]

    return prepared


def timed(loops: Mapping[str, Loop], rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """Return seconds of processor and of wall time, by loop and round; loops take turns."""
    seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in loops}
    for number in range(rounds + 1):  # The first is not counted.
        for name, prepared in loops.items():
            go = prepared()
            cpu, wall = time.process_time(), time.perf_counter()
            np.asarray(go())
            spent = time.process_time() - cpu, time.perf_counter() - wall
            if number:
                for of, value in zip(seconds[name], spent, strict=True):
                    of.append(value)
    return seconds


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "q25": low, "q75": high}


def measure_steps(rounds: int) -> dict[str, Any]:
    """Time training steps on all tasks."""
    flows = programs()
    return {name: measure_task(name, steps, flows, rounds) for name, steps in TASKS.items()}


def measure_task(
    name: str, num_steps: int, flows: Mapping[str, dataflow.Dataflow], rounds: int
) -> dict[str, Any]:
    """Time training steps on one task."""
    factory = EvaluatorFactory(EvaluatorConfig((ProxyConfig(name, num_steps, 1),)))
    proxy = factory()._loops[0]
    layout, capacity = proxy.task.layout, proxy.capacity
    encoded = {
        key: encode.encode_dataflow(flow, num_steps=num_steps, capacity=capacity)
        for key, flow in flows.items()
    }
    empty = encoded["adam"]._replace(length=np.int32(0))
    loops = {"sgd": tree_loop(name, num_steps), "sgd_flat": evaluator_loop(proxy, Sgd())}
    began = time.process_time()
    for key, arrays in {"empty": empty, **encoded}.items():
        path = training_paths.Interpreted(arrays, layout, capacity)
        loops[f"interpreted {key}"] = evaluator_loop(proxy, path)
    compile_s = {"interpreter": time.process_time() - began}
    for key, flow in list(flows.items())[:NUM_COMPILED]:
        began = time.process_time()
        loops[f"compiled {key}"] = evaluator_loop(
            proxy, training_paths.Compiled(flow, layout, num_steps)
        )
        compile_s[key] = time.process_time() - began
    seconds = timed(loops, rounds)
    result: dict[str, Any] = {
        "num_params": layout.num_params,
        "num_steps": num_steps,
        "instructions": {key: int(arrays.length) for key, arrays in encoded.items()},
        "compile_cpu_s": compile_s,
        "sgd_us": {
            kind: quartiles([x / num_steps * 1e6 for x in seconds["sgd"][which]])
            for which, kind in enumerate(("cpu", "wall"))
        },
    }
    for which, kind in enumerate(("cpu", "wall")):
        base = seconds["sgd"][which]
        ratios = {
            key: [x / y for x, y in zip(times[which], base, strict=True)]
            for key, times in seconds.items()
            if key != "sgd"
        }
        result[f"ratio_{kind}"] = {key: quartiles(values) for key, values in ratios.items()}
        for way in ("interpreted", "compiled"):
            medians = [
                statistics.median(values)
                for key, values in ratios.items()
                if key.startswith(way) and key != "interpreted empty"
            ]
            result[f"median_ratio_{kind}_{way}"] = statistics.median(medians)
    return result


def measure_paths(step_results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the savings of compiling over interpreting, and the choice of `paths.choose`."""
    result: dict[str, Any] = {
        "COMPILE_S": training_paths.COMPILE_S,
        "SAVED_NS": training_paths.SAVED_NS,
    }
    for name, task in step_results.items():
        rows = {}
        for key in [key for key in task["instructions"] if key in task["compile_cpu_s"]]:
            num_instructions = task["instructions"][key]
            slow, fast = (
                task["ratio_cpu"][f"{way} {key}"]["median"] for way in ("interpreted", "compiled")
            )
            saved_us = (slow - fast) * task["sgd_us"]["cpu"]["median"]
            compile_s = task["compile_cpu_s"][key]
            rows[key] = {
                "saved_ns": saved_us * 1e3 / num_instructions / task["num_params"],
                "break_even_steps": compile_s / saved_us * 1e6 if saved_us > 0 else None,
                "break_even_steps_of_choose": training_paths.COMPILE_S
                / (training_paths.SAVED_NS * 1e-9 * num_instructions * task["num_params"]),
            }
        result[name] = rows
    return result


def measure_dear(rounds: int) -> dict[str, Any]:
    """Return the cost of each instruction that works on whole tensors, on all tasks."""
    ops = [name for name in INTERPRETED if OPS[name].scope != "element"]
    capacity = encode.Capacity(ops=("add", *ops))
    return {
        name: measure_dear_task(name, steps, ops, capacity, rounds)
        for name, steps in DEAR_TASKS.items()
    }


def measure_dear_task(
    name: str, num_steps: int, ops: Sequence[str], capacity: encode.Capacity, rounds: int
) -> dict[str, Any]:
    """Time programs that use one instruction twice against one that does not, on one task."""
    settings = EvaluatorConfig((ProxyConfig(name, num_steps, 1),), capacity=capacity)
    proxy = EvaluatorFactory(settings)()._loops[0]
    layout = proxy.task.layout
    loops, compile_s = {}, {}
    for op in ("none", *ops):
        flow = dataflow.lower(Program.parse(using(op)), fold=True)
        encoded = encode.encode_dataflow(flow, num_steps=num_steps, capacity=capacity)
        path = training_paths.Interpreted(encoded, layout, capacity)
        loops[f"interpreted {op}"] = evaluator_loop(proxy, path)
        began = time.process_time()
        compiled = training_paths.Compiled(flow, layout, num_steps)
        loops[f"compiled {op}"] = evaluator_loop(proxy, compiled)
        compile_s[op] = time.process_time() - began
    seconds = {key: cpu for key, (cpu, _) in timed(loops, rounds).items()}
    rows = {}
    for op in ops:
        added = {
            way: [
                (x - y) / num_steps / 2 * 1e6
                for x, y in zip(seconds[f"{way} {op}"], seconds[f"{way} none"], strict=True)
            ]
            for way in ("interpreted", "compiled")
        }
        saved = [x - y for x, y in zip(*added.values(), strict=True)]
        rows[op] = {
            "interpreted_us": quartiles(added["interpreted"]),
            "compiled_us": quartiles(added["compiled"]),
            "saved_ns_per_param": quartiles([us * 1e3 / layout.num_params for us in saved]),
            "compile_cpu_s": compile_s[op],
        }
    return {"num_params": layout.num_params, "num_steps": num_steps, "ops": rows}


def using(op: str) -> str:
    """Return a program that uses an instruction twice; for "none", the same without it."""
    call = "{x}"
    if op != "none":
        args = {"tensor": "{x}", "scalar": "0.9", "any": "{x}"}
        call = f"{op}({', '.join(args[kind] for kind in OPS[op].kinds)})"
    first, second = call.format(x="g"), call.format(x="x")
    return f"def rule(w, g):\n    x = {first} + w\n    return {second} + g\n"


def measure_floor(step_results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cost of a statement that does next to nothing, and that of memory traffic."""
    result: dict[str, Any] = {"dispatch_us": dispatch_us()}
    for task in step_results.values():
        size = task["num_params"]
        gb_per_s = copy_speed(size)
        adam_us = 7 * 4 * size / gb_per_s / 1e3
        sgd_us = task["sgd_us"]["cpu"]["median"]
        result[str(size)] = {
            "copy_gb_per_s": gb_per_s,
            "adam_us": adam_us,
            "ratio": (sgd_us + adam_us) / sgd_us,
        }
    return result


def dispatch_us() -> float:
    """Return the microseconds for a statement on 64 parameters."""
    capacity, num_steps, length = encode.Capacity(), 2000, 40
    layout = Layout.of([jax.ShapeDtypeStruct((64,), np.float32)])
    lines = "".join(f"    u = u + {i}.5 * g\n" for i in range(length // 2))
    flow = dataflow.lower(Program.parse(f"def rule(w, g):\n    u = g\n{lines}    return u\n"))
    encoded = encode.encode_dataflow(flow, num_steps=num_steps, capacity=capacity)

    def train(encoded: Any, w: Any) -> Any:
        tx = interpreter.interpret(encoded, layout, capacity=capacity)

        def body(carry: Any, _: None) -> Any:
            update, state = tx.update(w, carry, w)
            return state, update[0]

        return jax.lax.scan(body, tx.init(w), length=num_steps)[1]

    w = jnp.ones(64)
    run = jax.jit(train).lower(encoded, w).compile(compiling.options())
    seconds = timed(
        {
            str(n): functools.partial(
                lambda arrays: lambda: run(arrays, w), encoded._replace(length=np.int32(n))
            )
            for n in (0, length)
        },
        rounds=15,
    )
    none, all_ = (statistics.median(seconds[str(n)][0]) for n in (0, length))
    return (all_ - none) / num_steps / length * 1e6


def copy_speed(size: int) -> float:
    """Return the bytes per nanosecond of reading and writing back a vector of `size` floats."""
    repeats = max(20_000_000 // size, 20)

    def scale(x: Any) -> Any:
        return jax.lax.fori_loop(0, repeats, lambda _, x: x * 1.0001, x)

    x = jnp.ones(size)
    run = jax.jit(scale).lower(x).compile(compiling.options())
    seconds = timed({"copy": lambda: lambda: run(x)}, rounds=15)
    return 8 * size * repeats / statistics.median(seconds["copy"][0]) / 1e9


def measure_children(num_children: int) -> dict[str, Any]:
    """Return the cost of a child before it is trained."""
    alone = functools.partial(driver_benchmark.measure, proposers=0)
    alone(200, 99, parts=False)  # Imports and first calls.
    runs = [alone(num_children, seed, parts=False) for seed in range(3)]
    parts = alone(num_children, 0, parts=True)["parts_us_per_proposal"]
    ask = statistics.median(run["us_per_ask"] for run in runs)
    return {
        "children": num_children,
        "cpu_ms_per_child_proposed_and_filtered": ask / 1e3,
        "children_per_cpu_s_proposed_and_filtered": 1e6 / ask,
        "children_per_cpu_s_stored_too": 1e6
        / statistics.median(run["us_per_proposal"] for run in runs),
        "cpu_parts_us_per_child": parts,
        "runs": runs,
    }


def measure_cache(num_children: int) -> dict[str, Any]:
    """Search with that many children on tiny tasks; return the origins of their scores."""
    proxies = (ProxyConfig("quadratic", 20, 2), ProxyConfig("quadratic_noisy", 20, 2))
    settings = dataclasses.replace(
        config.load_config(SearchConfig, SETTING),
        tasks=proxies,
        meta_validation=(),
        time_limit_s=None,
        max_evaluations=num_children,
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.create(Path(folder)) as store,
        InlinePool(EvaluatorFactory(settings.evaluator)) as pool,
    ):
        engine = driver.OrderedDriver(pool, window=settings.window)
        evolution = Evolution.start(settings, store, engine.run_now)

        def ask(index: int) -> driver.Proposal:
            return evolution.ask(index) if index < num_children else driver.Stop()

        engine.run(ask, evolution.tell, evolution.settle, evolution.begun)
        return {"search": "two quadratic bowls of 20 steps, seed 0", **shares(store)}


def shares(store: Store) -> dict[str, Any]:
    """Return the share of children that a cache answered: in all, by mutation, by thousands."""
    cached = "source IN ('structure', 'behaviour')"
    sources = {
        row["source"]: row["n"]
        for row in store.rows("SELECT source, COUNT(*) AS n FROM proposal GROUP BY source")
    }
    total = sum(sources.values())
    by_mutation = store.rows(
        f"SELECT mutation, AVG({cached}) AS share FROM proposal WHERE mutation NOT LIKE '%+%' "
        "GROUP BY mutation ORDER BY mutation"
    )
    by_thousand = store.rows(
        f"SELECT AVG({cached}) AS share FROM proposal GROUP BY id / 1000 ORDER BY id / 1000"
    )
    return {
        "children": total,
        "sources": sources,
        "share": (sources.get("structure", 0) + sources.get("behaviour", 0)) / total,
        "share_by_mutation": {row["mutation"]: row["share"] for row in by_mutation},
        "share_by_thousand": [row["share"] for row in by_thousand],
    }


def stored_shares() -> dict[str, Any]:
    """Return the shares of real searches with runs in `runs/`."""
    found = {}
    for path in sorted(STORES.glob("*/store.sqlite")):
        with Store.open(path.parent, read_only=True) as store:
            found[str(path.parent)] = shares(store)
    return found


def main() -> None:
    """Measure, print and write `results/search_throughput.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--children", type=int, default=20_000)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    before = json.loads(args.results.read_text()) if args.results.exists() else {}
    result: dict[str, Any] = before | {"versions": provenance.versions(), "live_statements": LIVE}
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "steps": lambda: measure_steps(args.rounds),
        "paths": lambda: measure_paths(result["steps"]),
        "dear": lambda: measure_dear(args.rounds),
        "floor": lambda: measure_floor(result["steps"]),
        "children": lambda: measure_children(min(args.children, 3000)),
        "cache": lambda: {**measure_cache(args.children), "stores": stored_shares()},
    }
    args.results.parent.mkdir(exist_ok=True)
    for part in args.parts:
        result[part] = measures[part]()
        # Above the number of cores, other work slowed everything down.
        result.setdefault("load_average_after", {})[part] = os.getloadavg()[2]
        args.results.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
