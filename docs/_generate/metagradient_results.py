"""Make the tables of metagradients: cost, learned schedules, weights of examples, estimators."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any, Final

from _generate import evidence, markdown
from _generate.evidence import Evidence

TASKS: Final = {
    "mlp_gelu": "perceptron, GELU",
    "conv_relu": "convolutions, ReLU",
    "autoencoder_relu": "autoencoder, ReLU",
    "transformer_gelu": "transformer, GELU",
}
METHODS: Final = {
    "metagradient": "**metagradients, from a flat schedule**",
    "one_cycle_1000": "**the grid of 1,000 one-cycle schedules**",
    "constant": "constant, swept",
    "linear": "linear decay, grid",
    "cosine": "cosine, grid",
    "one_cycle": "one-cycle, as many of the 1,000 as the budget has",
    "random_search": "random search of knots",
    "cma_es": "CMA-ES on knots",
    "refined": "refined by gradient norms (arXiv 2310.07831)",
    "hypergradient": "hypergradient descent (Baydin)",
    "one_pass": "one-pass tuning (Clarke)",
    "forward_mode": "forward mode (FDS)",
    "step_law": "Step Law and a cosine, no search",
    "metagradient_from_step_law": "metagradients from Step Law's rate",
}
WEIGHTS: Final = {
    "clean": "true labels",
    "noisy": "all rows as they are",
    "learned": "**learned weights**",
    "learned_with_validation": "learned weights, and the clean rows trained on with them",
    "loss_early": "without the 30% of highest loss after an eighth of the training",
    "validation": "the 200 clean rows alone",
    "learned_selection": "without the 30% of least learned weight",
    "early_stopping": "stopped early, by the clean rows",
    "loss": "without the 30% of highest loss after the whole training",
    "with_validation": "all rows and the clean ones",
    "oracle": "without the wrong rows",
    "random": "a random 70%",
}

ESTIMATORS: Final = {
    "full_backprop": "backpropagation through whole runs, 8 runs",
    "truncated_backprop": "backpropagation through windows, 8 runs",
    "truncated_es": "evolution strategies on windows, 8 pairs",
    "full_es_2": "evolution strategies on whole runs, 2 pairs",
    "full_es_16": "the same, 16 pairs",
    "full_es_signs": "the same, 16 pairs, signs alone",
    "nres": "NRES, 8 pairs",
    "pes": "PES, 8 pairs",
}
_SHOWN_S: Final = "10"


def cost() -> str:
    """Return what a metagradient costs by plan and length."""
    rows = [
        [
            f"{length['num_steps']:,}",
            f"{length['num_params']:,}",
            plan["plan"],
            markdown.number(plan["runs"], 1),
            markdown.number(plan["forward_runs_in_theory"], 1),
            f"{plan['states']:,.0f}",
            f"{plan['bytes'] / 1e6:,.1f}",
        ]
        for length in evidence.load("metagradient")["lengths"]
        for plan in length["plans"]
    ]
    return evidence.table(
        ["steps", "parameters", "plan", "cost in runs", "of them forward", "states", "MB held"],
        rows,
        Evidence(
            "python benchmarks/metagradient.py --steps 1000 10000 100000 --long",
            "3 runs; 100,000 steps once",
            "medians",
            "one thread, processor time, compiling included; the unit is one plain training run",
            "metagradient",
            "All plans gave the same gradient to the last bit.",
        ),
    )


def schedules() -> str:
    """Return learned schedules beside other ways to choose one, at equal compute."""
    found = evidence.load("schedules")
    by_key = {(task, row["method"]): row for task in TASKS for row in found["tables"][task]}
    rows = []
    for method, title in METHODS.items():
        known = [by_key.get((task, method)) for task in TASKS]
        states = next(row["states"] for row in known if row)
        cells = ["" if row is None else _loss(row) for row in known]
        rows.append([title, *cells, str(states)])
    budget = [f"{by_key[task, 'metagradient']['forward_runs']:,.0f}" for task in TASKS]
    rows.append(["*plain runs that each method may take*", *budget, ""])
    seconds = [
        "; ".join(
            f"{by_key[task, name]['cpu_s']:.0f}" for name in ("metagradient", "one_cycle_1000")
        )
        for task in TASKS
    ]
    rows.append(["*processor seconds: metagradients; the grid of 1,000*", *seconds, ""])
    estimates = [_estimates(by_key[task, "metagradient"]) for task in TASKS]
    rows.append(["*updates by an estimate, since the gradient's check failed*", *estimates, ""])
    return evidence.table(
        ["test loss", *TASKS.values(), "states held"],
        rows,
        Evidence(
            "python benchmarks/schedules.py",
            f"{by_key['mlp_gelu', 'metagradient']['searches']} searches, each choice trained on "
            f"{found['reporting_seeds']} fresh seeds",
            "95% bootstrap intervals of the median over searches",
            "60 steps of Adam; as many plain runs as the metagradients took, by processor time; "
            "the grid of 1,000 took 1,250",
            "schedules",
        ),
    )


def _estimates(row: Mapping[str, float]) -> str:
    return f"{row['fallbacks'] / row['searches']:.0f} of {evidence.load('schedules')['updates']}"


def _loss(row: dict[str, float]) -> str:
    digits = 4 if row["test"] < 0.1 else 3
    return markdown.interval(row, digits, "test")


def data_weights() -> str:
    """Return what learned weights of examples recover of the accuracy that wrong labels cost."""
    found = evidence.load("data_weights")
    rows = found["tables"]["digits"]
    return evidence.table(
        ["", "test accuracy", "recovered"],
        [
            [title, markdown.number(rows[key]["accuracy"], 3), _recovered(key, rows[key])]
            for key, title in WEIGHTS.items()
        ],
        Evidence(
            "python benchmarks/data_weights.py",
            f"{len(found['records'])} trials, each with a split of its own and {found['seeds']} "
            "training seeds",
            "medians, with 95% bootstrap intervals",
            f"{found['updates']} metagradients through 400 steps",
            "data_weights",
        ),
    )


def _recovered(key: str, row: dict[str, float]) -> str:
    if key in ("clean", "noisy"):
        return f"{row['recovered']:.0f}"
    return markdown.interval(row, value="recovered")


def signal() -> str:
    """Return what estimates of a meta-gradient are worth after seconds of processor time."""
    return _signal(
        lambda arm: (
            markdown.interval(arm["share_after"][_SHOWN_S])
            if _SHOWN_S in arm["share_after"]
            else "none in that time"
        ),
        f"the share of a step's progress after {_SHOWN_S} s",
        "95% bootstrap intervals over estimates; the reference's own noise is not in them, and "
        "what it lifts above 1 is written as 1",
    )


def signal_estimates() -> str:
    """Return the cosine of one estimate of a meta-gradient, and its cost."""
    return _signal(
        lambda arm: f"{markdown.interval(arm['cosine'])}; {arm['seconds']:.2f} s",
        "the cosine of one estimate; its cost",
        "95% bootstrap intervals over estimates; seconds are means",
    )


def _signal(cell: Callable[[Mapping[str, Any]], str], what: str, spread: str) -> str:
    found = evidence.load("meta_signal")
    cases = found["cases"]
    rows = [
        [title, *(cell(case["arms"][arm]) if arm in case["arms"] else "" for case in cases)]
        for arm, title in ESTIMATORS.items()
    ]
    agreement = [f"{case['reference_cosine']:.2f}" for case in cases]
    counts = [arm["estimates"] for case in cases for arm in case["arms"].values()]
    return evidence.table(
        [what, *map(_case, cases)],
        [*rows, ["*cosine of the reference's halves*", *agreement]],
        Evidence(
            "python benchmarks/meta_signal.py",
            f"{min(counts)} to {max(counts)} estimates",
            spread,
            "the reference is the mean of "
            f"{min(case['num_pairs'] for case in cases)} to "
            f"{max(case['num_pairs'] for case in cases):,} pairs; one thread, processor time, "
            "compiling left out",
            "meta_signal",
        ),
    )


def _case(case: Mapping[str, Any]) -> str:
    trained = f", after {case['num_updates']} updates" if case["num_updates"] else ""
    return (
        f"`{case['architecture']}` ({case['num_meta_params']}), {case['family']}, "
        f"{case['num_steps']} steps{trained}"
    )


def figures() -> dict[str, str]:
    """Return the single numbers that pages on metagradients name in their text."""
    lengths = evidence.load("metagradient")["lengths"]
    long = lengths[-1]
    plan = long["plans"][-1]
    rerun = [
        share
        for length in lengths
        for name, share in length["rerun_shares"].items()
        if name.startswith("chosen")
    ]
    weights = evidence.load("data_weights")["tables"]["digits"]["learned"]
    early = evidence.load("data_weights")["tables"]["digits"]["loss_early"]
    return {
        "metagradient_long_runs": markdown.number(plan["runs"], 1),
        "metagradient_long_steps": f"{long['num_steps']:,}",
        "metagradient_long_params": f"{long['num_params']:,}",
        "metagradient_long_mb": f"{plan['bytes'] / 1e6:.1f}",
        "metagradient_rerun": f"{statistics.median(rerun):.2f}",
        "data_weights_recovered": markdown.interval(weights, value="recovered"),
        "loss_early_recovered": markdown.interval(early, value="recovered"),
    }
