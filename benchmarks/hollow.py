"""Whether a hollow rule can win: the guard of `veldt.tasks.inner_loop.hollow`, measured.

    python benchmarks/hollow.py honest|rules|cost|searches|cheats|configs [--write]

* `honest`: what the last-bits test finds on honest runs. Hypothesis: at every task and every sane
  rate the log of the loss moves by less than a tenth of `TOLERANCE`, also at 16 times `JITTER`.
* `rules`: `veldt evaluate` of six hollow rules on three classification tasks. Hypothesis: all of
  their runs that would have a low loss are hollow; no speed-up is credited.
* `cost`: the time of whole runs with the guard over that without, by processor seconds,
  rounds interleaved. Hypothesis: under 1% more; programs that are stopped early pay less.
* `searches`: five searches on classification alone (two of them tasks of a user's), 5 seeds each,
  1,000 programs. Measure: the winner's accuracy, beside its loss. Hypothesis: every winner
  learns, none is hollow.
* `cheats`: a search of 150 programs on each of the 20 tasks of `tempting_tasks.py`. Measure: how
  many candidates are hollow, by which test; and the winner, to be examined.
* `configs`: the shipped configs, 5 seeds each; `small_search` and `discover` with their budgets cut
  (stated in the table).

Searches are run with `--resume`, so that the script can be stopped and run again.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import unittest.mock
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tempting_tasks

import veldt
from veldt.search.config import proxy_config
from veldt.search.evaluation import evaluator
from veldt.search.finals import conclusion
from veldt.search.language import dataflow
from veldt.search.storage import hall_entries
from veldt.search.storage.store import Store
from veldt.tasks import base, registry
from veldt.tasks.inner_loop import hollow, unroll
from veldt.tasks.shipped import supervised

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "hollow.json"
SETTING = str(HERE / "two_digits.yaml")

RULES = {
    "constant": "def rule(w, g):\n    update = 1e8\n    return update\n",
    "drift": "def rule(w, g, *, eps=7e-9):\n    t = reciprocal(eps)\n    return t + t\n",
    "clock": "def rule(w, g, m, *, b=0.5):\n    m = interp(step, m, b)\n    return m * 1e8, m\n",
    "names_g": "def rule(w, g):\n    return g * 0.0 - 1e15\n",
    "swamped_g": "def rule(w, g):\n    return 1e9 + 1e-3 * g\n",
    "pulled_w": "def rule(w, g):\n    return 50.0 * (w - 1e9) + g\n",
}
RULE_TASKS = ("digits_mlp", "letters_mlp", "tempting_tasks:spiral")
HONEST = ("quadratic_stiff", "letters_logistic", "breast_cancer_mlp", "digits_mlp", "digits_conv",
          "digits_vae", "digits_diffusion", "char_gru", "char_transformer", "cartpole_policy",
          "pendulum_pathwise", "digits_mlp_es", "learned_optimizer")  # fmt: skip
JITTERS = (1.0, 16.0)
CLASSIFICATION = {
    "digits_mlp": ("digits_mlp", "digits_conv"),
    "letters_mlp": ("letters_mlp", "letters_logistic"),
    "digits_conv": ("digits_conv", "digits_mlp"),
    "spiral": ("tempting_tasks:spiral", "digits_mlp"),
    "blobs": ("tempting_tasks:blobs", "letters_logistic"),
}
_FEW_RATES = ["--finals.num-rates", "5", "--finals.lowest-rate", "0.0004", "--finals.rate-factor"]
_FEW_RATES += ["4", "--finals.max-entries", "4"]
CONFIGS: dict[str, list[str]] = {
    "quickstart": [],
    "small_search": ["--max-evaluations", "600", *_FEW_RATES],
    "discover": ["--max-evaluations", "400", "--finals.stages", "[]", "--finals.tuning.budget", "0",
                 "--finals.meta-rate-factors", "[1.0]", *_FEW_RATES],
}  # fmt: skip
# Replacements of the guard's parts that do nothing: the cost of runs without it.
UNGUARDED: dict[str, Any] = {
    "recheck": lambda *_: hollow.Recheck(*[jnp.float32(0)] * 3),
    "size": lambda params: jnp.float32(0),
    "lowest_above_floor": lambda task, losses: jnp.float32(0),
}
SEEDS = range(5)
NUM_STEPS = 200


def honest() -> list[dict[str, Any]]:
    """Train honestly and jitter the ends."""
    rows = []
    for name in HONEST:
        task = registry.load_task(name)
        num_steps = 50 if name == "learned_optimizer" else NUM_STEPS
        worst = dict.fromkeys(JITTERS, 0.0)
        for rule, rate in (("adam", 1e-2), ("adam", 1e-1), ("muon", 2e-2)):
            tx = veldt.load_rule(rule).as_optax(rate)

            def run(task: base.Task, tx: Any = tx, num_steps: int = num_steps) -> jax.Array:
                state = unroll.init(task, tx, jax.random.key(0))
                state, _ = unroll.unroll(task, tx, state, num_steps=num_steps)

                loss = unroll.batch_loss(task, state.key, state.step)

                def at(scale: float) -> jax.Array:
                    moved = jax.tree.map(
                        lambda old, new: old + scale * (new - old),
                        state.params,
                        hollow.jitter(state.params),
                    )
                    return task.normalizer(loss(moved))

                return jnp.stack([at(scale) for scale in (0.0, *JITTERS)])

            losses = np.maximum(np.asarray(jax.jit(run)(task)), hollow.MIN_NORMALIZED)
            for scale, loss in zip(JITTERS, losses[1:], strict=True):
                worst[scale] = max(worst[scale], abs(math.log(loss / losses[0])))
        rows.append({"task": name, "moved": {f"{k:g}": round(v, 7) for k, v in worst.items()}})
        print(rows[-1], flush=True)
    return rows


def rules() -> list[dict[str, Any]]:
    """Evaluate hollow rules by the command line."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, text in RULES.items():
            files.append(Path(folder) / f"{name}.py")
            files[-1].write_text(text)
        suite = Path(folder) / "suite.yaml"
        tasks = "".join(f"  - {{task: '{task}', num_steps: 200}}\n" for task in RULE_TASKS)
        suite.write_text(
            f"name: classification\ndescription: classification alone\ntasks:\n{tasks}"
        )
        command = [sys.executable, "-m", "veldt", "evaluate", *map(str, files)]
        command += ["--suite", str(suite), "--out", f"{folder}/out", "--step-times", "false"]
        _call(command)
        results = json.loads((Path(folder) / "out" / "results.json").read_text())
        for row in results["rows"]:
            if row["name"] in RULES:
                shares = {task["task"]: task["hollow"] for task in row["tasks"]}
                found.append(
                    {
                        "rule": row["name"],
                        "speedup": row["speedup"]["value"],
                        "hollow": row["hollow"],
                        "diverged": row["diverged"],
                        "hollow_by_task": shares,
                    }
                )
                print(found[-1], flush=True)
    return found


