"""The scores of the shipped baselines, with each schedule: the yardstick of every other table.

    python benchmarks/baselines.py [SUITE]

The runs are those of the archive (`make archive SUITE=...` made it); none of them is trained
again. A comparison needs a candidate, so plain SGD at one learning rate is trained beside them and
left out. Writes `results/baselines.json`.
"""

import json
import sys
from pathlib import Path

import discovered
import optax

import veldt

RESULTS = Path(__file__).parent / "results" / "baselines.json"


def main(suite: str) -> None:
    """Score the archived runs of a suite, print and write them."""
    results = veldt.evaluate(
        {"beside": optax.sgd}, suite, out=Path("runs") / "baselines", rates=(0.1,), step_times=False
    )
    rows = [
        {
            "name": row.name,
            "schedule": row.schedule,
            "num_rates": row.num_rates,
            "step_ratio": row.step_ratio,
            "state_bytes": row.state_bytes,
            **discovered.table_row(row),
        }
        for row in results.rows
        if row.source == "archive"
    ]
    for row in sorted(rows, key=lambda row: -row["speedup"]["value"]):
        print(row["name"], row["schedule"], row["speedup"], row["test_ratio"])
    content = {
        "command": f"python benchmarks/baselines.py {suite}",
        "suite": suite,
        "seeds": results.seeds,
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "small")
