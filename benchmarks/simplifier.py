"""The simplifier: raw Lion, shipped rules with clutter in them, and programs as evolved.

    python benchmarks/simplifier.py [--versions N] [--only PART ...]

`raw_lion` is program 4 of the Lion paper without clip and arcsin. `lion_distance` is the largest
difference between its simplified form and `optax.lion`, over 300 float64 steps.

`cluttered`: every shipped rule gets 10 changes without effect (`tests.search.clutter`: dead
statements, swapped arguments, split averages, -(-x), x * 3 / 3, sign(x) |x|, ...), `versions`
times, from seeds that are written down. A version is recovered if its simplified form has no more
statements than the rule as shipped has. `evolved`: 12 mutations of the search on a shipped rule;
there is no known shortest form, so the share that gets shorter than by pruning is reported.

`knocked_out`: an ablation of the paper's program 4 with its clip and arcsin: simplified, and then
without the instructions that training on three small tasks does not need: mean log loss over tasks
and seeds at one learning rate, no more than `tolerance` worse than the program given. `held_out` is
the change on seeds that were not used for that.

`deviation` is the largest difference between the updates before and after, on 50 float64 steps of
numbers that are new to the simplifier, relative to the tensor's largest update at that step.
`seconds` are of processor time, for one call.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from veldt.search import rule_sources
from veldt.search.config import evolution_config, proxy_config
from veldt.search.evaluation import evaluator, jobs
from veldt.search.evaluation.genotype import Genotype
from veldt.search.evolution import mutation
from veldt.search.finals import ablation
from veldt.search.language.ops import INTERPRETED
from veldt.search.program import Program
from veldt.search.simplify import prune, simplify, verification

sys.path.append(str(Path(__file__).resolve().parents[1]))
from tests.search import clutter

RESULTS: Final = Path(__file__).parent / "results" / "simplifier.json"
RAW_LION: Final = Path(__file__).parents[1] / "tests" / "search" / "golden" / "raw_lion.txt"
PARTS: Final = ("raw_lion", "cluttered", "evolved", "knocked_out")
CHANGES: Final = 10
MUTATIONS: Final = 12
LION_STEPS: Final = 300
UNSEEN: Final = 20260101
TOLERANCE: Final = 0.01
LION_RATE: Final = 1e-3
PROXIES: Final = tuple(
    proxy_config.ProxyConfig(task, 200)
    for task in ("digits_mlp", "digits_autoencoder", "breast_cancer_logistic")
)
# Program 4; its learning rate, also the limit of its clip, is applied outside here.
FULL: Final = f"""
def full(w, g, m, v):
    g = max(min(g, {LION_RATE}), -{LION_RATE})
    g = arcsin(g)
    m = interp(g, v, 0.899)
    m2 = m * m
    v = interp(g, m, 1.109)
    update = m / sqrt(m2)
    update = update + w * 0.4602
    m = cosh(update)
    return update, m, v
"""


def deviation(before: Program, after: Program) -> float:
    """Return the distance of two programs' updates, relative to the largest at each step."""
    traces = [verification.trace(p.lower(), seed=UNSEEN).updates for p in (before, after)]
    largest = 0.0
    for x, y in zip(*traces, strict=True):
        finite = np.isfinite(x) & np.isfinite(y)
        if not np.array_equal(np.isfinite(x), np.isfinite(y)):
            return float("inf")
        x, y = np.where(finite, x, 0.0), np.where(finite, y, 0.0)
        axes = tuple(range(1, x.ndim))
        size = np.maximum(np.abs(x).max(axis=axes), np.abs(y).max(axis=axes))
        apart = np.abs(x - y).max(axis=axes)
        largest = max(largest, float(np.max(apart / np.where(size > 0.0, size, 1.0))))
    return largest


def simplified(program: Program) -> tuple[Program, dict[str, Any]]:
    """Return a simplified program, and the row of its simplification."""
    began = time.process_time()
    simple = simplify(program)
    seconds = time.process_time() - began
    return simple, {
        "statements": len(prune(program).statements),
        "simplified": len(simple.statements),
        "deviation": deviation(program, simple),
        "seconds": round(seconds, 3),
    }


def lion_distance(program: Program) -> float:
    """Return the largest difference in parameters between a program and Lion, over 300 steps."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        start = jnp.asarray(rng.normal(size=50))
        noise = jnp.asarray(rng.normal(size=(LION_STEPS, 50)))
        txs = (
            program.as_optax(1.0),
            optax.lion(2e-4, b1=0.899, b2=0.996991, weight_decay=0.4602),
        )
        states = [(start, tx.init(start)) for tx in txs]
        largest = 0.0
        for row in noise:
            for i, (params, state) in enumerate(states):
                updates, state = txs[i].update(row + jnp.sin(params), state, params)
                states[i] = (jnp.asarray(optax.apply_updates(params, updates)), state)
            largest = max(largest, float(jnp.max(jnp.abs(states[0][0] - states[1][0]))))
    return largest


def raw_lion() -> dict[str, Any]:
    """Return the row of the paper's program, simplified."""
    simple, row = simplified(rule_sources.load_rule(RAW_LION))
    return {**row, "program": str(simple), "lion_distance": lion_distance(simple)}