def cost(rounds: int = 100) -> list[dict[str, Any]]:
    """Time whole runs with the guard and without, in processor seconds, rounds interleaved."""
    rows: list[dict[str, Any]] = []
    flow = dataflow.lower(veldt.load_rule("adamw"), fold=True)
    for name in ("digits_mlp", "digits_autoencoder", "letters_logistic", "char_gru"):
        calls = {"guarded": _prepared(name, flow)}
        with unittest.mock.patch.multiple(hollow, **UNGUARDED):
            calls["bare"] = _prepared(name, flow)
        spent: dict[str, list[float]] = {"guarded": [], "bare": []}
        for number in range(rounds):
            for label in list(calls)[:: 1 if number % 2 else -1]:
                run = calls[label]
                began = time.process_time()
                state = run.start()
                for _ in range(proxy_config.ProxyConfig(name, NUM_STEPS).num_chunks):
                    state, report = run.advance(state)
                    np.asarray(report)
                spent[label].append(time.process_time() - began)
        ratios = np.array(spent["guarded"]) / np.array(spent["bare"]) - 1.0
        low, middle, high = (round(float(q), 4) for q in np.quantile(ratios, (0.25, 0.5, 0.75)))
        run_ms = round(1e3 * float(np.median(spent["bare"])), 2)
        rows.append({"task": name, "share": middle, "quartiles": [low, high], "run_ms": run_ms})
        print(rows[-1], flush=True)
    return rows


def _prepared(name: str, flow: dataflow.Dataflow) -> Any:
    proxy = proxy_config.ProxyConfig(name, NUM_STEPS)
    loop = evaluator.EvaluatorFactory(proxy_config.EvaluatorConfig((proxy,)))()._loops[0]
    return loop.prepare(flow, 1e-2, 0)


def accuracy(task: base.Task, params: Any) -> float | None:
    """Return the share of validation rows classified right; None where there are no classes."""
    rows = task.eval_batch("valid")
    outputs: Any
    if isinstance(task, supervised.SupervisedTask):
        outputs, labels = task.module.apply(params, rows.inputs), rows.targets
    elif isinstance(task, tempting_tasks.Tempting) and {"a", "w"} & set(params):
        is_linear = "w" in params
        outputs = (
            rows[0] @ params["w"] + params["b"]
            if is_linear
            else tempting_tasks.outputs(params, rows[0])
        )
        labels = rows[-1]
    else:
        return None
    classes = labels.ndim == 1 and jnp.issubdtype(labels.dtype, jnp.integer)
    if not classes or outputs.shape[-1] <= int(labels.max()):
        return None  # Not one output for each class.
    return float((jnp.argmax(outputs, -1) == labels).mean())


