"""The report's account of the ops: which ones mutation brings, and which ones selection keeps.

The picture has a row for each op and a column for each part of the search; the darker, the larger
the share of children that compute with it. The table holds the figures, which are defined in
`op_survival.py`.
"""

from collections.abc import Sequence
from typing import Final

from veldt.search.report.op_survival import OpRecord, Survival
from veldt.search.report.report_data import SearchData
from veldt.tasks.common.html import plot as plot_lib
from veldt.tasks.common.html.markup import Html, join, table, tag

MAX_ROWS: Final = 20
_MOST: Final = 0.5
_WIDTH: Final = 720
_LEFT: Final = 132
_RIGHT: Final = 70
_PITCH: Final = 19
_HEAD: Final = 24
_FOOT: Final = 40
_HEADS: Final = (
    "op", "children", "parents", "better children", "last population", "hall of fame",
    "introduced", "still there",
)  # fmt: skip

STYLE: Final = """
.survival rect { fill: var(--blue); shape-rendering: crispEdges; }
.survival .bed { fill: none; stroke: var(--rule); stroke-width: 1; }
.survival .own { fill: var(--ink); }
"""
"""Colours of the picture."""


def section(data: SearchData) -> Html:
    """Return the section on the ops."""
    found = data.survival
    if not found.num_children:
        return Html()
    spread = [max(one.over_time) for one in found.ops]
    order = sorted(range(len(found.ops)), key=lambda i: -spread[i])[:MAX_ROWS]
    shown = [found.ops[i] for i in sorted(order)]
    left_out = len(found.ops) - len(shown)
    note = "Share of the children of each part of the search that compute with an op, from white "
    note += "(none) to full colour (all); in per cent, of the last population. "
    note += f"Names in {data.initial_rule} are set darker."
    if left_out:
        note += f" {left_out} ops that no child used at the end are only in the table."
    return tag(
        "section",
        tag("h2", "Which ops survive"),
        tag("p", _summary(found, data.initial_rule)),
        plot_lib.figure(_picture(shown, found.num_children), (), note),
        tag("details", tag("summary", f"All {len(found.ops)} ops"), _table(found)),
        tag("p", _explanation(found), class_="soft"),
    )


def _summary(found: Survival, initial_rule: str) -> str:
    own = [one for one in found.ops if one.initial]
    others = [one for one in found.ops if not one.initial]
    kept = sum(one.population >= _MOST for one in own)
    new = [f"{one.op} ({one.population:.0%})" for one in others if one.population >= _MOST]
    text = (
        f"Of the {len(own)} ops of {initial_rule}, {kept} are in most of the last population; of "
        f"{len(others)} others that mutation brought, {', '.join(new) or 'none'}"
    )
    return f"{text} {'are' if len(new) > 1 else 'is'}."


def _picture(ops: Sequence[OpRecord], num_children: int) -> Html:
    across = _WIDTH - _LEFT - _RIGHT
    parts: list[Html] = [
        plot_lib.text(_WIDTH - _RIGHT + 8, _HEAD - 9, "at the end", "start"),
    ]
    for row, one in enumerate(ops):
        y = _HEAD + row * _PITCH
        kind = "own" if one.initial else None
        parts.append(plot_lib.text(_LEFT - 8, y + 13, one.op, "end", kind))
        cell = across / len(one.over_time)
        for column, share in enumerate(one.over_time):
            if share > 0:
                parts.append(
                    tag("rect", x=f"{_LEFT + column * cell:.1f}", y=y + 1, width=f"{cell:.2f}",
                        height=_PITCH - 2, fill_opacity=f"{share:.3f}")
                )  # fmt: skip
        parts.append(
            tag("path", d=f"M{_LEFT} {y + 1}H{_LEFT + across}v{_PITCH - 2}H{_LEFT}z", class_="bed")
        )
        end = f"{one.population:.0%}"
        parts.append(plot_lib.text(_WIDTH - _RIGHT + 40, y + 13, end, "end", kind))
    bottom = _HEAD + len(ops) * _PITCH
    for value in plot_lib.ticks(0, num_children, 6):
        x = _LEFT + across * value / num_children
        parts.append(tag("path", d=f"M{x:.1f} {bottom}v5", class_="axis"))
        parts.append(plot_lib.text(x, bottom + 18, f"{value:,.0f}", "middle"))
    parts.append(plot_lib.text(_LEFT + across / 2, bottom + 34, "children proposed", "middle"))
    svg = tag(
        "svg",
        tag("title", "Share of children that compute with each op, over the search"),
        tag("desc", "; ".join(f"{one.op}: {one.population:.0%} in the end" for one in ops)),
        join(parts),
        viewBox=f"0 0 {_WIDTH} {bottom + _FOOT}",
        role="img",
        aria_label="Which ops survive",
        class_="survival",
    )
    return tag("div", svg, class_="scroll", role="region", aria_label="Ops over time", tabindex=0)


def _table(found: Survival) -> Html:
    rows = [
        (
            "winner" if one.initial else "",
            (
                one.op,
                _share(one.children),
                _share(one.parents),
                _share(one.accepted) if found.num_accepted else "-",
                _share(one.population),
                f"{one.finalists} of {found.num_finalists}" if found.num_finalists else "-",
                f"{one.introduced:,}",
                f"{one.alive / one.introduced:.1%}" if one.introduced else "-",
            ),
        )
        for one in found.ops
    ]
    return table(_HEADS, rows, numbers=range(1, len(_HEADS)))


def _share(value: float) -> str:
    return f"{value:.1%}"


def _explanation(found: Survival) -> str:
    usual = f"{found.num_alive / found.num_before:.1%}" if found.num_before else "none"
    return (
        f"Shares are of all {found.num_children:,} children, of their parents (a parent counts "
        f"once for each child), of the {found.num_accepted:,} children better than their parent, "
        f"and of the {found.num_population:,} last ones. “Introduced” counts children with an op "
        "that their parent lacks, without the last population; “still there” is how many of "
        f"them have descendants in it. Of all children that is {usual}: an op well below is one "
        "that mutation keeps bringing and selection keeps removing. Only live instructions count."
    )
