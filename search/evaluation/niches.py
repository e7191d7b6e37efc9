"""Niches: kinds of behaviour, so that a population keeps more than one.

Selection by fitness alone fills a population with copies of its best. A niche describes a rule's
first updates on the probe by five coarse measures, each a bucket: how an update scales with its
gradient (in proportion, as in gradient descent, or not at all, as with a sign), how much it
remembers, how equal its entries are, how far it follows the gradient, and how far the parameter.
They describe the kind of rule, whatever its constants and its learning rate; together there are
some 400. Such descriptors are those of MAP-Elites (Mouret and Clune, arXiv 1504.04909); here they
only limit how many members of one niche may become parents (`population.py`).
"""

import bisect
import math
from typing import Final, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from veldt.search.evaluation import probe

# Upper ends of all buckets but the last.
_SCALING: Final = (0.25, 0.75)
_MEMORY: Final = (0.2, 0.6, 0.9)
_EVENNESS: Final = (0.7, 0.95)
_DESCENT: Final = (0.0, 0.4, 0.8)
_DECAY: Final = (0.1, 0.4)


@final
class Niche(NamedTuple):
    """The bucket of each measure, from 0.

    Attributes:
      scaling: Scaling of the update's size with the gradient's: 0 none, 1 part, 2 in proportion.
      memory: Cosine of successive updates.
      evenness: Mean size of entries over their root mean square: 1 for a sign.
      descent: Cosine of update and gradient.
      decay: Cosine of update and parameter, whatever the sign.
    """

    scaling: int
    memory: int
    evenness: int
    descent: int
    decay: int


NOWHERE: Final = Niche(-1, -1, -1, -1, -1)
"""The niche of rules whose updates on the probe are not finite."""


def niche(updates: NDArray[np.float64]) -> Niche:
    """Return the niche of a program by its updates on the probe; see `probe.run`."""
    if not np.isfinite(updates).all():
        return NOWHERE
    params, grads = probe.inputs()
    # A program that reads roles was run with further ones, beside the first.
    updates = updates[:, : grads.shape[1]]
    with np.errstate(all="ignore"):
        return Niche(
            scaling=bisect.bisect_right(_SCALING, _scaling(updates, grads)),
            memory=bisect.bisect_right(_MEMORY, _cosine(updates[1:], updates[:-1])),
            evenness=bisect.bisect_right(_EVENNESS, _evenness(updates)),
            descent=bisect.bisect_right(_DESCENT, _cosine(updates, grads)),
            decay=bisect.bisect_right(_DECAY, abs(_cosine(updates, params))),
        )


def _scaling(updates: NDArray[np.float64], grads: NDArray[np.float64]) -> float:
    """Return the power of the gradient's size that an update's size follows.

    It comes from the probe's two tensors, whose gradients differ in size by a factor of 250.
    """
    (first, second), (of_first, of_second) = (
        [_size(part) for part in np.split(rows, [math.prod(probe.SHAPES[0])], axis=1)]
        for rows in (updates, grads)
    )
    if not first > 0 or not second > 0:
        return 0.0
    return math.log(first / second) / math.log(of_first / of_second)


def _evenness(updates: NDArray[np.float64]) -> float:
    """Return the evenness of each tensor's entries, as the mean of both tensors."""
    parts = np.split(updates, [math.prod(probe.SHAPES[0])], axis=1)
    return float(np.mean([np.abs(part).mean() / max(_size(part), 1e-300) for part in parts]))


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the cosine of the rows of both, as the mean over rows and tensors alike."""
    split = [math.prod(probe.SHAPES[0])]
    cosines = []
    for ours, theirs in zip(np.split(a, split, axis=1), np.split(b, split, axis=1), strict=True):
        norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        cosines.append((ours * theirs).sum(axis=1) / np.maximum(norms, 1e-300))
    return float(np.mean(cosines))


def _size(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))
