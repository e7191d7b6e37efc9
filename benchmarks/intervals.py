"""95% intervals by Student's t of a mean, and of a difference of means, over a few repetitions."""

import math
import statistics
from collections.abc import Sequence
from typing import Any, Final

# 97.5% quantiles of Student's t by degrees of freedom, from 1.
_T: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_Z: Final = 1.959964


def quantile(degrees: float) -> float:
    """Return the 97.5% quantile of Student's t; fractions of a degree are cut off."""
    if degrees < 1:
        raise ValueError(f"{degrees} degrees of freedom; a spread needs at least 1")
    if degrees < len(_T) + 1:
        return _T[int(degrees) - 1]
    # Abramowitz and Stegun 26.7.5: within 0.0005 from 11 degrees on.
    cut = int(degrees)
    first = (_Z**3 + _Z) / 4
    second = (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / 96
    third = (3 * _Z**7 + 19 * _Z**5 + 17 * _Z**3 - 15 * _Z) / 384
    return _Z + first / cut + second / cut**2 + third / cut**3


def of_mean(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean of values, half its interval (None for one value), and their number."""
    half = None
    if len(values) > 1:
        half = quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": statistics.mean(values), "half_interval": half, "n": len(values)}


def of_difference(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Return the mean of ours less that of theirs, not paired: half its interval by Welch's t."""
    mean, half = statistics.mean(ours) - statistics.mean(theirs), None
    if min(len(ours), len(theirs)) > 1:
        parts = [statistics.variance(values) / len(values) for values in (ours, theirs)]
        half = 0.0
        if total := sum(parts):
            degrees = total**2 / sum(
                part**2 / (len(values) - 1)
                for part, values in zip(parts, (ours, theirs), strict=True)
            )
            half = quantile(degrees) * math.sqrt(total)
    return {"mean": mean, "half_interval": half, "n": min(len(ours), len(theirs))}


def text(row: dict[str, Any], digits: int = 3) -> str:
    """Return a mean with half its interval."""
    half = row["half_interval"]
    return f"{row['mean']:+.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}")
