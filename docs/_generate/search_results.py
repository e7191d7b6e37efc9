"""Make the tables of what searches find, from `benchmarks/results`."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from _generate import evidence, markdown
from _generate.evidence import Evidence


def racing() -> str:
    """Return how often racing drops a good candidate, and what it saves."""
    found = evidence.load("racing")
    rows = []
    for race in found["races"]:
        over, saved = race["good"]["share_over_lots"], race["steps_saved"]
        lost = race["best_kept"]["share_of_lots_that_dropped_the_best"]
        rows.append(
            [
                f"best {race['top']:.0%}",
                str(race["chance"]),
                "no level yet"
                if over["mean"] is None
                else f"{over['mean']:.3f} ± {over['standard_error']:.3f}",
                markdown.percent(saved["mean"], 1),
                "never" if lost == 0 else f"in {lost:.0%} of draws",
            ]
        )
    return evidence.table(
        ["good means", "stated chance", "good dropped", "steps saved", "the search's best dropped"],
        rows,
        Evidence(
            found["command"],
            f"{len(found['searches'])} searches, 20 draws of the control group",
            "± one standard error over searches",
            f"{found['searches'][0]['trained']:,} programs a search, trained without a race and "
            "replayed with one",
            "racing",
            "The steps saved come on top of those that the hurdle saves.",
        ),
    )


def hollow_searches() -> str:
    """Return the winners of searches on tasks whose loss can be low without learning."""
    found = evidence.load("hollow")["searches"]
    rows = [
        [
            f"`{task}`",
            _range(run["winner_accuracy"] for run in runs),
            markdown.number(runs[0]["adamw_accuracy"], 3),
            f"{sum(sum(run['hollow'].values()) for run in runs):,} of "
            f"{sum(run['trained'] for run in runs):,}",
        ]
        for task, runs in found.items()
    ]
    return evidence.table(
        ["task", "accuracy of the five winners", "AdamW at 0.01", "hollow programs"],
        rows,
        Evidence(
            "python benchmarks/hollow.py searches --write",
            "5 searches a task, 3 fresh training seeds for each accuracy",
            "lowest to highest winner",
            "1,000 programs a search",
            "hollow",
            "Accuracy on the validation split. All but the spiral's were taken with the guard as it"
            " was before its last change: the validation split in place of a training batch, the "
            "largest parameter in place of the norm.",
        ),
    )


def _range(values: Any) -> str:
    kept = list(values)
    return f"{min(kept):.3f} to {max(kept):.3f}"


def hollow_reasons() -> str:
    """Return which tests found the hollow runs of twenty tasks that can be cheated."""
    found = evidence.load("hollow")["cheats"]
    counts: Counter[str] = Counter()
    for run in found.values():
        counts.update(run["hollow"])
    rows = [[reason, str(count)] for reason, count in counts.most_common()]
    trained = sum(run["trained"] for run in found.values())
    return evidence.table(
        ["what the test said", "programs"],
        rows,
        Evidence(
            "python benchmarks/hollow.py cheats --write",
            f"one search on each of {len(found)} tasks",
            "none",
            f"{trained:,} programs in all",
            "hollow",
        ),
    )


def hollow_rules() -> str:
    """Return what `veldt evaluate` credits six hollow rules with."""
    rows = [
        [
            f"`{row['rule']}`",
            markdown.number(row["speedup"]),
            markdown.percent(row["hollow"]),
            markdown.percent(row["diverged"]),
        ]
        for row in evidence.load("hollow")["rules"]
    ]
    return evidence.table(
        ["rule", "speed-up", "hollow runs", "diverged runs"],
        rows,
        Evidence(
            "python benchmarks/hollow.py rules --write",
            "3 training seeds on each of three tasks",
            "none",
            "7 learning rates on each task",
            "hollow",
        ),
    )


def hollow_honest() -> str:
    """Return how far honest runs are from being called hollow, and what the guard costs."""
    found = evidence.load("hollow")
    moved = max(row["moved"]["1"] for row in found["honest"])
    more = max(row["moved"]["16"] for row in found["honest"])
    costs = [row["share"] for row in found["cost"]]
    rows = [
        ["largest move of the log loss by the jitter, honest runs", f"{moved:.5f}"],
        ["the same at 16 times the jitter", f"{more:.4f}"],
        ["move at which a run counts as hollow", "0.05"],
        [
            "processor time that the tests add to a whole run",
            f"{markdown.percent(min(costs))} to {markdown.percent(max(costs))}",
        ],
    ]
    return evidence.table(
        ["", ""],
        rows,
        Evidence(
            "python benchmarks/hollow.py honest --write",
            f"{len(found['honest'])} tasks, 3 optimizers each; cost on {len(found['cost'])} tasks",
            "cost: medians of 100 interleaved rounds, all quartiles include 0",
            "one training run",
            "hollow",
        ),
    )


def simplifier() -> str:
    """Return what the simplifier makes of programs with clutter."""
    found = evidence.load("simplifier")
    lion, cluttered, evolved = found["raw_lion"], found["cluttered"], found["evolved"]
    rows = [
        [
            "Lion as its search found it",
            "1",
            f"{lion['statements']} to {lion['simplified']} instructions",
            f"{lion['deviation']:.0e}",
            markdown.number(lion["seconds"], 2),
        ],
        [
            f"the {len(cluttered['rules'])} shipped rules with {cluttered['changes']} pieces of "
            "clutter",
            str(cluttered["programs"]),
            f"{cluttered['recovered']} of {cluttered['programs']} as short as without",
            f"{cluttered['max_deviation']:.0e}",
            markdown.number(cluttered["max_seconds"], 2),
        ],
        [
            f"AdamW after {evolved['mutations']} mutations",
            str(evolved["programs"]),
            f"{evolved['mean_statements']:.1f} to {evolved['mean_simplified']:.1f} instructions",
            f"{evolved['max_deviation']:.0e}",
            markdown.number(evolved["max_seconds"], 2),
        ],
    ]
    return evidence.table(
        ["programs", "how many", "result", "largest deviation", "longest (s)"],
        rows,
        Evidence(
            "python benchmarks/simplifier.py",
            f"seeds {cluttered['seeds']} of the clutter",
            "largest of all programs",
            "one program",
            "simplifier",
        ),
    )


def figures() -> dict[str, str]:
    """Return the single numbers that pages on searches name in their text."""
    part = evidence.load("search_power")["adamw_scale_1"]
    of, differences = part["arms"]["evolution"]["figures"], part["differences"]
    cache = evidence.load("search_throughput")["cache"]
    quickstart = evidence.load("quickstart_seeds")
    less_adamw, less_muon = (quickstart["baselines"][name] for name in ("adamw", "muon"))
    return {
        "quickstart_less_adamw": _interval(less_adamw["less"]),
        "quickstart_less_muon": _interval(less_muon["less"]),
        "quickstart_meta_less_adamw": _interval(less_adamw["meta_less"]),
        "quickstart_meta_less_muon": _interval(less_muon["meta_less"]),
        "quickstart_clear_of_adamw": str(less_adamw["num_clear"]),
        "quickstart_clear_of_muon": str(less_muon["num_clear"]),
        "quickstart_searches": str(len(quickstart["searches"])),
        "gain_over_adamw": _interval(of["less_adamw"]),
        "gain_over_lion": _interval(of["less_lion"]),
        "gain_over_muon": _interval(of["less_muon"]),
        "unseen_gain_over_adamw": _interval(of["unseen_less_adamw"]),
        "unseen_gain_over_muon": _interval(of["unseen_less_muon"]),
        "flattery": _interval(of["flattery"]),
        "evolution_less_constants": _interval(differences["constants"]["less_adamw"]["paired"]),
        "evolution_less_random": _interval(differences["random"]["less_adamw"]["paired"]),
        "power_steps": f"{part['budget']:,}",
        "power_searches": str(len(part["arms"]["evolution"]["seeds"])),
        "from_cache": markdown.percent(cache["share"]),
        "cache_children": f"{cache['children']:,}",
    }


def _interval(row: Mapping[str, float]) -> str:
    return markdown.with_error(row["mean"], row["half_interval"])
