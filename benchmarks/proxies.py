"""Proxies that can tell: what it costs a task, horizon and objective to tell known pairs apart.

    python benchmarks/proxies.py [--runs runs/proxies] [--tasks digits_mlp ...] [--report]

A proxy is good where it puts rules whose order is known in that order, at little cost, and where
its order of all rules is that of longer and larger trainings. Fixed before anything was run:

*Rules.* Eleven, each with the best of five constant learning rates, a factor of sqrt(10) apart.

*Pairs*, the worse rule first. SGD < momentum < AdamW < Muon is the order of the field, and of the
shipped archive. Five more differ in one idea each: signsgd < lion (averaging before the sign),
adagrad < adam (forgetting), rmsprop < nadam (momentum and the correction of the start), adamw <
carom and lion < muon (steps that are orthogonal matrices; the first from this project's benchmark).
A pair counts only if it holds on the longest runs of all tasks here, candidates and targets: the
mean difference over tasks is clear of 0 by its 95% interval (Student's t over tasks).

*Candidates* train for 800 steps, which also give the shorter horizons: the rate is constant and no
rule here reads the run's length. *Targets* are larger models, trained for 1,000 steps. They choose
nothing but proxies, so no suite that scores a discovered rule may contain them.

*Measure.* The learning rate of each rule, horizon and objective is chosen on its own seeds; scores
are log normalised losses on others, as in a search. A rule that fails has learnt nothing (0). For a
pair, d is the mean difference and s the standard deviation of a difference of two runs with
different seeds, since each evaluation of a search has its own. Seconds per decision at 95%:
(seconds of a run) x 2 x (1.96 s / d)^2, at least one run of both; infinite where the order is
wrong. Seconds are processor time in the search's interpreter on one core, with a validation check
every 20 steps (a search makes five in all). Intervals are from 1,000 resamples of the seeds. The
cost of all decisions is the sum over pairs. Agreement is Kendall's tau of the order of all rules
with the task's own longest horizon, and with the mean over targets.

*Sets* of two to four tasks of one objective, each at a horizon of its own, score by the mean of
their log losses, as a search does. The cheapest is that of the smallest cost of all decisions among
the sets that have every pair in the right order, in at least 90% of the resamples, and whose order
agrees with the targets' as well as the best one's does, to within 0.1. (Where no set has all pairs
right, those with the most count; where none is that sure, the surest of the 500 cheapest.)

*Three analyses.* All this is the analysis "means", fixed in advance. It was found to hang on one or
two tasks whose losses come near 0 (on digits_resnet adam and adamw, all but the same rule, differ
by 0.5). So two were added after the first had been looked at: "signs", where a pair counts if a
sign test over tasks holds at 5% (13 of 16 tasks), and "all", where all eight pairs count. Both
order the targets by mean ranks. All three are in the results.

One process on one core; finished runs are kept in `--runs`, one file a task, and not made again.
`--report` makes no runs. Writes `results/proxies.json`.
"""

import argparse
import itertools
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import intervals
import numpy as np
from numpy.typing import NDArray
from proxy_runs import (
    CANDIDATES,
    HORIZONS,
    OBJECTIVES,
    RULES,
    TARGETS,
    Measured,
    Runs,
    horizons_of,
    measure,
    rates_of,
)

RESULTS: Final = Path(__file__).parent / "results" / "proxies.json"
PAIRS: Final = (
    ("sgd", "momentum"),
    ("momentum", "adamw"),
    ("adamw", "muon"),
    ("signsgd", "lion"),
    ("adagrad", "adam"),
    ("rmsprop", "nadam"),
    ("adamw", "carom"),
    ("lion", "muon"),
)
ANALYSES: Final = ("means", "signs", "all")
RESAMPLES: Final = 1000
SIZES: Final = (2, 3, 4)
MIN_RIGHT: Final = 0.9
MAX_DESCRIBED: Final = 500
NEAR: Final = 0.1


