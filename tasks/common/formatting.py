"""Figures as text and as tables, for displays, reports and notebooks alike.

A spread is never written as a zero, which would look like certainty.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from veldt.tasks.common import errors


def plus_minus(error: float | None, decimals: int = 3, sign: str = "±") -> str:
    """Return a standard error as it follows a figure; empty if there is none.

    An error that would round to zero keeps a digit; an error of zero is no evidence of anything
    (all seeds gave the same number, as at a floor or a ceiling), and is written in words.
    """
    if error is None:
        return ""
    if error == 0.0:
        return " (no spread)"
    if round(error, decimals) == 0.0:
        return f" {sign} {error:.0e}"
    return f" {sign} {error:.{decimals}f}"


def signed(value: float | None, decimals: int = 3) -> str:
    """Return a score or a difference with its sign; a dash where there is none."""
    return "-" if value is None else f"{value:+.{decimals}f}"


def duration(seconds: float) -> str:
    """Return a duration as 0:35, 12:05 or 3:20:15; a dash where it is not known."""
    if not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def data_frame(records: Sequence[Mapping[str, Any]]) -> Any:
    """Return records with the same keys as a pandas DataFrame.

    Raises:
      VeldtError: pandas is not installed.
    """
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise errors.VeldtError(
            "a table for pandas needs pandas, which is not installed: pip install pandas. "
            "to_records() returns the same rows as dictionaries"
        ) from error
    return pandas.DataFrame.from_records(list(records))
