"""Score a search's winner once, beside the baselines tuned in the same way, and ship it.

    veldt search discover --run-dir runs/discover
    python benchmarks/discovered.py runs/discover NAME [--suite small] [--ship]

The candidates are entries of the run's finals: the winner, which meta-validation chose, and every
baseline, each with all its constants tuned on the same proxies and seeds by the same budget
(`finals.tuning`). Each gets seven learning rates around its own, three seeds, and
no schedule. Finished trainings are kept in `runs/evaluate_NAME`, and a second call continues there.

With `--ship` the winner becomes a shipped rule of that name, with a record of its config, seed,
lineage, store and table beside it (`search/rules/discovered`), whatever the table shows.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any, Final

import veldt
from veldt.search import rule_sources
from veldt.search.export.program_candidate import ProgramCandidate
from veldt.search.language import printing
from veldt.search.report import lineage, report_data
from veldt.search.storage import best_rule
from veldt.search.storage.hall_entries import Entry
from veldt.tasks.benchmark.protocol.candidates import rate_grid
from veldt.tasks.benchmark.scores.results import Results, Row

FOLDER: Final = rule_sources.DISCOVERED_FOLDER
RESULTS: Final = Path(__file__).parent / "results"


def candidate_of(entry: Entry, name: str, proxies: frozenset[str]) -> ProgramCandidate:
    """Return an entry of the finals as the benchmark's candidate."""
    if entry.learning_rate is None:
        raise SystemExit(f"{entry.label} failed at every learning rate: it cannot be scored")
    program = dataclasses.replace(entry.program, name=name, doc="")
    return ProgramCandidate(name, program, rate_grid(entry.learning_rate), proxies)


def row_of(results: Results, name: str) -> Row:
    """Return the row of a candidate that was trained."""
    return next(row for row in results.rows if row.name == name and row.source == "run")


def table_row(row: Row) -> dict[str, Any]:
    """Return a row for the record."""
    return {
        "speedup": dataclasses.asdict(row.speedup),
        "test_ratio": dataclasses.asdict(row.test_ratio),
        "untuned_speedup": dataclasses.asdict(row.untuned_speedup),
        "untuned_rate": row.untuned_rate,
        "won": row.won,
        "diverged": row.diverged,
        "num_selected": row.num_selected,
        "tasks": {
            task.task: {"speedup": task.speedup, "test_ratio": task.test_ratio, "rate": task.rate}
            for task in row.tasks
        },
    }


def finals_row(entry: Entry) -> dict[str, Any]:
    """Return an entry of the finals as plain data."""
    plain = dataclasses.asdict(entry)
    return {**plain, "program": printing.pretty(entry.program)}


def steps_of(data: report_data.SearchData) -> list[dict[str, Any]]:
    """Return the winner's lineage: what each mutation changed, and what it gained."""
    start = data.incumbents[0].fitness
    found = lineage.steps(data.initial_program, data.initial_learning_rate, data.lineage, start)
    return [
        {
            "proposal": step.ancestor.proposal,
            "mutation": step.ancestor.mutation,
            "neutral_steps_before": step.num_neutral,
            "fitness": step.ancestor.fitness,
            "gain": step.gain,
            "removed": list(step.change.removed),
            "added": list(step.change.added),
            "settings": list(step.change.settings),
        }
        for step in found
    ]


def record(
    data: report_data.SearchData, found: best_rule.Best, rows: dict[str, dict[str, Any]], suite: str
) -> dict[str, Any]:
    """Return the record of a rule's origin."""
    counts = data.counts
    return {
        "learning_rate": found.learning_rate,
        "provenance": dict(found.provenance),
        "config": dict(data.config),
        "store": {
            "proposals": counts.num_told,
            "sources": dict(counts.sources),
            "statuses": dict(counts.statuses),
            "challenges": counts.num_challenges,
            "challenges_won": data.num_won,
            "search_s": data.search_s,
            "spent": [dataclasses.asdict(one) for one in data.spent],
            "schema": data.schema_version,
            "versions": dict(data.versions),
        },
        "lineage": steps_of(data),
        "finals": [finals_row(entry) for entry in data.entries],
        "benchmark": {"suite": suite, "rows": rows},
    }


def main() -> None:
    """Score, print, write, and ship if `--ship` is given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("name")
    parser.add_argument("--suite", default="small")
    parser.add_argument("--ship", action="store_true")
    args = parser.parse_args()
    if not args.name.isidentifier() or args.name in rule_sources.RULE_NAMES:
        parser.error(f"{args.name!r} cannot name a new rule")
    data = report_data.read_run(args.run_dir)
    winner = next((entry for entry in data.entries if entry.winner), None)
    if winner is None:
        parser.error(f"the search in {args.run_dir} has played no finals, or nobody won them")
    found = best_rule.read_best(args.run_dir)
    candidates = [candidate_of(winner, args.name, found.proxies)]
    candidates += [
        candidate_of(entry, f"{entry.label}_tuned", found.proxies)
        for entry in data.entries
        if entry.candidate < 0
    ]
    results = veldt.evaluate(
        candidates, args.suite, out=Path("runs") / f"evaluate_{args.name}", step_times=False
    )
    rows = {one.name: table_row(row_of(results, one.name)) for one in candidates}
    for name, row in rows.items():
        speed, test = row["speedup"], row["test_ratio"]
        print(
            f"{name:20} speed-up {speed['value']:.2f} [{speed['low']:.2f}, {speed['high']:.2f}]  "
            f"test loss {test['value']:.2f} [{test['low']:.2f}, {test['high']:.2f}]"
        )
    whole = record(data, found, rows, args.suite)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"discovered_{args.name}.json").write_text(
        json.dumps({"command": f"benchmarks/discovered.py RUN {args.name}", **whole["benchmark"]})
        + "\n"
    )
    if args.ship:
        FOLDER.mkdir(exist_ok=True)
        program = dataclasses.replace(
            found.program, name=args.name, doc=description(whole, args.name)
        )
        (FOLDER / f"{args.name}.py").write_text(printing.pretty(program))
        (FOLDER / f"{args.name}.json").write_text(json.dumps(whole, indent=1) + "\n")
        print(f"shipped as {args.name}; name it in DISCOVERED of search/rule_sources.py")


def description(whole: dict[str, Any], name: str) -> str:
    """Return the rule file's docstring."""
    lines = [
        f"{row}: {one['speedup']['value']:.2f} "
        f"[{one['speedup']['low']:.2f}, {one['speedup']['high']:.2f}]"
        for row, one in whole["benchmark"]["rows"].items()
    ]
    return "\n".join(
        [
            f"Found by a search of veldt's from AdamW; learning rate {whole['learning_rate']:.3g}.",
            "",
            "Speed-up over tuned Adam's envelope on the suite "
            f"{whole['benchmark']['suite']}, with 95% intervals:",
            *lines,
            f"Config, seed, lineage, store and finals: {name}.json beside this file.",
        ]
    )


if __name__ == "__main__":
    main()
