"""Lion from its own premises: how many programs until the best rule is one slot and a sign?

    python benchmarks/lion_search.py --runs DIR [--searches 3] [--steps 1500000]

Lion's paper (arXiv 2302.06675) found sign(interp(g, m, b1)) with one slot from AdamW, with 45
functions, after hundreds of thousands of programs. `lion_premises.yaml` starts from AdamW with the
same functions; its tasks are as large in batch as cheap tasks here are.

*Measure*, fixed before anything was run. A rule is *of Lion's form* if its live part keeps one slot
and has a sign. For each search: the number of distinct programs trained until the first candidate
of this form was trained to the end, and until one was the incumbent; nothing where the budget ended
before. Beside these, on 16 seeds that no search has: the score of Lion, and of AdamW, each at the
best of 13 rates (chosen on 4 others), and that of the last incumbent at its own. If Lion is not
ahead of AdamW there, a search that seeks low losses has no reason to find it.

Writes `results/lion_search.json`. Searches are kept in `--runs` and resumed.
"""

import argparse
import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any, Final

import intervals
import power_scores

from veldt import config as config_lib
from veldt.search import rule_sources
from veldt.search.config.finals_config import FinalsConfig
from veldt.search.config.search_config import SearchConfig
from veldt.search.evaluation.genotype import Genotype
from veldt.search.language import dataflow
from veldt.search.program import Program
from veldt.search.run import run_search
from veldt.search.storage.store import Store
from veldt.tasks.common import compiling
from veldt.tasks.pool.config import PoolConfig

SETTING: Final = Path(__file__).parent / "lion_premises.yaml"
RESULTS: Final = Path(__file__).parent / "results" / "lion_search.json"
NUM_FRESH: Final = 16
NUM_CHOSEN_ON: Final = 4


def is_of_lions_form(program: str) -> bool:
    """Return whether a program's live part keeps one slot and has a sign."""
    flow = dataflow.lower(Program.parse(program), fold=True)
    ops = {flow.values[index].op for index in flow.live_nodes}  # type: ignore[union-attr]
    return len(flow.live_slots) == 1 and "sign" in ops


def search(seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """Make one search, or what is left of it, and return what became of Lion's form."""
    config = dataclasses.replace(
        config_lib.load_config(SearchConfig, SETTING),
        seed=seed,
        max_steps=steps,
        finals=FinalsConfig(("adamw",), 0, 1, 1e-2, num_rates=1, select_seeds=1, final_seeds=1),
        pool=PoolConfig(backend="inline", num_workers=1),
    )
    directory = folder / f"seed_{seed}"
    run_search.run_search(config, directory, resume=True)
    with Store.open(directory, read_only=True) as store:
        trained = store.rows(
            "SELECT p.id, c.program, c.status FROM proposal p JOIN candidate c "
            "ON c.id = p.candidate WHERE p.source = 'evaluated' ORDER BY p.id"
        )
        won = store.rows(
            "SELECT h.proposal, c.program, c.learning_rate FROM challenge h JOIN candidate c "
            "ON c.id = h.challenger WHERE h.won = 1 ORDER BY h.id"
        )
    numbers = {row["id"]: number for number, row in enumerate(trained, 1)}
    formed = [
        row["id"] for row in trained if row["status"] == "ok" and is_of_lions_form(row["program"])
    ]
    led = [row["proposal"] for row in won if is_of_lions_form(row["program"])]
    until = [number for proposal, number in numbers.items() if led and proposal <= led[0]]
    last = won[-1]
    return {
        "seed": seed,
        "trained": len(trained),
        "of_the_form": len(formed),
        "first_trained": numbers[formed[0]] if formed else None,
        "first_incumbent": until[-1] if until else None,
        "incumbent": {"program": last["program"], "learning_rate": last["learning_rate"]},
    }


def main() -> None:
    """Search, score, print and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--searches", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1_500_000)
    args = parser.parse_args()
    compiling.keep_compiled()
    found = []
    for seed in range(args.searches):
        found.append(search(seed, args.steps, args.runs))
        print({k: v for k, v in found[-1].items() if k != "incumbent"}, flush=True)
    config = config_lib.load_config(SearchConfig, SETTING)
    trainer = power_scores.Trainer(config.tasks, config.objective, power_scores.SEED)
    tasks, scores = range(len(config.tasks)), {}
    for name in ("adamw", "lion"):
        chosen_on = range(1000, 1000 + NUM_CHOSEN_ON)
        program = rule_sources.load_rule(name)
        rule, _ = trainer.best_rate(program, power_scores.RATES, tasks, chosen_on)
        scores[name] = trainer.train(rule, tasks, range(NUM_FRESH))
    for one in found:
        rule = Genotype(
            Program.parse(one["incumbent"]["program"]), one["incumbent"]["learning_rate"]
        )
        one["fresh"] = intervals.of_mean(trainer.train(rule, tasks, range(NUM_FRESH)))
        print(one["seed"], intervals.text(one["fresh"]))
    for name, values in scores.items():
        print(f"{name}: {statistics.mean(values):+.3f}")
    content = {
        "command": "python benchmarks/lion_search.py --runs DIR",
        "steps": args.steps,
        "searches": found,
        "scores": {name: intervals.of_mean(values) for name, values in scores.items()},
        "lion_less_adamw": intervals.of_mean(
            [ours - theirs for ours, theirs in zip(scores["lion"], scores["adamw"], strict=True)]
        ),
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
