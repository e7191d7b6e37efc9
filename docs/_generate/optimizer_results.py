"""Make the tables of optimizers: baselines, the discovered rule, shipped weights."""

import functools
import json
from collections.abc import Mapping
from typing import Any, Final

from _generate import evidence, markdown
from _generate.evidence import Evidence
from veldt.learned_opt import shipped
from veldt.search import rule_sources

SPREAD: Final = (
    "interquartile means over tasks, with 95% stratified bootstrap intervals over seeds; they say "
    "nothing about other tasks"
)
SEEDS: Final = "3 training seeds on every task"
HEADER: Final = (
    "",
    "speed-up",
    "test loss over tuned Adam's",
    "won",
    "speed-up, one rate for all tasks",
    "diverged",
)
SCHEDULES: Final = {
    "constant": "constant",
    "warmup_cosine": "warm-up, cosine",
    "warmup_linear": "warm-up, linear",
}
Row = Mapping[str, Any]


def cells(name: str, row: Row) -> list[str]:
    """Return a row of a comparison as the cells of `HEADER`."""
    return [
        name,
        markdown.interval(row["speedup"]),
        markdown.interval(row["test_ratio"]),
        markdown.percent(row["won"]),
        markdown.interval(row["untuned_speedup"]),
        markdown.percent(row["diverged"], 1),
    ]


@functools.cache
def baseline_rows() -> Mapping[tuple[str, str], Row]:
    """Return the archived baselines on `small`, by name and schedule."""
    rows = evidence.load("baselines")["rows"]
    return {(row["name"], row["schedule"]): row for row in rows}


def baselines() -> str:
    """Return the baselines' speed-up by schedule."""
    rows = baseline_rows()
    names = sorted(
        {name for name, _ in rows}, key=lambda name: -rows[name, "constant"]["speedup"]["value"]
    )
    return evidence.table(
        ["", *SCHEDULES.values(), "one rate for all tasks, linear", "test loss, linear"],
        [
            [
                f"`{name}`",
                *(
                    markdown.interval(rows[name, schedule]["speedup"])
                    if (name, schedule) in rows
                    else ""
                    for schedule in SCHEDULES
                ),
                markdown.interval(rows[name, "warmup_linear"]["untuned_speedup"]),
                markdown.interval(rows[name, "warmup_linear"]["test_ratio"]),
            ]
            for name in names
        ],
        Evidence(
            evidence.load("baselines")["command"],
            SEEDS,
            SPREAD,
            "7 learning rates on each task of `small` and for each schedule; Adam's envelope has "
            "15 and 3 times as many steps",
            "baselines",
        ),
    )


def baselines_diverged() -> str:
    """Return the share of each baseline's runs that diverged, and its state."""
    rows = baseline_rows()
    names = sorted({name for name, _ in rows})
    return evidence.table(
        ["", "diverged, constant", "diverged, cosine", "diverged, linear", "state (bytes)"],
        [
            [
                f"`{name}`",
                *(markdown.percent(rows[name, schedule]["diverged"], 1) for schedule in SCHEDULES),
                markdown.number(rows[name, "constant"]["state_bytes"], 1),
            ]
            for name in names
        ],
        Evidence(
            evidence.load("baselines")["command"],
            SEEDS,
            "none: shares of all runs",
            "7 learning rates on each task of `small`",
            "baselines",
            "State: bytes for each parameter.",
        ),
    )


def carom() -> str:
    """Return the discovered rule beside tuned baselines and beside its own parts."""
    scored, parts = evidence.load("discovered_carom")["rows"], evidence.load("carom_parts")
    archive = baseline_rows()
    rows = [
        cells("**carom**", scored["carom"]),
        cells("AdamW, all constants tuned on the same proxies", scored["adamw_tuned"]),
        cells("Lion, all constants tuned on the same proxies", scored["lion_tuned"]),
        cells("Muon, Optax's constants", archive["muon", "constant"]),
        cells("AdamW, Optax's constants", archive["adamw", "constant"]),
        cells(
            "afterwards: the orthogonalised momentum alone", parts["constant"]["orthogonal_alone"]
        ),
        cells("afterwards: the cube root alone", parts["constant"]["cbrt_alone"]),
        cells("afterwards: carom, warm-up and linear decay", parts["warmup_linear"]["carom"]),
        cells("Muon, warm-up and linear decay", archive["muon", "warmup_linear"]),
    ]
    return evidence.table(
        HEADER,
        rows,
        Evidence(
            "python benchmarks/discovered.py runs/discover carom --suite small",
            f"one search; {SEEDS}",
            SPREAD,
            "7 learning rates on each task; the constants of carom, AdamW and Lion were tuned "
            "before, by 13 learning rates and 121 trials of CMA-ES each, on the search's tasks",
            "discovered_carom",
            'Rows that begin with "afterwards" explain and selected nothing '
            "(`python benchmarks/carom_parts.py`); Muon and Optax's AdamW come from the archive.",
        ),
    )


