"""The cost of evaluating a new candidate: interpreting against compiling, and against plain SGD.

    python benchmarks/interpreter.py [--steps 500] [--candidates 24] [--memory-candidates 5000]

One run, one machine, `digits_mlp`. Candidates of exactly 16 live instructions are drawn by the
search's own mutations from AdamW. For each: the time from a program to its result,
with all costs of a candidate (lowering, encoding, transfer, training, the checks on
validation data). `sgd` is the same loop under `optax.sgd`, compiled once. `jit` compiles a training
loop for the candidate, as native JAX. The three are timed in turns, so that a slower moment of the
machine affects all of them. Ratios are of medians.

`rules` are rows for rules with dear instructions: from the program to its result, interpreted where
the interpreter can run it and compiled, and the run alone; `adamw` is there to compare.

The memory test evaluates thousands of different candidates and records the process's resident
memory on the way.
"""

import argparse
import functools
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from veldt.search import rule_sources, simplify
from veldt.search.config import evolution_config, proxy_config
from veldt.search.evaluation import evaluator, fingerprint, jobs, probe
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evolution import mutation
from veldt.search.language import dataflow
from veldt.search.language.ops import OPS
from veldt.search.program import Program
from veldt.search.runtime import optax_transform
from veldt.search.runtime.encode import Capacity
from veldt.tasks import registry
from veldt.tasks.inner_loop import unroll

RESULTS = Path(__file__).parent / "results" / "interpreter.json"
LENGTH = 16
# Rules with dear instructions; the last three have values of other shapes, and are compiled always.
DEAR_RULES = ("adamw", "muon", "polargrad", "sinkgd", "adamuon", "shampoo", "soap", "apollo")


def candidates(count: int, seed: int, length: int = LENGTH) -> list[Genotype]:
    """Draw distinct finite candidates of `length` live instructions, by mutations from AdamW."""
    rng = np.random.default_rng(seed)
    config = evolution_config.MutationConfig(delete=0.3, learning_rate=0.0)
    found: dict[str, Genotype] = {}
    while len(found) < count:
        genotype = Genotype(rule_sources.load_rule("adamw"), 3e-3)
        for _ in range(12):
            genotype = mutation.mutate(rng, genotype, config).genotype
            flow = dataflow.lower(genotype.program, fold=True)
            if len(flow.live_nodes) == length:
                seen = fingerprint.fingerprint(probe.run(flow), genotype.learning_rate)
                if seen.finite:
                    found[seen.digest] = genotype
                break
    return list(found.values())


def timed(function: Callable[[], Any]) -> float:
    """Return the seconds that `function` takes, results waited for."""
    began = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - began