class Proxy(NamedTuple):
    """A task at a horizon by one objective, over all rules.

    Attributes:
      means: Mean scores, float [B + 1, rules]: of all seeds, then of each resample.
      variances: Variances of one run's score, float [B + 1, rules].
      seconds: Seconds of a run, float [rules].
      at_edge: Rules whose best rate is the lowest or highest tried.
    """

    means: NDArray[np.float64]
    variances: NDArray[np.float64]
    seconds: NDArray[np.float64]
    at_edge: list[str]


def proxy_of(found: Mapping[str, Measured], rng: np.random.Generator) -> Proxy:
    """Return a proxy's figures, with resamples of the seeds of each rule."""
    means, variances = [], []
    for one in found.values():
        number = len(one.scores)
        drawn = rng.integers(number, size=(RESAMPLES, number))
        samples = np.concatenate([one.scores[None], one.scores[drawn]])
        means.append(samples.mean(axis=1))
        # The variance within a resample is too low by (n - 1) / n on average.
        factor = np.full(RESAMPLES + 1, number / (number - 1))
        factor[0] = 1.0
        variances.append(samples.var(axis=1, ddof=1) * factor)
    return Proxy(
        np.stack(means, axis=1),
        np.stack(variances, axis=1),
        np.array([one.seconds for one in found.values()]),
        [rule for rule, one in found.items() if one.at_edge],
    )


