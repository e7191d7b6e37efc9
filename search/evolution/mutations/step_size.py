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

The probe's few steps with large gradients do for a parent and a child, which mostly share what the
size of the gradient and the start of their averages do to them. Rules of different origin
(`founders.py`) do not. `like` compares them on more steps, with gradients as small as those of
trained networks, of which a part is the same at each step.
"""

import functools
import math
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from veldt.search.evaluation import probe
from veldt.search.evaluation.genotype import MAX_RATE, MIN_RATE, Genotype
from veldt.search.evaluation.individual import Individual, LoweredProgram
from veldt.search.language import dataflow, roles
from veldt.search.language.statements import LOSS, PROGRESS
from veldt.search.program import Program
from veldt.search.runtime import execute

_STRUCTURAL: Final = frozenset(("insert", "delete", "modify", "rewire", "unwire", "graft"))
MAX_RATIO: Final = 1e3  # beyond this ratio the probe shows little about the tasks
_NUM_STEPS: Final = 16
_SHAPE: Final = (8, 6)
_PARAM_SIZE: Final = 0.2
_GRAD_SIZE: Final = 0.01
_COMMON: Final = 0.3  # Share of the gradients' variance that is the same at each step.


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


def like(initial: Genotype, program: Program) -> Genotype:
    """Return a program with the learning rate at which its steps are as long as another's.

    Args:
      initial: Genotype with a learning rate that suits it.
      program: Program of any origin. Where one of the two updates is zero or not finite, it gets
        the rate of `initial`.
    """
    wanted, own = later_size(initial.program), later_size(program)
    ratio = wanted / own if 0 < wanted < math.inf and 0 < own < math.inf else 1.0
    rate = min(max(initial.learning_rate * ratio, MIN_RATE), MAX_RATE)
    return Genotype(program, rate)


def later_size(program: Program) -> float:
    """Return the root mean square of a program's updates after the first steps of `like`."""
    flow = dataflow.lower(program, fold=True)
    params, grads = _inputs()
    shapes = execute.slot_shapes(flow, (_SHAPE,))
    state: dict[str, Any] = {name: [np.zeros(slot[0])] for name, slot in shapes.items()}
    known = {**roles.of_shape(_SHAPE), roles.LAST: 0.0, roles.EMBEDDING: 0.0}
    squares = []
    with np.errstate(all="ignore"):
        for step, grad in enumerate(grads, 1):
            given = known | {PROGRESS: step / _NUM_STEPS, LOSS: 1.0}
            read: dict[str, Any] = {"w": [params], "g": [grad], **state}
            read |= {name: [given[name]] for name in (*flow.live_roles, *flow.live_of_run)}
            update, slots = execute.execute(flow, np, read, [np.float64(step)], {})
            state = dict(zip(flow.live_slots, slots, strict=True))
            squares.append(np.mean(np.square(update[0])))
        return float(np.sqrt(np.mean(squares[_NUM_STEPS // 2 :])))


@functools.cache
def _inputs() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the parameters and the gradients of all steps."""
    rng = np.random.default_rng(20020617)
    params = _PARAM_SIZE * rng.normal(size=_SHAPE)
    common, own = rng.normal(size=_SHAPE), rng.normal(size=(_NUM_STEPS, *_SHAPE))
    return params, _GRAD_SIZE * (math.sqrt(_COMMON) * common + math.sqrt(1 - _COMMON) * own)
