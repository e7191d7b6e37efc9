"""HTML that is escaped unless it says otherwise.

A report shows texts from a store that may be a stranger's. So pages are built by `tag`, which
escapes every child that is not `Html` already, and `Html` is made only here and by the figures,
which write numbers alone.
"""

import html
from collections.abc import Iterable
from typing import final


@final
class Html(str):
    """Text that is HTML: `tag` takes it as it is."""

    __slots__ = ()


def escape(child: object) -> Html:
    """A child as HTML: `Html` as it is, anything else as text."""
    return child if isinstance(child, Html) else Html(html.escape(str(child), quote=True))


def join(children: Iterable[object], separator: str = "") -> Html:
    """Children one after the other, each escaped unless it is `Html`."""
    return Html(html.escape(separator).join(escape(child) for child in children))


def tag(name: str, *children: object, **attributes: object) -> Html:
    """An element.

    Args:
      name: the element's.
      *children: what it holds; escaped unless `Html`.
      **attributes: `class_` stands for `class`, other underscores for dashes; None leaves one out.
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
) -> Html:
    """A table that scrolls sideways by itself where the page is narrow.

    Args:
      heads: the columns' names.
      rows: each a class (or "") and its cells.
      numbers: the columns that hold numbers, set to the right.
    """
    right = frozenset(numbers)

    def cells(name: str, row: Iterable[object], **scope: str) -> Html:
        return join(
            tag(name, cell, class_="number" if i in right else None, **scope)
            for i, cell in enumerate(row)
        )

    return tag(
        "div",
        tag(
            "table",
            tag("thead", tag("tr", cells("th", heads, scope="col"))),
            tag("tbody", *(tag("tr", cells("td", row), class_=kind or None) for kind, row in rows)),
        ),
        class_="scroll",
        tabindex=0,
    )
