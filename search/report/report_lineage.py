"""The report's account of how its rule came about: what each mutation changed, and what it gained.

A gain is the fitness of a step less that of the step before, on the search's seeds, on which both
were selected. Where a step challenged the incumbent on fresh seeds, that difference is shown too.
"""

from collections.abc import Sequence
from typing import Final

from veldt.search.report import lineage
from veldt.search.report.report_data import FreshComparison, SearchData
from veldt.tasks.common import formatting
from veldt.tasks.common.html import page
from veldt.tasks.common.html.markup import Html, join, table, tag

_HEADS: Final = ("candidate", "mutation", "fitness", "gain", "", "fresh seeds", "what changed")
_BAR: Final = (72, 12)  # width and height, zero in the middle

STYLE: Final = """
tr.neutral td { color: var(--soft); font-size: .86rem; }
.diff { margin: 0; font-size: .84rem; line-height: 1.45; white-space: pre-wrap; }
.diff div { padding: 0 .4em; }
.added { background: var(--added); }
.removed { background: var(--removed); }
.idea { font-style: italic; font-size: .86rem; }
.lineage td { padding-right: .7rem; }
figure svg.gain, svg.gain {
  width: 72px; min-width: 0; height: 12px; display: inline-block; vertical-align: middle;
}
.gain .better { fill: var(--green); }
.gain .worse { fill: var(--orange); }
.gain .zero { stroke: var(--grey); stroke-width: 1; }
"""
"""CSS rules for the page."""


def section(data: SearchData) -> Html:
    """Return the section on the lineage of the rule reported."""
    title = "The winner's lineage" if data.finished else "The lineage of the best so far"
    if not data.lineage:
        return page.section(title, tag("p", f"It is {data.initial_rule} itself."))
    start = data.incumbents[0].fitness
    steps = lineage.steps(data.initial_program, data.initial_learning_rate, data.lineage, start)
    largest = max((abs(step.gain) for step in steps if step.gain is not None), default=0.0)
    rows: list[tuple[str, Sequence[object]]] = [
        ("", ("start", data.initial_rule, formatting.signed(start), "", "", "", ""))
    ]
    for step in steps:
        if step.num_neutral:
            plural = "s" if step.num_neutral > 1 else ""
            text = f"{step.num_neutral} neutral step{plural}"
            rows.append(("neutral", ("", text, "", "", "", "", "")))
        one = step.ancestor
        rows.append(
            (
                "",
                (
                    f"#{one.candidate}",
                    one.mutation.replace("+", " + "),
                    one.status if one.fitness is None else formatting.signed(one.fitness),
                    formatting.signed(step.gain),
                    _bar(step.gain, largest),
                    _comparison(data.comparisons.get(one.candidate)),
                    join([_idea(one.idea), _change(step.change)]),
                ),
            )
        )
    count = len(data.lineage)
    return tag(
        "section",
        tag("h2", title),
        tag("p", f"{count:,} mutation{'s' if count > 1 else ''}, {len(steps):,} of which changed "
            "what the rule does; neutral ones change dead statements, or write the same in another "
            "way. A gain is the change in fitness since the step before, on the search's own "
            "seeds: below 0 is better. Some steps are worse than the one before: the winner of "
            "a tournament becomes a parent, whatever its fitness. “Fresh seeds” is the difference "
            "to the incumbent of the time, where the step challenged it."),
        tag("div", table(_HEADS, rows, numbers=(0, 2, 3, 5)), class_="lineage"),
    )  # fmt: skip


def _bar(gain: float | None, largest: float) -> Html:
    """Return a gain as a bar: left of the middle it is better, right of it worse."""
    if gain is None or not largest > 0:
        return Html()
    width, height = _BAR
    middle = width / 2
    length = abs(gain) / largest * (middle - 1)
    kind, left = ("better", middle - length) if gain < 0 else ("worse", middle)
    return tag(
        "svg",
        tag("rect", x=f"{left:.1f}", y=2, width=f"{length:.1f}", height=height - 4, class_=kind),
        tag("path", d=f"M{middle:.1f} 0V{height}", class_="zero"),
        viewBox=f"0 0 {width} {height}",
        class_="gain",
        aria_hidden="true",
    )


def _comparison(comparison: FreshComparison | None) -> str:
    if comparison is None:
        return ""
    outcome = "won" if comparison.won else "lost"
    if comparison.difference is None:
        return f"{'the other' if comparison.won else 'it'} failed, {outcome}"
    error = formatting.plus_minus(comparison.standard_error)
    return f"{formatting.signed(comparison.difference)}{error}, {outcome}"


def _idea(idea: str) -> Html:
    return tag("div", f"“{idea}”", class_="idea") if idea else Html()


def _change(change: lineage.Change) -> Html:
    lines: list[object] = [tag("div", text) for text in change.settings]
    lines += [tag("div", f"− {text}", class_="removed") for text in change.removed]
    lines += [tag("div", f"+ {text}", class_="added") for text in change.added]
    return tag("div", join(lines or ["names or late digits only"]), class_="diff mono")
