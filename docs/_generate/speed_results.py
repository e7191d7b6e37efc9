"""Make the tables of speed, cost and faults, from `benchmarks/results`."""

import statistics
from collections.abc import Mapping
from typing import Any, Final

from _generate import evidence, markdown
from _generate.evidence import Evidence

MACHINE: Final = "two shared x86-64 cores, no GPU"


def interpreter() -> str:
    """Return the cost of a program that was never seen, interpreted and compiled."""
    speed = evidence.load("interpreter")["speed"]
    titles = {
        "sgd": "plain SGD, compiled once",
        "interpreted_adamw_16": "AdamW with a clipped update, interpreted",
        "interpreted": "random programs, interpreted",
        "native_run_only": "the same programs, compiled: the run only",
        "jit_per_candidate": "the same programs, compiled: compiling and the run",
    }
    return evidence.table(
        ["", "median (ms)", "quartiles (ms)", "n"],
        [
            [
                title,
                f"{speed[key]['median_ms']:,.0f}",
                f"{speed[key]['q25_ms']:,.0f} to {speed[key]['q75_ms']:,.0f}",
                str(speed[key]["n"]),
            ]
            for key, title in titles.items()
        ],
        Evidence(
            "python benchmarks/interpreter.py",
            "n programs, all different",
            "quartiles over programs",
            f"{speed['live_instructions']} live instructions, `{speed['task']}`, "
            f"{speed['num_steps']} steps, everything included; {MACHINE}",
            "interpreter",
        ),
    )


def dear_rules() -> str:
    """Return the cost of rules with dear instructions, interpreted and compiled."""
    found = evidence.load("interpreter")["rules"]
    rows = []
    for rule, row in found["rules"].items():
        interpreted = row.get("interpreted_ms")
        rows.append(
            [
                f"`{rule}`",
                str(row["live_instructions"]),
                _spread(interpreted) if interpreted else "-",
                _spread(row["run_ms"]),
                f"{row['compile_and_run_ms']:,.0f}",
            ]
        )
    repeats = len(next(iter(found["rules"].values()))["run_ms"])
    return evidence.table(
        [
            "rule",
            "live instructions",
            "interpreted (ms)",
            "compiled, the run only (ms)",
            "compiling and the run (ms)",
        ],
        rows,
        Evidence(
            "python benchmarks/interpreter.py --rules-only",
            f"{repeats} runs each",
            "median, lowest to highest",
            f"`{found['task']}`, {found['num_steps']} steps, everything included; {MACHINE}",
            "interpreter",
        ),
    )


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


# Instructions on whole tensors that the table of costs names.
SHOWN: Final = (
    "norm", "global_norm", "row_mean", "factored", "clip_by_quantile", "sinkhorn", "orthogonalize",
    "polar",
)  # fmt: skip


def dear_instructions() -> str:
    """Return the cost of instructions on whole tensors, interpreted and compiled."""
    tasks = evidence.load("search_throughput")["dear"]
    header = ["instruction"]
    for row in tasks.values():
        header.append(f"µs at {row['num_params']:,}: interpreted, compiled")
    rows = []
    for op in SHOWN:
        cells = [f"`{op}`"]
        for row in tasks.values():
            one = row["ops"][op]
            ways = (one[f"{way}_us"]["median"] for way in ("interpreted", "compiled"))
            cells.append(", ".join(f"{us:,.0f}" for us in ways))
        rows.append(cells)
    saved = [
        one["saved_ns_per_param"]["median"]
        for row in tasks.values()
        if row["num_params"] > 10_000
        for one in row["ops"].values()
    ]
    return evidence.table(
        header,
        rows,
        Evidence(
            "python benchmarks/search_throughput.py --parts dear",
            f"{len(tasks)} tasks, rounds in turns",
            f"medians; beyond 10,000 parameters compiling saved {min(saved):.1f} to "
            f"{max(saved):.1f} ns a parameter and use",
            "processor time of one core, on top of a program without the instruction",
            "search_throughput",
        ),
    )


