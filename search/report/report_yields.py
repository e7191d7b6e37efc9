"""The report's account of the mutations: what became of the children of each kind.

Language models are kinds of mutation too; what they cost stands beside what they yielded. The
figures are defined in `mutation_yields.py` and `llm_yields.py`.
"""

from typing import Final

from veldt.search.report.llm_yields import STATUSES, ModelYield
from veldt.search.report.mutation_yields import MARGINS, SEVERAL, Yield
from veldt.search.report.report_data import SearchData
from veldt.search.storage import llm_calls
from veldt.tasks.common.html import page
from veldt.tasks.common.html.markup import Html, table, tag

_HEADS: Final = (
    "mutation", "children", "duplicates", "refused", "trained", "stopped early", "better",
    *(f"by {margin:g}" for margin in MARGINS), "median gain", "incumbents",
)  # fmt: skip
_BOUGHT_HEADS: Final = (
    "model", "programs", "distinct", "trained", "better", "median gain", "incumbents",
    "tokens each",
)  # fmt: skip


def section(data: SearchData) -> Html:
    """Return the section on the mutations."""
    if not data.yields:
        return Html()
    rows = [
        (
            "",
            (
                _kind(one.kind),
                f"{one.proposals:,}",
                _share(one.duplicates, one.proposals),
                _share(one.refused, one.proposals),
                f"{one.trained:,}",
                _share(one.stopped, one.trained),
                _share(one.better, one.trained),
                *(_share(count, one.trained) for count in one.better_by),
                "-" if one.median_gain is None else f"{one.median_gain:.3f}",
                f"{one.incumbents:,}",
            ),
        )
        for one in data.yields
    ]
    return page.section(
        "What each mutation yields",
        tag("p", _summary(data.yields)),
        table(_HEADS, rows, numbers=range(1, len(_HEADS))),
        tag("p", "Duplicates behave as a program before them, and the probe refuses what it finds "
            "to diverge or to ignore the gradient; both are shares of the children and cost no "
            "training. The shares after “trained” are of the trained children. “Stopped early” "
            "includes all that have no fitness. Better means a lower log loss than the parent's, "
            "on the seeds that the search had for both, so luck is in it; the median gain is that "
            "of the better ones.", class_="soft"),
    )  # fmt: skip


def models_section(data: SearchData) -> Html:
    """Return the section on language models; empty where the search has none."""
    if data.models is None:
        return Html()
    found = data.models
    statuses = [status for status in STATUSES if any(one.statuses[status] for one in found.models)]
    prices = ["price"] if any(one.price is not None for one in found.models) else []
    heads = ("model", "calls", *statuses, "requests", "prompt tokens", "answer tokens", *prices)
    calls = [
        (
            "",
            (
                one.figures.name,
                f"{one.figures.num_calls:,}",
                *(f"{one.statuses[status]:,}" for status in statuses),
                f"{one.figures.num_requests:,}",
                f"{one.figures.prompt_tokens:,}",
                f"{one.figures.completion_tokens:,}",
                *("-" if one.price is None else f"{one.price:,.4g}" for _ in prices),
            ),
        )
        for one in found.models
    ]
    bought = [("", _bought(one)) for one in found.models]
    reasons = [
        tag("li", f"{one.figures.name}: {count:,} × ", tag("code", reason))
        for one in found.models
        for reason, count in one.failures
    ]
    estimated = sum(one.figures.estimated_tokens for one in found.models)
    notes = f"{found.refused:,} further calls were beyond the budget. " if found.refused else ""
    if found.not_chosen:
        notes += (
            f"{found.not_chosen:,} times no model was asked: blind mutation was chosen, or the "
            "last calls of the model had failed. "
        )
    if estimated:
        notes += f"{estimated:,} tokens are estimates, since the endpoint did not count them. "
    return page.section(
        "What language models cost and yielded",
        table(heads, calls, numbers=range(1, len(heads))),
        table(_BOUGHT_HEADS, bought, numbers=range(1, len(_BOUGHT_HEADS))),
        tag("p", f"{notes}Requests include those that failed and those that asked for a repair. A "
            "call without a program (empty, unreadable, failed) leaves its place to blind "
            "mutation. Programs are those that could be read, and distinct ones those that "
            "behaved as no program before them. Better and the median gain are those of the table "
            "above. Tokens each is the number of all tokens of prompts and answers for each "
            "better child.", class_="soft"),
        tag("ul", *reasons) if reasons else Html(),
    )  # fmt: skip


def _bought(one: ModelYield) -> tuple[str, ...]:
    child, tokens = one.children, one.figures.num_tokens
    if child is None:
        return (one.figures.name, f"{one.programs:,}", *("-",) * (len(_BOUGHT_HEADS) - 2))
    return (
        one.figures.name,
        f"{one.programs:,}",
        f"{child.proposals - child.duplicates:,}",
        f"{child.trained:,}",
        f"{child.better:,}",
        "-" if child.median_gain is None else f"{child.median_gain:.3f}",
        f"{child.incumbents:,}",
        f"{tokens / child.better:,.0f}" if child.better else "-",
    )


def _kind(kind: str) -> str:
    if kind == SEVERAL:
        return "several at once"
    return kind if kind.startswith(llm_calls.MUTATION) else kind.replace("_", " ")


def _summary(found: tuple[Yield, ...]) -> str:
    trained = sum(one.trained for one in found)
    better = sum(one.better for one in found)
    text = f"Of {trained:,} children trained, {_share(better, trained)} were better than their "
    return f"{text}parent."


def _share(count: int, among: int) -> str:
    return f"{count / among:.1%}" if among else "-"
