"""Numbers after structure: CMA-ES over a program's constants and its learning rate.

Evolution finds constants by scaling one at a time, which is slow and, on the seeds that thousands
of candidates share, lucky. And a rule that looks better than AdamW may only have better constants:
AdamW with *all its constants* tuned on the same tasks, by the same budget, is what structure has to
beat. So whatever is compared is tuned alike: each number gets a coordinate without bounds in which
a step of 1 is of like meaning, and CMA-ES (Hansen 2016, arXiv 1604.00772; evosax's) searches there.

| number                         | coordinate                 |
|--------------------------------|----------------------------|
| the learning rate              | its logarithm              |
| between 0 and 1 (decays, eps)  | log(c / (1 - c))           |
| any other but 0                | log of its size; sign kept |
| 0                              | c / 0.01                   |

Literals are named first (`best.name_constants`), so they are tuned too, but for those that are
structure (1, 2, 1/2). A score that is infinite is a failure.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, final

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from veldt.meta.rivals import black_box
from veldt.search import best
from veldt.search.mutation import MAX_CONSTANT, Genotype
from veldt.search.program import Program

Score: TypeAlias = Callable[[Sequence[Genotype]], Sequence[float]]
"""Scores a generation, lower is better; infinity where a candidate failed."""

_ZERO_SCALE: Final = 0.01
_LARGEST_LOG: Final = 80.0  # e to this is a float32
_LEAST_SHARE: Final = 1e-12  # Shares stay between this and 1 - 1e-7, the float below 1 in float32.


@final
@dataclass(frozen=True, slots=True)
class TuningConfig:
    """How numbers are tuned.

    Attributes:
      budget: evaluations of each rule, its start included; 0 tunes nothing.
      generation: candidates of one generation of CMA-ES.
      spread: standard deviation of the first generation, in coordinates (see `constants`).
    """

    budget: int = 0
    generation: int = 12
    spread: float = 0.5

    def __post_init__(self) -> None:
        if self.budget < 0:
            raise ValueError(f"budget is {self.budget}; it must be at least 0")
        if self.generation < 4:
            raise ValueError(f"generation is {self.generation}; CMA-ES needs at least 4")
        if 0 < self.budget <= self.generation:
            raise ValueError(
                f"a budget of {self.budget} is not one generation of {self.generation} and the "
                "start; 0 tunes nothing"
            )
        if not self.spread > 0:
            raise ValueError(f"spread is {self.spread}; it must be above 0")


@final
@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning came to.

    Attributes:
      genotype: the best that was scored.
      score: its score; infinite if every candidate failed.
      start_score: that of what tuning began with.
      num_evaluations: made, the start's included.
    """

    genotype: Genotype
    score: float
    start_score: float
    num_evaluations: int


def tune(
    genotype: Genotype,
    score: Score,
    config: TuningConfig,
    seed: int,
    report: Callable[[int, int], None] = lambda *_: None,
) -> Tuned:
    """Tune a rule's numbers.

    The result is the best candidate by its score, which its start is one of: it is never worse on
    what it was scored on, and has to be judged on something else.

    Args:
      genotype: where to begin.
      score: see `Score`.
      config: the budget; what is left of it when no whole generation fits is not used.
      seed: of the draws.
      report: told how many evaluations are done, of how many.
    """
    start = Genotype(best.name_constants(genotype.program), genotype.learning_rate)
    (start_score,) = score([start])
    found = Tuned(start, _finite(start_score), _finite(start_score), 1)
    num_generations = (config.budget - 1) // config.generation
    total = 1 + num_generations * config.generation
    key = jax.random.key(seed)
    search = black_box.CmaEs(config.generation, init_std=config.spread)
    state = search.init(jnp.asarray(encode(start), jnp.float32), jax.random.fold_in(key, 0))
    for number in range(num_generations):
        report(found.num_evaluations, total)
        keys = jax.random.split(jax.random.fold_in(key, 1 + number))
        points, state = _ask(search, state, keys[0])
        children = [decode(start.program, point) for point in np.asarray(points, np.float64)]
        scores = [_finite(value) for value in score(children)]
        state = _tell(search, state, points, jnp.asarray(scores, jnp.float32), keys[1])
        best_index = min(range(len(scores)), key=scores.__getitem__)
        better = scores[best_index] < found.score
        found = Tuned(
            children[best_index] if better else found.genotype,
            scores[best_index] if better else found.score,
            found.start_score,
            found.num_evaluations + len(children),
        )
    report(found.num_evaluations, total)
    return found


@jax.jit
def _ask(
    search: black_box.CmaEs, state: black_box.BlackBoxState, key: jax.Array
) -> tuple[jax.Array, black_box.BlackBoxState]:
    return search.ask(state, key)


@jax.jit
def _tell(
    search: black_box.CmaEs,
    state: black_box.BlackBoxState,
    points: jax.Array,
    losses: jax.Array,
    key: jax.Array,
) -> black_box.BlackBoxState:
    return search.tell(state, points, losses, key)


def encode(genotype: Genotype) -> NDArray[np.float64]:
    """Return the coordinates of a rule's numbers, float [1 + constants]: learning rate first."""
    numbers = [_coordinate(value) for _, value in genotype.program.constants]
    return np.array([math.log(genotype.learning_rate), *numbers])


def decode(program: Program, point: NDArray[np.float64]) -> Genotype:
    """Return the rule at a point; `program` says which transformation each number has."""
    # Where it may end is wide enough that no two candidates end at the same.
    rate = math.exp(min(max(float(point[0]), -_LARGEST_LOG), _LARGEST_LOG))
    values = {
        name: _number(value, float(x))
        for (name, value), x in zip(program.constants, point[1:], strict=True)
    }
    return Genotype(program.with_constants(**values), rate)


def _coordinate(value: float) -> float:
    if value == 0:
        return 0.0
    if 0 < value < 1:
        return math.log(value) - math.log1p(-value)
    return math.log(abs(value))


def _number(start: float, x: float) -> float:
    """Return the number at a coordinate, for what began at `start`."""
    if start == 0:
        return min(max(_ZERO_SCALE * x, -MAX_CONSTANT), MAX_CONSTANT)
    if 0 < start < 1:
        share = 1 / (1 + math.exp(-min(max(x, -700.0), 700.0)))
        return min(max(share, _LEAST_SHARE), 1 - 2.0**-24)
    return math.copysign(math.exp(min(x, math.log(MAX_CONSTANT))), start)


def _finite(score: float) -> float:
    """A score, infinite where it is not a number."""
    return score if math.isfinite(score) else math.inf
