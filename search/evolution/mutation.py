"""Mutations: small random changes to a program and its learning rate.

Lion (arXiv 2302.06675, section 2.1): `insert`, `delete` and `modify` (`mutations/single_edits.py`).
The paper gives no odds; the released code's are equal. Added here: `constant` scales one constant
anywhere in the program (the released code's `hparam_tune`), and `learning_rate` scales the learning
rate, which is part of the candidate. And, because most children of the published mutations are
what their parents were, three kinds whose children differ by construction: `rewire` and `unwire`
(`mutations/rewiring.py`), and `graft`, which takes a part of another program
(`mutations/grafting.py`).

Statements that no longer matter stay in the program: later mutations may build on them. Where a
rewired or grafted program would be too long, they go. A child that is not well formed is drawn
again, as published; how often is counted.
"""

import bisect
import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from veldt.search.config.evolution_config import MutationConfig
from veldt.search.evaluation.genotype import MAX_RATE, MIN_RATE, Genotype
from veldt.search.evolution.mutations import grafting, rewiring, single_edits
from veldt.search.evolution.mutations.donors import Donors
from veldt.search.evolution.mutations.wiring import Wiring
from veldt.search.language import dataflow
from veldt.search.language.dataflow import LoweringError

MAX_TRIES: Final = 100
_EDITS: Final = {
    "insert": single_edits.insert,
    "delete": single_edits.delete,
    "modify": single_edits.modify,
    "constant": single_edits.scale,
    "rewire": rewiring.rewire,
    "unwire": rewiring.unwire,
}
_NO_DONORS: Final = Donors()


@final
@dataclass(frozen=True, slots=True)
class Child:
    """A mutated genotype.

    Attributes:
      genotype: Well-formed genotype.
      mutation: Names of the mutations made, joined by `+`.
      invalid: Number of draws thrown away because they were not well formed.
    """

    genotype: Genotype
    mutation: str
    invalid: int


def mutate(
    rng: np.random.Generator,
    parent: Genotype,
    config: MutationConfig,
    donors: Donors = _NO_DONORS,
) -> Child:
    """Draw a well-formed child. The generator is advanced.

    Args:
      rng: Source of all randomness.
      parent: Genotype that is mutated.
      config: Odds of the mutations.
      donors: Programs to take grafts from; without any, nothing is grafted.
    """
    invalid = 0
    genotype = parent
    names: list[str] = []
    while True:
        step = None
        for _ in range(MAX_TRIES):
            step = _mutate_once(rng, genotype, config, donors)
            if step is not None:
                break
            invalid += 1
        if (
            step is None
        ):  # nothing fits, as for deletion in a program where every statement is needed
            return Child(genotype, "+".join(names) or "copy", invalid)
        genotype, name = step
        names.append(name)
        if rng.random() >= config.repeat:
            return Child(genotype, "+".join(names), invalid)


def _mutate_once(
    rng: np.random.Generator, parent: Genotype, config: MutationConfig, donors: Donors
) -> tuple[Genotype, str] | None:
    """Return one mutation, or None where the draw cannot be made or is not well formed."""
    weights = config.weights()
    program = parent.program
    if len(program.statements) >= config.max_statements:
        weights["insert"] = 0.0
    if not donors:
        weights["graft"] = 0.0
    if not sum(weights.values()):
        return None
    name = _choose(rng, weights)
    if name == "learning_rate":
        rate = float(parent.learning_rate * 2.0 ** rng.normal())
        return Genotype(program, min(max(rate, MIN_RATE), MAX_RATE)), name
    if name == "graft":
        child = grafting.graft(rng, program, config, donors)
    else:
        child = _EDITS[name](rng, program, config)
    if child is None:
        return None
    if len(child.statements) > max(config.max_statements, len(program.statements)):
        child = Wiring(child).without_dead()
        if len(child.statements) > config.max_statements:
            return None
    try:
        dataflow.check(child)
    except LoweringError:
        return None
    return Genotype(child, parent.learning_rate), name


def _choose(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    """Return `rng.choice(names, p=weights / sum)`, exact to the bit, without its set-up."""
    names, cumulative = _cumulative(tuple(weights.items()))
    return names[bisect.bisect_right(cumulative, rng.random())]


@functools.lru_cache(maxsize=64)
def _cumulative(weights: tuple[tuple[str, float], ...]) -> tuple[list[str], list[float]]:
    """Return the names, and for each the probability of it and those before it."""
    total = sum(weight for _, weight in weights)
    sums = list(itertools.accumulate(weight / total for _, weight in weights))
    return [name for name, _ in weights], [partial / sums[-1] for partial in sums]
