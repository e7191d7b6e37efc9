"""HTML that is escaped unless it is marked as HTML.

A page shows texts from files that may be a stranger's. So pages are built by `tag`, which escapes
every child that is not `Html` already, and `Html` is made only here and of constants.
"""

import html
from collections.abc import Iterable, Mapping
from typing import final


@final
class Html(str):
    """Text that is HTML: `tag` takes it as it is."""

    __slots__ = ()


def escape(child: object) -> Html:
    """Return a child as HTML: `Html` as it is, anything else as escaped text."""
    return child if isinstance(child, Html) else Html(html.escape(str(child), quote=True))


def join(children: Iterable[object], separator: str = "") -> Html:
    """Return children one after the other, each escaped unless it is `Html`."""
    return Html(html.escape(separator).join(escape(child) for child in children))


def tag(name: str, *children: object, **attributes: object) -> Html:
    """Return an element.

    Args:
      name: Name of the element.
      *children: Content; escaped unless `Html`.
      **attributes: Attributes; `class_` stands for `class`, other underscores for dashes; None
        leaves one out.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is not None:
            key = key.rstrip("_").replace("_", "-")
            parts.append(f'{key}="{html.escape(str(value), quote=True)}"')
    return Html(f"<{' '.join(parts)}>{join(children)}</{name}>")


def table(
    heads: Iterable[object],
    rows: Iterable[tuple[str, Iterable[object]]],
    *,
    numbers: Iterable[int] = (),
    groups: Iterable[tuple[object, int]] = (),
) -> Html:
    """Return a table that scrolls sideways by itself where the page is narrow.

    Args:
      heads: Names of the columns.
      rows: Rows, each a class (or "") and its cells; a single cell where there are more columns is
        the heading of the rows after it.
      numbers: Columns that hold numbers, aligned to the right.
      groups: Names over neighbouring columns, each with their number; empty for none.
    """
    heads, groups, right = tuple(heads), tuple(groups), frozenset(numbers)

    def cells(name: str, row: Iterable[object], **scope: str) -> Html:
        return join(
            tag(name, cell, class_="number" if i in right else None, **scope)
            for i, cell in enumerate(row)
        )

    def line(row: tuple[object, ...]) -> Html:
        if len(row) == 1 < len(heads):
            return tag("th", row[0], scope="colgroup", colspan=len(heads))
        return cells("td", row)

    over = (
        tag("th", name, scope="colgroup", colspan=span) if name else tag("td", colspan=span)
        for name, span in groups
    )
    return tag(
        "div",
        tag(
            "table",
            tag(
                "thead",
                tag("tr", *over, class_="groups") if groups else "",
                tag("tr", cells("th", heads, scope="col")),
            ),
            tag("tbody", *(tag("tr", line(tuple(row)), class_=kind or None) for kind, row in rows)),
        ),
        class_="scroll",
        tabindex=0,
    )


def definitions(values: Mapping[str, object]) -> Html:
    """Return a list of names and their descriptions."""
    return tag("dl", *(join([tag("dt", name), tag("dd", v)]) for name, v in values.items()))
