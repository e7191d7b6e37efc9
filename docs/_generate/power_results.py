"""Make the tables of the search engine's power, and of the proxies that can tell rules apart."""

import statistics
from collections.abc import Mapping
from typing import Any, Final

from _generate import evidence, markdown
from _generate.evidence import Evidence

TITLES: Final = {
    "evolution": "evolution",
    "random": "random programs",
    "constants": "constants alone",
    "best_of_founders": "best of the shipped rules, no search",
}
_BASELINES: Final = {"adamw": "AdamW", "lion": "Lion", "muon": "Muon"}
_LARGEST: Final = 1e4  # Seconds; more is as good as never.


def search_power() -> str:
    """Return what each arm's winners are worth at equal training steps, at each scale."""
    found = evidence.load("search_power")
    rows = []
    for part in found.values():
        for arm, row in part["arms"].items():
            of, difference = row["figures"], part["differences"].get(arm)
            rows.append(
                [
                    _founders(part),
                    f"{part['budget']:,}",
                    TITLES.get(arm, f"`{arm}`"),
                    str(len(row["seeds"])),
                    *(
                        _mean(of[name])
                        for name in (
                            "less_adamw",
                            "less_lion",
                            "less_muon",
                            "unseen_less_adamw",
                            "flattery",
                        )
                    ),
                    _mean(difference["less_adamw"]["paired"]) if difference else "",
                    f"{of['trained']['mean']:,.0f}",
                    markdown.percent(of["duplicates"]["mean"]),
                    f"{of['processor_s']['mean']:.0f}",
                ]
            )
    first = next(iter(found.values()))
    baselines = first["baselines"].values()
    return evidence.table(
        [
            "from",
            "steps",
            "arm",
            "searches",
            "less AdamW",
            "less Lion",
            "less Muon",
            "unseen tasks, less AdamW",
            "flattery",
            "evolution less this one",
            "trained",
            "proposed again",
            "processor s",
        ],
        rows,
        Evidence(
            "python benchmarks/search_power.py --runs DIR",
            "one search each; 32 fresh training seeds for each winner and baseline",
            "± half of the 95% interval over searches; differences are paired by search seed",
            "equal training steps; AdamW, Lion and Muon with rate and constants tuned on the same "
            f"tasks, {max(one['tuning_steps'] for one in baselines):,} steps each",
            "search_power",
            "Mean log loss of what a search hands out, less the baseline's: below 0 the winner is "
            "better. Flattery is the search's own estimate less the fresh score.",
        ),
    )


def power_winner() -> str:
    """Return the rule that evolution finds from AdamW with the first of the seeds."""
    arms = evidence.load("search_power")["adamw_scale_1"]["arms"]
    return markdown.code(arms["evolution"]["winners"][0]["program"])


def search_power_curves() -> str:
    """Return how good what each arm hands out is by part of the budget."""
    found = evidence.load("search_power")
    rows = []
    for part in found.values():
        for arm, row in part["arms"].items():
            by_part = {one["fraction"]: _mean(one) for one in row["curve"]}
            cells = [by_part.get(fraction, "") for fraction in (0.25, 1.0)]
            title = TITLES.get(arm, f"`{arm}`")
            rows.append([_founders(part), f"{part['budget']:,}", title, *cells])
    return evidence.table(
        ["from", "steps", "arm", "after a quarter", "all of it"],
        rows,
        Evidence(
            "python benchmarks/search_power.py --runs DIR",
            "those of the table above",
            "± half of the 95% interval over searches",
            "finals of the same size at both",
            "search_power",
            "Mean log loss of what a search would hand out by then, less tuned AdamW's.",
        ),
    )


