"""A hash of what a program does, which finds duplicates that no structural hash finds.

The program runs for a few steps on a small fixed pytree (`probe.py`), in float64 with NumPy; its
updates, times the learning rate, are rounded to about five significant digits and hashed. `a * b`
and `b * a`, `m / sqrt(m * m)` and `sign(m)`, or `2 * u` at half the learning rate are the same.
The idea is AutoML-Zero's functional equivalence check (arXiv 2003.03384, section 4). Its probe
trains a model; ours gives gradients and parameters that do not depend on the program, so that a
difference at one step cannot be undone at the next.

Two programs that differ only after the probe's few steps, or below its digits, count as one.
"""

import hashlib
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

# float32 keeps 23 mantissa bits; rounding to 16 leaves about five decimal digits.
_DROPPED_BITS: Final = 7


class Fingerprint(NamedTuple):
    """The result of the probe."""

    digest: str  # equal digests: equal behaviour on the probe
    finite: bool  # False where an update was infinite or NaN


def fingerprint(updates: NDArray[np.float64], learning_rate: float) -> Fingerprint:
    """Return the hash of what a program does on the probe.

    Args:
      updates: Updates of the program, as `probe.run` gives them.
      learning_rate: Factor of the updates: programs are compared by the steps that they would take.
    """
    with np.errstate(all="ignore"):
        steps = learning_rate * updates
        digest = hashlib.sha1(_rounded(steps)).hexdigest()
    return Fingerprint(digest, bool(np.isfinite(steps).all()))


def _rounded(values: NDArray[np.float64]) -> bytes:
    """Return the values to about five significant digits, as bytes; all NaN alike, -0 as 0."""
    bits = (values.astype(np.float32) + np.float32(0.0)).view(np.int32).astype(np.int64)
    bits = (bits + (1 << (_DROPPED_BITS - 1))) >> _DROPPED_BITS
    return np.where(np.isnan(values), np.int64(-1), bits).tobytes()
