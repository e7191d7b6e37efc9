"""The report's account of the mutations: what became of the children of each kind.

The figures are defined in `mutation_yields.py`.
"""

from typing import Final

from veldt.search.report.mutation_yields import MARGINS, SEVERAL, Yield
from veldt.search.report.report_data import SearchData
from veldt.tasks.common.html import page
from veldt.tasks.common.html.markup import Html, table, tag

_HEADS: Final = (
    "mutation", "children", "duplicates", "refused", "trained", "stopped early", "better",
    *(f"by {margin:g}" for margin in MARGINS), "median gain", "incumbents",
)  # fmt: skip


def section(data: SearchData) -> Html:
    """Return the section on the mutations."""
    if not data.yields:
        return Html()
    rows = [
        (
            "",
            (
                "several at once" if one.kind == SEVERAL else one.kind.replace("_", " "),
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


def _summary(found: tuple[Yield, ...]) -> str:
    trained = sum(one.trained for one in found)
    better = sum(one.better for one in found)
    text = f"Of {trained:,} children trained, {_share(better, trained)} were better than their "
    return f"{text}parent."


def _share(count: int, among: int) -> str:
    return f"{count / among:.1%}" if among else "-"