def carom_tasks() -> str:
    """Return the discovered rule and its baselines, task by task."""
    rows = evidence.load("discovered_carom")["rows"]
    parts = evidence.load("carom_parts")["constant"]
    columns = [
        rows["carom"],
        rows["adamw_tuned"],
        rows["lion_tuned"],
        parts["orthogonal_alone"],
        parts["cbrt_alone"],
    ]
    return evidence.table(
        [
            "task",
            "carom",
            "AdamW, tuned",
            "Lion, tuned",
            "orthogonalised alone",
            "cube root alone",
            "carom's test loss over tuned Adam's",
        ],
        [
            [
                f"`{task}`",
                *(markdown.number(column["tasks"][task]["speedup"]) for column in columns),
                markdown.number(score["test_ratio"]),
            ]
            for task, score in rows["carom"]["tasks"].items()
        ],
        Evidence(
            "python benchmarks/discovered.py runs/discover carom --suite small",
            SEEDS,
            "none: means over seeds",
            "7 learning rates on each task; speed-ups are cut off at 3",
            "discovered_carom",
        ),
    )


@functools.cache
def record(name: str = "carom") -> Mapping[str, Any]:
    """Return the record that is kept beside a discovered rule."""
    content: Mapping[str, Any] = json.loads(
        (rule_sources.DISCOVERED_FOLDER / f"{name}.json").read_text("utf-8")
    )
    return content


def carom_finals() -> str:
    """Return the finals of the search that found carom."""
    rows = [
        [
            f"**{entry['label']}**" if entry["winner"] else entry["label"],
            str(entry["length"]),
            markdown.number(entry["search_fitness"], 3),
            "" if entry["final"] is None else f"{entry['final']:.3f} ± {entry['final_error']:.3f}",
            markdown.number(entry["meta"], 3),
            str(entry["stages"]),
        ]
        for entry in record()["finals"]
    ]
    return evidence.table(
        ["rule", "length", "search fitness", "fresh seeds", "meta-validation", "stages passed"],
        rows,
        Evidence(
            "veldt search discover",
            "one search; 8 fresh training seeds",
            "± one standard error",
            f"{record()['store']['sources']['evaluated']:,} programs trained, "
            f"{record()['store']['search_s'] / 60:.0f} minutes on two cores; then one budget of "
            "tuning for every rule, baselines alike",
            remark="Kept in `search/rules/discovered/carom.json`. Mean log losses: lower is "
            "better. The bold rule was chosen by meta-validation.",
        ),
    )


def weights() -> str:
    """Return the shipped weights against tuned baselines."""
    archive = baseline_rows()
    rows = []
    for name in sorted(shipped.names(), reverse=True):
        row = shipped.load(name).record["benchmark"]
        rows.append([f"**{name}**", "nothing", markdown.interval(row["speedup"])])
    rate = "7 rates, each task"
    for name in ("muon", "adamw"):
        row = archive[name, "warmup_linear"]
        rows.append([f"{name}, warm-up and linear decay", rate, markdown.interval(row["speedup"])])
        rows.append(
            [
                f"{name}, warm-up and linear decay",
                "one rate, the best for this suite",
                markdown.interval(row["untuned_speedup"]),
            ]
        )
    adam = archive["adam", "constant"]
    rows.append(["adam", rate, markdown.interval(adam["speedup"])])
    rows.append(
        ["adam", "one rate, the best for this suite", markdown.interval(adam["untuned_speedup"])]
    )
    return evidence.table(
        ["", "what is tuned", "speed-up"],
        rows,
        Evidence(
            "veldt evaluate celo2 celo --suite small",
            SEEDS,
            SPREAD,
            "one run for each seed and task of the learned optimizers",
            remark="Kept in the weight files' own records; the others in "
            "`benchmarks/results/baselines.json`.",
        ),
    )


def weights_tasks() -> str:
    """Return the shipped weights, task by task."""
    records = {name: shipped.load(name).record["benchmark"]["tasks"] for name in shipped.names()}
    names = sorted(records, reverse=True)
    tasks = list(evidence.load("discovered_carom")["rows"]["carom"]["tasks"])
    return evidence.table(
        ["task", *(f"{name}: {what}" for name in names for what in ("speed-up", "test loss"))],
        [
            [
                f"`{task}`",
                *(
                    markdown.number(records[name][task][what])
                    for name in names
                    for what in ("speedup", "test_ratio")
                ),
            ]
            for task in tasks
        ],
        Evidence(
            "veldt evaluate celo2 celo --suite small",
            SEEDS,
            "none: means over seeds",
            "nothing tuned; speed-ups are cut off at 3",
            remark="Test loss is over tuned Adam's.",
        ),
    )


def weights_costs() -> str:
    """Return what the shipped weights cost to make."""
    rows = []
    for name in sorted(shipped.names(), reverse=True):
        found = shipped.load(name).record
        cost = found["cost"]
        rows.append(
            [
                name,
                f"{found['update']:,}",
                f"{cost['inner_steps'] / 1e6:.1f} million",
                markdown.number(cost["worker_hours"], 1),
                markdown.number(found["meta_validation_score"], 2),
            ]
        )
    return evidence.table(
        ["", "updates of the run", "inner steps", "worker-hours", "meta-validation score"],
        rows,
        Evidence(
            "veldt meta-train celo2",
            "one run each, seed 0",
            "none",
            "two shared cores",
            remark="Kept in the weight files' own records. The score is the mean log loss of the "
            "weights that were kept: lower is better.",
        ),
    )


