"""Write Markdown: tables, code blocks and numbers in one form."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

NO_BREAK: Final = "\N{NO-BREAK SPACE}"


def cell(text: str) -> str:
    """Return a text as one cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ").strip()


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table.

    Args:
        header: The titles of the columns.
        rows: The cells, as many as there are titles.
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines) + "\n"


def code(text: str, language: str = "python") -> str:
    """Return a fenced block of code."""
    return f"```{language}\n{text.rstrip()}\n```\n"


def math(text: str) -> str:
    """Return a displayed formula."""
    return f"```{{math}}\n{text.rstrip()}\n```\n"


def page(title: str, *parts: str) -> str:
    """Return a page with its title and its parts, which blank lines separate."""
    return "\n\n".join([f"# {title}", *(part.strip() for part in parts)]) + "\n"


def number(value: float | None, digits: int = 2) -> str:
    """Return a number with a fixed number of decimals; nothing for None."""
    return "" if value is None else f"{value:.{digits}f}"


def signed(value: float, digits: int = 3) -> str:
    """Return a number with its sign."""
    return f"{value:+.{digits}f}"


def interval(row: Mapping[str, Any], digits: int = 2, value: str = "value") -> str:
    """Return a value with its interval, "1.18 [0.98, 1.23]"."""
    return _between(row[value], row["low"], row["high"], digits)


def quartiles(row: Mapping[str, float], digits: int = 1) -> str:
    """Return a median with its quartiles."""
    return _between(row["median"], row["q25"], row["q75"], digits)


def _between(value: float, low: float, high: float, digits: int) -> str:
    return f"{value:.{digits}f} [{low:.{digits}f},{NO_BREAK}{high:.{digits}f}]"


def with_error(value: float, error: float) -> str:
    """Return a signed number with its error, "+0.005 ± 0.055"."""
    return f"{value:+.3f}{NO_BREAK}±{NO_BREAK}{error:.3f}"


def percent(share: float, digits: int = 0) -> str:
    """Return a share in percent."""
    return f"{100 * share:.{digits}f}%"
