"""The report's funnel: how many programs reach each point of a run, and how many pass it.

There are two funnels. In the search, children are drawn, searched for in the cache, tried on the
probe and trained, and the fittest challenge the incumbent. In the finals, the Pareto front of all
trained programs goes through the stages (`funnel.py`), so the first bar there does not continue
the last bar of the search.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from veldt.search.report.report_data import SearchData
from veldt.tasks.common.html import plot as plot_lib
from veldt.tasks.common.html.markup import Html, join, tag

_WIDTH: Final = 720
_LEFT: Final = 218  # start of the bars, right of their names
_RIGHT: Final = 150  # space for the figures behind the bars
_PITCH: Final = 27
_BAR: Final = 17
_GAP: Final = 20  # between search and finals

STYLE: Final = """
.funnel .search { fill: var(--blue); }
.funnel .finals { fill: var(--green); }
.funnel .count { fill: var(--ink); }
.funnel .heading { fill: var(--ink); font-weight: 600; }
"""
"""Colours of the bars."""


@final
@dataclass(frozen=True, slots=True)
class Level:
    """One bar: how many programs reached this point, and in words what became of the others."""

    name: str
    count: int
    lost: str


def search_levels(data: SearchData) -> tuple[Level, ...]:
    """Return the funnel of the search, from children drawn to new incumbents."""
    counts = data.counts
    sources, statuses = counts.sources, counts.statuses
    new_structure = counts.num_told - sources["structure"]
    new_behaviour = new_structure - sources["behaviour"]
    trained = sources["evaluated"]
    rejected, diverged = statuses["rejected"], statuses["diverged"] - sources["probe"]
    hollow = statuses["hollow"] - sources["hollow"]
    failed = statuses["timeout"] + statuses["killed"] + statuses["error"]
    return (
        Level("drawn", counts.num_told + counts.num_invalid, ""),
        Level("well formed", counts.num_told, "not well formed"),
        Level("of new structure", new_structure, "known by structure"),
        Level("of new behaviour", new_behaviour, "known by behaviour"),
        Level(
            "sound on the probe: trained", trained, "not finite, or blind to the gradient, there"
        ),
        Level(
            "trained to the end",
            statuses["ok"],
            f"{rejected:,} rejected before their end, {max(diverged, 0):,} diverged, "
            f"{hollow:,} hollow, {failed:,} failed",
        ),
        Level(
            "fitter than the incumbent",
            max(counts.num_challenges - 1, 0),
            "not fitter than the best",
        ),
        Level("better on fresh seeds", data.num_won, "not better on fresh seeds"),
    )


def finals_levels(data: SearchData) -> tuple[Level, ...]:
    """Return the funnel of the finals, from Pareto front to winner; empty before they end."""
    finalists = [entry for entry in data.entries if entry.candidate >= 0]
    if not finalists:
        return ()
    levels = [Level("finalists: the Pareto front", len(finalists), "")]
    for number, stage in enumerate(data.settings.finals.stages, 1):
        passed = sum(entry.stages >= number for entry in finalists)
        levels.append(Level(f"past stage {stage.name}", passed, "behind a baseline there"))
    winners = sum(entry.winner for entry in finalists)
    return (*levels, Level("the winner", winners, "behind the winner"))


def section(data: SearchData) -> Html:
    """Return the section with the picture."""
    found = search_levels(data)
    groups = [("In the search", "search", found)]
    if levels := finals_levels(data):
        groups.append(("In the finals", "finals", levels))
    lost = [
        f"{before.count - after.count:,} {after.lost}"
        if after.lost[:1].isalpha()
        else f"{before.count - after.count:,} ({after.lost})"
        for before, after in itertools.pairwise(found)
        if before.count > after.count
    ]
    return tag(
        "section",
        tag("h2", "The funnel"),
        tag("p", "How many programs reached each point. Bars are on a logarithmic scale; the share "
            "is of the bar above."),
        plot_lib.figure(_picture(groups), (), f"Lost on the way: {'; '.join(lost)}."),
    )  # fmt: skip


def _picture(groups: Sequence[tuple[str, str, Sequence[Level]]]) -> Html:
    most = max(level.count for _, _, levels in groups for level in levels)
    scale = (_WIDTH - _LEFT - _RIGHT) / math.log1p(max(most, 1))
    parts: list[Html] = []
    y = 4.0
    for title, kind, levels in groups:
        parts.append(plot_lib.text(4, y + 13, title, "start", "heading"))
        y += _PITCH
        before: int | None = None
        for level in levels:
            length = scale * math.log1p(level.count)
            share = f", {level.count / before:.1%}" if before else ""
            parts += [
                plot_lib.text(_LEFT - 10, y + 13, level.name, "end"),
                tag("rect", x=_LEFT, y=f"{y:.1f}", width=f"{max(length, 1.0):.1f}", height=_BAR,
                    class_=kind),
                plot_lib.text(
                    _LEFT + length + 8, y + 13, f"{level.count:,}{share}", "start", "count"
                ),
            ]  # fmt: skip
            before = level.count
            y += _PITCH
        y += _GAP
    svg = tag(
        "svg",
        tag("title", "How many programs reached each point of the run"),
        tag("desc", "; ".join(f"{one.name}: {one.count:,}" for _, _, ls in groups for one in ls)),
        join(parts),
        viewBox=f"0 0 {_WIDTH} {y - _GAP:.0f}",
        role="img",
        aria_label="The funnel",
        class_="funnel",
    )
    return tag("div", svg, class_="scroll", role="region", aria_label="The funnel", tabindex=0)