def search(folder: Path, config: str, options: list[str], seed: int) -> dict[str, Any]:
    """Search, and return the results."""
    command = [sys.executable, "-m", "veldt", "search", config, "--seed", str(seed)]
    command += ["--run-dir", str(folder), "--time-limit-s", "null", *options, "--resume"]
    shown = _call(command)
    with Store.open(folder, read_only=True) as store:
        entries = hall_entries.read_entries(store)
        query = "SELECT message, COUNT(*) AS n FROM candidate WHERE status = 'hollow' GROUP BY 1"
        reasons = {row["message"]: row["n"] for row in store.rows(query)}
        trained = store.rows("SELECT COUNT(*) AS n FROM proposal WHERE source = 'evaluated'")
    winner = conclusion.find_winner(entries)
    said = [line for line in shown.splitlines() if "final seeds" in line or "floor" in line]
    row = {
        "seed": seed,
        "trained": trained[0]["n"],
        "hollow": reasons,
        "winner": winner.program.pretty() if winner else None,
        "learning_rate": winner.learning_rate if winner else None,
        "final": winner.final if winner else None,
        "against": {c.baseline: str(c) for c in conclusion.compare(entries)},
        "said": said,
    }
    return row


def scored(row: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a search's row with losses and accuracies of winner and AdamW on three fresh seeds."""
    task = registry.load_task(name)
    for label, program, rate in (
        ("winner", row["winner"], row["learning_rate"]),
        ("adamw", None, 1e-2),
    ):
        if label == "winner" and program is None:
            continue
        parsed = veldt.Program.parse(program) if program else veldt.load_rule("adamw")
        tx = parsed.as_optax(rate)
        curves = [veldt.train(task, tx, NUM_STEPS, seed=900 + s) for s in range(3)]
        losses = [float(task.normalizer(jnp.float32(c.final_valid_loss))) for c in curves]
        shares = [accuracy(task, c.params) for c in curves]
        row[f"{label}_loss"] = float(np.mean(losses))
        row[f"{label}_accuracy"] = None if None in shares else float(np.mean(shares))  # type: ignore[arg-type]
    return row


def searches(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Search on classification alone."""
    found: dict[str, list[dict[str, Any]]] = {}
    for label, (task, meta) in CLASSIFICATION.items():
        options = ["--tasks", f"[{{task: '{task}', num_steps: {NUM_STEPS}}}]"]
        options += ["--meta-validation", f"[{{task: '{meta}', num_steps: {NUM_STEPS}}}]"]
        options += ["--max-evaluations", "1000"]
        for seed in SEEDS:
            row = search(folder / f"{label}_{seed}", SETTING, options, seed)
            found.setdefault(label, []).append(scored(row, task))
            print(label, json.dumps(found[label][-1], indent=1), flush=True)
    return found


def cheats(folder: Path) -> dict[str, dict[str, Any]]:
    """Search on tasks with a low loss that needs no training."""
    found = {}
    for name in tempting_tasks.TASKS:
        task = f"tempting_tasks:{name}"
        options = ["--tasks", f"[{{task: '{task}', num_steps: 100}}]", "--meta-validation", "[]"]
        options += ["--max-evaluations", "150", "--hurdle", "3", "--finals.num-rates", "6"]
        options += ["--finals.lowest-rate", "0.0003", "--finals.rate-factor", "4"]
        found[name] = scored(search(folder / name, SETTING, options, 0), task)
        print(name, json.dumps(found[name], indent=1), flush=True)
    return found


def configs(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Search as shipped configs do."""
    return {
        config: [
            _shown(config, search(folder / f"{config}_{seed}", config, options, seed))
            for seed in SEEDS
        ]
        for config, options in CONFIGS.items()
    }


def _shown(label: str, row: dict[str, Any]) -> dict[str, Any]:
    print(label, json.dumps(row, indent=1), flush=True)
    return row


def _call(command: list[str]) -> str:
    """Run a command here, where the tasks are found; return what it printed."""
    done = subprocess.run(command, cwd=HERE, env=os.environ, capture_output=True, text=True)
    if done.returncode:
        return f"exit {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"
    return done.stdout


def main() -> None:
    """Measure one part; with `--write`, put it into `results/hollow.json`."""
    parser = argparse.ArgumentParser()
    parts = ("honest", "rules", "cost", "searches", "cheats", "configs")
    parser.add_argument("part", choices=parts)
    parser.add_argument("--folder", type=Path, default=Path("runs/hollow"))
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    folder = args.folder.resolve() / args.part
    measure: dict[str, Any] = {"honest": honest, "rules": rules, "cost": cost}
    in_folder: dict[str, Any] = {"searches": searches, "cheats": cheats, "configs": configs}
    found = measure[args.part]() if args.part in measure else in_folder[args.part](folder)
    if args.write:
        stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps({**stored, args.part: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