def throughput() -> str:
    """Return the training step of interpreted programs over plain SGD's."""
    steps = evidence.load("search_throughput")["steps"]
    rows = []
    for task, row in steps.items():
        ratios = row["ratio_cpu"]
        programs = [v["median"] for k, v in ratios.items() if k.startswith("interpreted ")]
        programs.remove(ratios["interpreted empty"]["median"])
        rows.append(
            [
                f"{row['num_params']:,} (`{task}`)",
                f"{row['sgd_us']['cpu']['median']:,.0f}",
                markdown.number(ratios["sgd_flat"]["median"]),
                markdown.number(ratios["interpreted empty"]["median"]),
                f"**{row['median_ratio_cpu_interpreted']:.2f}** "
                f"({min(programs):.2f}, {max(programs):.2f})",
                markdown.number(ratios["compiled adam"]["median"]),
            ]
        )
    return evidence.table(
        [
            "parameters",
            "plain SGD (µs a step)",
            "SGD on a flat vector",
            "interpreter, no instruction",
            "interpreted, median of 7 programs (lowest, highest)",
            "compiled Adam",
        ],
        rows,
        Evidence(
            "python benchmarks/search_throughput.py --rounds 25",
            "25 rounds in turns, 7 programs of about 12 statements",
            "medians; each ratio is within a round",
            "processor time of one core",
            "search_throughput",
        ),
    )


def cache() -> str:
    """Return the share of children that were known before they were trained, by mutation."""
    found = evidence.load("search_throughput")["cache"]
    shares = found["share_by_mutation"]
    titles = {
        "delete": "a statement deleted",
        "insert": "a statement inserted",
        "modify": "a statement modified",
        "constant": "a constant scaled",
        "learning_rate": "the learning rate scaled",
    }
    return evidence.table(
        ["child", "answered from the cache"],
        [
            *([title, markdown.percent(shares[key], 1)] for key, title in titles.items()),
            ["any", markdown.percent(found["share"], 1)],
        ],
        Evidence(
            "python benchmarks/search_throughput.py --rounds 25",
            "one search",
            "none",
            f"{found['children']:,} children of a search on two quadratic bowls",
            "search_throughput",
        ),
    )


def driver() -> str:
    """Return what the driver of a search does for each proposal."""
    found = evidence.load("driver")
    parts = found["parts_us_per_proposal"]
    return evidence.table(
        ["part", "µs a proposal"],
        [
            *(
                [part, f"{row['median']:,.0f} [{row['min']:,.0f}, {row['max']:,.0f}]"]
                for part, row in sorted(parts.items(), key=lambda item: -item[1]["median"])
            ),
            ["all", f"{found['us_per_proposal']['median']:,.0f}"],
        ],
        Evidence(
            "python benchmarks/driver.py",
            f"{found['repeats']} searches",
            "medians with the lowest and the highest",
            f"{found['proposals']:,} proposals of `{found['config']}` a search, without training",
            "driver",
            "Taken before some parts were made faster.",
        ),
    )


def metatraining() -> str:
    """Return the inner steps of meta-training by architecture."""
    found = evidence.load("meta_training")
    rows = [
        [
            f"`{name}`",
            f"{row['inner_steps_per_s']:,.0f}",
            " to ".join(f"{share:.2f}" for share in row["share_of_adam_quartiles"][::2]),
            markdown.number(row["compile_s"], 1),
            markdown.number(row["second_estimator_s"], 2),
        ]
        for name, row in found["rows"].items()
    ]
    return evidence.table(
        [
            "",
            "inner steps a second",
            "share of Adam's, by processor time",
            "compiling (s)",
            "second estimator (s)",
        ],
        rows,
        Evidence(
            "python benchmarks/meta_training.py",
            f"{found['rounds']} rounds in turns",
            "quartiles",
            f"PES with {found['num_particles']} pairs and windows of {found['window']} steps on a "
            "perceptron of 64-32-10, batch 64",
            "meta_training",
        ),
    )


def pool() -> str:
    """Return what the worker pool adds to the work."""
    found = evidence.load("pool")
    by_key = {(r["jobs"], r["backend"], r["window"]): r for r in found["overhead"]}
    rows = [
        [
            title,
            *(
                markdown.percent(by_key[jobs, backend, window]["overhead_share"], 1)
                for backend in ("inline", "ray", "ray, one by one")
            ),
        ]
        for jobs, window, title in (
            ("1 ms sleep", 256, "1 ms of sleep"),
            ("10 ms sleep", 256, "10 ms of sleep"),
            ("100 ms sleep", 256, "100 ms of sleep"),
            ("evaluation", 16, "an evaluation of the quickstart"),
        )
    ]
    return evidence.table(
        ["job", "threads", "Ray", "Ray, without batches"],
        rows,
        Evidence(
            found["command"],
            f"{found['overhead'][0]['repeats']} repeats",
            "medians, as a share of the work itself",
            f"{found['num_workers']} workers on {found['machine']['cores']} cores that others used "
            "as well; 256 jobs in flight (evaluations: 16)",
            "pool",
        ),
    )


