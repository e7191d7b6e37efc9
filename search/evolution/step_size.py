"""A mutation's learning rate: a child takes steps of its parent's size.

A change of structure often changes the size of the update. An update that is orthogonalised,
divided by a norm or passed through a sign is some other multiple of what it was, and at the
parent's learning rate the child is rejected for its scale before its direction can show. In the
Lion search (arXiv 2302.06675) a learning rate is no part of a candidate, and such changes have to
wait for a second mutation that undoes the scale. Here, where a config asks for it
(`mutation.match_steps`), the child's learning rate is the parent's times the ratio of their
updates' sizes on the probe (`probe.py`). Grafting does that to an optimizer by hand (Agarwal et
al., arXiv 2002.11803). It is where the child begins: later mutations change its learning rate too.

Only the probe's matrix counts: most parameters are in matrices, and the probe's vector has a
gradient of another scale, to which rules differ in more than size.
"""

import math
from dataclasses import replace
from typing import Final

import numpy as np

from veldt.search.evaluation import probe
from veldt.search.evaluation.genotype import MAX_RATE, MIN_RATE
from veldt.search.evolution.individual import Individual, LoweredProgram

_STRUCTURAL: Final = frozenset(("insert", "delete", "modify", "rewire", "unwire", "graft"))
MAX_RATIO: Final = 1e3  # beyond this ratio the probe shows little about the tasks


def changes_structure(mutation: str) -> bool:
    """Return whether a mutation, by its names joined by `+`, changes more than numbers."""
    return not _STRUCTURAL.isdisjoint(mutation.split("+"))


def matched(parent: Individual, child: Individual) -> Individual:
    """Return the child with the learning rate at which its steps are as long as its parent's.

    Args:
      parent: Individual that was mutated.
      child: Mutated individual, of another structure. It is returned unchanged where one of the two
        updates is zero or not finite on the probe.
    """
    before, after = size(parent.lowered), size(child.lowered)
    if not (0 < before < math.inf and 0 < after < math.inf) or before == after:
        return child
    ratio = min(max(before / after, 1 / MAX_RATIO), MAX_RATIO)
    rate = min(max(child.genotype.learning_rate * ratio, MIN_RATE), MAX_RATE)
    return child.with_genotype(replace(child.genotype, learning_rate=rate))


def size(lowered: LoweredProgram) -> float:
    """Return the root mean square of the updates of the probe's matrix; NaN if one is NaN."""
    with np.errstate(all="ignore"):
        return float(np.sqrt(np.mean(lowered.updates[:, : math.prod(probe.SHAPES[0])] ** 2)))