def resident_mib() -> float:
    """Return the resident memory of this process now, MiB."""
    if Path("/proc/self/statm").exists():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def native_run(
    task: Any, tx: optax.GradientTransformation, num_steps: int, chunks: int
) -> Callable[[], Any]:
    """Return a run of a compiled loop, driven like the evaluator's, in chunks."""
    start = jax.jit(lambda task, key: unroll.init(task, tx, key))

    def advance(task: Any, state: Any) -> Any:
        state, losses = unroll.unroll(task, tx, state, num_steps=num_steps // chunks)
        loss = unroll.evaluate(task, state.params, state.key, "valid")
        return state, jax.numpy.stack([loss, task.normalizer(loss), losses.sum()])

    step = jax.jit(advance, donate_argnums=1)

    def go() -> Any:
        state = start(task, jax.random.key(0))
        report = None
        for _ in range(chunks):
            state, report = step(task, state)
            report = np.asarray(report)
        return report

    return go


def measure_speed(num_steps: int, count: int, seed: int) -> dict[str, Any]:
    """Time the three ways in turns."""
    chunks = 5
    task = registry.load_task("digits_mlp")

    def make_native(tx: optax.GradientTransformation) -> Callable[[], Any]:
        return native_run(task, tx, num_steps, chunks)

    sgd = make_native(optax.sgd(0.1))
    worker = evaluator.EvaluatorFactory(
        proxy_config.EvaluatorConfig((proxy_config.ProxyConfig("digits_mlp", num_steps, chunks),))
    )()
    drawn = candidates(count, seed)

    def interpret(genotype: Genotype) -> Callable[[], Any]:
        return lambda: worker(jobs.EvalJob(genotype, (jobs.ProxyRun(0, 0),)))

    compile_interpreter_s = timed(interpret(Genotype(rule_sources.load_rule("adamw"), 3e-3)))
    compile_sgd_s = timed(sgd)
    sgd_s, interpreted_s, native_s = [], [], []
    jit_s: list[float] = []
    for index, genotype in enumerate(drawn):
        sgd_s.append(min(timed(sgd) for _ in range(3)))
        # A new candidate is timed at its first evaluation and only there.
        interpreted_s.append(timed(interpret(genotype)))
        if index < 8:
            program = simplify.prune(genotype.program)
            compiled = make_native(
                optax.chain(
                    optax_transform.scale_by_program(program), optax.scale_by_learning_rate(3e-3)
                )
            )
            jit_s.append(timed(compiled))
            native_s.append(min(timed(compiled) for _ in range(3)))
    adamw = program_of_length(LENGTH)
    adamw_s = [timed(interpret(Genotype(adamw, 3e-3))) for _ in range(count)]

    def summary(values: list[float]) -> dict[str, float]:
        low, middle, high = statistics.quantiles(values, n=4)
        return {
            "n": len(values),
            "q25_ms": low * 1e3,
            "median_ms": middle * 1e3,
            "q75_ms": high * 1e3,
            "max_ms": max(values) * 1e3,
        }

    middle = {
        "sgd": statistics.median(sgd_s),
        "interpreted": statistics.median(interpreted_s),
        "adamw": statistics.median(adamw_s),
        "jit": statistics.median(jit_s),
        "native": statistics.median(native_s),
    }
    return {
        "task": "digits_mlp",
        "num_steps": num_steps,
        "live_instructions": LENGTH,
        "sgd": summary(sgd_s),
        "interpreted": summary(interpreted_s),
        "interpreted_adamw_16": summary(adamw_s),
        "jit_per_candidate": summary(jit_s),
        "native_run_only": summary(native_s),
        "compile_interpreter_once_s": compile_interpreter_s,
        "compile_sgd_once_s": compile_sgd_s,
        "ratio_jit_to_interpreted": middle["jit"] / middle["interpreted"],
        "ratio_interpreted_to_sgd": middle["interpreted"] / middle["sgd"],
        "ratio_adamw_16_to_sgd": middle["adamw"] / middle["sgd"],
        "ratio_native_to_sgd": middle["native"] / middle["sgd"],
    }


def measure_rules(num_steps: int, repeats: int) -> dict[str, Any]:
    """Time rules with dear instructions, each `repeats` times after the first."""
    chunks, name = 5, "digits_mlp"
    task = registry.load_task(name)
    programs = {rule: simplify.prune(rule_sources.load_rule(rule)) for rule in DEAR_RULES}
    interpreted = {r: p for r, p in programs.items() if p.lower().fits_registers}
    ops = {s.op for program in interpreted.values() for s in program.statements if s.op in OPS}
    worker = evaluator.EvaluatorFactory(
        proxy_config.EvaluatorConfig(
            (proxy_config.ProxyConfig(name, num_steps, chunks),),
            capacity=Capacity(ops=tuple(sorted(ops))),
        )
    )()
    rows: dict[str, Any] = {}
    for rule, program in programs.items():
        row: dict[str, Any] = {"live_instructions": len(program.lower().live_nodes)}
        if rule in interpreted:
            job = jobs.EvalJob(Genotype(program, 1e-3), (jobs.ProxyRun(0, 0),))
            go = functools.partial(worker, job)
            go()  # The first compiles the interpreter.
            row["interpreted_ms"] = [timed(go) * 1e3 for _ in range(repeats)]
        run = native_run(task, program.as_optax(1e-3, num_steps=num_steps), num_steps, chunks)
        row["compile_and_run_ms"] = timed(run) * 1e3
        row["run_ms"] = [timed(run) * 1e3 for _ in range(repeats)]
        rows[rule] = row
    return {"task": name, "num_steps": num_steps, "rules": rows}


def program_of_length(length: int) -> Program:
    """Return AdamW with a clipped update: a program as a person might write it."""
    program = Program.parse(
        """
def adamw16(w, g, m, v, *, b1=0.9, b2=0.999, eps=1e-8, wd=1e-4):
    m = interp(g, m, b1)
    v = interp(square(g), v, b2)
    u = m / (1 - b1**step) / (sqrt(v / (1 - b2**step)) + eps)
    u = max(min(u, 3.0), -3.0)
    return u + wd * w, m, v
"""
    )
    assert len(dataflow.lower(program, fold=True).live_nodes) == length
    return program


def measure_memory(count: int, seed: int) -> dict[str, Any]:
    """Evaluate `count` different candidates for 100 steps each; record resident memory."""
    worker = evaluator.EvaluatorFactory(
        proxy_config.EvaluatorConfig((proxy_config.ProxyConfig("digits_mlp", 100),))
    )()
    rng = np.random.default_rng(seed)
    genotype = Genotype(rule_sources.load_rule("adamw"), 3e-3)
    population = [genotype] * 50
    track: list[tuple[int, float]] = []
    for index in range(count + 1):
        child = mutation.mutate(
            rng, population[index % 50], evolution_config.MutationConfig()
        ).genotype
        population[index % 50] = child
        worker(jobs.EvalJob(child, (jobs.ProxyRun(0, index),)))
        if index % (count // 10) == 0:
            track.append((index, resident_mib()))
    settled = [mib for index, mib in track if index >= count // 10]
    return {
        "candidates": count,
        "resident_mib": track,
        "growth_mib_after_first_tenth": settled[-1] - settled[0],
    }


def main() -> None:
    """Measure, print and write `results/interpreter.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--memory-candidates", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--rules-only", action="store_true", help="keep all else as it was measured"
    )
    args = parser.parse_args()
    if args.rules_only:
        result = json.loads(RESULTS.read_text())
        result["rules"] = measure_rules(args.steps, 7)
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
        print(json.dumps(result["rules"], indent=2))
        return
    result = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "jax": jax.__version__,
        },
        "speed": measure_speed(args.steps, args.candidates, args.seed),
        "rules": measure_rules(args.steps, 7),
        "memory": measure_memory(args.memory_candidates, args.seed)
        if args.memory_candidates
        else None,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