def utilisation() -> str:
    """Return how busy fractional Ray actors are."""
    found = evidence.load("pool")
    rows = [
        [
            f"{row['mean_job_s']:g}",
            str(row["num_workers"]),
            markdown.percent(row["utilisation"]["median"]),
        ]
        for row in found["utilisation"]
    ]
    return evidence.table(
        ["seconds a job, in the mean", "actors", "busy"],
        rows,
        Evidence(
            found["command"],
            f"{found['utilisation'][0]['repeats']} repeats",
            "medians",
            "sleeping jobs of lognormal length",
            "pool",
        ),
    )


def scaling() -> str:
    """Return how busy simulated workers are."""
    found = evidence.load("scaling")
    rows = [
        [
            str(row["num_workers"]),
            f"{row['mean_job_s']:.2g}",
            "yes" if row["challenges"] else "no",
            f"{row['proposals_per_s']['median']:,.0f}",
            markdown.percent(row["utilisation"]["median"]),
        ]
        for row in found["simulation"]
        if row["num_workers"] in (8, 32, 128, 512) and row["scale"] in (1, 100)
    ]
    return evidence.table(
        ["workers", "seconds a job", "challenges", "proposals a second", "workers busy"],
        rows,
        Evidence(
            found["command"],
            f"{found['repeats']} repeats",
            "medians",
            "the real engine, store and dispatcher; workers and their clock are simulated",
            "scaling",
        ),
    )


def faults() -> str:
    """Return what was done to searches and meta-trainings, and what came of it."""
    soak = evidence.load("soak")
    kills, meta = evidence.load("kill_resume"), evidence.load("meta_kill_resume")
    rows = [
        *_soaked(soak),
        *(
            [
                f"a real search ({name})",
                f"killed and resumed {one['kills']} times",
                f"equal row by row, in {one['ends_compared']} comparisons",
            ]
            for name, one in kills.items()
        ),
        [
            "a meta-training",
            f"killed and resumed {meta['kills']} times",
            f"the same bits at the end, in {meta['ends_compared']} comparisons",
        ],
    ]
    return evidence.table(
        ["what", "what was done to it", "compared with one left alone"],
        rows,
        Evidence(
            soak["command"],
            "random moments",
            "none",
            f"{soak['minutes']:.0f} minutes on {soak['nodes']}",
            "soak",
            "The other rows: `python benchmarks/kill_resume.py` and "
            "`python benchmarks/meta_kill_resume.py`.",
        ),
    )


def _soaked(soak: Mapping[str, Any]) -> list[list[str]]:
    """Return a row for each command of a soak; older results are of searches only."""
    if "commands" not in soak:
        came = f"{soak['stores_that_differed']} of {len(soak['searches'])} stores differed"
        return [["searches", _counted(soak["faults"]), came]]
    what = {
        "search": ("searches", "stores"),
        "meta-train": ("meta-trainings", "weights, bit for bit,"),
        "evaluate": ("evaluations", "tables and curves"),
        "tune": ("tunings", "learned numbers"),
    }
    return [
        [
            what[name][0],
            _counted(one["faults"]),
            f"{soak['differed']} of {one['runs_compared']} {what[name][1]} differed",
        ]
        for name, one in soak["commands"].items()
    ]


def _counted(faults: Mapping[str, int]) -> str:
    listed = ", ".join(f"{what}: {count}" for what, count in faults.items())
    return f"{sum(faults.values())} faults ({listed})"


def figures() -> dict[str, str]:
    """Return the single numbers that pages on speed name in their text."""
    speed = evidence.load("interpreter")["speed"]
    children: Mapping[str, Any] = evidence.load("search_throughput")["children"]
    memory = evidence.load("scaling")["memory"]
    driver = [
        row["proposals_per_s"]["median"]
        for row in evidence.load("scaling")["simulation"]
        if not row["challenges"] and row["num_workers"] >= 8 and row["scale"] == 1
    ]
    growth = evidence.load("interpreter")["memory"]
    return {
        "native_over_sgd": f"{speed['ratio_native_to_sgd']:.1f}",
        "memory_growth": f"{growth['growth_mib_after_first_tenth']:.2f} MiB",
        "memory_candidates": f"{growth['candidates']:,}",
        "children_stored_per_s": f"{children['children_per_cpu_s_stored_too']:,.0f}",
        "interpreted_over_sgd": f"{speed['ratio_adamw_16_to_sgd']:.1f}",
        "compiled_over_interpreted": f"{speed['ratio_jit_to_interpreted']:.0f}",
        "compile_interpreter_s": f"{speed['compile_interpreter_once_s']:.0f}",
        "children_per_s": f"{children['children_per_cpu_s_proposed_and_filtered']:,.0f}",
        "driver_memory": f"{memory['slope_mib_per_10k_proposals']:.1f} MiB",
        "driver_proposals": f"{min(driver):,.0f} to {max(driver):,.0f}",
    }
