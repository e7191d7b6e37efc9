"""What a program does, as a hash: duplicates that no structural hash sees.

The program runs for a few steps on a small fixed pytree, in float64 with NumPy; its updates, times
the learning rate, are rounded to about five significant digits and hashed. `a * b` and `b * a`, `m
/ sqrt(m * m)` and `sign(m)`, or `2 * u` at half the learning rate come out as one. The idea is
AutoML-Zero's functional equivalence check (arXiv 2003.03384, section 4); its probe trains a model,
ours feeds gradients and parameters that do not depend on the program, so that a difference at one
step cannot be undone at the next.

The probe holds tensors of two shapes and scales, exact zeros in gradients, and an entry whose
gradient is always zero, so that guards and small constants (an eps) show where they matter. Two
programs that differ only past its few steps, or below its digits, count as one.
"""

import functools
import hashlib
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from veldt.search import execute
from veldt.search.dataflow import Dataflow

NUM_STEPS: Final = 6
_SHAPES: Final = ((3, 4), (5,))
_SCALES: Final = (0.5, 2e-3)
# float32 keeps 23 mantissa bits; rounding to 16 leaves about five decimal digits.
_DROPPED_BITS: Final = 7


class Fingerprint(NamedTuple):
    """What the probe saw."""

    digest: str  # equal digests: equal behaviour on the probe
    finite: bool  # False where an update was infinite or NaN


class _Probe(NamedTuple):
    params: list[list[NDArray[np.float64]]]  # [NUM_STEPS][leaf]
    grads: list[list[NDArray[np.float64]]]


@functools.cache
def _probe() -> _Probe:
    rng = np.random.default_rng(20230213)
    params, grads = [], []
    for _ in range(NUM_STEPS):
        params.append([rng.normal(size=shape) for shape in _SHAPES])
        leaves = [
            scale * rng.normal(size=shape) for shape, scale in zip(_SHAPES, _SCALES, strict=True)
        ]
        leaves = [np.where(rng.random(leaf.shape) < 0.15, 0.0, leaf) for leaf in leaves]
        leaves[0][0, 0] = 0.0  # a parameter that never gets a gradient
        grads.append(leaves)
    return _Probe(params, grads)


def fingerprint(flow: Dataflow, learning_rate: float) -> Fingerprint:
    """Runs the probe on a lowered program.

    Args:
      flow: a lowered program; its constants count with their defaults.
      learning_rate: scales the updates: programs are compared by the steps that they would take.
    """
    probe = _probe()
    state: dict[str, Any] = {
        name: [np.zeros(shape) for shape in _SHAPES] for name in flow.live_slots
    }
    digest = hashlib.sha1()
    finite = True
    with np.errstate(all="ignore"):
        for step, (params, grads) in enumerate(zip(probe.params, probe.grads, strict=True), 1):
            tensors = {"w": params, "g": grads, **state}
            counts = [np.float64(step)] * len(_SHAPES)
            update, new_slots = execute.execute(flow, np, tensors, counts, {})
            state = dict(zip(flow.live_slots, new_slots, strict=True))
            for leaf in update:
                steps = learning_rate * leaf
                finite = finite and bool(np.isfinite(steps).all())
                digest.update(_rounded(steps))
    return Fingerprint(digest.hexdigest(), finite)


def _rounded(values: NDArray[np.float64]) -> bytes:
    """The values to about five significant digits, as bytes; all NaN alike, -0 as 0."""
    bits = (values.astype(np.float32) + np.float32(0.0)).view(np.int32).astype(np.int64)
    bits = (bits + (1 << (_DROPPED_BITS - 1))) >> _DROPPED_BITS
    return np.where(np.isnan(values), np.int64(-1), bits).tobytes()