def decisions(proxies: Sequence[Proxy], pairs: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """Return the seconds per decision of a set of proxies, float [B + 1, pairs]."""
    worse, better = (list(side) for side in zip(*pairs, strict=True))
    means = np.mean([one.means for one in proxies], axis=0)
    variances = np.sum([one.variances for one in proxies], axis=0) / len(proxies) ** 2
    seconds = np.sum([one.seconds for one in proxies], axis=0)
    gain = means[:, worse] - means[:, better]
    is_right = gain > 0
    safe = np.where(is_right, gain, 1.0)
    number = np.maximum(1.96**2 * (variances[:, worse] + variances[:, better]) / safe**2, 1.0)
    return np.where(is_right, number * (seconds[worse] + seconds[better]), np.inf)


def agreement(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Return Kendall's tau of two orders of the rules."""
    first, second = np.triu_indices(len(ours), 1)
    signs = (np.sign(of[first] - of[second]) for of in (ours, theirs))
    return float(np.prod(list(signs), axis=0).mean())


def between(values: NDArray[np.float64]) -> dict[str, Any]:
    """Return a figure with the 95% interval of its resamples; infinity as null."""
    numbers = [values[0], *np.quantile(values[1:], [0.025, 0.975], method="nearest")]
    plain = [float(number) if math.isfinite(number) else None for number in numbers]
    return dict(zip(("value", "low", "high"), plain, strict=True))


def describe(proxies: Sequence[Proxy], pairs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Return the figures of a set of proxies."""
    spent = decisions(proxies, pairs)
    names = list(RULES)
    return {
        "run_s": float(np.sum([one.seconds[names.index("adamw")] for one in proxies])),
        "all_s": between(spent.sum(axis=1)),
        "right": int(np.isfinite(spent[0]).sum()),
        "right_share": float(np.isfinite(spent[1:]).all(axis=1).mean()),
        "pairs": {
            f"{names[worse]} < {names[better]}": between(spent[:, number])
            for number, (worse, better) in enumerate(pairs)
        },
    }


def established(longest: Iterable[Proxy]) -> dict[str, dict[str, Any]]:
    """Return each pair's mean difference over tasks on the longest runs, and half its interval."""
    names = list(RULES)
    means = np.array([one.means[0] for one in longest])
    found = {}
    for worse, better in PAIRS:
        gains = means[:, names.index(better)] - means[:, names.index(worse)]
        found[f"{worse} < {better}"] = {
            **intervals.of_mean(gains.tolist()),
            "tasks_right": (right := int((gains < 0).sum())),
            "p": sign_test(right, len(gains)),
        }
    return found


def sets_of(
    proxies: Mapping[tuple[str, int], Proxy],
    pairs: Sequence[tuple[int, int]],
    target: NDArray[np.float64],
    most: int,
) -> list[dict[str, Any]]:
    """Return the cheapest sets of one objective, as the module's docstring defines them."""
    tasks = list(dict.fromkeys(task for task, _ in proxies))
    kept: list[tuple[int, float, float, tuple[tuple[str, int], ...]]] = []
    for size in SIZES:
        for names in itertools.combinations(tasks, size):
            for horizons in itertools.product(HORIZONS, repeat=size):
                chosen = tuple(zip(names, horizons, strict=True))
                of_set = [first_row(proxies[one]) for one in chosen]
                spent = decisions(of_set, pairs)[0]
                is_right = np.isfinite(spent)
                means = np.mean([one.means[0] for one in of_set], axis=0)
                wrong, cost = int((~is_right).sum()), float(spent[is_right].sum())
                kept.append((wrong, cost, agreement(means, target), chosen))
    least = min(one[0] for one in kept)
    best = max(one[2] for one in kept if one[0] == least)
    near = sorted(one for one in kept if one[0] == least and one[2] >= best - NEAR)
    found = [
        {
            "proxies": [list(one) for one in chosen],
            "tau": tau,
            **describe([proxies[one] for one in chosen], pairs),
        }
        for _, _, tau, chosen in near[:MAX_DESCRIBED]
    ]
    sure = [one for one in found if one["right_share"] >= MIN_RIGHT]
    return (sure or sorted(found, key=lambda one: -one["right_share"]))[:most]


def first_row(proxy: Proxy) -> Proxy:
    """Return a proxy without its resamples."""
    return proxy._replace(means=proxy.means[:1], variances=proxy.variances[:1])


def sign_test(right: int, number: int) -> float:
    """Return the two-sided p-value of so many in the right order, by the binomial distribution."""
    tail = sum(math.comb(number, k) for k in range(max(right, number - right), number + 1))
    return min(1.0, 2 * tail / 2**number)


def known_pairs(held: Mapping[str, Mapping[str, Any]], analysis: str) -> list[tuple[int, int]]:
    """Return the pairs that an analysis counts, as places in `RULES`."""
    names, found = list(RULES), []
    for worse, better in PAIRS:
        row = held[f"{worse} < {better}"]
        counts = {
            "means": row["mean"] + (row["half_interval"] or 0.0) < 0,
            "signs": 2 * row["tasks_right"] > row["n"] and row["p"] < 0.05,
            "all": True,
        }
        if counts[analysis]:
            found.append((names.index(worse), names.index(better)))
    return found


def target_order(targets: Sequence[NDArray[np.float64]], analysis: str) -> NDArray[np.float64]:
    """Return a number for each rule, lower is better: its mean over targets, of scores or ranks."""
    of_target = [one if analysis == "means" else one.argsort().argsort() for one in targets]
    return np.mean(of_target, axis=0)


def summarise(
    measured: Mapping[str, Mapping[str, Mapping[Any, Measured]]], analysis: str
) -> dict[str, Any]:
    """Return all figures by one analysis.

    Args:
      measured: Results by task, rule, and objective and horizon.
      analysis: One of `ANALYSES`.
    """
    rng = np.random.default_rng(0)
    names = list(RULES)
    result: dict[str, Any] = {}
    for objective in OBJECTIVES:
        proxies = {
            (task, horizon): proxy_of({r: of[r][objective, horizon] for r in RULES}, rng)
            for task, of in measured.items()
            for horizon in horizons_of(task)
        }
        last = {task: proxies[task, horizons_of(task)[-1]] for task in measured}
        held = established(last.values())
        pairs = known_pairs(held, analysis)
        targets = [last[task].means[0] for task in TARGETS if task in last]
        target = np.full(len(names), np.nan)
        if targets:
            target = target_order(targets, analysis)
        candidates = {key: one for key, one in proxies.items() if key[0] not in TARGETS}
        rows = [
            {
                "task": task,
                "horizon": horizon,
                **describe([one], pairs),
                "tau_longest": agreement(one.means[0], last[task].means[0]),
                "tau_targets": agreement(one.means[0], target),
                "at_edge": one.at_edge,
            }
            for (task, horizon), one in candidates.items()
        ]
        result[objective] = {
            "established": held,
            "pairs": [f"{names[worse]} < {names[better]}" for worse, better in pairs],
            "target_order": [names[i] for i in np.argsort(target)],
            "rows": rows,
            "sets": sets_of(candidates, pairs, target, 10) if targets and pairs else [],
        }
    return result


def text_of(row: Mapping[str, Any]) -> str:
    """Return seconds with their interval."""
    return "/".join(
        "inf" if row[key] is None else f"{row[key]:.3g}" for key in ("value", "low", "high")
    )


def print_tables(summary: Mapping[str, Any]) -> None:
    """Print what was found."""
    for objective, found in summary.items():
        print(f"\n{objective}: pairs on the longest runs (mean difference, half of 95% interval)")
        for pair, row in found["established"].items():
            kept = "" if pair in found["pairs"] else "  dropped"
            print(
                f"  {pair:20}{intervals.text(row)}, {row['tasks_right']} of {row['n']} tasks{kept}"
            )
        print(f"  order of the targets: {' '.join(found['target_order'])}")
        print(
            f"\n{'task':26}{'steps':>6}{'run s':>8}{'right':>6}{'share':>7}{'tau 800':>9}"
            f"{'tau far':>9}  seconds per decision of {', '.join(found['pairs'])}"
        )
        for row in found["rows"]:
            spent = "  ".join(text_of(one) for one in row["pairs"].values())
            print(
                f"{row['task']:26}{row['horizon']:6}{row['run_s']:8.3f}{row['right']:6}"
                f"{row['right_share']:7.0%}{row['tau_longest']:9.2f}{row['tau_targets']:9.2f}"
                f"  {spent}"
            )
        print("\ncheapest sets: seconds of all decisions, a look's seconds, right, share, tau far")
        for row in found["sets"]:
            named = ", ".join(f"{task} {horizon}" for task, horizon in row["proxies"])
            print(
                f"  {text_of(row['all_s']):24}{row['run_s']:7.3f}{row['right_share']:6.0%}"
                f"{row['tau']:6.2f}  {named}"
            )


def main() -> None:
    """Measure, print and write `results/proxies.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/proxies"))
    parser.add_argument("--tasks", nargs="+", default=[*CANDIDATES, *TARGETS])
    parser.add_argument("--seeds", type=int, nargs=2, default=(3, 10), help="chosen on, measured")
    parser.add_argument("--target-seeds", type=int, nargs=2, default=(1, 2))
    parser.add_argument("--report", action="store_true", help="only what is kept; no runs")
    args = parser.parse_args()
    if unknown := set(args.tasks) - {*CANDIDATES, *TARGETS}:
        parser.error(f"no candidate and no target: {', '.join(sorted(unknown))}")
    args.runs.mkdir(parents=True, exist_ok=True)
    measured: dict[str, Any] = {}
    for task in args.tasks:
        if args.report and not (args.runs / f"{task}.jsonl").exists():
            continue
        began = time.monotonic()
        runs = Runs(task, args.runs)
        seeds = args.target_seeds if task in TARGETS else args.seeds
        measured[task] = {rule: measure(runs, rule, *seeds) for rule in RULES}
        print(f"{task}: {time.monotonic() - began:.0f} s", flush=True)
    # Where runs are missing, no pair can be established.
    is_complete = set(measured) == {*CANDIDATES, *TARGETS}
    summary = {}
    for analysis in ANALYSES if is_complete else ANALYSES[-1:]:
        print(f"\n--- {analysis} ---")
        summary[analysis] = summarise(measured, analysis)
        print_tables(summary[analysis])
    if not is_complete:
        return
    content = {
        "command": "python benchmarks/proxies.py",
        "seeds": list(args.seeds),
        "target_seeds": list(args.target_seeds),
        "targets": list(TARGETS),
        "rates": {rule: rates_of(rule) for rule in RULES},
        **summary,
    }
    RESULTS.write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