def generalisation() -> str:
    """Return the shipped weights on longer and wider training than they were made for."""
    found = evidence.load("generalisation")
    titles = {
        "digits_mlp": "10,000 steps of `digits_mlp`",
        "generalisation:very_wide": "1,920 hidden units, 1,500 steps",
    }
    return evidence.table(
        ["", "task", "speed-up", "test loss over tuned Adam's", "runs that diverged"],
        [
            [
                name,
                title,
                f"{found[name][task]['speedup']:.2f}"
                + (" (the limit)" if found[name][task]["cut_off"] else ""),
                markdown.number(found[name][task]["test_loss_over_adams"], 1),
                f"{3 * found[name][task]['diverged']:.0f} of 3",
            ]
            for name in ("celo2", "celo")
            for task, title in titles.items()
        ],
        Evidence(
            "python benchmarks/generalisation.py",
            SEEDS,
            "none: means over seeds",
            "nothing tuned; Adam's envelope has 15 learning rates",
            "generalisation",
        ),
    )


def step_time() -> str:
    """Return the time of a learned optimizer's update over Adam's."""
    trees = evidence.load("step_time")["trees"]
    wide, leaves = trees["wide"], trees["leaves"]
    order = sorted(wide["optimizers"], key=lambda n: wide["optimizers"][n]["ratio_to_adam"]["q75"])
    rows = [
        [
            f"`{name}`",
            markdown.quartiles(wide["optimizers"][name]["ratio_to_adam"]),
            markdown.quartiles(leaves["optimizers"][name]["ratio_to_adam"]),
            markdown.number(wide["optimizers"][name]["state_over_params"], 0),
        ]
        for name in order
        if name != "adam"
    ]
    adam = wide["optimizers"]["adam"]["ms"]["median"]
    return evidence.table(
        [
            "",
            f"{wide['num_params']:,} parameters in {wide['num_tensors']} tensors "
            f"(Adam: {adam:.2f} ms)",
            f"{leaves['num_params']:,} parameters in {leaves['num_tensors']} tensors",
            "state, in copies of the parameters (Adam: 2)",
        ],
        rows,
        Evidence(
            "python benchmarks/step_time.py",
            f"{wide['num_rounds']} rounds in turns",
            "median and quartiles of the ratio to Adam",
            "the update alone, on a CPU",
            "step_time",
            "`celo2_base` is celo2 without Newton-Schulz orthogonalisation.",
        ),
    )


def figures() -> dict[str, str]:
    """Return the single numbers that pages on optimizers name in their text."""
    scored, parts = evidence.load("discovered_carom")["rows"], evidence.load("carom_parts")
    carom_row, rows = scored["carom"], baseline_rows()
    tasks = carom_row["tasks"]
    ahead = sum(score["speedup"] > 1 for score in tasks.values())
    store, learned = record()["store"], {n: shipped.load(n).record for n in shipped.names()}
    return {
        "carom_speedup": markdown.interval(carom_row["speedup"]),
        "carom_test": markdown.interval(carom_row["test_ratio"]),
        "carom_ahead": f"{ahead} of the {len(tasks)}",
        "carom_orthogonal": markdown.interval(parts["constant"]["orthogonal_alone"]["speedup"]),
        "carom_cbrt": markdown.interval(parts["constant"]["cbrt_alone"]["speedup"]),
        "carom_linear": markdown.interval(parts["warmup_linear"]["carom"]["speedup"]),
        "carom_resnet_test": markdown.number(tasks["digits_resnet"]["test_ratio"]),
        "carom_programs": f"{store['sources']['evaluated']:,}",
        "carom_proposals": f"{store['proposals']:,}",
        "carom_minutes": f"{store['search_s'] / 60:.0f}",
        "carom_rate": f"{record()['learning_rate']:.3f}",
        "adamw_tuned": markdown.interval(scored["adamw_tuned"]["speedup"]),
        "lion_tuned": markdown.interval(scored["lion_tuned"]["speedup"]),
        "muon": markdown.interval(rows["muon", "constant"]["speedup"]),
        "muon_linear": markdown.interval(rows["muon", "warmup_linear"]["speedup"]),
        "muon_linear_test": markdown.number(rows["muon", "warmup_linear"]["test_ratio"]["value"]),
        "muon_digits_test": markdown.number(
            rows["muon", "warmup_linear"]["tasks"]["digits_mlp"]["test_ratio"]
        ),
        "muon_one_rate": markdown.interval(rows["muon", "warmup_linear"]["untuned_speedup"]),
        "adamw_linear": markdown.interval(rows["adamw", "warmup_linear"]["speedup"]),
        "adam_one_rate": markdown.number(rows["adam", "constant"]["untuned_speedup"]["value"]),
        **{
            f"{name}_speedup": markdown.interval(found["benchmark"]["speedup"])
            for name, found in learned.items()
        },
    }
