"""Learned optimizers beyond their meta-training: ten times as long, thirty times as wide.

    python benchmarks/generalisation.py [celo2 celo ...]

Meta-training had runs of at most 1,000 steps and layers of at most 64 units. Here are perceptrons
on embedded digits: one of 32 hidden units for 10,000 steps, one of 1,920 units for 1,500. The
comparison is that of `veldt evaluate`: Adam's envelope over 15 learning rates, three seeds,
nothing of the learned optimizers tuned. Runs are kept in `runs/generalisation`, where a second call
continues; writes `results/generalisation.json`.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import veldt
from veldt.tasks import suites
from veldt.tasks.benchmark import comparison_table
from veldt.tasks.common.progress import choose
from veldt.tasks.shipped import image_models, images, supervised

RESULTS = Path(__file__).parent / "results" / "generalisation.json"
RUNS = Path("runs/generalisation")
RULES = ("celo2", "celo")
SUITE = suites.Suite(
    "generalisation",
    "ten times meta-training's horizon, thirty times its width",
    (suites.SuiteTask("digits_mlp", 10_000), suites.SuiteTask("generalisation:very_wide", 1500)),
)


def very_wide() -> supervised.SupervisedTask:
    """Classify 8x8 digits with a 64-1920-10 perceptron."""
    module = image_models.Mlp((1920, 10))
    return dataclasses.replace(images.digits_mlp(), name="very_wide", module=module)


def main(rules: Sequence[str]) -> None:
    """Compare, print the table, write the scores task by task."""
    watcher = choose.make_display()
    try:
        results = veldt.evaluate(rules, SUITE, out=RUNS, watcher=watcher, step_times=False)
    finally:
        watcher.close()
    comparison_table.print_results(results)
    rows = {
        row.label: {
            score.task: {
                "rates_tried": row.num_rates,
                "speedup": score.speedup,
                "cut_off": score.capped,
                "untuned_speedup": score.untuned_speedup,
                "test_loss_over_adams": score.test_ratio,
                "diverged": score.diverged,
            }
            for score in row.tasks
        }
        for row in results.rows
    }
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"wrote {RESULTS.name}")


if __name__ == "__main__":
    main(sys.argv[1:] or RULES)