def quickstart_seeds() -> str:
    """Return what the quickstart finds with each of some seeds, less its tuned baselines."""
    found = evidence.load("quickstart_seeds")
    names = list(found["baselines"])
    rows = [
        [
            str(one["seed"]),
            f"{one['trained']:,}",
            *(
                markdown.with_error(of["difference"], of["standard_error"])
                for of in (one["less"][name] for name in names)
            ),
            *(markdown.signed(one["less"][name]["meta_difference"]) for name in names),
        ]
        for one in found["searches"]
    ]
    means = [found["baselines"][name] for name in names]
    rows.append(
        [
            "mean, 95%",
            "",
            *(_mean(one["less"]) for one in means),
            *(_mean(one["meta_less"]) for one in means),
        ]
    )
    titles = [_BASELINES[name] for name in names]
    return evidence.table(
        [
            "search seed",
            "programs trained",
            *(f"less {title}" for title in titles),
            *(f"meta-validation, less {title}" for title in titles),
        ],
        rows,
        Evidence(
            found["command"],
            f"one search each; {found['final_seeds']} final seeds for every rule",
            "± the standard error of a difference, and in the last row half of the 95% interval "
            "over searches",
            "that of `configs/quickstart.yaml`, ended by its time limit on two cores; the rate and "
            f"all constants of every rule tuned by {found['tuning']} trials",
            "quickstart_seeds",
            "Mean log loss of the search's winner less the baseline's: below 0 the winner is "
            "better, -0.1 is about 10% less loss. Meta-validation chose it, on other seeds.",
        ),
    )


def proxies() -> str:
    """Return what each task, horizon and objective costs to tell the known pairs apart."""
    found = evidence.load("proxies")
    rows = []
    for objective in ("held_out_loss", "train_loss"):
        for row in found["all"][objective]["rows"]:
            spent = [one["value"] for one in row["pairs"].values()]
            right = [value for value in spent if value is not None]
            rows.append(
                [
                    f"`{row['task']}`",
                    f"`{objective}`",
                    str(row["horizon"]),
                    markdown.number(row["run_s"], 3),
                    f"{row['right']} of {len(spent)}",
                    _seconds(statistics.median(right)) if right else "",
                    _seconds(row["all_s"]["value"]),
                    markdown.number(row["tau_longest"]),
                    markdown.number(row["tau_targets"]),
                ]
            )
    return evidence.table(
        [
            "task",
            "objective",
            "steps",
            "a run (s)",
            "pairs in order",
            "a decision (s), median of these",
            "all decisions (s)",
            "tau, longest",
            "tau, larger tasks",
        ],
        rows,
        _evidence(
            found,
            "Of eight pairs with a known order. Seconds until one is told apart at 95%. Tau is "
            "Kendall's, of the order of eleven rules with that of the task's longest runs, and of "
            "larger tasks.",
        ),
    )


def proxy_sets() -> str:
    """Return the cheapest sets of proxies that tell all pairs apart."""
    found = evidence.load("proxies")
    rows = [
        [
            analysis,
            f"`{objective}`",
            ", ".join(f"`{task}` {horizon}" for task, horizon in row["proxies"]),
            markdown.number(row["run_s"], 3),
            f"{row['right']} of {len(row['pairs'])}",
            markdown.percent(row["right_share"]),
            _seconds(row["all_s"]["value"]),
            markdown.number(row["tau"]),
        ]
        for analysis in ("means", "signs", "all")
        for objective in ("held_out_loss", "train_loss")
        for row in found[analysis][objective]["sets"][:3]
    ]
    return evidence.table(
        [
            "pairs by",
            "objective",
            "tasks and steps",
            "one seed (s)",
            "pairs in order",
            "resamples with all in order",
            "all decisions (s)",
            "tau, larger tasks",
        ],
        rows,
        _evidence(
            found,
            "The three cheapest whose order agrees best. Pairs count where their mean difference "
            "over 16 tasks is clear of 0 (means, fixed in advance); where a sign test over tasks "
            "holds, and all eight (both added after the first was seen).",
        ),
    )


def _founders(part: Mapping[str, Any]) -> str:
    return ", ".join(_BASELINES[name] for name in part["founders"])


def _evidence(found: Mapping[str, Any], remark: str) -> Evidence:
    chosen_on, measured = found["seeds"]
    return Evidence(
        found["command"],
        f"learning rates chosen on {chosen_on} seeds, scores on {measured} others",
        "costs follow from the standard deviation over seeds; their intervals, from 1,000 "
        "resamples of the seeds, are in the file",
        "five constant learning rates for each of eleven rules; processor time on one core",
        "proxies",
        remark,
    )


def _mean(row: Mapping[str, Any]) -> str:
    if row["half_interval"] is None:
        return markdown.signed(row["mean"])
    return markdown.with_error(row["mean"], row["half_interval"])


def _seconds(value: float | None) -> str:
    if value is None or value > _LARGEST:
        return "never"
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"
