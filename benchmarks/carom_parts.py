"""The value of each term of the shipped rule carom, and of a decay of its learning rate.

    python benchmarks/carom_parts.py

The rule without either of its two terms, on the suite `small`, at the learning rates that the rule
itself is tried at; and the rule with warm-up and linear decay. All of it was measured after the
rule was chosen and scored, so that it explains and selects nothing. Finished trainings are kept in
`runs/carom_parts`, and a second call continues there.
"""

import json
from pathlib import Path
from typing import Final

import discovered

import veldt
from veldt.search.export.program_candidate import ProgramCandidate
from veldt.search.program import Program
from veldt.search.rule_sources import read_discovered
from veldt.tasks.benchmark.protocol.candidates import rate_grid
from veldt.tasks.benchmark.scores.results import Row

SUITE: Final = "small"
OUT: Final = Path("runs") / "carom_parts"
RESULTS: Final = Path(__file__).parent / "results" / "carom_parts.json"
PARTS: Final = {"cbrt_alone": "cbrt(m)", "orthogonal_alone": "orthogonalize(m)"}


def part(name: str, update: str, b1: float) -> Program:
    """Return carom with another update."""
    return Program.parse(
        f"def {name}(w, g, m, *, b1={b1!r}):\n    m = interp(g, m, b1)\n    update = {update}\n"
        "    return update, m\n"
    )


def score(candidates: list[ProgramCandidate], schedule: str) -> dict[str, Row]:
    """Do the trainings that are missing; return the rows by name."""
    results = veldt.evaluate(candidates, SUITE, out=OUT, step_times=False, schedules=(schedule,))
    return {row.name: row for row in results.rows if row.source == "run"}


def main() -> None:
    """Score, print, write."""
    carom = read_discovered("carom")
    rates = rate_grid(carom.learning_rate)
    b1 = dict(carom.program.constants)["b1"]
    parts = [
        ProgramCandidate(name, part(name, update, b1), rates, carom.proxies)
        for name, update in PARTS.items()
    ]
    whole = ProgramCandidate("carom", carom.program, rates, carom.proxies)
    found = {
        "constant": score(parts, "constant"),
        "warmup_linear": score([whole], "warmup_linear"),
    }
    kept = {
        schedule: {name: discovered.table_row(row) for name, row in rows.items()}
        for schedule, rows in found.items()
    }
    for schedule, rows in kept.items():
        for name, row in rows.items():
            print(schedule, name, row["speedup"], row["test_ratio"], row["untuned_speedup"])
    RESULTS.write_text(json.dumps({"command": "benchmarks/carom_parts.py", **kept}) + "\n")


if __name__ == "__main__":
    main()