def cluttered(name: str, versions: int) -> dict[str, Any]:
    """Return the row of a shipped rule, as it is and with clutter put in."""
    rule = rule_sources.load_rule(name)
    shipped, own = simplified(rule)
    rows = [
        simplified(clutter.clutter(np.random.default_rng(seed), rule, CHANGES))[1]
        for seed in range(versions)
    ]
    return {
        "shipped": own["statements"],
        "shipped_simplified": len(shipped.statements),
        "cluttered": [row["statements"] for row in rows],
        "simplified": [row["simplified"] for row in rows],
        "recovered": sum(row["simplified"] <= own["statements"] for row in rows),
        **worst([own, *rows]),
    }


def evolved(versions: int) -> dict[str, Any]:
    """Return the row of programs as a search's mutations make them."""
    config = evolution_config.MutationConfig(ops=INTERPRETED)
    rows = []
    for seed in range(versions):
        rng = np.random.default_rng((1, seed))
        name = rule_sources.RULE_NAMES[rng.integers(len(rule_sources.RULE_NAMES))]
        genotype = Genotype(rule_sources.load_rule(name), 0.1)
        for _ in range(MUTATIONS):
            genotype = mutation.mutate(rng, genotype, config).genotype
        rows.append(simplified(genotype.program)[1])
    return {
        "programs": versions,
        "mean_statements": statistics.mean(row["statements"] for row in rows),
        "mean_simplified": statistics.mean(row["simplified"] for row in rows),
        "share_shortened": statistics.mean(row["simplified"] < row["statements"] for row in rows),
        **worst(rows),
    }


def ablated() -> dict[str, Any]:
    """Return the row of the paper's full program after an ablation."""
    make = evaluator.EvaluatorFactory(proxy_config.EvaluatorConfig(PROXIES))
    runs, fresh = (
        [jobs.ProxyRun(p, s) for s in seeds for p in range(len(PROXIES))]
        for seeds in (range(4), range(100, 112))
    )
    given = Program.parse(FULL)
    score = ablation.training_score(make(), LION_RATE, runs)
    found = ablation.ablate(given, score, tolerance=TOLERANCE, max_evaluations=100)
    confirm = ablation.training_score(make(), LION_RATE, fresh)
    return {
        "proxies": [f"{proxy.task} ({proxy.num_steps} steps)" for proxy in PROXIES],
        "seeds": "0 to 3, held out 100 to 111",
        "learning_rate": LION_RATE,
        "tolerance": TOLERANCE,
        "statements": len(prune(given).statements),
        "simplified": len(simplify(given).statements),
        "knocked_out": len(found.program.statements),
        "program": found.program.pretty(),
        "evaluations": found.num_evaluations,
        "complete": found.complete,
        "change": found.score - found.start_score,
        "held_out": confirm(found.program) - confirm(given),
    }


def worst(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the largest deviation and the times of some rows."""
    seconds = [row["seconds"] for row in rows]
    return {
        "max_deviation": max(row["deviation"] for row in rows),
        "median_seconds": statistics.median(seconds),
        "max_seconds": max(seconds),
    }


def all_cluttered(versions: int) -> dict[str, Any]:
    """Return the rows of all shipped rules, and their sums."""
    by_rule = {}
    for name in rule_sources.RULE_NAMES:
        by_rule[name] = cluttered(name, versions)
        print(name, json.dumps(by_rule[name]), flush=True)
    rows = by_rule.values()
    return {
        "changes": CHANGES,
        "seeds": f"0 to {versions - 1}",
        "programs": versions * len(by_rule),
        "recovered": sum(row["recovered"] for row in rows),
        "max_deviation": max(row["max_deviation"] for row in rows),
        "max_seconds": max(row["max_seconds"] for row in rows),
        "shipped_rules_shortened": sum(row["shipped_simplified"] < row["shipped"] for row in rows),
        "rules": by_rule,
    }


def main() -> None:
    """Run the benchmark and write its results; parts that are not run stay as they were."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--versions", type=int, default=3, help="cluttered versions of each rule")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    args = parser.parse_args()
    run = {
        "raw_lion": raw_lion,
        "cluttered": lambda: all_cluttered(args.versions),
        "evolved": lambda: {"mutations": MUTATIONS, **evolved(10 * args.versions)},
        "knocked_out": ablated,
    }
    result = json.loads(args.results.read_text()) if args.results.exists() else {}
    result["machine"] = {"processor": platform.processor() or platform.machine()}
    for part in args.only:
        result[part] = run[part]()
    args.results.parent.mkdir(exist_ok=True)
    args.results.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: result[key] for key in args.only if key != "cluttered"}, indent=2))


if __name__ == "__main__":
    main()
